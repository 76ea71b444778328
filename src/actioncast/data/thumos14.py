"""THUMOS14 in the layout of TeSTra: sports in long videos, several at once, 4 frames a second.

A folder holds
- `th14_groundtruth.json`: the segments of every video, in seconds;
- `Ambiguous_test.txt`, optional: `video start end` lines, in seconds, where nobody knows the truth;
- `testra_data_info.json` (or `data_info.json`): the session lists, 200 to train and 213 to test;
- `target_perframe/<video>.npy`, optional: multi-hot (time, 22). Where it is there it is the truth;
- `rgb_*/<video>.npy` and `flow_*/<video>.npy`, optional: (time, feature). One folder of either kind
  is read, and their vectors are joined, RGB first;
- `multithumos.json`, optional: asked how long a video is where nothing else knows.

Labels made from segments: a segment from s to e seconds is under way at the frames from s * rate to
e * rate, both rounded to the nearest (halves to even), at one frame at least. A frame without an
action is background, unless it is ambiguous. TeSTra does not say how its own labels were rounded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from actioncast.data.base import Dataset, Split, Video
from actioncast.data.thumos14_files import (
    AMBIGUOUS,
    BACKGROUND,
    LONGER,
    NAMES,
    SEGMENTS,
    TARGETS,
    Annotation,
    read_annotations,
    read_headers,
    read_json,
    read_split,
    read_targets,
)
from actioncast.features import FeatureFile, FeatureHeader, frame_tolerance
from actioncast.timeline import Segment, Taxonomy, Timeline, frames_to_seconds, seconds_to_frames

RATE = 4.0
"""Frames per second of features and labels: every sixth frame of videos brought to 24 a second."""


@dataclass(frozen=True, slots=True)
class JoinedFeatures:
    """The vectors of several files of one video, one after the other."""

    files: tuple[FeatureFile, ...]

    @property
    def num_features(self) -> int:
        """Width of a joined vector."""
        return sum(file.num_features for file in self.files)

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the frames `[start, end)`, as float32."""
        return np.concatenate([file.read(start, end, stride) for file in self.files], 1)


def is_thumos14(path: Path) -> bool:
    """Whether a folder holds THUMOS14 in this layout."""
    return (path / SEGMENTS).is_file() or (path / TARGETS).is_dir()


def open_thumos14(path: Path, rate: float | None = None) -> Dataset:
    """Read THUMOS14 from a folder.

    Args:
        path: The folder.
        rate: Frames per second of features and labels; absent, 4.

    Raises:
        ValueError, FileNotFoundError: The folder breaks the layout; the message names the file.
    """
    if not is_thumos14(path):
        raise FileNotFoundError(f"{path} must hold {SEGMENTS} or {TARGETS}/, got neither.")
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"rate must be a positive number of frames per second, got {rate}.")
    rate = rate or RATE
    warnings: list[str] = []
    annotations = read_annotations(path)
    split = read_split(path, annotations, warnings)
    targets = read_targets(path, (*split.train, *split.test))
    headers = read_headers(path, (*split.train, *split.test))
    lengths = _lengths(path, split, annotations, targets, headers, rate, warnings)
    split = Split(*(tuple(v for v in part if v in lengths) for part in (split.train, split.test)))
    if not targets:
        warnings.append(
            f"{path} has no {TARGETS}/: labels are made from {SEGMENTS} at {rate:g} frames per "
            "second, both ends to the nearest; published numbers rest on TeSTra's own labels."
        )
        targets = _labels(path, lengths, annotations, rate, warnings)
    taxonomy = Taxonomy.of(NAMES, (BACKGROUND,), unknown=(AMBIGUOUS,))
    videos = {}
    for video, num_frames in lengths.items():
        active = targets[video]
        files = tuple(
            FeatureFile(path / folder / f"{video}.npy", num_frames, 0, found[video].shape[1])
            for folder, found in headers.items()
        )
        videos[video] = Video(
            id=video,
            timeline=_timeline(active, rate, taxonomy),
            rate=rate,
            num_frames=num_frames,
            features=JoinedFeatures(files) if files else None,
            active=active,
            group=video,
            recording=video,
        )
    return Dataset(
        name="thumos14",
        taxonomy=taxonomy,
        rate=rate,
        videos=videos,
        splits={"1": split},
        warnings=tuple(warnings),
    )


