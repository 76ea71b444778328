import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actioncast.data import DATASETS, find_dataset, open_dataset
from actioncast.data.base import inner_split
from actioncast.data.frame_labels import KNOWN, open_frame_labels, read_frame_labels, read_mapping
from actioncast.features import FeatureFile
from layout_folders import WIDTH, features, write_features, write_folder
from real_data import ROOT, real_dataset

VIDEOS = {"v1": "aabbcc" * 10, "v2": "abcd" * 12, "v3": "dcba" * 11}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "kitchen", VIDEOS, train=["v1", "v2"], test=["v3"])


def mapping(folder: Path) -> Path:
    return folder / "mapping.txt"


def bundle(folder: Path, part: str = "train") -> Path:
    return folder / "splits" / f"{part}.split1.bundle"


def truth(folder: Path, video: str = "v1") -> Path:
    return folder / "groundTruth" / f"{video}.txt"


# The public sets


@pytest.mark.parametrize(
    ("name", "num_videos", "num_labels", "rate", "sizes", "num_groups"),
    [
        ("breakfast", 1712, 48, 15.0, [(1460, 252), (1261, 451), (1279, 433), (1136, 576)], 52),
        ("50salads", 50, 19, 30.0, [(40, 10)] * 5, 25),
        ("gtea", 28, 11, 15.0, [(21, 7)] * 4, 4),
        ("cad120", 125, 10, 1.5, [(93, 31)] * 4, 5),
    ],
)
def test_public_sets_hold_what_is_known_of_them(
    name: str, num_videos: int, num_labels: int, rate: float, sizes, num_groups: int
):
    dataset = real_dataset(name)
    assert (len(dataset.videos), len(dataset.taxonomy.labels)) == (num_videos, num_labels)
    assert dataset.rate == rate
    assert [(len(s.train), len(s.test)) for s in dataset.splits.values()] == sizes
    assert list(dataset.splits) == [str(i + 1) for i in range(len(sizes))]
    tests = [video for split in dataset.splits.values() for video in split.test]
    assert len(tests) == len(set(tests))
    for split in dataset.splits.values():
        assert not set(split.train) & set(split.test)
    assert len({video.group for video in dataset.videos.values()}) == num_groups
    assert dataset.warnings == ()
    assert name in KNOWN
    assert name in DATASETS


@pytest.mark.parametrize(
    ("name", "mean"), [("breakfast", 2097.5), ("50salads", 11557), ("gtea", 1115.2)]
)
def test_public_sets_have_their_lengths(name: str, mean: float):
    lengths = [video.num_frames for video in real_dataset(name).videos.values()]
    assert np.mean(lengths) == pytest.approx(mean, abs=0.5)


def test_breakfast_splits_by_person():
    dataset = real_dataset("breakfast")
    first = {video.group for video in dataset.select(dataset.split("1").test)}
    assert first == {f"P{i:02}" for i in range(3, 16)}


def test_no_person_trains_and_tests():
    for name in ("breakfast", "50salads", "gtea", "cad120"):
        dataset = real_dataset(name)
        for split in dataset.splits.values():
            groups = [{v.group for v in dataset.select(part)} for part in (split.train, split.test)]
            assert not groups[0] & groups[1]


def test_only_gtea_has_a_background():
    backgrounds = [
        real_dataset(name).taxonomy.labels.background
        for name in ("breakfast", "50salads", "gtea", "cad120")
    ]
    assert backgrounds == [frozenset(), frozenset(), {"background"}, frozenset()]


def test_every_label_file_comes_back_from_its_timeline():
    for name in ("gtea", "cad120"):
        dataset = real_dataset(name)
        names = np.array(dataset.taxonomy.labels.names)
        for video in dataset.videos.values():
            written = (ROOT / name / "groundTruth" / f"{video.id}.txt").read_text().split()
            assert names[video.frames()].tolist() == written


def test_the_features_of_cad120_are_read_in_their_own_order():
    dataset = real_dataset("cad120")
    assert dataset.num_features == 7530
    used = dataset.select(dataset.split("1").train + dataset.split("1").test)
    assert len(used) == 124
    for video in used[:3]:
        stored = np.load(ROOT / "cad120" / "features" / f"{video.id}.npy")
        assert stored.shape == (7530, video.num_frames)
        assert video.features is not None
        np.testing.assert_array_equal(video.features.read(1, 9, 2), stored.T[1:9:2])


