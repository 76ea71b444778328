"""EPIC-KITCHENS-100: the official CSV files, or RULSTM's, as clips of a verb and a noun.

A folder of the official layout holds
- `EPIC_100_train.csv` and `EPIC_100_validation.csv`;
- `EPIC_100_verb_classes.csv` and `EPIC_100_noun_classes.csv`;
- optional: `EPIC_100_video_info.csv`, `EPIC_100_unseen_participant_ids_validation.csv`,
  `EPIC_100_tail_verbs.csv`, `EPIC_100_tail_nouns.csv`, and `actions.csv`, or `rulstm/actions.csv`.
One of RULSTM's holds `training.csv`, `validation.csv` and `actions.csv`, or a folder `rulstm` does.

Actions are the pairs of train and validation. Their numbers are those of RULSTM's `actions.csv`
where it lies there; else the pairs are numbered in ascending order of verb, then noun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from actioncast.data.clips import ActionClip, ClipDataset, VideoInfo
from actioncast.data.epic_beside import (
    NOUNS,
    VERBS,
    beside,
    label_space,
    names_from_actions,
    read_tail,
    read_unseen,
    read_videos,
)
from actioncast.data.epic_tables import Row, read_classes, read_rows, to_seconds
from actioncast.timeline import LabelSpace, Taxonomy

PARTS = {"train": "EPIC_100_train.csv", "validation": "EPIC_100_validation.csv"}
RECONSTRUCTED = "EPIC_100_train_reconstructed.csv"
OFFICIAL_COLUMNS = {
    "id": "narration_id",
    "participant": "participant_id",
    "video": "video_id",
    "start": "start_timestamp",
    "stop": "stop_timestamp",
    "verb": "verb_class",
    "noun": "noun_class",
    "narration": "narration",
}
RULSTM_PARTS = {"train": "training.csv", "validation": "validation.csv"}
RULSTM_COLUMNS = ("id", "video", "start", "stop", "verb", "noun", "action")
RULSTM_RATE = 30.0
"""Frames per second that RULSTM's frame numbers count."""
TOLERANCE = 0.1
"""Seconds by which an action may outlast its video. One of the 76,885 published actions does,
P29_05_563 by 0.013 s: durations and times were not read from the same file."""
UNSPOKEN = "NOT AVAILABLE"
"""How the reconstructed file begins the source of a narration that it made of class names."""

Pair = tuple[int, int]


def open_epic_kitchens(path: Path) -> ClipDataset:
    """Read EPIC-KITCHENS-100 in its official layout, or in RULSTM's.

    Raises:
        FileNotFoundError: The folder holds neither layout.
        ValueError: A file breaks its layout; the message names the file, and the row where there
            is one.
    """
    if (path / PARTS["validation"]).is_file():
        return _official(path)
    for folder in (path, path / "rulstm"):
        if (folder / RULSTM_PARTS["validation"]).is_file():
            return _rulstm(folder)
    raise FileNotFoundError(
        f"{path} must hold {PARTS['validation']}, as the published annotation does, or RULSTM's "
        f"{RULSTM_PARTS['validation']}; neither is there."
    )


def class_synonyms(path: Path) -> Mapping[str, Mapping[int, tuple[str, ...]]]:
    """How narrators called each class, by head (verb, noun), as the class files list them."""
    return {
        head: {i: one.synonyms for i, one in enumerate(read_classes(beside(path, file)))}
        for head, file in (("verb", VERBS), ("noun", NOUNS))
    }


def class_categories(path: Path) -> Mapping[str, Mapping[int, str]]:
    """The category of each class, by head: `retrieve` of the verb take, say."""
    return {
        head: {i: one.category for i, one in enumerate(read_classes(beside(path, file)))}
        for head, file in (("verb", VERBS), ("noun", NOUNS))
    }


class _Action(NamedTuple):
    """One row of either layout."""

    row: Row
    id: str
    video: str
    participant: str
    start: float
    stop: float
    verb: int
    noun: int
    action: str
    """Its number as written; empty where the layout has none."""
    narration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Annotation:
    """What both layouts come down to."""

    path: Path
    verbs: LabelSpace
    nouns: LabelSpace
    parts: Mapping[str, Sequence[_Action]]
    warnings: tuple[str, ...]


def _official(path: Path) -> ClipDataset:
    files, warnings = dict(PARTS), list[str]()
    if not (path / files["train"]).is_file():
        if not (path / RECONSTRUCTED).is_file():
            raise FileNotFoundError(f"{path} must hold {files['train']} beside the validation.")
        files["train"] = RECONSTRUCTED
        warnings.append(
            f"{path} has no {PARTS['train']}: {RECONSTRUCTED} was read in its place, which does "
            "not hold what was said of every action."
        )
    verbs, nouns = (label_space(path / file) for file in (VERBS, NOUNS))
    parts: dict[str, Sequence[_Action]] = {}
    for part, name in files.items():
        source = {"source": "text_source"} if name == RECONSTRUCTED else {}
        parts[part] = [
            _action(row, to_seconds(row, "start"), to_seconds(row, "stop"), verbs, nouns)
            for row in read_rows(path / name, OFFICIAL_COLUMNS | source)
        ]
    return _dataset(
        _Annotation(path=path, verbs=verbs, nouns=nouns, parts=parts, warnings=tuple(warnings))
    )


