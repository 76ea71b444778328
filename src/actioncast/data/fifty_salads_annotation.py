"""The raw annotation of 50 Salads (`activityAnnotations/`) on the frames of its public labels.

Lines `first last name` of two kinds: three phases (`cut_and_mix_ingredients`) and 51 steps, which
are the 17 actions cut in `_prep`, `_core` and `_post`. The public labels of 19 names were made from
the steps, and nobody says how. Found by comparing all 50 videos:

- Stamps are microseconds on a grid of 33338.125, the ticks of the camera (29.9957 a second): in
  every video all of them lie on it to within 3e-5 of a tick.
- A step lasts until the next one starts, whatever its own end says, and so a pause belongs to the
  action before it; of two that start together the one later by name wins. The last lasts to the end
  of its last tick. The actions so made are the 899 of the public labels, in the same order.
- A public frame is a tick, less those without a frame. How many these are within each action
  follows from the starts of actions: 0 in 23 videos, 1 to 87 in the others, 468 in all. One offset
  a video, from its first action, puts 98.79 % of the frames between the ends on their public label;
  an offset for each action puts all of them there. Where in an action its ticks without a frame lie
  is not told. They are taken as evenly spread, and inner boundaries of steps and phases can be off
  by as many frames in these actions, which hold 9.5 % of the frames.

Impossible from these files: steps of `action_start` and `action_end`, which nobody annotated and
which keep their names at every level; pauses, which the public labels have merged away and the
steps with them; the objects that hands hold, which `tools.txt` lists and no sequence names; and the
videos 08-* and 12-*, annotated but without public labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from actioncast.data.base import Dataset, Video
from actioncast.data.hierarchy import Hierarchy, with_hierarchy
from actioncast.timeline import LabelSpace, Taxonomy, Timeline, run_lengths

RAW = "activityAnnotations"
"""Where the raw annotation lies in the folder of the data set."""
TICK = 33338.125
"""Microseconds from one frame of the camera to the next."""
ENDS = ("action_start", "action_end")
"""Public labels before the first action and after the last; the raw annotation has neither."""
PHASES = ("cut_and_mix_ingredients", "prepare_dressing", "serve_salad")
"""The uppermost level of the raw annotation."""
NULL = "null"
"""What conversions name an action that their level leaves out."""
LOW, MID = "low", "mid"
"""The levels of steps, and of the public labels above them, as the raw annotation calls them."""


class Step(NamedTuple):
    """One line of the raw annotation; both ends are included."""

    first: int
    """Ticks since the first stamp of the video."""
    last: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Which tick of the raw annotation every public frame between the two ends shows."""

    first: int
    """The first frame of the first action."""
    ticks: Int[np.ndarray, " time"]
    """The tick of each frame from there to the end of the last action."""
    dropped: tuple[int, ...]
    """Ticks without a frame within each action of the public labels, in order."""


