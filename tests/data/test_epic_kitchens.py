import csv
from pathlib import Path

import pytest

from actioncast.data.clips import ActionClip, VideoInfo
from actioncast.data.epic_kitchens import class_categories, class_synonyms, open_epic_kitchens
from epic_folders import (
    TRAIN,
    VALIDATION,
    official_row,
    real_epic_kitchens,
    real_path,
    write_classes,
    write_official,
)

ACTIONS = "id,verb,noun,action\n0,1,1,put pan\n1,0,0,take tap\n2,2,1,wash pan\n"
INFO = "video_id,duration,fps,resolution\nP01_01,7,59.94,x\nP01_02,99,50,x\nP02_01,9,50,x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_official(tmp_path / "epic")


@pytest.fixture
def rulstm(tmp_path: Path) -> Path:
    folder = tmp_path / "rulstm"
    folder.mkdir()
    (folder / "training.csv").write_text(
        "P01_01_0,P01_01,4,101,0,0,1\nP01_01_1,P01_01,120,185,2,1,2\n"
    )
    (folder / "validation.csv").write_text("P02_01_0,P02_01,30,75,1,1,0\n")
    (folder / "actions.csv").write_text(ACTIONS)
    (folder / "validation_tail_verbs_ids.csv").write_text("P02_01_0\n")
    return folder


# The published annotation (metrics sheet, section 3)


def test_the_parts_are_as_long_as_published():
    dataset = real_epic_kitchens()
    assert len(dataset.part("train")) == 67_217
    assert len(dataset.part("validation")) == 9_668
    assert len(dataset.by_video(["train"])) == 495
    assert len(dataset.by_video(["validation"])) == 138
    assert len(dataset.by_video()) == 633
    assert len(dataset.videos) == 700


def test_classes_are_as_many_as_published():
    dataset = real_epic_kitchens()
    heads = dataset.taxonomy.heads
    assert [len(heads[head]) for head in ("verb", "noun", "action")] == [97, 300, 3_806]
    pairs = {
        part: {(c.verb, c.noun) for c in dataset.part(part)} for part in ("train", "validation")
    }
    assert len({verb for verb, _ in pairs["validation"]}) == 78
    assert len({noun for _, noun in pairs["validation"]}) == 211
    assert [len(pairs["train"]), len(pairs["validation"])] == [3_568, 1_352]
    assert len(pairs["validation"] - pairs["train"]) == 238
    assert pairs["train"] | pairs["validation"] == set(dataset.taxonomy.pairs)


def test_subsets_are_as_large_as_published():
    dataset = real_epic_kitchens()
    clips = dataset.part("validation")
    tail = dataset.tail
    assert sum(clip.start - 1 < 1 / 30 for clip in clips) == 30
    assert sum(clip.participant in dataset.unseen for clip in clips) == 1_065
    assert sum(clip.verb in tail["verb"] for clip in clips) == 1_760
    assert sum(clip.noun in tail["noun"] for clip in clips) == 1_900
    assert sum(clip.verb in tail["verb"] or clip.noun in tail["noun"] for clip in clips) == 3_105
    assert dataset.unseen == {"P18", "P32"}
    assert not dataset.unseen & {clip.participant for clip in dataset.part("train")}


def test_subsets_are_those_of_rulstm():
    dataset = real_epic_kitchens()
    tail = dataset.tail
    subsets = {
        "unseen_participants": lambda clip: clip.participant in dataset.unseen,
        "tail_verbs": lambda clip: clip.verb in tail["verb"],
        "tail_nouns": lambda clip: clip.noun in tail["noun"],
        "tail_actions": lambda clip: clip.verb in tail["verb"] or clip.noun in tail["noun"],
    }
    for name, within in subsets.items():
        listed = (real_path("epic100/rulstm") / f"validation_{name}_ids.csv").read_text().split()
        assert {clip.id for clip in dataset.part("validation") if within(clip)} == set(listed)


def test_action_numbers_are_those_of_rulstm():
    dataset = real_epic_kitchens()
    for part, name in (("train", "training"), ("validation", "validation")):
        with (real_path("epic100/rulstm") / f"{name}.csv").open() as file:
            listed = [(row[0], int(row[6])) for row in csv.reader(file)]
        assert [(clip.id, clip.action) for clip in dataset.part(part)] == listed
    labels = dataset.taxonomy.heads["action"]
    assert labels.names[:3] == ("take tap", "take spoon", "take glass")


