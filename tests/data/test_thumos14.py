import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actioncast.data import (
    DATASETS,
    Dataset,
    LabelInput,
    find_dataset,
    holds_dataset,
    open_dataset,
)
from actioncast.data.thumos14 import active_labels, is_thumos14, open_thumos14
from actioncast.data.thumos14_files import NAMES
from actioncast.models.clam_config import ClamConfig
from actioncast.models.online_baselines import OnlineGRUConfig
from actioncast.types import Observation
from real_data import real_dataset

TRAIN = ("video_validation_0000001", "video_validation_0000002")
TEST = ("video_test_0000003", "video_test_0000004")
SECONDS = {TRAIN[0]: 10.0, TRAIN[1]: 12.5, TEST[0]: 8.0, TEST[1]: 9.0}
SEGMENTS = {
    TRAIN[0]: [("HighJump", 1.0, 3.0), ("Diving", 5.0, 7.5)],
    TRAIN[1]: [("CliffDiving", 2.0, 4.0), ("Diving", 2.0, 4.0)],
    TEST[0]: [("Billiards", 0.0, 2.0), ("Billiards", 7.0, 11.0)],
    TEST[1]: [("Shotput", 1.05, 1.1)],
}
RGB, FLOW = "rgb_kinetics_resnet50", "flow_kinetics_bninception"


def write(path: Path, *, features: bool = True, targets: bool = False, lists: bool = True) -> Path:
    """A folder of four videos; features tell kind, video and frame."""
    path.mkdir(parents=True, exist_ok=True)
    database = {
        video: {
            "duration": SECONDS[video],
            "annotations": [{"label": n, "segment": [a, b]} for n, a, b in segments],
        }
        for video, segments in SEGMENTS.items()
    }
    (path / "th14_groundtruth.json").write_text(json.dumps({"database": database}))
    (path / "Ambiguous_test.txt").write_text(f"{TEST[1]}  3.0 4.0\n{TEST[1]}  1.0 1.5\n")
    if lists:
        about = {"class_names": NAMES, "train_session_set": TRAIN, "test_session_set": TEST}
        (path / "testra_data_info.json").write_text(json.dumps({"THUMOS": about}))
    for folder, width in ((RGB, 3), (FLOW, 2)):
        for number, (video, seconds) in enumerate(SECONDS.items()):
            if features:
                rows = np.zeros((round(4 * seconds), width), np.float32)
                rows[:, 0], rows[:, 1] = number, np.arange(len(rows))
                save(path / folder / f"{video}.npy", rows)
    for video, seconds in SECONDS.items():
        if targets:
            rows = np.zeros((round(4 * seconds), 22))
            rows[:, 0] = 1
            rows[2:5, [0, 9]] = 0, 1
            save(path / "target_perframe" / f"{video}.npy", rows)
    return path


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)


def runs(dataset: Dataset, video: str) -> list[tuple[str, float, float]]:
    timeline = dataset.videos[video].timeline
    return [(timeline.labels.names[s.label], s.start, s.end) for s in timeline]


# Labels


def test_segments_become_frames_at_four_a_second(tmp_path: Path):
    dataset = open_thumos14(write(tmp_path))
    video = dataset.videos[TRAIN[0]]
    assert video.num_frames == 40
    assert video.rate == 4.0
    assert video.active[:, NAMES.index("HighJump")].nonzero()[0].tolist() == list(range(4, 12))
    assert runs(dataset, TRAIN[0]) == [("HighJump", 1.0, 3.0), ("Diving", 5.0, 7.5)]
    assert video.frames()[:5].tolist() == [0, 0, 0, 0, 12]


def test_two_actions_are_under_way_at_once(tmp_path: Path):
    dataset = open_thumos14(write(tmp_path))
    active = dataset.videos[TRAIN[1]].active
    assert active.sum(1).tolist() == [1] * 8 + [2] * 8 + [1] * 34
    assert active[8].nonzero()[0].tolist() == [5, 8]
    assert runs(dataset, TRAIN[1]) == [("CliffDiving", 2.0, 4.0), ("Diving", 2.0, 4.0)]