def test_breakfast_opens_quickly():
    real_dataset("breakfast")
    start = time.perf_counter()
    open_dataset("breakfast", ROOT)
    assert time.perf_counter() - start < 3


def test_cad120_groups_are_its_test_subjects():
    dataset = real_dataset("cad120")
    for name, split in dataset.splits.items():
        assert {video.group for video in dataset.select(split.test)} == {f"split {name}"}


# What a folder may look like


def test_a_plain_folder_is_read(folder: Path):
    dataset = open_frame_labels(folder)
    assert (dataset.name, dataset.rate, dataset.warnings) == ("kitchen", 10.0, ())
    assert dataset.taxonomy.labels.names == ("SIL", "pour", "stir", "drink")
    assert dataset.videos["v1"].frames().tolist() == [0, 0, 1, 1, 2, 2] * 10
    assert dataset.videos["v2"].num_frames == 48
    assert dataset.split("1").train == ("v1", "v2")
    assert dataset.split("1").test == ("v3",)
    assert [video.id for video in dataset.select(("v3", "v1"))] == ["v3", "v1"]


def same(one: Path, folder: Path) -> None:
    """Both folders hold the same data set."""
    ours, theirs = open_frame_labels(one), open_frame_labels(folder)
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.splits == theirs.splits


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        ("{}", "\n"),
        ("{}.txt", ""),
        ("{}.npy", "\n"),
        ("{}.avi.txt", "\n"),
        ("groundTruth/{}.txt", "\n"),
        ("/data/somewhere else/{}", "\n"),
        ("  {}.txt  ", "\n"),
        ("{}.txt", "\r\n"),
        ("\n{}.txt\n\n", "\n"),
    ],
)
def test_split_lists_may_be_written_as_one_likes(tmp_path: Path, folder: Path, entry: str, end):
    other = write_folder(tmp_path / "other", VIDEOS, train=["v1", "v2"], test=["v3"])
    text = (end or "\n").join(entry.format(video) for video in ("v1", "v2")) + end
    bundle(other).write_bytes(text.encode())
    same(other, folder)


def test_files_may_come_from_windows(tmp_path: Path, folder: Path):
    other = write_folder(tmp_path / "other", VIDEOS, train=["v1", "v2"], test=["v3"])
    for file in other.rglob("*.*"):
        if file.is_file():
            content = file.read_bytes().replace(b"\n", b"\r\n")
            file.write_bytes(b"\xef\xbb\xbf" + content)
    same(other, folder)


def test_white_space_around_labels_is_no_part_of_them(tmp_path: Path, folder: Path):
    other = write_folder(tmp_path / "other", VIDEOS, train=["v1", "v2"], test=["v3"])
    lines = truth(other).read_text().split()
    truth(other).write_text("\n".join(f"{line} \t" for line in lines) + "\n\n \n")
    text = "\n0\tSIL\n\n 1   pour\n2\t stir \n3 drink"
    mapping(other).write_text(text)
    same(other, folder)


def test_labels_may_hold_spaces(tmp_path: Path):
    names = ("pour the milk", "stir", "größer als ß", "d")
    path = write_folder(tmp_path / "x", VIDEOS, names=names, train=["v1", "v2"], test=["v3"])
    dataset = open_frame_labels(path)
    assert dataset.taxonomy.labels.names == names
    assert dataset.videos["v1"].frames()[:3].tolist() == [0, 0, 1]


def test_names_may_hold_dots(tmp_path: Path):
    videos = {"P01.cam1": VIDEOS["v1"], "P01.cam2": VIDEOS["v2"], "P02.v1.2": VIDEOS["v3"]}
    path = write_folder(tmp_path / "x", videos, train=["P01.cam1", "P01.cam2"], test=["P02.v1.2"])
    bundle(path, "test").write_text("P02.v1.2\n")
    write_features(path, {video: features(len(spelling)) for video, spelling in videos.items()})
    dataset = open_frame_labels(path)
    assert dataset.split("1").train == ("P01.cam1", "P01.cam2")
    assert dataset.split("1").test == ("P02.v1.2",)
    assert dataset.num_features == WIDTH


def test_a_split_may_go_without_a_number(folder: Path):
    for part in ("train", "test"):
        bundle(folder, part).rename(folder / "splits" / f"{part}.bundle")
    assert list(open_frame_labels(folder).splits) == ["1"]


