"""The hierarchies of public sets, and those of a file of one's own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folders
from actioncast.data import (
    Dataset,
    Split,
    SyntheticConfig,
    find_hierarchy,
    open_dataset,
    synthetic_dataset,
    with_hierarchy,
)
from actioncast.data.hierarchies import (
    ACTIVITIES_OF_BREAKFAST,
    KNOWN,
    PHASES_OF_50SALADS,
)
from actioncast.data.hierarchy_file import read_hierarchy
from actioncast.data.synthetic import HOT_DRINKS
from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from real_data import ROOT, real_dataset

BY_LABEL = {"pour": "make", "stir": "make", "drink": "use", "wash": "clean"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.write_folder(tmp_path / "tiny", num_videos=4, features=False, splits=2)


def write(path: Path, **about: Any) -> Path:
    path.write_text(json.dumps(about))
    return path


# Public sets


def test_every_video_of_breakfast_stands_below_its_activity():
    real_dataset("breakfast")
    dataset = open_dataset("breakfast", ROOT / "breakfast", level="coarse")
    assert dataset.taxonomy.labels.names == ACTIVITIES_OF_BREAKFAST
    assert not dataset.taxonomy.parents
    counts = dict.fromkeys(ACTIVITIES_OF_BREAKFAST, 0)
    for video in dataset.videos.values():
        (segment,) = video.timeline
        counts[dataset.taxonomy.labels.names[segment.label]] += 1
        assert video.id.endswith(f"_{dataset.taxonomy.labels.names[segment.label]}")
    assert sum(counts.values()) == 1712
    assert min(counts.values()) > 100


def test_the_phases_of_50_salads_hold_each_action_once():
    dataset = real_dataset("50salads")
    named = [action for own in PHASES_OF_50SALADS.values() for action in own]
    assert sorted(named) == sorted(dataset.taxonomy.labels.names)
    coarse = open_dataset("50salads", ROOT / "50salads", level="phase")
    assert len(coarse.taxonomy.labels) == 5
    names = coarse.taxonomy.labels.names
    # Place, cut, peel: a map by parts of names would put dressing that is mixed or added with them.
    of = {
        a: names[p]
        for a, p in zip(
            dataset.taxonomy.labels.names, coarse.taxonomy.parents["phase"], strict=True
        )
    }
    assert of["mix_ingredients"] == "cut_and_mix_ingredients"
    assert of["mix_dressing"] == "prepare_dressing"
    assert of["add_dressing"] == "serve_salad"
    assert of["add_oil"] == "prepare_dressing"


def test_cad120_leaves_out_the_video_without_an_activity():
    fine = real_dataset("cad120")
    dataset = open_dataset("cad120", ROOT / "cad120", level="coarse")
    assert len(dataset.taxonomy.labels) == 10
    assert set(fine.videos) - set(dataset.videos) == {"0505003751"}
    assert "0505003751" in dataset.warnings[-1]
    split = dataset.split("1")
    assert len(split.train) + len(split.test) == len(dataset.videos) == 124


def test_a_synthetic_video_stands_below_the_activity_that_drew_it():
    dataset = open_dataset("synthetic", level="coarse")
    assert set(dataset.taxonomy.labels.names) == set(HOT_DRINKS.activities)
    fine = synthetic_dataset(SyntheticConfig())
    for name, video in dataset.videos.items():
        (segment,) = video.timeline
        drawn = dataset.taxonomy.labels.names[segment.label]
        chain = HOT_DRINKS.activities[drawn].following
        shown = fine.videos[name].timeline
        assert {shown.labels.names[s.label] for s in shown} <= set(chain)


def test_cad120_without_its_list_of_activities_says_what_is_missing(tmp_path: Path):
    folder = folders.write_folder(tmp_path / "cad120", num_videos=3, features=False)
    with pytest.raises(FileNotFoundError, match=r"activities.json does not exist"):
        open_dataset("", folder, rate=1.0, level="coarse")
    for text in ("[", '{"v0": 3}', "[1]"):
        (folder / "activities.json").write_text(text)
        with pytest.raises(ValueError, match=r"activities.json must"):
            open_dataset("", folder, rate=1.0, level="coarse")


def named(name: str, videos: list[str]) -> Dataset:
    labels = LabelSpace(("a",))
    timeline = Timeline.from_frames(np.zeros(3, int), 1.0, labels)
    video = next(iter(synthetic_dataset(SyntheticConfig()).videos.values()))
    made = {v: replace(video, id=v, timeline=timeline, num_frames=3, rate=1.0) for v in videos}
    split = Split((videos[0],), (videos[-1],))
    return Dataset(
        name=name, taxonomy=Taxonomy({"action": labels}), rate=1.0, videos=made, splits={"1": split}
    )


def test_a_breakfast_video_of_another_name_is_named():
    dataset = named("breakfast", ["P03_cam01_P03_cereals", "P03_cam01_P03_toast"])
    with pytest.raises(ValueError, match="'P03_cam01_P03_toast' must stand below one of cereals"):
        find_hierarchy(dataset, None)


# Which hierarchy


def test_data_without_a_hierarchy_say_what_to_do(folder: Path):
    with pytest.raises(
        ValueError, match=r"hierarchy.json, say --hierarchy FILE, or --level \"\" to"
    ):
        open_dataset("", folder, level="coarse")


def test_without_a_level_the_data_stay_as_they_are(folder: Path):
    write(folder / "hierarchy.json", level="phase", by_label=BY_LABEL)
    plain = open_dataset("", folder)
    assert not plain.taxonomy.levels
    assert open_dataset("", folder, level="fine").without_levels is not None


def test_a_file_in_the_folder_goes_before_what_is_known(tmp_path: Path):
    folder = folders.write_folder(tmp_path / "cad120", num_videos=3, features=False)
    write(folder / "hierarchy.json", level="phase", by_label=BY_LABEL)
    assert open_dataset("", folder, level="coarse").taxonomy.primary == "phase"


def test_a_file_is_found_by_its_path_and_in_the_folder(folder: Path, tmp_path: Path):
    write(tmp_path / "mine.json", level="phase", by_label=BY_LABEL)
    write(folder / "other.json", level="kind", by_label=BY_LABEL)
    plain = open_dataset("", folder)
    assert find_hierarchy(plain, folder, str(tmp_path / "mine.json")).level == "phase"
    assert find_hierarchy(plain, folder, "other.json").level == "kind"
    with pytest.raises(FileNotFoundError, match=r"--hierarchy must be a file, got 'gone.json'"):
        find_hierarchy(plain, folder, "gone.json")


def test_an_unknown_name_lists_those_there_are():
    dataset = named("50salads", ["a"])
    with pytest.raises(
        FileNotFoundError, match=r"phase, high, abstract, eval, low of 50salads.*; did"
    ):
        find_hierarchy(dataset, None, "phases")
    with pytest.raises(FileNotFoundError, match=r"\(activty\); did you mean 'activity'\?$"):
        find_hierarchy(named("synthetic", ["a"]), None, "activty")
    with pytest.raises(FileNotFoundError, match=r"\(nonsense\)\.$"):
        find_hierarchy(named("synthetic", ["a"]), None, "nonsense")
    with pytest.raises(ValueError, match="'low' of 50salads lies below its labels"):
        find_hierarchy(dataset, None, "low")


@pytest.mark.parametrize("name", ["high", "abstract", "eval"])
def test_raw_levels_need_the_raw_annotation(name: str, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="activityAnnotations does not exist"):
        KNOWN["50salads"][name](named("50salads", ["a"]), tmp_path)


# A file of one's own


def test_labels_stand_in_the_order_of_the_alphabet_or_of_names(folder: Path, tmp_path: Path):
    dataset = open_dataset("", folder)
    file = write(tmp_path / "h.json", level="phase", by_label=BY_LABEL)
    assert read_hierarchy(file, dataset).labels.names == ("clean", "make", "use")
    order = ["use", "make", "rest", "clean"]
    file = write(file, level="phase", by_label=BY_LABEL, names=order)
    assert with_hierarchy(dataset, read_hierarchy(file, dataset)).taxonomy.parents == {
        "phase": (1, 1, 0, 3)
    }


def test_a_level_may_have_a_background(folder: Path, tmp_path: Path):
    above = {**BY_LABEL, "wash": "background"}
    file = write(tmp_path / "h.json", level="phase", by_label=above)
    labels = read_hierarchy(file, open_dataset("", folder)).labels
    assert labels.background == {"background"}


@pytest.mark.parametrize(
    ("above", "background"),
    [
        ({**BY_LABEL, "wash": "rest"}, {"rest"}),
        ({**BY_LABEL, "wash": "use"}, set[str]()),
        ({**BY_LABEL, "wash": "rest", "drink": "rest"}, set[str]()),
    ],
)
def test_names_above_background_labels_alone_are_background(
    tmp_path: Path, above: dict[str, str], background: set[str]
):
    about = {"rate": 5, "background": ["wash"]}
    folder = folders.write_folder(tmp_path / "tiny", features=False, about=about)
    write(folder / "hierarchy.json", level="phase", by_label=above)
    coarse, fine = (open_dataset("", folder, level=level) for level in ("coarse", "fine"))
    assert coarse.taxonomy.labels.background == background
    assert fine.taxonomy.heads["phase"].background == background
    assert fine.taxonomy.labels.background == {"wash"}


def test_above_videos_and_frames_background_is_known_by_its_name(tmp_path: Path):
    about = {"rate": 5, "background": ["wash"]}
    folder = folders.write_folder(tmp_path / "tiny", num_videos=2, features=False, about=about)
    write(folder / "hierarchy.json", level="activity", by_video={"v0": "wash", "v1": "tea"})
    assert open_dataset("", folder, level="coarse").taxonomy.labels.background == {"wash"}
    (folder / "above").mkdir()
    for video in open_dataset("", folder).videos.values():
        names = ["wash"] * 3 + ["tea"] * (video.num_frames - 3)
        (folder / "above" / f"{video.id}.txt").write_text("\n".join(names))
    write(folder / "hierarchy.json", level="activity", by_frame="above")
    assert open_dataset("", folder, level="coarse").taxonomy.labels.background == {"wash"}


def test_a_file_may_list_the_background_of_its_level(folder: Path):
    file = write(folder / "h.json", level="phase", by_label=BY_LABEL, background=["clean"])
    level = open_dataset("", folder, level="coarse", hierarchy=str(file)).taxonomy.labels
    assert level.background == {"clean"}
    assert level.names == ("clean", "make", "use")


def test_a_file_beside_a_misspelt_name_is_said_to_be_read_without(folder: Path):
    write(folder / "hierarchy.json", level="phase", by_label=BY_LABEL)
    plain = open_dataset("", folder)
    with pytest.raises(FileNotFoundError, match=r"Without --hierarchy .*hierarchy\.json is read\."):
        find_hierarchy(plain, folder, "phase")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'hierarchy\.json'\?"):
        find_hierarchy(plain, folder, "hierachy.json")


def test_a_level_has_its_article(folder: Path):
    file = write(folder / "h.json", level="activity", by_video={"v0": "tea"})
    with pytest.raises(ValueError, match="must stand below an activity, got none above v1"):
        open_dataset("", folder, level="coarse", hierarchy=str(file))
    write(file, level="activity", by_label={"pour": "tea"})
    with pytest.raises(ValueError, match="must stand below an activity, got none above 'stir'"):
        open_dataset("", folder, level="coarse", hierarchy=str(file))
    write(file, level="phase", by_label={"pour": "tea"})
    with pytest.raises(ValueError, match="must stand below a phase, got none above 'stir'"):
        open_dataset("", folder, level="coarse", hierarchy=str(file))


def test_videos_are_named_one_by_one(folder: Path, tmp_path: Path):
    above = {"v0": "tea", "v1": "coffee", "v2": "tea", "v3": "tea"}
    file = write(tmp_path / "h.json", level="activity", by_video=above)
    dataset = open_dataset("", folder, level="activity", hierarchy=str(file))
    assert [dataset.videos[v].frames()[0] for v in above] == [1, 0, 1, 1]


def test_frames_are_named_in_files_beside_it(folder: Path, tmp_path: Path):
    plain = open_dataset("", folder)
    (tmp_path / "above").mkdir()
    for video in plain.videos.values():
        names = ["begin"] * 5 + ["go on"] * (video.num_frames - 5)
        (tmp_path / "above" / f"{video.id}.txt").write_text("\n".join(names) + "\n\n")
    file = write(tmp_path / "h.json", level="part", by_frame="above")
    dataset = open_dataset("", folder, level="part", hierarchy=str(file))
    assert dataset.taxonomy.labels.names == ("begin", "go on")
    assert dataset.videos["v2"].timeline.segments[0].end == 1.0


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "must be JSON"),
        ("[]", "must hold an object"),
        ('{"level": "x", "by_labels": {}}', "may hold level, names, background, .* got by_labels"),
        ('{"by_label": {"pour": "a"}}', "`level` is missing; say what the labels above"),
        ('{"level": "fine", "by_label": {"pour": "a"}}', "not 'fine'"),
        ('{"level": 3, "by_label": {"pour": "a"}}', "level must be what the labels .* got 3"),
        ('{"level": "x"}', "must hold one of by_label, by_video, by_frame, got none"),
        ('{"level": "x", "by_label": {}, "by_video": {}}', "got by_label, by_video"),
        ('{"level": "x", "by_label": {}}', "must be an object of names"),
        ('{"level": "x", "by_label": ["pour"]}', "must be an object of names"),
        ('{"level": "x", "by_label": {"pour": 1}}', "give 'pour' the name"),
        ('{"level": "x", "by_label": {"pour": " "}}', "give 'pour' the name"),
        ('{"level": "x", "by_label": {"pour": "a", "pour": "b"}}', "'pour' twice"),
        ('{"level": "x", "by_label": {"poor": "a"}}', "name labels of tiny .* got 'poor'"),
        ('{"level": "x", "by_video": {"w": "a"}}', "name videos of tiny .* got 'w'"),
        ('{"level": "x", "by_label": {"pour": "a"}, "names": "a"}', "names must be a list"),
        ('{"level": "x", "by_label": {"pour": "a"}, "names": ["b"]}', "got none called 'a'"),
        ('{"level": "x", "by_label": {"pour": "a"}, "names": ["a", "a"]}', "must be unique"),
        (
            '{"level": "x", "by_label": {"pour": "a"}, "background": "a"}',
            "background must be a list",
        ),
        (
            '{"level": "x", "by_label": {"pour": "a"}, "background": ["b"]}',
            r"background must list names of the level 'x' \(a\), got 'b'",
        ),
        ('{"level": "x", "by_frame": 3}', "by_frame must be a folder"),
    ],
)
def test_a_broken_file_is_refused(folder: Path, tmp_path: Path, text: str, wrong: str):
    (tmp_path / "h.json").write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)h\.json.*{wrong}"):
        open_dataset("", folder, level="coarse", hierarchy=str(tmp_path / "h.json"))


def test_a_label_left_out_is_named(folder: Path, tmp_path: Path):
    some = {name: above for name, above in BY_LABEL.items() if name != "stir"}
    file = write(tmp_path / "h.json", level="phase", by_label=some)
    with pytest.raises(ValueError, match="none above 'stir'"):
        open_dataset("", folder, level="fine", hierarchy=str(file))


def test_frames_must_all_be_named(folder: Path, tmp_path: Path):
    file = write(tmp_path / "h.json", level="part", by_frame="above")

    def opened() -> Dataset:
        return open_dataset("", folder, level="part", hierarchy=str(file))

    with pytest.raises(FileNotFoundError, match="above does not exist"):
        opened()
    (tmp_path / "above").mkdir()
    with pytest.raises(FileNotFoundError, match=r"v0.txt does not exist"):
        opened()
    lengths = {v.id: v.num_frames for v in open_dataset("", folder).videos.values()}
    for video, num_frames in lengths.items():
        (tmp_path / "above" / f"{video}.txt").write_text("a\n" * num_frames)
    opened()
    last = tmp_path / "above" / "v3.txt"
    last.write_text("a\n" * (lengths["v3"] - 1))
    with pytest.raises(ValueError, match=f"each of the {lengths['v3']} frames of v3"):
        opened()
    last.write_text("a\n\na\n")
    with pytest.raises(ValueError, match=r"v3.txt, line 2: .* a blank line"):
        opened()
    last.write_text("\n")
    with pytest.raises(ValueError, match=r"v3.txt must hold one name a frame"):
        opened()
    last.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"v3.txt must be a UTF-8 text file"):
        opened()