@pytest.mark.parametrize(
    "config",
    [
        OnlineGRUConfig(feature_dim=3, hidden_dim=4),
        ClamConfig(feature_dim=3, hidden_dim=8, num_heads=2, predictor_dim=8, ahead=(0.25,)),
    ],
    ids=["gru", "clam"],
)
def test_no_model_answers_ambiguous_not_even_untrained(
    config: OnlineGRUConfig | ClamConfig, tmp_path: Path
):
    taxonomy = open_thumos14(write(tmp_path)).taxonomy
    assert taxonomy.labels.unknown == {"Ambiguous"}
    assert taxonomy.labels.unknown_labels == (21,)
    torch.manual_seed(0)
    model = config.build(taxonomy).eval()
    x = Observation.of_one(torch.randn(6, 3), 4.0)
    (said,) = model.predict(replace(x, ahead=model.ahead))
    for probs in (said.past, said.ahead):
        assert (probs[..., 21] == 0).all()
        assert (probs[..., :21] > 0).all()


def test_ends_are_rounded_to_the_nearest_and_every_segment_has_a_frame():
    active = active_labels([("Shotput", 1.05, 1.1), ("Diving", 2.12, 2.4)], 12, 4.0)
    assert active[:, NAMES.index("Shotput")].nonzero()[0].tolist() == [4]
    assert active[:, NAMES.index("Diving")].nonzero()[0].tolist() == [8, 9]
    assert active[:, 0].nonzero()[0].tolist() == [0, 1, 2, 3, 5, 6, 7, 10, 11]


def test_an_ambiguous_frame_is_no_background_and_may_have_an_action(tmp_path: Path):
    active = open_thumos14(write(tmp_path)).videos[TEST[1]].active
    assert active[:, 21].nonzero()[0].tolist() == [4, 5, 12, 13, 14, 15]
    assert active[4].nonzero()[0].tolist() == [16, 21]
    assert active[12].nonzero()[0].tolist() == [21]


def test_what_lies_beyond_the_end_is_cut_and_said(tmp_path: Path):
    write(tmp_path)
    database = json.loads((tmp_path / "th14_groundtruth.json").read_text())
    later = {"label": "Billiards", "segment": [20.0, 22.0]}
    database["database"][TEST[0]]["annotations"].append(later)
    (tmp_path / "th14_groundtruth.json").write_text(json.dumps(database))
    dataset = open_thumos14(tmp_path)
    assert runs(dataset, TEST[0]) == [("Billiards", 0.0, 2.0), ("Billiards", 7.0, 8.0)]
    assert any("1 segments of 1 videos start after the video" in w for w in dataset.warnings)


def test_labels_a_frame_are_the_truth_where_they_are(tmp_path: Path):
    dataset = open_thumos14(write(tmp_path, targets=True))
    assert runs(dataset, TRAIN[0]) == [("FrisbeeCatch", 0.5, 1.25)]
    assert dataset.warnings == ()
    (tmp_path / "th14_groundtruth.json").unlink()
    (tmp_path / "Ambiguous_test.txt").unlink()
    assert open_thumos14(tmp_path).fingerprint() == dataset.fingerprint()


def test_labels_made_here_are_said_to_be(tmp_path: Path):
    (warning,) = open_thumos14(write(tmp_path)).warnings
    assert "has no target_perframe/: labels are made from th14_groundtruth.json at 4" in warning


def test_two_labels_at_once_change_the_fingerprint(tmp_path: Path):
    """In the first label alone a dive from a cliff and a cliff dive are the same."""
    before = open_thumos14(write(tmp_path)).fingerprint()
    database = json.loads((tmp_path / "th14_groundtruth.json").read_text())
    del database["database"][TRAIN[1]]["annotations"][1]
    (tmp_path / "th14_groundtruth.json").write_text(json.dumps(database))
    assert open_thumos14(tmp_path).fingerprint() != before


# Features


