"""DARai in the layout of its released code, in folders made up here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from actioncast.data import (
    Dataset,
    find_dataset,
    holds_dataset,
    is_darai,
    open_darai,
    open_dataset,
)
from actioncast.models.mm_ant import name_vectors
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.text_encoders import sentence_vectors, text_encoder

L2 = ("Prepare_water", "Drink", "UNDEFINED")
L3 = ("Get_cup", "Fill_kettle", "Sip", "UNDEFINED")
WIDTH = 3
ACTS = ((L2[0], L3[0], 6), (L2[0], L3[1], 8), (L2[1], L3[0], 5), (L2[1], L3[2], 7))
"""A cup is got to prepare water and to drink: no action follows from it."""


def lines(
    recording: str, first: int = 100, acts: Sequence[tuple[str, str, int]] = ACTS
) -> list[str]:
    """A line for every frame, from a frame on."""
    subject, session = recording.split("_")[:2]
    labels = [(action, procedure) for action, procedure, count in acts for _ in range(count)]
    return [
        f"RGB/Making tea/camera_1/{subject}_{session}_{first + i:05d}.jpg, {a}, {p}"
        for i, (a, p) in enumerate(labels)
    ]


def write(
    path: Path, recordings: dict[str, list[str]] | None = None, *, features: str = ""
) -> Path:
    """A folder; features of a row tell the number of its line, or of its labelled line."""
    if recordings is None:
        names = [f"{s:02d}_1_cam_{c}_Making tea" for s in range(1, 4) for c in (1, 2)]
        recordings = {name: lines(name) for name in names}
    (path / "groundTruth_img").mkdir(parents=True)
    for name, rows in recordings.items():
        (path / "groundTruth_img" / f"{name}.txt").write_text("\n".join(rows) + "\n")
        labelled = [row for row in rows if len([f for f in row.split(",") if f.strip()]) == 3]
        if features:
            count = len(rows) if features == "lines" else len(labelled)
            save(path / "features_img" / f"{name}.npy", count)
    for level, names in (("l2", L2), ("l3", L3)):
        mapping = "".join(f"{i} {name}\n" for i, name in enumerate(names))
        (path / f"mapping_{level}.txt").write_text(mapping)
    return path


def save(file: Path, count: int, first: int = 0) -> None:
    file.parent.mkdir(exist_ok=True)
    np.save(file, np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], WIDTH, 1))


def names(dataset: Dataset, video: str, head: str) -> list[str]:
    space = dataset.taxonomy.heads[head].names
    return [space[label] for label in dataset.videos[video].frames_of(head)]


ONE = "01_1_cam_1_Making tea"
TWO = "02_1_cam_1_Making tea"


# Labels


def test_every_line_is_a_frame_of_procedures(tmp_path: Path):
    path = write(tmp_path / "d")
    assert is_darai(path)
    assert holds_dataset(path)
    dataset = open_dataset("", path)
    assert dataset.name == "darai"
    assert dataset.rate == 15
    assert len(dataset.videos) == 6
    assert names(dataset, f"{ONE}_0", "procedure") == [p for _, p, n in ACTS for _ in range(n)]
    assert dataset.taxonomy.primary == "procedure"
    assert not dataset.taxonomy.levels
    video = dataset.videos[f"{ONE}_0"]
    assert (video.group, video.recording, video.num_frames) == ("01", "01_1_Making tea", 26)
    other = dataset.videos["01_1_cam_2_Making tea_0"]
    assert (other.group, other.recording) == (video.group, video.recording)


def test_actions_stand_above_frame_by_frame(tmp_path: Path):
    """A procedure of two actions has no one action above it."""
    dataset = open_dataset("", write(tmp_path / "d"), level="coarse")
    assert dataset.taxonomy.levels == ("action", "procedure")
    assert names(dataset, f"{ONE}_0", "action") == [a for a, _, n in ACTS for _ in range(n)]
    assert not dataset.taxonomy.parents
    assert dataset.videos[f"{ONE}_0"].parents is None


def test_an_activity_stands_above_every_video(tmp_path: Path):
    path = write(tmp_path / "d", {ONE: lines(ONE), "02_3_cam_2_Dining": lines("02_3")})
    dataset = open_dataset("", path, level="activity", hierarchy="activity")
    assert dataset.taxonomy.labels.names == ("Dining", "Making tea")
    assert names(dataset, f"{ONE}_0", "activity") == ["Making tea"] * 26


def test_names_may_stand_in_the_paths_of_images(tmp_path: Path):
    """Some copies name recordings otherwise; the folder of an image says what is shown."""
    path = write(tmp_path / "d", {"take one": lines(ONE), "take two": lines(TWO)})
    dataset = open_dataset("", path, level="coarse", hierarchy="activity")
    assert dataset.taxonomy.labels.names == ("Making tea",)
    assert dataset.videos["take one_0"].group == "01"
    path = write(tmp_path / "e", {"take": [line.rpartition("/")[2] for line in lines(ONE)]})
    with pytest.raises(ValueError, match="must be called <subject>_<session>_cam_"):
        open_darai(path)


def test_lines_without_two_labels_are_left_out_and_counted(tmp_path: Path):
    rows = lines(ONE)
    rows += [
        "a_1_00126.jpg, Drink",
        "a_1_00127.jpg, Drink, ",
        "a_1_00128.jpg, , Sip",
        "a_1_00129.jpg, Drink, Sip, 3",
        "",
    ]
    dataset = open_darai(write(tmp_path / "d", {ONE: rows, TWO: lines(TWO)}))
    assert dataset.videos[f"{ONE}_0"].num_frames == 26
    assert any("5 lines of 1 recordings, 01_1" in said for said in dataset.warnings)


@pytest.mark.parametrize("written", ["Flip the pancake", "Flipthepancake", " Flip  the pan cake"])
@pytest.mark.parametrize("listed", ["Flip the pancake", "Flip  the\tpancake"])
def test_blanks_do_not_tell_labels_apart_and_names_keep_those_of_the_list(
    tmp_path: Path, written: str, listed: str
):
    rows = [line.replace("Get_cup", written).replace("Drink", "D rink") for line in lines(ONE)]
    path = write(tmp_path / "d", {ONE: rows, TWO: lines(TWO, acts=[(L2[0], L3[1], 16)])})
    (path / "mapping_l3.txt").write_text(f"0 {listed}\n1 Fill_kettle\n2 Sip\n")
    dataset = open_dataset("", path, level="fine")
    assert dataset.taxonomy.labels.names == ("Flip the pancake", "Fill_kettle", "Sip")
    assert names(dataset, f"{ONE}_0", "procedure")[5:7] == ["Flip the pancake", "Fill_kettle"]
    assert names(dataset, f"{ONE}_0", "action")[13:15] == ["Prepare_water", "Drink"]


def test_a_text_encoder_reads_the_names_as_words(tmp_path: Path):
    rows = [line.replace("Get_cup", "Flipthepancake") for line in lines(ONE)]
    path = write(tmp_path / "d", {ONE: rows, TWO: rows})
    (path / "mapping_l3.txt").write_text("0 Flip the pancake\n1 Fill_kettle\n2 Sip\n")
    config = MMAntConfig(
        feature_dim=WIDTH, text="learned", text_vectors="names", described="predicted"
    )
    vectors = name_vectors(config, open_darai(path).taxonomy)
    assert vectors is not None
    wanted = sentence_vectors(text_encoder(config.encoder), ["flip the pancake", "fill kettle"])
    np.testing.assert_array_equal(vectors[:2], wanted)


def test_listed_labels_that_differ_in_blanks_alone_are_named(tmp_path: Path):
    path = write(tmp_path / "d")
    (path / "mapping_l3.txt").write_text("0 Get_ cup\n1 Fill_kettle\n2 Sip\n3 Get_cup\n")
    with pytest.raises(ValueError, match=r"got 'Get_ cup' and 'Get_cup', which without their"):
        open_darai(path)


def test_undefined_is_a_label_like_any_other(tmp_path: Path):
    acts = [("UNDEFINED", "UNDEFINED", 20), *ACTS]
    path = write(tmp_path / "d", {ONE: lines(ONE, acts=acts), TWO: lines(TWO)})
    dataset = open_dataset("", path, level="fine")
    assert names(dataset, f"{ONE}_0", "procedure")[:20] == ["UNDEFINED"] * 20
    assert names(dataset, f"{ONE}_0", "action")[:20] == ["UNDEFINED"] * 20
    assert not any(head.unknown or head.background for head in dataset.taxonomy.heads.values())


def test_a_recording_is_cut_where_frames_are_missing_and_short_ones_go(tmp_path: Path):
    """Frames 100-125, 127-141 (15, too short), 200-215 (16), and one that goes back."""
    rows = lines(ONE)
    rows += lines(ONE, 127, [(L2[0], L3[1], 15)])
    rows += lines(ONE, 200, [(L2[1], L3[2], 16)])
    rows += lines(ONE, 200, [(L2[1], L3[0], 17)])
    dataset = open_darai(write(tmp_path / "d", {ONE: rows, TWO: lines(TWO)}))
    own = {v.id: v.num_frames for v in dataset.videos.values() if v.group == "01"}
    assert own == {f"{ONE}_0": 26, f"{ONE}_2": 16, f"{ONE}_3": 17}
    assert len({v.recording for v in dataset.videos.values()}) == 2
    assert any(f"1 stretches of 15 frames or fewer, {ONE}_1" in said for said in dataset.warnings)


def test_a_line_left_out_cuts_a_recording(tmp_path: Path):
    rows = lines(ONE, acts=[(L2[0], L3[0], 40)])
    rows[20] = rows[20].rpartition(",")[0]
    dataset = open_darai(write(tmp_path / "d", {ONE: rows, TWO: lines(TWO)}))
    assert [v.num_frames for v in dataset.videos.values() if v.group == "01"] == [20, 19]


# Lists of labels


def test_without_a_list_of_labels_those_used_are_told(tmp_path: Path):
    path = write(tmp_path / "d")
    (path / "mapping_l3.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"0 Fill_kettle; 1 Get_cup; 2 Sip\."):
        open_dataset("", path)
    spaced = [line.replace("Get_cup", "Get _ cup") for line in lines(ONE)]
    (path / "groundTruth_img" / f"{ONE}.txt").write_text("\n".join(spaced))
    with pytest.raises(FileNotFoundError, match=r"0 Fill_kettle; 1 Get _ cup; 2 Sip\."):
        open_dataset("", path)
    (path / "mapping_l3_changed.txt").write_text("0 Sip\n1 Get_cup\n2 Fill_kettle\n")
    assert open_dataset("", path).taxonomy.labels.names == ("Sip", "Get_cup", "Fill_kettle")
    (path / "mapping_l2.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"mapping_l2.txt does not exist"):
        open_dataset("", path, level="coarse")


def test_a_label_that_is_not_listed_is_named_with_its_line(tmp_path: Path):
    path = write(tmp_path / "d")
    (path / "mapping_l3.txt").write_text("0 Get_cup\n1 Sip\n")
    with pytest.raises(ValueError, match=r"01_1_cam_1.*line 7: unknown label 'Fill_kettle'"):
        open_dataset("", path)


# Activities


DINING = ("01_1_cam_1_Dining", "02_1_cam_1_Dining")


def test_chosen_activities_alone_are_read(tmp_path: Path):
    """What others show needs no label in the lists, and no features."""
    path = write(tmp_path / "d", features="lines")
    for name in DINING:
        rows = [line.replace("Sip", "Chew") for line in lines(name)]
        (path / "groundTruth_img" / f"{name}.txt").write_text("\n".join([*rows, "no label"]))
    with pytest.raises(ValueError, match="unknown label 'Chew'"):
        open_darai(path)
    (path / "activities.txt").write_text("\nMaking  tea\n")
    dataset = open_dataset("", path, level="fine")
    assert len(dataset.videos) == 6
    assert not any("Dining" in name for name in dataset.videos)
    assert any("2 recordings of other activities (Dining) are not" in s for s in dataset.warnings)
    assert not any("not two labels" in said for said in dataset.warnings)


def test_an_activity_may_be_chosen_that_the_paths_of_images_name(tmp_path: Path):
    other = [line.replace("Making tea", "Dining") for line in lines(ONE)]
    path = write(tmp_path / "d", {"1": lines(ONE), "2": lines(TWO), "3": other})
    (path / "activities.txt").write_text("Making tea\n")
    assert list(open_darai(path).videos) == ["1_0", "2_0"]


def test_a_chosen_activity_that_nobody_shows_is_named(tmp_path: Path):
    path = write(tmp_path / "d", {ONE: lines(ONE), TWO: lines(TWO), DINING[0]: lines(ONE)[:9]})
    chosen = path / "activities.txt"
    chosen.write_text("Making tea\nMaking coffee\n")
    with pytest.raises(ValueError, match=r"got 'Making coffee'; there are Dining, Making tea\."):
        open_darai(path)
    chosen.write_text("Dining\n")
    with pytest.raises(ValueError, match=r"more than 15 frames show, got 'Dining'; there are Mak"):
        open_darai(path)
    chosen.write_text("\n\n")
    with pytest.raises(ValueError, match="must name an activity a line, got none"):
        open_darai(path)


def test_splits_pass_over_recordings_of_activities_that_are_not_chosen(tmp_path: Path):
    path = write(tmp_path / "d", {name: lines(name) for name in (ONE, TWO, *DINING)})
    (path / "splits").mkdir()
    (path / "splits" / "train_split.txt").write_text(f"{ONE}.txt\n{DINING[0]}.txt\n")
    test = path / "splits" / "test_split.txt"
    test.write_text(f"{TWO}.txt\n{DINING[1]}_0\n")
    (path / "activities.txt").write_text("Making tea\n")
    split = open_darai(path).split("1")
    assert (split.train, split.test) == ((f"{ONE}_0",), (f"{TWO}_0",))
    test.write_text(f"{DINING[1]}.txt\n")
    with pytest.raises(ValueError, match="at least one recording that is read, got none"):
        open_darai(path)
    test.write_text("04_1_cam_1_Dining.txt\n")
    with pytest.raises(ValueError, match="'04_1_cam_1_Dining' names no recording"):
        open_darai(path)


# Splits


def test_without_splits_nobody_is_on_both_sides(tmp_path: Path):
    dataset = open_darai(write(tmp_path / "d"))
    assert list(dataset.splits) == ["1", "2", "3"]
    for split in dataset.splits.values():
        train, test = (
            {dataset.videos[v].group for v in part} for part in (split.train, split.test)
        )
        assert len(test) == 1
        assert not train & test
    assert any("3 were made, nobody on both sides" in said for said in dataset.warnings)
    with pytest.raises(ValueError, match="two people at least"):
        open_darai(write(tmp_path / "e", {ONE: lines(ONE)}))


def test_lists_of_files_are_splits_and_their_leaks_are_told(tmp_path: Path):
    path = write(tmp_path / "d")
    (path / "splits").mkdir()
    (path / "splits" / "train_split.txt").write_text(f"{ONE}.txt\n02_1_cam_1_Making tea.txt\n")
    (path / "splits" / "val_split.txt").write_text("02_1_cam_2_Making tea.txt\n")
    with pytest.raises(FileNotFoundError, match="a list to test of split 1"):
        open_darai(path)
    test = path / "splits" / "test_split.txt"
    test.write_text("03_1_cam_1_Making tea.txt\n")
    dataset = open_darai(path)
    assert len(dataset.split("1").train) == 3
    assert dataset.split("1").test == ("03_1_cam_1_Making tea_0",)
    assert not any("both sides" in said for said in dataset.warnings)
    test.write_text("01_1_cam_2_Making tea_0\n")
    assert any("1 people on both sides, and 1 sessions" in s for s in open_darai(path).warnings)
    test.write_text(f"{ONE}_0\n")
    with pytest.raises(ValueError, match="in its test part and in another"):
        open_darai(path)
    test.write_text("04_1_cam_1_Making tea.txt\n")
    with pytest.raises(ValueError, match="line 1: '04_1_cam_1_Making tea' names no recording"):
        open_darai(path)
    test.write_text("\n")
    with pytest.raises(ValueError, match="at least one recording that is read, got none"):
        open_darai(path)


# Features


@pytest.mark.parametrize("rows", ["lines", "labelled"])
def test_features_have_a_row_for_each_line_or_each_labelled_one(tmp_path: Path, rows: str):
    """One line without labels stands before the second video of the recording."""
    text = lines(ONE, acts=[(L2[0], L3[0], 40)])
    text[20] = text[20].rpartition(",")[0]
    path = write(tmp_path / "d", {ONE: text, TWO: lines(TWO)}, features=rows)
    videos = open_darai(path).videos
    start = 21 if rows == "lines" else 20
    features = videos[f"{ONE}_1"].features
    assert features is not None
    assert features.num_features == WIDTH
    assert features.read(0, 19)[:, 0].tolist() == list(range(start, start + 19))
    assert features.read(2, 9, 3)[:, 0].tolist() == [start + 2, start + 5, start + 8]
    first = videos[f"{ONE}_0"].features
    assert first is not None
    assert first.read(15, 30)[:, 0].tolist() == list(range(15, 20)), "not those of the next video"


def test_features_may_be_those_of_a_video(tmp_path: Path):
    path = write(tmp_path / "d", features="lines")
    save(path / "features_img" / f"{ONE}_0.npy", 26, first=1000)
    features = open_darai(path).videos[f"{ONE}_0"].features
    assert features is not None
    assert features.read(3, 4)[0, 0] == 1003


def test_features_that_do_not_fit_are_refused(tmp_path: Path):
    path = write(tmp_path / "d", features="lines")
    file = path / "features_img" / f"{ONE}.npy"
    np.save(file, np.zeros((WIDTH, 26), np.float32))
    with pytest.raises(ValueError, match=r"must have 26 rows.*got 3; it may be transposed"):
        open_darai(path)
    np.save(file, np.zeros((26, WIDTH + 1), np.float32))
    with pytest.raises(ValueError, match=r"features of one width, got \[3, 4\]"):
        open_darai(path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"Making tea.npy does not exist, nor does"):
        open_darai(path)


def test_a_broken_line_between_frames_in_a_row_is_refused_beside_rows_for_all_lines(
    tmp_path: Path,
):
    rows = lines(ONE)
    rows.insert(3, "image, L2")
    path = write(tmp_path / "d", {ONE: rows, TWO: lines(TWO)}, features="labelled")
    assert open_darai(path).videos[f"{ONE}_0"].num_frames == 26
    save(path / "features_img" / f"{ONE}.npy", 27)
    with pytest.raises(ValueError, match="must follow one another"):
        open_darai(path)


# Folders


def test_darai_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "darai")
    monkeypatch.setenv("ACTIONCAST_DATA", str(tmp_path))
    assert find_dataset("darai") == path
    assert open_dataset("darai", rate=30).rate == 30


def test_what_is_no_darai_says_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"must hold a file <recording>.txt"):
        open_darai(tmp_path)
    path = write(tmp_path / "d", {ONE: lines(ONE)[:9]})
    with pytest.raises(ValueError, match="more than 15 frames in a row"):
        open_darai(path)
    path = write(tmp_path / "e", {ONE: ["cup.jpg, Drink, Sip"] * 20})
    with pytest.raises(ValueError, match=r"line 1: an image must end with the number"):
        open_darai(path)
    with pytest.raises(ValueError, match="rate must be a positive number"):
        open_darai(write(tmp_path / "f"), rate=-1)