def _rulstm(folder: Path) -> ClipDataset:
    """Times are frame numbers at 30 per second; participants are read off the video's name."""
    warnings = [
        f"{folder} counts frames at {RULSTM_RATE:g} per second: times are rounded to 1/30 s; take "
        "the official CSV files for the published times."
    ]
    if beside(folder, VERBS).is_file() and beside(folder, NOUNS).is_file():
        verbs, nouns = (label_space(beside(folder, file)) for file in (VERBS, NOUNS))
    else:
        verbs, nouns = names_from_actions(folder / "actions.csv")
        warnings.append(f"{folder} has no class files: names are those of actions.csv.")
    parts: dict[str, Sequence[_Action]] = {}
    for part, file in RULSTM_PARTS.items():
        parts[part] = [
            _action(
                row,
                row.whole("start") / RULSTM_RATE,
                row.whole("stop") / RULSTM_RATE,
                verbs,
                nouns,
            )
            for row in read_rows(folder / file, RULSTM_COLUMNS)
        ]
    return _dataset(
        _Annotation(path=folder, verbs=verbs, nouns=nouns, parts=parts, warnings=tuple(warnings))
    )


def _action(row: Row, start: float, stop: float, verbs: LabelSpace, nouns: LabelSpace) -> _Action:
    cells = row.values
    spoken = not cells.get("source", "").startswith(UNSPOKEN)
    return _Action(
        row=row,
        id=cells["id"],
        video=cells["video"],
        participant=cells.get("participant") or cells["video"].partition("_")[0],
        start=start,
        stop=stop,
        verb=row.label("verb", len(verbs)),
        noun=row.label("noun", len(nouns)),
        action=cells.get("action", ""),
        narration=cells.get("narration", "") if spoken else "",
    )


def _dataset(annotation: _Annotation) -> ClipDataset:
    path, warnings = annotation.path, list(annotation.warnings)
    _check_ids(annotation)
    pairs = _pairs(annotation, warnings)
    numbers = {pair: i for i, pair in enumerate(pairs)}
    videos = read_videos(path)
    clips = {
        part: tuple(_clip(action, numbers, videos) for action in actions)
        for part, actions in annotation.parts.items()
    }
    names = (
        f"{annotation.verbs.names[verb]} {annotation.nouns.names[noun]}" for verb, noun in pairs
    )
    heads = {
        "verb": annotation.verbs,
        "noun": annotation.nouns,
        "action": LabelSpace(tuple(names)),
    }
    return ClipDataset(
        name="epic100",
        taxonomy=Taxonomy(heads, pairs=pairs),
        clips=clips,
        videos=videos,
        tail=read_tail(
            path, clips["validation"], {"verb": annotation.verbs, "noun": annotation.nouns}
        ),
        unseen=read_unseen(path, clips),
        warnings=tuple(warnings),
    )


def _clip(
    action: _Action, numbers: Mapping[Pair, int], videos: Mapping[str, VideoInfo]
) -> ActionClip:
    place, label = action.row.place, numbers[action.verb, action.noun]
    if action.stop <= action.start:
        raise ValueError(
            f"{place}: action {action.id} must stop after it starts, got {action.start:.2f} to "
            f"{action.stop:.2f} s; correct the row or take it out."
        )
    if videos:
        if action.video not in videos:
            raise ValueError(
                f"{place}: video {action.video} is not in EPIC_100_video_info.csv; add its "
                "duration."
            )
        if action.stop > videos[action.video].duration + TOLERANCE:
            raise ValueError(
                f"{place}: action {action.id} must lie within its video of "
                f"{videos[action.video].duration:.2f} s, got {action.start:.2f} to "
                f"{action.stop:.2f} s; correct the row or the video's duration."
            )
    if action.action and action.action != str(label):
        raise ValueError(
            f"{place}: action {action.action} must be that of verb {action.verb} and noun "
            f"{action.noun}, which actions.csv numbers {label}."
        )
    return ActionClip(
        id=action.id,
        video=action.video,
        participant=action.participant,
        start=action.start,
        stop=action.stop,
        verb=action.verb,
        noun=action.noun,
        action=label,
        narration=action.narration,
    )


def _check_ids(annotation: _Annotation) -> None:
    found: dict[str, str] = {}
    for part, actions in annotation.parts.items():
        for action in actions:
            if not action.id or not action.video:
                raise ValueError(
                    f"{action.row.place}: an action must have an id and a video, got "
                    f"{action.id!r} and {action.video!r}; fill them in, or take the row out."
                )
            if action.id in found:
                raise ValueError(
                    f"{action.row.place}: the id {action.id} stands in the {found[action.id]} part "
                    "already; an id must name one action, take one of them out."
                )
            found[action.id] = part


def _pairs(annotation: _Annotation, warnings: list[str]) -> tuple[Pair, ...]:
    """The verb and noun of every action, in the order of their numbers."""
    used = {
        (action.verb, action.noun): action.row
        for actions in annotation.parts.values()
        for action in actions
    }
    files = (annotation.path / "actions.csv", annotation.path / "rulstm" / "actions.csv")
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        warnings.append(
            f"{annotation.path} has no actions.csv: actions are numbered by verb, then noun."
        )
        return tuple(sorted(used))
    columns = {"id": "id", "verb": "verb", "noun": "noun"}
    rows = read_rows(file, columns)
    verbs, nouns = len(annotation.verbs), len(annotation.nouns)
    pairs = {
        row.label("id", len(rows)): (row.label("verb", verbs), row.label("noun", nouns))
        for row in rows
    }
    if len(set(pairs.values())) < len(rows):
        raise ValueError(f"{file}: an action's id, or its verb and noun, stands there twice.")
    if missing := sorted(set(used) - set(pairs.values())):
        raise ValueError(
            f"{used[missing[0]].place}: verb {missing[0][0]} and noun {missing[0][1]} are no "
            f"action of {file} ({len(missing)} pairs are missing there); add them or take the file "
            "away."
        )
    return tuple(pairs[i] for i in range(len(rows)))