def active_labels(
    segments: Sequence[tuple[str, float, float]], num_frames: int, rate: float
) -> Bool[np.ndarray, "time label"]:
    """The actions under way at every frame, from segments (name, start, end) in seconds.

    What lies beyond the last frame is cut.
    """
    active = np.zeros((num_frames, len(NAMES)), bool)
    for name, start, end in segments:
        first = seconds_to_frames(start, rate)
        active[first : max(first + 1, seconds_to_frames(end, rate)), NAMES.index(name)] = True
    active[:, NAMES.index(BACKGROUND)] |= ~active.any(1)
    return active


def _timeline(active: Bool[np.ndarray, "time label"], rate: float, taxonomy: Taxonomy) -> Timeline:
    """Every action as it stands in the labels; background is where there is none."""
    edges = np.diff(active.astype(np.int8), axis=0, prepend=0, append=0)
    segments = []
    for label in range(1, active.shape[1]):
        starts, ends = (np.flatnonzero(edges[:, label] == sign).tolist() for sign in (1, -1))
        segments += [
            Segment(frames_to_seconds(a, rate), frames_to_seconds(b, rate), label)
            for a, b in zip(starts, ends, strict=True)
        ]
    return Timeline.of(segments, taxonomy.labels)


def _lengths(
    path: Path,
    split: Split,
    annotations: Mapping[str, Annotation],
    targets: Mapping[str, Bool[np.ndarray, "time label"]],
    headers: Mapping[str, Mapping[str, FeatureHeader]],
    rate: float,
    warnings: list[str],
) -> dict[str, int]:
    """Frames of every video: of its labels, else of its features, else what the seconds say."""
    longer = path / LONGER
    seconds = read_json(longer) if longer.is_file() and not targets and not headers else {}
    found: dict[str, int] = {}
    unequal = []
    for video in (*split.train, *split.test):
        sizes = {folder: ours[video].shape[0] for folder, ours in headers.items()}
        if video in targets:
            sizes = {TARGETS: len(targets[video]), **sizes}
        if not sizes:
            # The JSON counts 30 frames a second in videos of 25, and so makes them shorter.
            stated = [annotations[video].duration] if video in annotations else []
            stated += [float(seconds[video]["duration"])] if video in seconds else []
            if frames := seconds_to_frames(max(stated, default=0.0), rate):
                found[video] = frames
            continue
        found[video] = next(iter(sizes.values())) if targets else min(sizes.values())
        if len(set(sizes.values())) > 1:
            unequal.append(video)
        for folder, size in sizes.items():
            if abs(size - found[video]) > frame_tolerance(found[video]):
                raise ValueError(
                    f"{path / folder / video}.npy must have about {found[video]} frames as "
                    f"{next(iter(sizes))} has, got {size}; extract them at the same rate."
                )
    if unequal:
        warnings.append(
            f"{path}: labels and features of {len(unequal)} videos differ by a few frames, "
            f"{unequal[0]} for one; "
            + ("the labels count" if targets else "the shorter counts")
            + ", a last vector is held."
        )
    if unknown := [v for v in (*split.train, *split.test) if v not in found]:
        warnings.append(
            f"{path}: no file says how long {', '.join(unknown[:3])} "
            f"({len(unknown)} of {len(split.train) + len(split.test)} listed) is, left out."
        )
    if not found:
        raise ValueError(f"{path} must hold videos of the session lists, got none of them.")
    return found


def _labels(
    path: Path,
    lengths: Mapping[str, int],
    annotations: Mapping[str, Annotation],
    rate: float,
    warnings: list[str],
) -> dict[str, Bool[np.ndarray, "time label"]]:
    if not annotations:
        raise FileNotFoundError(
            f"{path / SEGMENTS} does not exist; without it nothing is labelled."
        )
    found, beyond, videos = {}, 0, []
    for video, num_frames in lengths.items():
        about = annotations.get(video, Annotation())
        found[video] = active_labels([*about.segments, *about.ambiguous], num_frames, rate)
        late = sum(seconds_to_frames(start, rate) >= num_frames for _, start, _ in about.segments)
        beyond += late
        videos += [video] if late else []
    if beyond:
        warnings.append(
            f"{path / SEGMENTS}: {beyond} segments of {len(videos)} videos start after the video "
            f"has ended ({', '.join(videos[:3])}...) and are left out."
        )
    if without := [video for video in lengths if not annotations.get(video, Annotation()).segments]:
        warnings.append(
            f"{path / SEGMENTS}: {', '.join(without[:3])} ({len(without)} listed) has no action "
            "there and is background, but for its ambiguous stretches."
        )
    return found
