"""What lies beside EPIC-KITCHENS' annotation: classes, lengths of videos, published subsets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from actioncast.data.clips import ActionClip, VideoInfo
from actioncast.data.epic_tables import read_classes, read_ids, read_numbers, read_rows
from actioncast.timeline import LabelSpace

VERBS, NOUNS = "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv"


def names_from_actions(file: Path) -> tuple[LabelSpace, LabelSpace]:
    """Verb and noun names from texts such as `take tap`; a class of no action has a number only."""
    columns = {"verb": "verb", "noun": "noun", "action": "action"}
    spaces: dict[str, dict[int, str]] = {"verb": {}, "noun": {}}
    for row in read_rows(file, columns):
        verb, _, noun = row.values["action"].partition(" ")
        spaces["verb"][row.whole("verb")] = verb
        spaces["noun"][row.whole("noun")] = noun
    verbs, nouns = (
        LabelSpace(tuple(names.get(i, f"{head} {i}") for i in range(max(names) + 1)))
        for head, names in spaces.items()
    )
    return verbs, nouns


def label_space(file: Path) -> LabelSpace:
    """The names of a class file, in the order of their numbers."""
    return LabelSpace(tuple(one.name for one in read_classes(file)))


def read_videos(path: Path) -> dict[str, VideoInfo]:
    """Length and rate of every video; none where there is no such file."""
    file = beside(path, "EPIC_100_video_info.csv")
    if not file.is_file():
        return {}
    found: dict[str, VideoInfo] = {}
    for row in read_rows(file, {"id": "video_id", "duration": "duration", "fps": "fps"}):
        video = row.values["id"]
        info = VideoInfo(duration=row.positive("duration"), rate=row.positive("fps"))
        if not video or found.get(video, info) != info:
            raise ValueError(
                f"{row.place}: a video must have a name and one length and rate, got "
                f"{video or 'none'!r}{' with others before' if video else ''}; keep one row of it."
            )
        found[video] = info
    return found


def read_tail(
    path: Path, validation: Sequence[ActionClip], spaces: Mapping[str, LabelSpace]
) -> dict[str, frozenset[int]]:
    """Rare classes: those of the official lists, else those of RULSTM's rare instances."""
    found: dict[str, frozenset[int]] = {}
    for head, space in spaces.items():
        file = beside(path, f"EPIC_100_tail_{head}s.csv")
        ids = path / f"validation_tail_{head}s_ids.csv"
        if file.is_file():
            found[head] = frozenset(read_numbers(file, head, len(space)))
        elif ids.is_file():
            rare = set(read_ids(ids))
            found[head] = frozenset(clip.label(head) for clip in validation if clip.id in rare)
    return found


def read_unseen(path: Path, clips: Mapping[str, Sequence[ActionClip]]) -> frozenset[str]:
    """The listed participants; without a list, those of validation who are absent from training."""
    file = beside(path, "EPIC_100_unseen_participant_ids_validation.csv")
    trained = {clip.participant for clip in clips["train"]}
    if not file.is_file():
        return frozenset({clip.participant for clip in clips["validation"]} - trained)
    listed = read_ids(file, header="participant_id")
    if seen := sorted(set(listed) & trained):
        raise ValueError(f"{file}: {seen[0]} is listed as unseen, but the train part has actions.")
    return frozenset(listed)


def beside(path: Path, name: str) -> Path:
    """A file of the folder, or of the one above: RULSTM's lie below the official ones."""
    return path / name if (path / name).is_file() else path.parent / name