def test_one_published_action_outlasts_its_video():
    dataset = real_epic_kitchens()
    clips = [clip for part in dataset.clips for clip in dataset.part(part)]
    late = [clip for clip in clips if clip.stop > dataset.videos[clip.video].duration]
    assert [clip.id for clip in late] == ["P29_05_563"]
    assert late[0].stop - dataset.videos["P29_05"].duration == pytest.approx(0.0134, abs=1e-4)


def test_both_layouts_tell_the_same_actions_to_within_a_frame():
    official, rulstm = real_epic_kitchens(), real_epic_kitchens("rulstm")
    assert official.taxonomy == rulstm.taxonomy
    assert (official.tail, official.unseen) == (rulstm.tail, rulstm.unseen)
    for part in official.clips:
        for one, other in zip(official.part(part), rulstm.part(part), strict=True):
            assert (one.id, one.video, one.participant) == (
                other.id,
                other.video,
                other.participant,
            )
            assert (one.verb, one.noun, one.action) == (other.verb, other.noun, other.action)
            assert abs(one.start - other.start) < 1 / 30 + 1e-9
            assert abs(one.stop - other.stop) < 1 / 30 + 1e-9


def test_rulstm_files_alone_hold_the_published_subsets(tmp_path: Path):
    """Without class files names come from actions.csv, rare classes from lists of rare actions."""
    (tmp_path / "rulstm").symlink_to(real_path("epic100/rulstm"))
    dataset = open_epic_kitchens(tmp_path)
    heads = dataset.taxonomy.heads
    assert [len(heads[head]) for head in ("verb", "noun", "action")] == [97, 300, 3_806]
    # Seven nouns are in no action of train and validation.
    assert sum(name.startswith("noun ") for name in heads["noun"].names) == 7
    clips = dataset.part("validation")
    assert sum(clip.verb in dataset.tail["verb"] for clip in clips) == 1_760
    assert sum(clip.noun in dataset.tail["noun"] for clip in clips) == 1_900
    assert sum(clip.participant in dataset.unseen for clip in clips) == 1_065
    assert dataset.videos == {}


def test_reconstructed_training_rows_are_told_of_and_never_hold_made_up_words():
    dataset = real_epic_kitchens()
    assert "EPIC_100_train_reconstructed.csv" in dataset.warnings[0]
    assert sum(bool(clip.narration) for clip in dataset.part("train")) == 56_150
    assert all(clip.narration for clip in dataset.part("validation"))


def test_published_classes_have_synonyms_and_categories():
    path = real_path("epic100")
    synonyms, categories = class_synonyms(path), class_categories(path)
    assert [len(synonyms["verb"]), len(synonyms["noun"])] == [97, 300]
    assert synonyms["noun"][0] == ("tap", "tap:water", "water:tap", "flow:tap", "tab", "tap:hot")
    assert "pick-up" in synonyms["verb"][0]
    assert (categories["verb"][0], categories["noun"][0]) == ("retrieve", "appliances")
    assert len(set(categories["verb"].values())) == 13
    assert class_synonyms(path / "rulstm") == synonyms


# By hand


def test_a_row_becomes_a_clip(folder: Path):
    dataset = open_epic_kitchens(folder)
    assert dataset.part("train")[0] == ActionClip(
        id="P01_01_0",
        video="P01_01",
        participant="P01",
        start=0.14,
        stop=3.37,
        verb=0,
        noun=0,
        action=0,
        narration="take the pan",
    )
    assert dataset.part("validation")[1].start == 60.5
    assert (dataset.videos, dataset.tail) == ({}, {})


@pytest.mark.parametrize("text", ["00:27:03.37", "01:59:59.999", "00:00:08.10", "00:10:09"])
def test_times_are_the_nearest_floats(tmp_path: Path, text: str):
    hours, minutes, rest = text.split(":")
    seconds, _, fraction = rest.partition(".")
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    folder = write_official(tmp_path, train=[f"P01_01_0 {text} 09:00:00 0 0"])
    assert open_epic_kitchens(folder).part("train")[0].start == float(f"{whole}.{fraction}")