def read_steps(file: Path) -> list[Step]:
    """The lines of a raw annotation in the order of their start, then of their name.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A line is no `first last name`, or a stamp is off the camera's grid.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist; the raw annotation of 50 Salads has one such file a video."
        )
    stamps: list[tuple[int, int, str]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        match line.split():
            case [first, last, name] if first.isdecimal() and last.isdecimal():
                stamps.append((int(first), int(last), name))
            case _:
                raise ValueError(
                    f"{file}, line {number}: must be 'first last name' with both in microseconds, "
                    f"got {line.strip()!r}."
                )
        if not stamps[-1][0] <= stamps[-1][1]:
            raise ValueError(f"{file}, line {number}: must end after it starts, got {line!r}.")
    if not stamps:
        raise ValueError(f"{file} must hold steps, got an empty file.")
    ticks = (np.array([row[:2] for row in stamps]) - min(first for first, _, _ in stamps)) / TICK
    if (off := float(np.abs(ticks - np.round(ticks)).max())) > 0.05:
        raise ValueError(
            f"{file}: stamps must be microseconds on a grid of {TICK:g}, got one that is {off:.2f} "
            "of a tick off; this is another version of the annotation."
        )
    rounded = np.round(ticks).astype(int).tolist()
    return sorted(Step(a, b, name) for (a, b), (*_, name) in zip(rounded, stamps, strict=True))


def painted(steps: Sequence[Step], names: Sequence[str]) -> Int[np.ndarray, " tick"]:
    """The index in `names` of what is done at every tick, -1 before the first of these steps.

    A step lasts until the next one starts, whatever its own end says; the last one to its end.
    """
    ticks = np.full(steps[-1].last + 1, -1)
    for step in steps:
        ticks[step.first :] = names.index(step.name)
    return ticks


def align(
    actions: Int[np.ndarray, " tick"], frames: Int[np.ndarray, " time"], ends: tuple[int, int]
) -> Alignment:
    """Lay the ticks of a raw annotation on public frames, by the starts of their actions.

    Args:
        actions: The public label of every tick, -1 before the first action.
        frames: Public labels.
        ends: Those before the first action and after the last.

    Raises:
        ValueError: The actions are not the same, or ticks are missing.
    """
    ours = [run for run in run_lengths(actions) if run[0] >= 0]
    public = [run for run in run_lengths(frames) if run[0] not in ends]
    if [run[0] for run in ours] != [run[0] for run in public]:
        raise ValueError(
            f"the raw annotation must have the {len(public)} actions of the public labels, in "
            f"their order, got {len(ours)} others."
        )
    ticks, dropped = [], []
    for (_, start, end), (_, first, last) in zip(ours, public, strict=True):
        dropped.append((end - start) - (last - first))
        ticks.append(start + np.arange(last - first) * (end - start) // (last - first))
    if min(dropped) < 0:
        raise ValueError(
            f"a raw action must have a tick for each public frame, got {-min(dropped)} too few."
        )
    return Alignment(first=public[0][1], ticks=np.concatenate(ticks), dropped=tuple(dropped))


def annotated_phases(dataset: Dataset, folder: Path | None) -> Hierarchy:
    """The phases as they were annotated, frame by frame: the level `high`.

    Not the level `phase`, which follows from the actions alone. The two agree on 99.8 % of
    frames: an annotated phase may begin in the pause before its first action.
    """
    actions = _Actions.of(dataset, folder)
    names = (*PHASES, *ENDS)
    by_frame = {
        video.id: actions.spread(video, steps, painted(_of(steps, PHASES), names), names)
        for video, steps in actions.steps_of_videos()
    }
    return Hierarchy(level="high", labels=LabelSpace(names), by_frame=by_frame)


def conversion(dataset: Dataset, folder: Path | None, level: str) -> Hierarchy:
    """A level that the published conversions make of the actions: `abstract` or `eval`.

    Actions that it leaves out are `null`: salt and vinegar of `eval`; of `abstract` serving, though
    the list of its names has a `serve`.

    Raises:
        ValueError: Two steps of one action become two names.
    """
    actions = _Actions.of(dataset, folder)
    above: dict[str, str] = {end: end for end in ENDS}
    for step, name in _read_conversion(actions.folder, level).items():
        action = actions.of_step[step]
        if above.setdefault(action, name) != name:
            raise ValueError(
                f"all steps of {action} must become one name of {level!r}, got {above[action]} and "
                f"{name}; mend conversions/low_to_{level}.txt."
            )
    names = (*sorted(set(above.values()) - {NULL, *ENDS}), NULL, *ENDS)
    return Hierarchy(level=level, labels=LabelSpace(names), by_label=above)


def with_steps(dataset: Dataset, folder: Path | None) -> Dataset:
    """The same videos named by the steps below their actions: levels `mid` over `low`.

    A data set of its own, whose 53 finest labels nothing else knows; the actions stay where they
    were, on every frame.

    Args:
        dataset: With the public labels.
        folder: Where its files lie.

    Raises:
        ValueError, FileNotFoundError: Raw annotation and public labels do not belong together.
    """
    actions = _Actions.of(dataset, folder)
    names = (*actions.of_step, *ENDS)
    labels = LabelSpace(names)
    videos: dict[str, Video] = {}
    for video, steps in actions.steps_of_videos():
        low = painted(_of(steps, actions.of_step), names)
        frames = actions.spread(video, steps, low, names)
        timeline = Timeline.from_frames(frames, video.rate, labels)
        videos[video.id] = replace(video, timeline=timeline)
    finest = replace(dataset, taxonomy=Taxonomy({LOW: labels}, LOW), videos=videos)
    above = Hierarchy(
        level=MID,
        labels=dataset.taxonomy.labels,
        by_label={**actions.of_step, **{end: end for end in ENDS}},
    )
    # Who learned the actions has seen these videos as well.
    return replace(with_hierarchy(finest, above), without_levels=dataset)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Actions:
    """The public labels and the steps they were made from."""

    dataset: Dataset
    folder: Path
    of_step: Mapping[str, str]
    """The action of every step."""

    @classmethod
    def of(cls, dataset: Dataset, folder: Path | None) -> "_Actions":
        raw = None if folder is None else folder / RAW
        if raw is None or not raw.is_dir():
            raise FileNotFoundError(
                f"{raw or RAW} does not exist; these levels are made from the raw annotation of 50 "
                "Salads, put its folder activityAnnotations there, or ask for --hierarchy phase."
            )
        of_step = _read_conversion(raw, MID)
        if lost := {*of_step.values(), *ENDS} ^ set(dataset.taxonomy.labels.names):
            raise ValueError(
                f"{raw} must be of the actions of {dataset.name}, got {', '.join(sorted(lost))} in "
                "one of the two alone."
            )
        return cls(dataset=dataset, folder=raw, of_step=of_step)

    def steps_of_videos(self) -> list[tuple[Video, list[Step]]]:
        """Every video with its raw annotation."""
        found = []
        for video in self.dataset.videos.values():
            file = self.folder / "sequences" / f"{video.id[-4:]}-activityAnnotation.txt"
            steps = read_steps(file)
            if odd := {step.name for step in steps} - set(self.of_step) - set(PHASES):
                raise ValueError(
                    f"{file} must name steps of low_to_mid.txt or phases, got {sorted(odd)[0]!r}."
                )
            found.append((video, steps))
        return found

    def spread(
        self,
        video: Video,
        steps: Sequence[Step],
        ticks: Int[np.ndarray, " tick"],
        names: Sequence[str],
    ) -> Int[np.ndarray, " time"]:
        """What was annotated, tick by tick, on the frames of a video; the ends keep their names."""
        labels = self.dataset.taxonomy.labels
        ends = labels.index(ENDS[0]), labels.index(ENDS[1])
        public = video.frames()
        own = painted(_of(steps, self.of_step), tuple(self.of_step))
        parents = np.array([labels.index(action) for action in self.of_step.values()])
        try:
            found = align(np.where(own >= 0, parents[own], -1), public, ends)
        except ValueError as error:
            raise ValueError(f"{video.id}: {error}") from None
        frames = np.where(public == ends[0], names.index(ENDS[0]), names.index(ENDS[1]))
        said = ticks[np.minimum(found.ticks, len(ticks) - 1)]
        if (said < 0).any():
            raise ValueError(f"{video.id}: the raw annotation must begin with its first action.")
        frames[found.first : found.first + len(said)] = said
        return frames


def _of(steps: Sequence[Step], names: Mapping[str, str] | Sequence[str]) -> list[Step]:
    return [step for step in steps if step.name in names]


def _read_conversion(folder: Path, level: str) -> dict[str, str]:
    """What every step becomes at another level."""
    file = folder / "conversions" / f"low_to_{level}.txt"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; it says what the steps belong to.")
    pairs = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if odd := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"{file}: lines must be 'step name', got {' '.join(odd[0])!r}.")
    return {pair[0]: pair[1] for pair in pairs}