def test_splits_are_sorted_as_numbers(folder: Path):
    for part in ("train", "test"):
        content = bundle(folder, part).read_text()
        for number in (10, 2):
            (folder / "splits" / f"{part}.split{number}.bundle").write_text(content)
    assert list(open_frame_labels(folder).splits) == ["1", "2", "10"]


def test_without_splits_the_last_fifth_is_the_test_part(tmp_path: Path):
    videos = {f"v{i:02}": "aabb" for i in range(10)}
    dataset = open_frame_labels(write_folder(tmp_path / "x", videos))
    assert dataset.split("1").test == ("v08", "v09")
    assert len(dataset.split("1").train) == 8
    (note,) = dataset.warnings
    assert "has no splits: the last 2 of 10 videos by name are the test part" in note
    assert "write splits/train.split1.bundle and test.split1.bundle to choose" in note


def test_the_rate_is_said_known_or_assumed_aloud(tmp_path: Path):
    parts = {"train": ["v1", "v2"], "test": ["v3"]}
    said = write_folder(tmp_path / "said", VIDEOS, **parts)
    assert open_frame_labels(said).rate == 10
    assert open_frame_labels(said, 12.5).rate == 12.5
    known = write_folder(tmp_path / "50salads", VIDEOS | {}, about='{"name": "cad120"}', **parts)
    assert (open_frame_labels(known).rate, open_frame_labels(known).warnings) == (1.5, ())
    assumed = open_frame_labels(write_folder(tmp_path / "mine", VIDEOS, about="", **parts))
    assert assumed.rate == 15
    (note,) = assumed.warnings
    assert "does not say its frame rate: 15 frames per second assumed; say --rate" in note


def test_background_is_told_by_the_folder(folder: Path):
    (folder / "dataset.json").write_text('{"rate": 10, "background": ["SIL"]}')
    dataset = open_frame_labels(folder)
    assert dataset.taxonomy.labels.background == {"SIL"}
    (folder / "dataset.json").write_text('{"rate": 10}')
    assert dataset.fingerprint() != open_frame_labels(folder).fingerprint()


def test_the_fingerprint_changes_with_everything_that_scores_depend_on(folder: Path):
    found = [open_frame_labels(folder).fingerprint(), open_frame_labels(folder, 11.0).fingerprint()]
    changes = [
        (truth(folder), "SIL\nSIL\npour\n"),
        (mapping(folder), "0 SIL\n1 pour\n2 stir\n3 drink\n4 eat\n"),
        (bundle(folder), "v2\n"),
        (bundle(folder, "test"), "v3\nv1\n"),
    ]
    for file, text in changes:
        file.write_text(text)
        found.append(open_frame_labels(folder).fingerprint())
    truth(folder).rename(truth(folder, "w1"))
    bundle(folder, "test").write_text("v3\nw1\n")
    found.append(open_frame_labels(folder).fingerprint())
    assert len(set(found)) == len(found) == 7
    bundle(folder, "test").write_text("w1\nv3\n")
    assert open_frame_labels(folder).fingerprint() == found[-1]


def test_a_video_listed_twice_counts_once(folder: Path):
    bundle(folder).write_text("v1\nv2\nv1.txt\n")
    dataset = open_frame_labels(folder)
    assert dataset.split("1").train == ("v1", "v2")
    (note,) = dataset.warnings
    assert "train.split1.bundle names 1 videos twice; counted once" in note


# Features


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
def test_features_may_have_either_order_and_any_type(folder: Path, dtype: str, transposed: bool):
    arrays = {video: features(len(s), dtype=dtype) for video, s in VIDEOS.items()}
    write_features(folder, {v: a.T if transposed else a for v, a in arrays.items()})
    dataset = open_frame_labels(folder)
    assert dataset.warnings == ()
    assert dataset.num_features == WIDTH
    for name, video in dataset.videos.items():
        assert isinstance(video.features, FeatureFile)
        np.testing.assert_array_equal(
            video.features.read(0, video.num_frames), arrays[name].astype(np.float32)
        )


def test_features_of_another_length_are_counted_in_one_warning(folder: Path):
    more = {"v1": 3, "v2": -2, "v3": 1}
    write_features(folder, {v: features(len(s) + more[v]) for v, s in VIDEOS.items()})
    dataset = open_frame_labels(folder)
    (note,) = dataset.warnings
    assert note.endswith(
        "features of 2 videos are longer than their labels (cut to the labels), of 1 shorter "
        "(their last vector held)."
    )
    lengths = {v: len(dataset.videos[v].features.read(0, 10_000)) for v in VIDEOS}
    assert lengths == {v: len(s) for v, s in VIDEOS.items()}
    held = dataset.videos["v2"].features.read(45, 48)
    np.testing.assert_array_equal(held, features(48)[[45, 45, 45]])