def test_actions_are_numbered_by_verb_then_noun_unless_rulstm_numbers_them(folder: Path):
    own = open_epic_kitchens(folder)
    assert own.taxonomy.pairs == ((0, 0), (1, 1), (2, 1))
    assert own.taxonomy.heads["action"].names == ("take tap", "put pan", "wash pan")
    assert any("numbered by verb, then noun" in warning for warning in own.warnings)
    (folder / "rulstm").mkdir()
    (folder / "rulstm" / "actions.csv").write_text(ACTIONS)
    listed = open_epic_kitchens(folder)
    assert listed.taxonomy.pairs == ((1, 1), (0, 0), (2, 1))
    assert [clip.action for clip in listed.part("train")] == [1, 2]
    assert listed.warnings == ()
    assert listed.fingerprint() != own.fingerprint()


def test_what_lies_beside_the_annotation_is_read(tmp_path: Path):
    extra = {
        "EPIC_100_video_info.csv": INFO,
        "EPIC_100_tail_verbs.csv": "verb\n2\n",
        "EPIC_100_tail_nouns.csv": "noun\n1\n",
        "EPIC_100_unseen_participant_ids_validation.csv": "participant_id\nP02\n",
    }
    dataset = open_epic_kitchens(write_official(tmp_path, extra=extra))
    assert dataset.videos["P01_01"] == VideoInfo(duration=7.0, rate=59.94)
    assert dataset.tail == {"verb": frozenset({2}), "noun": frozenset({1})}
    assert dataset.unseen == {"P02"}


def test_without_a_list_unseen_are_those_of_validation_alone(folder: Path):
    assert open_epic_kitchens(folder).unseen == {"P02"}


def test_rulstm_files_are_frames_at_30_per_second(rulstm: Path):
    dataset = open_epic_kitchens(rulstm)
    first, second = dataset.part("train")
    assert (first.start, first.stop) == (4 / 30, 101 / 30)
    assert (second.start, second.participant, second.action) == (4.0, "P01", 2)
    assert dataset.taxonomy.heads["noun"].names == ("tap", "pan")
    assert dataset.tail == {"verb": frozenset({1})}
    assert open_epic_kitchens(rulstm.parent) == dataset
    assert any("1/30 s" in warning for warning in dataset.warnings)


def test_rulstm_reads_names_from_class_files_above_it(rulstm: Path):
    (rulstm / "actions.csv").write_text(ACTIONS.replace("put pan", "drop pot"))
    assert open_epic_kitchens(rulstm).taxonomy.heads["verb"].names == ("take", "drop", "wash")
    write_classes(rulstm.parent)
    assert open_epic_kitchens(rulstm).taxonomy.heads["verb"].names == ("take", "put", "wash")


# Bad input


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "P01_01_2 00:00:05.00 00:00:06.00 3 0",
            r"train\.csv, row 4: verb must be a class of 0\.\.2",
        ),
        ("P01_01_2 00:00:05.00 00:00:06.00 0 2", r"row 4: noun must be a class of 0\.\.1, got 2"),
        ("P01_01_2 00:00:05.00 00:00:06.00 x 0", "row 4: verb must be a whole number, got 'x'"),
        (
            "P01_01_2 00:00:06.00 00:00:05.00 0 0",
            "row 4: action P01_01_2 must stop after it starts",
        ),
        ("P01_01_2 00:00:05.00 00:00:05.00 0 0", "must stop after it starts"),
        ("P01_01_2 5.0 00:00:06.00 0 0", "row 4: start must be a time such as"),
        ("P01_01_2 00:00:05.00 00:00:07.11 0 0", "row 4: .* must lie within its video of 7.00 s"),
        (
            "P09_01_2 00:00:05.00 00:00:06.00 0 0",
            r"video P09_01 is not in EPIC_100_video_info\.csv",
        ),
        ("P01_01_1 00:00:05.00 00:00:06.00 0 0", "row 4: the id P01_01_1 stands in the train part"),
        ("P02_01_0 00:00:05.00 00:00:06.00 0 0", "id P02_01_0 stands in the train part"),
        (
            "P01_01_2 00:00:05.00 00:00:06.00 0 1",
            "verb 0 and noun 1 are no action of .*actions.csv",
        ),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: str, message: str):
    extra = {"EPIC_100_video_info.csv": INFO, "actions.csv": ACTIONS}
    folder = write_official(tmp_path, train=[*TRAIN, row], extra=extra)
    with pytest.raises(ValueError, match=message):
        open_epic_kitchens(folder)