def test_vectors_of_both_kinds_are_joined_rgb_first(tmp_path: Path):
    dataset = open_thumos14(write(tmp_path))
    assert dataset.num_features == 5
    assert dataset.videos[TEST[0]].features.read(4, 9, 2).tolist() == [
        [2, 4, 0, 2, 4],
        [2, 6, 0, 2, 6],
        [2, 8, 0, 2, 8],
    ]


def test_one_kind_of_features_is_enough(tmp_path: Path):
    write(tmp_path)
    for file in (tmp_path / FLOW).iterdir():
        file.unlink()
    (tmp_path / FLOW).rmdir()
    assert open_thumos14(tmp_path).num_features == 3


def test_annotation_alone_opens_and_says_that_features_are_missing(tmp_path: Path):
    dataset = open_thumos14(write(tmp_path, features=False))
    assert [v.num_frames for v in dataset.videos.values()] == [40, 50, 32, 36]
    with pytest.raises(ValueError, match="thumos14 has no features"):
        _ = dataset.num_features
    assert dataset.with_label_input(LabelInput()).num_features == 22


def test_a_video_lasts_as_long_as_the_longer_of_two_statements(tmp_path: Path):
    """Of videos of 25 frames a second the JSON counts 30, and makes them shorter."""
    write(tmp_path, features=False)
    longer = {video: {"duration": 1.2 * seconds} for video, seconds in SECONDS.items()}
    (tmp_path / "multithumos.json").write_text(json.dumps(longer))
    dataset = open_thumos14(tmp_path)
    assert [v.num_frames for v in dataset.videos.values()] == [48, 60, 38, 43]
    write(tmp_path, features=True)
    assert open_thumos14(tmp_path).videos[TRAIN[0]].num_frames == 40


def test_a_few_frames_more_or_less_are_held_and_said(tmp_path: Path):
    write(tmp_path, targets=True)
    save(tmp_path / FLOW / f"{TEST[0]}.npy", np.ones((30, 2), np.float32))
    dataset = open_thumos14(tmp_path)
    assert dataset.videos[TEST[0]].num_frames == 32
    assert dataset.videos[TEST[0]].features.read(31, 32).tolist() == [[2, 31, 0, 1, 1]]
    assert "features of 1 videos differ by a few frames" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("file", "array", "error", "sentence"),
    [
        (f"{FLOW}/{TEST[0]}.npy", None, FileNotFoundError, r"\.npy does not exist \(1 of 4 videos"),
        (f"{RGB}/{TEST[0]}.npy", np.ones((32, 4), "f4"), ValueError, r"must hold \(time, 3\) as"),
        (f"{RGB}/{TEST[0]}.npy", np.ones((90, 3), "f4"), ValueError, "must have about 32 frames"),
        (f"{RGB}/{TEST[0]}.npy", np.ones(32, "f4"), ValueError, "must hold one"),
        (f"target_perframe/{TEST[0]}.npy", None, FileNotFoundError, "does not exist"),
        (f"target_perframe/{TEST[0]}.npy", np.ones((32, 20)), ValueError, "one row of 22 labels"),
        (f"target_perframe/{TEST[0]}.npy", np.full((32, 22), 0.5), ValueError, "0 and 1 alone"),
    ],
)
def test_a_broken_file_is_named(
    tmp_path: Path, file: str, array: np.ndarray | None, error: type[Exception], sentence: str
):
    write(tmp_path, targets=True)
    if array is None:
        (tmp_path / file).unlink()
    else:
        save(tmp_path / file, array)
    with pytest.raises(error, match=sentence) as raised:
        open_thumos14(tmp_path)
    assert file in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("th14_groundtruth.json", "{", "must be JSON"),
        ("th14_groundtruth.json", "[]", "must be a JSON object, got list"),
        ("th14_groundtruth.json", "{}", "must hold a database of videos"),
        ("th14_groundtruth.json", '{"database": {"v": {}}}', "v must have a duration"),
        ("Ambiguous_test.txt", "video_test_1 3.0\n", "line 1: must be 'video start end'"),
        ("Ambiguous_test.txt", "video_test_1 4.0 3.0\n", "must end after it starts, got 4 to 3 s"),
        ("testra_data_info.json", "{}", "must hold train_session_set and test_session_set"),
        (
            "testra_data_info.json",
            '{"THUMOS": {"train_session_set": ["a"], "test_session_set": ["a"]}}',
            "1 of them in both",
        ),
        (
            "testra_data_info.json",
            '{"THUMOS": {"train_session_set": [], "test_session_set": [], "class_names": ["x"]}}',
            "class_names must be Background, BaseballPitch",
        ),
    ],
)
def test_broken_annotation_is_named(tmp_path: Path, name: str, content: str, sentence: str):
    write(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence) as raised:
        open_thumos14(tmp_path)
    assert name in str(raised.value)