@pytest.mark.parametrize("transposed", [False, True])
def test_a_square_array_has_the_order_of_the_others(folder: Path, transposed: bool):
    arrays = {video: features(len(s), 48, "float32") for video, s in VIDEOS.items()}
    assert arrays["v2"].shape == (48, 48)
    write_features(folder, {v: a.T if transposed else a for v, a in arrays.items()})
    read = open_frame_labels(folder).videos["v2"].features.read(0, 48)
    np.testing.assert_array_equal(read, arrays["v2"])


def test_features_without_a_video_are_left_alone(folder: Path):
    write_features(folder, {v: features(len(s)) for v, s in VIDEOS.items()})
    write_features(folder, {"another": features(7, 9)})
    assert set(open_frame_labels(folder).videos) == set(VIDEOS)


def test_labels_can_stand_in_for_features(folder: Path):
    from actioncast.data import LabelInput

    dataset = open_frame_labels(folder)
    with pytest.raises(ValueError, match=r"kitchen has no features/ folder: add one .npy file"):
        _ = dataset.num_features
    labelled = dataset.with_label_input(LabelInput())
    assert labelled.num_features == 4
    video = labelled.videos["v1"]
    np.testing.assert_array_equal(video.features.read(0, 60).argmax(1), video.frames())
    np.testing.assert_array_equal(video.observed_labels, video.frames())
    spoilt = dataset.with_label_input(LabelInput(wrong_share=0.5)).videos["v1"]
    np.testing.assert_array_equal(spoilt.features.read(0, 60).argmax(1), spoilt.observed_labels)
    np.testing.assert_array_equal(spoilt.frames(), video.frames())
    assert (spoilt.observed_labels != spoilt.frames()).any()


# Bad input, each with its sentence


def write(text: str | bytes, where: Callable[[Path], Path]) -> Callable[[Path], None]:
    """Replace a file of the folder."""

    def act(folder: Path) -> None:
        where(folder).write_bytes(text.encode() if isinstance(text, str) else text)

    return act


def about(text: str) -> Callable[[Path], None]:
    return write(text, lambda folder: folder / "dataset.json")


