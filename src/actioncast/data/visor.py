"""VISOR's boxes of active objects in EPIC-KITCHENS videos: what lay in view before a moment.

People drew them on sparse frames, two or so an action, of 98 videos; clips of other videos have no
token. What is told of an object is its class, its box, whether a hand touched it, and when.

A frame's time is the later of two: the file's `timestamp_s`, which counts VISOR's own frames from
0, and the number of the EPIC-KITCHENS frame over its 50 or 60 frames per second. They differ by up
to 0.10 s, and the annotated times of actions follow the second; neither may lie at the boundary.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from actioncast.data.clips import ActionClip
from actioncast.data.epic_tables import Row, read_rows
from actioncast.protocols.next_action import ClipProtocol

FRAME_SIZE = (1920.0, 1080.0)
"""Width and height that boxes are counted in, of every video."""
NUM_SCALARS = 7
"""Columns of a token besides its class, see `VisorObjects.read`."""
HANDS = frozenset(range(300, 305))
"""VISOR's own classes: left and right hand, foot, left and right glove."""
BOX = ("x", "y", "w", "h", "area")
NAMES = ("video", "frame", "ek_frame", "timestamp_s", "object_id", "class_id", "contact", *BOX)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisorConfig:
    """Which objects are told."""

    window: float = 10.0
    """seconds before the boundary in which an object was seen"""
    max_objects: int = 16
    """objects told, the latest seen"""

    def __post_init__(self) -> None:
        if not 0 < self.window <= 100_000:
            raise ValueError(f"window must be a positive number of seconds, got {self.window}.")
        if self.max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {self.max_objects}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """One object of one annotated frame; the box in shares of the frame's width and height."""

    id: str
    time: float
    """Seconds from the start of the video."""
    noun: int
    center: tuple[float, float]
    size: tuple[float, float]
    area: float
    """Share of the frame that its mask covers."""
    touched: bool
    """Whether a hand in the same frame holds or touches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisorAnnotation:
    """The objects of every video by time, then id; hands and feet left out."""

    videos: Mapping[str, tuple[SeenObject, ...]]
    num_nouns: int
    num_frames: int
    """Annotated frames, those with hands alone included."""
    num_objects: int
    """Rows of the file: objects, hands and feet."""


def read_visor(path: Path, num_nouns: int = 300) -> VisorAnnotation:
    """Read `visor_boxes.csv.gz`.

    Raises:
        ValueError: A class is unknown, or a number is none; the message names file and row.
    """
    rows = read_rows(path, {name: name for name in NAMES})
    touched = {
        (row.values["video"], row.values["frame"], row.values["contact"])
        for row in rows
        if row.values["contact"]
    }
    videos: dict[str, list[SeenObject]] = {}
    for row in rows:
        seen = videos.setdefault(row.values["video"], [])
        noun = row.label("class_id", max(num_nouns, max(HANDS) + 1))
        if noun in HANDS:
            continue
        key = (row.values["video"], row.values["frame"], row.values["object_id"])
        seen.append(_object(row, row.label("class_id", num_nouns), touched=key in touched))
    return VisorAnnotation(
        videos={video: _ordered(seen) for video, seen in videos.items()},
        num_nouns=num_nouns,
        num_frames=len({(row.values["video"], row.values["frame"]) for row in rows}),
        num_objects=len(rows),
    )


class VisorObjects:
    """The objects last seen before the boundary; a source of tokens (`clip_samples.TokenSource`).

    The boundary is the protocol's: `anticipation_time` before an action to be anticipated, the end
    of one to be recognised.
    """

    def __init__(
        self,
        annotation: VisorAnnotation,
        protocol: ClipProtocol,
        config: VisorConfig = VisorConfig(),
        name: str = "objects",
    ) -> None:
        self.protocol, self.config, self.name = protocol, config, name
        self.num_nouns = annotation.num_nouns
        self._videos = {
            video: (np.array([one.time for one in seen], np.float64), seen, _tokens(seen, self))
            for video, seen in annotation.videos.items()
        }

    @property
    def width(self) -> int:
        """One column a noun, and `NUM_SCALARS`."""
        return self.num_nouns + NUM_SCALARS

    def seen(self, clip: ActionClip) -> tuple[SeenObject, ...]:
        """The objects told of a clip: the latest seen first, those of one frame by id."""
        _, seen, _ = self._videos.get(clip.video, _NOTHING)
        return tuple(seen[i] for i in self._told(clip))

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token an object, the latest seen first.

        Its features are the noun, one-hot, then the box's centre (x, y), its size (x, y) and the
        mask's area in shares of the frame, whether a hand touched it, and ln(1 + s) of the seconds
        before the boundary.
        """
        told = self._told(clip)
        if not told:
            return np.zeros((0, self.width), np.float32)
        times, _, tokens = self._videos[clip.video]
        read = tokens[told]
        read[:, -1] = np.log1p(self.protocol.until(clip.start, clip.stop) - times[told])
        return read

    def _told(self, clip: ActionClip) -> list[int]:
        """Indices into the video's objects."""
        times, seen, _ = self._videos.get(clip.video, _NOTHING)
        until = self.protocol.until(clip.start, clip.stop)
        end = int(np.searchsorted(times, until, side="left"))
        first = int(np.searchsorted(times, until - self.config.window, side="left"))
        order = sorted(range(first, end), key=lambda i: (-seen[i].time, seen[i].id))
        return order[: self.config.max_objects]


_NOTHING: tuple[np.ndarray, tuple[SeenObject, ...], np.ndarray] = (
    np.zeros(0),
    (),
    np.zeros((0, 0), np.float32),
)


def _ordered(seen: Iterable[SeenObject]) -> tuple[SeenObject, ...]:
    return tuple(sorted(seen, key=lambda one: (one.time, one.id)))


def _object(row: Row, noun: int, *, touched: bool) -> SeenObject:
    x, y, w, h, area = (row.number(name) for name in BOX)
    width, height = FRAME_SIZE
    return SeenObject(
        id=row.values["object_id"],
        time=_time(row),
        noun=noun,
        center=((x + w / 2) / width, (y + h / 2) / height),
        size=(w / width, h / height),
        area=area / (width * height),
        touched=touched,
    )


def _time(row: Row) -> float:
    """When a frame was seen, in seconds; where it could be either of two times, the later."""
    stamp = row.number("timestamp_s")
    number = row.values["ek_frame"].removeprefix("frame_").partition(".")[0]
    if not number.isdecimal():
        raise ValueError(
            f"{row.place}: ek_frame must be a name such as frame_0000000045.jpg, got "
            f"{row.values['ek_frame']!r}."
        )
    # Frames count from 1, so that the first half second cannot tell 60 per second from 50.
    rate = 60.0 if stamp >= 0.5 and int(number) > 55 * stamp else 50.0
    return max(stamp, int(number) / rate)


def _tokens(
    seen: tuple[SeenObject, ...], source: VisorObjects
) -> Float32[np.ndarray, "token feature"]:
    """All tokens of a video; the last column, the time, is filled when they are read."""
    tokens = np.zeros((len(seen), source.width), np.float32)
    for token, one in zip(tokens, seen, strict=True):
        token[one.noun] = 1
        token[-NUM_SCALARS:-1] = (*one.center, *one.size, one.area, one.touched)
    return tokens