def test_an_unknown_action_lists_the_known_ones(tmp_path: Path):
    write(tmp_path)
    text = (tmp_path / "th14_groundtruth.json").read_text().replace("Billiards", "Snooker")
    (tmp_path / "th14_groundtruth.json").write_text(text)
    with pytest.raises(ValueError, match=r"has the label 'Snooker'; the labels are BaseballPitch"):
        open_thumos14(tmp_path)


def test_two_folders_of_one_kind_are_refused(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "rgb_anet_resnet50").mkdir()
    with pytest.raises(ValueError, match=r"one folder of rgb features, got rgb_anet.*, rgb_kin"):
        open_thumos14(tmp_path)


# Where it lies


def test_a_folder_is_found_by_itself_by_name_and_within_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write(tmp_path / "thumos14")
    assert is_thumos14(folder)
    assert holds_dataset(folder)
    assert not holds_dataset(tmp_path)
    assert "thumos14" in DATASETS
    assert find_dataset("thumos14", tmp_path) == folder
    assert open_dataset("", folder).name == "thumos14"
    monkeypatch.setenv("ACTIONCAST_DATA", str(tmp_path))
    assert open_dataset("thumos14").splits["1"].test == TEST
    with pytest.raises(ValueError, match=r"holds several data sets \(thumos14\)"):
        open_dataset("", tmp_path)


def test_without_session_lists_the_names_say_the_parts(tmp_path: Path):
    dataset = open_thumos14(write(tmp_path, lists=False))
    assert dataset.splits["1"].train == TRAIN
    assert dataset.splits["1"].test == TEST
    assert "has no testra_data_info.json" in dataset.warnings[0]


# The real annotation


def test_the_real_annotation_has_its_counts():
    dataset = real_dataset("thumos14")
    split = dataset.splits["1"]
    assert (len(split.train), len(split.test), len(dataset.videos)) == (200, 213, 413)
    assert dataset.taxonomy.labels.names == NAMES
    assert dataset.taxonomy.labels.background_labels == {0}
    test = np.concatenate([video.active for video in dataset.select(split.test)])
    train = np.concatenate([video.active for video in dataset.select(split.train)])
    assert test.any(1).all()
    assert test[:, 1:21].any(0).all()
    assert not train[:, 21].any()
    assert test[:, 21].sum() > 2000
    two = test[test[:, 1:21].sum(1) > 1]
    assert len(two) > 1000
    assert {tuple(row.nonzero()[0].tolist()) for row in two[:, :21]} == {(5, 8), (6, 7), (16, 19)}
    # Who dives from a cliff dives.
    assert not (test[:, 5] & ~test[:, 8]).any()


def test_the_listed_video_without_an_action_is_background_and_ambiguous():
    """The 213 of the list are 212 of the annotation, and one annotated as ambiguous alone."""
    dataset = real_dataset("thumos14")
    active = dataset.videos["video_test_0001292"].active
    assert set(active.any(0).nonzero()[0].tolist()) == {0, 21}
    said = " ".join(dataset.warnings)
    assert "video_test_0001292 (1 listed) has no action there" in said
    # Annotated up to 713 s, and 176 s long by all that is known.
    assert dataset.videos["video_test_0000270"].num_frames == 705
    assert "30 segments of 5 videos start after the video has ended" in said