def remove(name: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()

    return act


def with_features(video: str, array: np.ndarray | bytes | None) -> Callable[[Path], None]:
    """Features for all videos, then another file for one of them."""

    def act(folder: Path) -> None:
        write_features(folder, {v: features(len(s)) for v, s in VIDEOS.items()})
        path = folder / "features" / f"{video}.npy"
        if array is None:
            path.unlink()
        elif isinstance(array, bytes):
            path.write_bytes(array)
        else:
            np.save(path, array)

    return act


BAD = {
    "no mapping": (remove("mapping.txt"), r"mapping.txt does not exist; see docs/your_own"),
    "no labels folder": (remove("groundTruth"), r"groundTruth does not exist; see docs/your_own"),
    "no label files": (
        lambda folder: [truth(folder, video).unlink() for video in VIDEOS],
        r"groundTruth must hold one .txt file a video, got none; see docs",
    ),
    "unknown label": (
        write("SIL\npour\npuor\n", truth),
        r"v1.txt, line 3: unknown label 'puor'; mapping.txt must list every action",
    ),
    "blank line between labels": (
        write("SIL\n\nSIL\n", truth),
        r"v1.txt, line 2: unknown label ''; mapping.txt must list",
    ),
    "empty labels": (
        write("\n\n", truth),
        r"v1.txt must hold one label a frame, got an empty file; annotate .* or take",
    ),
    "labels not UTF-8": (
        write(b"SIL\n\xff\xfe\n", truth),
        r"v1.txt must be a UTF-8 text file, got .*; save it as UTF-8",
    ),
    "mapping not UTF-8": (
        write(b"0 caf\xe9\n", mapping),
        r"mapping.txt must be a UTF-8 text file, got .*; save it as UTF-8",
    ),
    "bundle not UTF-8": (
        write(b"caf\xe9\n", bundle),
        r"train.split1.bundle must be a UTF-8 text file, got .*; save it as UTF-8",
    ),
    "mapping with a gap": (
        write("0 SIL\n2 pour\n", mapping),
        r"mapping.txt: indices must run from 0 to 1 without gaps, got 0, 2; number the actions",
    ),
    "mapping from one": (
        write("1 SIL\n2 pour\n", mapping),
        r"indices must run from 0 to 1 without gaps, got 1, 2",
    ),
    "index twice": (
        write("0 SIL\n0 pour\n", mapping),
        r"mapping.txt, line 2: index 0 stands there twice; number actions from 0",
    ),
    "name twice": (
        write("0 SIL\n1 SIL\n", mapping),
        r"mapping.txt, line 2: action 'SIL' stands there twice; take one out",
    ),
    "mapping without index": (
        write("0 SIL\npour\n", mapping),
        r"mapping.txt, line 2: must be 'index name', for example '0 pour_milk', got 'pour'",
    ),
    "mapping without name": (
        write("0 SIL\n1\n", mapping),
        r"mapping.txt, line 2: must be 'index name', .* got '1'",
    ),
    "mapping with an odd digit": (
        write("0 SIL\n² pour\n", mapping),
        r"mapping.txt, line 2: must be 'index name', .* got '² pour'",
    ),
    "empty mapping": (
        write("\n", mapping),
        r"mapping.txt must name at least one action, got an empty file; see docs",
    ),
    "empty split": (
        write("\n\n", bundle),
        r"train.split1.bundle must name at least one video, got none; write one a line",
    ),
    "unknown video in a split": (
        write("v1\nv7.txt\n", bundle),
        r"train.split1.bundle, line 2: 'v7.txt' has no groundTruth/v7.txt; add the file or take",
    ),
    "video in train and test": (
        write("v1\nv3\n", bundle),
        r"split 1 has 1 videos in train and in test, v3 for one; .* take them out of one bundle",
    ),
    "train without test": (
        lambda folder: bundle(folder, "test").unlink(),
        r"splits must hold test.split1.bundle beside its counterpart",
    ),
    "test without train": (
        lambda folder: bundle(folder, "train").unlink(),
        r"splits must hold train.split1.bundle beside its counterpart",
    ),
    "unknown key": (
        about('{"fps": 10}'),
        r"dataset.json may hold name, rate and background, got \['fps'\]; take the rest out",
    ),
    "dataset.json is a list": (about("[1]"), r"may hold name, rate and background, got list"),
    "dataset.json is no JSON": (
        about("rate: 10"),
        r'dataset.json must be JSON, for example {"rate": 15}, got Expecting value',
    ),
    "rate is a word": (
        about('{"rate": "10"}'),
        r"dataset.json: rate must be a positive number of frames per second, got '10'; write",
    ),
    "rate is true": (about('{"rate": true}'), r"dataset.json: rate must be .*, got True"),
    "rate is zero": (about('{"rate": 0}'), r"dataset.json: rate must be a positive .*, got 0;"),
    "rate is negative": (about('{"rate": -5}'), r"dataset.json: rate must be .*, got -5;"),
    "rate is infinite": (about('{"rate": Infinity}'), r"dataset.json: rate must be .*, got inf"),
    "rate is no number": (about('{"rate": NaN}'), r"dataset.json: rate must be .*, got nan"),
    "background is a word": (
        about('{"rate": 1, "background": "SIL"}'),
        r"dataset.json: background must be a list of names, got 'SIL'",
    ),
    "unknown background": (
        about('{"rate": 1, "background": ["SIL", "sil"]}'),
        r"background must name actions of mapping.txt, got 'sil'; spell them as it does",
    ),
    "feature file missing": (
        with_features("v2", None),
        r"v2.npy does not exist \(1 of 3 videos have no features\); every video",
    ),
    "features folder empty": (
        lambda folder: (folder / "features").mkdir(),
        r"features must hold one .npy file a video, got none; see docs",
    ),
    "features of another width": (
        with_features("v2", features(48, 6)),
        r"v2.npy must hold vectors of width 5 as the other files do, got width 6",
    ),
    "features of another length": (
        with_features("v2", features(24)),
        r"v2.npy must have one axis of about 48 steps, .* got shape \(24, 5\); extract features",
    ),
    "features in three dimensions": (
        with_features("v2", np.zeros((1, 48, 5), np.float32)),
        r"v2.npy must hold one \(time, feature\) .* got shape \(1, 48, 5\)",
    ),
    "features of objects": (
        with_features("v2", np.full((48, 5), None)),
        r"v2.npy must hold one of float16, .*, got object",
    ),
    "features that are no array": (
        with_features("v2", b"PK\x03\x04 an archive"),
        r"v2.npy must be a NumPy .npy file, got one that does not open .*; write it again",
    ),
    "features cut off": (
        with_features("v2", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4'"),
        r"v2.npy must be a NumPy .npy file, got one that does not open",
    ),
}


@pytest.mark.parametrize(("act", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_in_one_sentence(folder: Path, act: Callable[[Path], None], sentence):
    act(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as raised:
        open_frame_labels(folder)
    assert str(folder) in str(raised.value)


def test_truncated_features_are_named(folder: Path):
    write_features(folder, {v: features(len(s)) for v, s in VIDEOS.items()})
    path = folder / "features" / "v3.npy"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"v3.npy is truncated: \d+ bytes announced, \d+ found"):
        open_frame_labels(folder)


def test_features_that_are_no_number_are_named_when_they_are_read(folder: Path):
    arrays = {v: features(len(s)) for v, s in VIDEOS.items()}
    arrays["v2"][17, 3] = np.nan
    write_features(folder, arrays)
    source = open_frame_labels(folder).videos["v2"].features
    assert np.isfinite(source.read(0, 17)).all()
    with pytest.raises(ValueError, match=r"v2.npy must hold finite numbers, got NaN .* frame 17"):
        source.read(0, 48)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"the dataset folder .*nowhere does not exist"):
        open_frame_labels(tmp_path / "nowhere")


def test_one_video_is_not_enough_without_splits(tmp_path: Path):
    folder = write_folder(tmp_path / "x", {"v1": "aab"})
    with pytest.raises(ValueError, match=r"must hold at least two videos, .* got one"):
        open_frame_labels(folder)


def test_an_unknown_split_lists_the_known_ones(folder: Path):
    with pytest.raises(ValueError, match=r"split must be one of 1, got '7'"):
        open_frame_labels(folder).split("7")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_given_must_be_one(folder: Path, rate: float):
    with pytest.raises(ValueError, match="rate must be a positive number of frames per second"):
        open_frame_labels(folder, rate)


def test_label_files_are_read_alone(folder: Path):
    labels = read_mapping(mapping(folder))
    assert read_frame_labels(truth(folder, "v2"), labels)[:4].tolist() == [0, 1, 2, 3]


# Where a data set is looked for


def test_a_data_set_is_found_by_name_or_path(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_dataset("", folder) == folder
    assert find_dataset("whatever", folder) == folder
    assert find_dataset("kitchen", folder.parent) == folder
    monkeypatch.setenv("ACTIONCAST_DATA", str(folder.parent))
    assert open_dataset("kitchen").name == "kitchen"
    monkeypatch.delenv("ACTIONCAST_DATA")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(
        FileNotFoundError, match=r"looked for in data/kitchen and is not there; say"
    ):
        find_dataset("kitchen")


def test_nothing_said_is_an_error():
    with pytest.raises(ValueError, match="say which data: --data PATH"):
        find_dataset()


def test_a_folder_of_data_sets_asks_for_one(tmp_path: Path):
    for name in ("gtea", "cad120"):
        write_folder(tmp_path / name, VIDEOS)
    sentence = r"holds several data sets \(gtea, cad120\); give one, for example --data .*gtea"
    with pytest.raises(ValueError, match=sentence):
        find_dataset("", tmp_path)


def test_the_synthetic_set_needs_no_files():
    assert open_dataset("synthetic").name == "synthetic"


# Validation inside the training part


def test_no_group_is_on_both_sides_of_an_inner_split():
    dataset = real_dataset("gtea")
    videos = list(dataset.videos.values())
    for seed in range(5):
        kept, held = inner_split(videos, 0.3, seed)
        assert len(kept) + len(held) == len(videos)
        assert 0.3 * len(videos) <= len(held) < len(videos)
        assert not {v.group for v in kept} & {v.group for v in held}
    assert inner_split(videos, 0.3, 1)[1] == inner_split(videos, 0.3, 1)[1]
    assert inner_split(videos[:1], 0.5, 0) == (videos[:1], [])


def test_the_data_folder_of_these_tests_is_not_empty():
    if not ROOT.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have data in {ROOT}, got no such folder.")
        pytest.skip(f"no data in {ROOT}; set ACTIONCAST_DATA")
    assert any((folder / "groundTruth").is_dir() for folder in ROOT.iterdir())
