"""The files of THUMOS14 in the layout of TeSTra, each read and checked on its own."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from actioncast.data.base import Split
from actioncast.features import FeatureHeader, read_header

BACKGROUND, AMBIGUOUS = "Background", "Ambiguous"
NAMES = (
    BACKGROUND,
    *("BaseballPitch", "BasketballDunk", "Billiards", "CleanAndJerk", "CliffDiving"),
    *("CricketBowling", "CricketShot", "Diving", "FrisbeeCatch", "GolfSwing", "HammerThrow"),
    *("HighJump", "JavelinThrow", "LongJump", "PoleVault", "Shotput", "SoccerPenalty"),
    *("TennisSwing", "ThrowDiscus", "VolleyballSpiking"),
    AMBIGUOUS,
)
"""The columns of the labels."""
SEGMENTS, TARGETS, LONGER = "th14_groundtruth.json", "target_perframe", "multithumos.json"
LISTS = ("testra_data_info.json", "data_info.json")


@dataclass(slots=True)
class Annotation:
    """What the files say of one video, in seconds."""

    duration: float = 0.0
    segments: list[tuple[str, float, float]] = field(default_factory=list)
    ambiguous: list[tuple[str, float, float]] = field(default_factory=list)


def read_annotations(path: Path) -> dict[str, Annotation]:
    """Segments and ambiguous stretches of every video that has either."""
    found: dict[str, Annotation] = {}
    file = path / SEGMENTS
    if file.is_file():
        database = read_json(file).get("database")
        if not isinstance(database, dict):
            raise ValueError(f"{file} must hold a database of videos by name, got none.")
        for video, about in database.items():
            try:
                segments = [
                    (str(one["label"]), float(one["segment"][0]), float(one["segment"][1]))
                    for one in about["annotations"]
                ]
                found[video] = Annotation(float(about["duration"]), segments)
            except (KeyError, TypeError, ValueError, IndexError):
                raise ValueError(
                    f"{file}: {video} must have a duration and annotations, each with a label and "
                    "a segment of two times; mend it."
                ) from None
            _require_segments(file, video, segments)
    for file in sorted(path.glob(f"{AMBIGUOUS}_*.txt")):
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
            if not (words := line.split()):
                continue
            try:
                video, start, end = words
                stretch = (AMBIGUOUS, float(start), float(end))
            except ValueError:
                raise ValueError(
                    f"{file}, line {number}: must be 'video start end', got {line.strip()!r}."
                ) from None
            _require_segments(file, video, [stretch])
            found.setdefault(video, Annotation()).ambiguous.append(stretch)
    return found


def _require_segments(file: Path, video: str, segments: list[tuple[str, float, float]]) -> None:
    for name, start, end in segments:
        if name not in NAMES[1:]:
            raise ValueError(
                f"{file}: {video} has the label {name!r}; the labels are {', '.join(NAMES[1:])}."
            )
        if not 0 <= start < end < float("inf"):
            raise ValueError(
                f"{file}: a segment must end after it starts, got {start:g} to {end:g} s in "
                f"{video}; mend it."
            )


def read_split(path: Path, annotations: Mapping[str, Annotation], warnings: list[str]) -> Split:
    """The session lists."""
    file = next((path / name for name in LISTS if (path / name).is_file()), None)
    if file is None:
        known = {p.stem for p in (path / TARGETS).glob("*.npy")} or set(annotations)
        parts = [
            tuple(sorted(v for v in known if v.startswith(f"video_{part}_")))
            for part in ("validation", "test")
        ]
        warnings.append(
            f"{path} has no {LISTS[0]}: the videos of the validation part of THUMOS14 train, those "
            "of its test part test."
        )
    else:
        about = read_json(file).get("THUMOS", {})
        try:
            parts = [tuple(map(str, about[f"{part}_session_set"])) for part in ("train", "test")]
        except (KeyError, TypeError):
            raise ValueError(
                f"{file} must hold train_session_set and test_session_set of THUMOS, got neither."
            ) from None
        if about.get("class_names", list(NAMES)) != list(NAMES):
            raise ValueError(
                f"{file}: class_names must be {', '.join(NAMES)}, got others; labels by number "
                "would be other actions."
            )
    if not parts[0] or not parts[1] or set(parts[0]) & set(parts[1]):
        raise ValueError(
            f"{file or path} must name videos to train and others to test, got {len(parts[0])} and "
            f"{len(parts[1])}, {len(set(parts[0]) & set(parts[1]))} of them in both."
        )
    listed = {*parts[0], *parts[1]}
    if unlisted := sorted(set(annotations) - listed):
        warnings.append(
            f"{path}: {len(unlisted)} annotated videos stand in no session list and are left out, "
            f"{unlisted[0]} for one."
        )
    return Split(*(tuple(dict.fromkeys(part)) for part in parts))


def read_targets(path: Path, videos: Sequence[str]) -> dict[str, Bool[np.ndarray, "time label"]]:
    """Labels of every frame of these videos; none where there is no such folder."""
    if not (path / TARGETS).is_dir():
        return {}
    found = {}
    _require_files(path / TARGETS, videos)
    for video in videos:
        file = path / TARGETS / f"{video}.npy"
        try:
            values: np.ndarray = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{file} must be a NumPy .npy file, got {error}.") from None
        if values.ndim != 2 or values.shape[1] != len(NAMES) or not len(values):
            raise ValueError(
                f"{file} must hold one row of {len(NAMES)} labels a frame, got shape "
                f"{values.shape}; take the labels of THUMOS14."
            )
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"{file} must hold 0 and 1 alone, got other values.")
        active = values.astype(bool)
        active[:, 0] |= ~active.any(1)
        found[video] = active
    return found


def read_headers(path: Path, videos: Sequence[str]) -> dict[str, dict[str, FeatureHeader]]:
    """What the feature files of every folder say, RGB first."""
    found: dict[str, dict[str, FeatureHeader]] = {}
    for kind in ("rgb", "flow"):
        folders = sorted(p for p in path.glob(f"{kind}_*") if p.is_dir())
        if len(folders) > 1:
            raise ValueError(
                f"{path} must hold one folder of {kind} features, got "
                f"{', '.join(p.name for p in folders)}; move the others away."
            )
        for folder in folders:
            _require_files(folder, videos)
            headers = {video: read_header(folder / f"{video}.npy") for video in videos}
            widths = Counter(header.shape[1] for header in headers.values())
            width = widths.most_common(1)[0][0]
            for video, header in headers.items():
                if header.shape[1] != width:
                    raise ValueError(
                        f"{folder / video}.npy must hold (time, {width}) as the other files do, "
                        f"got shape {header.shape}; extract all features with the same backbone."
                    )
            found[folder.name] = headers
    return found


def _require_files(folder: Path, videos: Sequence[str]) -> None:
    if missing := [v for v in videos if not (folder / f"{v}.npy").is_file()]:
        raise FileNotFoundError(
            f"{folder / missing[0]}.npy does not exist ({len(missing)} of {len(videos)} videos of "
            "the session lists have none); every one needs its file."
        )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got {error}; copy it again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} must be a JSON object, got {type(value).__name__}.")
    return value