def test_an_action_may_outlast_its_video_by_a_rounding(tmp_path: Path):
    row = "P01_01_2 00:00:05.00 00:00:07.09 0 0"
    folder = write_official(tmp_path, train=[*TRAIN, row], extra={"EPIC_100_video_info.csv": INFO})
    assert len(open_epic_kitchens(folder).part("train")) == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("EPIC_100_train.csv", "", "must hold at least one row"),
        (
            "EPIC_100_train.csv",
            "narration_id,video_id\n1,2\n",
            "missing are participant_id, start_",
        ),
        ("EPIC_100_verb_classes.csv", "id,key,instances,category\n", "at least one row"),
        ("EPIC_100_verb_classes.csv", "id,key\n0,take\n", "missing are instances, category"),
        (
            "EPIC_100_verb_classes.csv",
            "id,key,instances,category\n1,a,[],b\n",
            "ids must run from 0",
        ),
        (
            "EPIC_100_verb_classes.csv",
            "id,key,instances,category\n0,a,b c,b\n",
            "must be a list such",
        ),
        ("EPIC_100_tail_verbs.csv", "verb\n3\n", r"row 2: verb must be a class of 0\.\.2"),
        (
            "EPIC_100_video_info.csv",
            "video_id,duration,fps\nP01_01,0,50\n",
            "duration must be a pos",
        ),
        ("EPIC_100_video_info.csv", "video_id,duration,fps\nP01_01,9,?\n", "fps must be a number"),
        ("actions.csv", "id,verb,noun\n0,0,0\n0,1,1\n", "stands there twice"),
        (
            "EPIC_100_unseen_participant_ids_validation.csv",
            "participant_id\nP01\n",
            "P01 is listed as unseen, but the train part has actions",
        ),
    ],
)
def test_wrong_files_are_named(folder: Path, name: str, text: str, message: str):
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        open_epic_kitchens(folder)


def test_text_of_another_encoding_is_named(folder: Path):
    (folder / "EPIC_100_train.csv").write_bytes(b"\xff\xfe,a\n")
    with pytest.raises(ValueError, match=r"train\.csv must be a UTF-8 file"):
        open_epic_kitchens(folder)


def test_a_short_row_is_named(folder: Path):
    with (folder / "EPIC_100_train.csv").open("a") as file:
        file.write("P01_01_9,P01\n")
    with pytest.raises(ValueError, match="row 4: must have at least 13 columns, got 2"):
        open_epic_kitchens(folder)


def test_another_action_than_actions_csv_says_is_named(rulstm: Path):
    (rulstm / "validation.csv").write_text("P02_01_0,P02_01,30,75,1,1,2\n")
    with pytest.raises(
        ValueError, match=r"validation\.csv, row 1: action 2 must be that of verb 1"
    ):
        open_epic_kitchens(rulstm)


def test_a_folder_without_annotation_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"EPIC_100_validation\.csv.*RULSTM's"):
        open_epic_kitchens(tmp_path)
    (tmp_path / "EPIC_100_validation.csv").write_text(official_row(VALIDATION[0]))
    with pytest.raises(FileNotFoundError, match=r"must hold EPIC_100_train\.csv"):
        open_epic_kitchens(tmp_path)


def test_a_missing_class_file_is_named_with_where_to_look(tmp_path: Path):
    folder = write_official(tmp_path / "epic")
    (folder / "EPIC_100_verb_classes.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs the file .*verb_classes.csv.*next_action"):
        open_epic_kitchens(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("EPIC_100_train.csv", "P01_01_0,P01", ",P01", "must have an id and a video, got ''"),
        ("EPIC_100_verb_classes.csv", "1,put,", "1,,", "a name of its own, got 'none'"),
        ("EPIC_100_verb_classes.csv", "1,put,", "1,take,", "got 'take', as class 0"),
        ("EPIC_100_video_info.csv", "", "P01_01,9,60\nP01_01,8,60\n", "'P01_01' with others"),
        ("EPIC_100_video_info.csv", "", ",9,60\n", "one length and rate, got 'none'"),
    ],
)
def test_what_has_no_name_or_two_meanings_is_refused(
    file: str, old: str, new: str, said: str, tmp_path: Path
):
    folder = write_official(tmp_path / "epic")
    path = folder / file
    text = path.read_text() if path.exists() else "video_id,duration,fps\n"
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else text + new)
    with pytest.raises(ValueError, match=said):
        open_epic_kitchens(folder)
