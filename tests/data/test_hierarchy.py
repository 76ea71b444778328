"""A level above the labels of a data set: what stands where, and what must not be left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import folders
from actioncast.batches import Variation, started, varied
from actioncast.data import Dataset, Hierarchy, LabelInput, Split, Video, with_hierarchy
from actioncast.data.collate import collate, cut
from actioncast.data.frame_labels import open_frame_labels
from actioncast.protocols import Question
from actioncast.timeline import LabelSpace, Taxonomy, Timeline

FINE = LabelSpace(("pour", "stir", "drink", "wash"))
COARSE = LabelSpace(("make", "use"))
BY_LABEL = Hierarchy(
    level="phase",
    labels=COARSE,
    by_label={"pour": "make", "stir": "make", "drink": "use", "wash": "use"},
)


def tiny(spelt: dict[str, str], splits: dict[str, Split] | None = None) -> Dataset:
    """Videos spelt by the first letters of their labels, at one frame a second."""
    letters = [name[0] for name in FINE.names]
    videos = {
        name: Video(
            id=name,
            timeline=Timeline.from_frames(
                np.array([letters.index(letter) for letter in text]), 1.0, FINE
            ),
            rate=1.0,
            num_frames=len(text),
        )
        for name, text in spelt.items()
    }
    return Dataset(
        name="tiny",
        taxonomy=Taxonomy({"action": FINE}),
        rate=1.0,
        videos=videos,
        splits=splits or {"1": Split(("a",), ("b",))},
    )


DATA = tiny({"a": "ppssdw", "b": "wdp"})


def told(dataset: Dataset, video: str, head: str) -> str:
    """The names of a level, spelt by their first letters."""
    names = dataset.taxonomy.heads[head].names
    return "".join(names[i][0] for i in dataset.videos[video].frames_of(head))


def test_labels_say_what_stands_above_them():
    dataset = with_hierarchy(DATA, BY_LABEL)
    assert dataset.taxonomy.levels == ("phase", "action")
    assert dataset.taxonomy.parents == {"phase": (0, 0, 1, 1)}
    assert told(dataset, "a", "phase") == "mmmmuu"
    assert told(dataset, "a", "action") == "ppssdw"


def test_a_video_says_what_stands_above_its_frames():
    above = Hierarchy(level="activity", labels=COARSE, by_video={"a": "use", "b": "make"})
    dataset = with_hierarchy(DATA, above)
    assert not dataset.taxonomy.parents
    assert told(dataset, "a", "activity") == "uuuuuu"
    assert told(dataset, "b", "activity") == "mmm"


def test_frames_say_what_stands_above_them():
    rows = {"a": np.array([0, 1, 1, 1, 0, 0]), "b": np.array([1, 1, 0])}
    dataset = with_hierarchy(DATA, Hierarchy(level="step", labels=COARSE, by_frame=rows))
    assert told(dataset, "a", "step") == "muuumm"
    assert dataset.at_level("coarse").videos["b"].timeline.segments[0].end == 2.0


def test_a_label_without_one_above_it_is_named():
    with pytest.raises(ValueError, match="none above 'stir'; say what they belong to"):
        with_hierarchy(
            DATA, replace(BY_LABEL, by_label={"pour": "make", "drink": "use", "wash": "use"})
        )


def test_a_video_of_a_split_without_one_above_it_is_named():
    with pytest.raises(ValueError, match="none above b; say what it shows"):
        with_hierarchy(DATA, Hierarchy(level="activity", labels=COARSE, by_video={"a": "use"}))


@pytest.mark.parametrize("kind", ["by_video", "by_frame"])
def test_a_video_of_no_split_may_stand_below_nothing_and_goes(kind: str):
    data = tiny({"a": "p", "b": "w", "spare": "d"})
    above: dict[str, object] = {"a": "make", "b": "use"}
    if kind == "by_frame":
        above = {"a": np.array([0]), "b": np.array([1])}
    dataset = with_hierarchy(data, Hierarchy(level="activity", labels=COARSE, **{kind: above}))  # type: ignore[arg-type]
    assert list(dataset.videos) == ["a", "b"]
    assert "spare of tiny stands below no activity" in dataset.warnings[-1]


@pytest.mark.parametrize("frames", [[0, 1], [0, 1, 2], [0, -1, 1]])
def test_labels_above_frames_must_be_one_a_frame_and_names(frames: list[int]):
    rows = {"a": np.zeros(6, int), "b": np.array(frames)}
    with pytest.raises(ValueError, match=r"frames of\s+b"):
        with_hierarchy(DATA, Hierarchy(level="step", labels=COARSE, by_frame=rows))


def test_one_mapping_says_it_and_names_what_there_is():
    with pytest.raises(ValueError, match="one of them, got none"):
        Hierarchy(level="phase", labels=COARSE)
    with pytest.raises(ValueError, match="got by_label, by_video"):
        replace(BY_LABEL, by_video={"a": "make"})
    with pytest.raises(ValueError, match="'wash' must stand below one of make, use, got 'end'"):
        replace(BY_LABEL, by_label={**BY_LABEL.by_label, "wash": "end"})


def test_a_level_is_added_once_under_a_name_of_its_own():
    with pytest.raises(ValueError, match="no hierarchy before one is added"):
        with_hierarchy(with_hierarchy(DATA, BY_LABEL), BY_LABEL)
    with pytest.raises(ValueError, match="another name than the heads"):
        with_hierarchy(DATA, replace(BY_LABEL, level="action"))


def test_where_several_actions_are_done_at_once_no_level_stands_above():
    active = np.eye(4, dtype=bool)[DATA.videos["a"].frames()]
    videos = {**DATA.videos, "a": replace(DATA.videos["a"], active=active)}
    with pytest.raises(ValueError, match="several are done at once"):
        with_hierarchy(replace(DATA, videos=videos), BY_LABEL)


# Levels of a data set


def test_there_and_back_is_the_same_data_set():
    fine = with_hierarchy(DATA, BY_LABEL)
    back = fine.at_level("coarse").at_level("fine")
    assert back.taxonomy == fine.taxonomy
    assert back.fingerprint() == fine.fingerprint()
    for name, video in fine.videos.items():
        again = back.videos[name]
        assert again.timeline == video.timeline
        assert not again.above_finest
        assert again.parents is None
        assert again.levels.keys() == video.levels.keys()
        assert np.array_equal(again.levels["phase"], video.levels["phase"])


def test_a_level_goes_by_its_place_or_its_name():
    dataset = with_hierarchy(DATA, BY_LABEL)
    assert dataset.at_level("phase").fingerprint() == dataset.at_level("coarse").fingerprint()
    assert dataset.at_level("action") is dataset
    with pytest.raises(ValueError, match="one of coarse, fine, phase, action, got 'verb'"):
        dataset.at_level("verb")
    with pytest.raises(ValueError, match="must be empty where labels have no hierarchy"):
        DATA.at_level("coarse")


def test_a_fingerprint_tells_levels_and_coarse_labels_apart():
    fine = with_hierarchy(DATA, BY_LABEL)
    other = with_hierarchy(DATA, replace(BY_LABEL, by_label={**BY_LABEL.by_label, "stir": "use"}))
    renamed = with_hierarchy(
        DATA,
        Hierarchy(
            level="phase",
            labels=LabelSpace(("made", "used")),
            by_label={
                name: f"{above}d" if above == "use" else "made"
                for name, above in BY_LABEL.by_label.items()
            },
        ),
    )
    found = [
        data.fingerprint()
        for data in (DATA, fine, fine.at_level("coarse"), other, other.at_level("coarse"), renamed)
    ]
    assert len(set(found)) == len(found)
    assert fine.fingerprints() == {DATA.fingerprint(), fine.fingerprint()}
    assert fine.at_level("coarse").fingerprints() > fine.fingerprints()


def test_resampled_data_keep_the_fingerprint_of_their_level():
    fine = with_hierarchy(DATA, BY_LABEL)
    assert (
        fine.resampled(2).at_level("coarse").fingerprint() == fine.at_level("coarse").fingerprint()
    )
    assert (
        fine.resampled(2).at_level("coarse").fingerprints()
        == fine.at_level("coarse").resampled(2).fingerprints()
    )


def test_truth_beside_the_features_maps_to_the_level_by_parents():
    coarse = with_hierarchy(DATA, BY_LABEL).at_level("coarse").with_true_labels(LabelInput())
    video = coarse.videos["a"]
    seen = video.labels_seen(5)
    assert seen is not None
    assert seen.tolist() == [0, 0, 1, 1, 2]
    mapped = video.at_own_level(seen)
    assert mapped is not None
    assert mapped.tolist() == [0, 0, 0, 0, 1]


def test_no_coarse_label_follows_from_a_fine_one_where_videos_say_it():
    above = Hierarchy(level="activity", labels=COARSE, by_video={"a": "use", "b": "make"})
    coarse = with_hierarchy(DATA, above).at_level("coarse").with_true_labels(LabelInput())
    video = coarse.videos["a"]
    assert video.labels_seen(3) is not None
    assert video.at_own_level(video.labels_seen(3)) is None


def test_labels_as_input_are_fine_at_every_level():
    fine = with_hierarchy(DATA, BY_LABEL)
    for level in ("fine", "coarse"):
        dataset = fine.at_level(level).with_label_input(LabelInput())
        assert dataset.num_features == 4
        features = dataset.videos["a"].features
        assert features is not None
        assert features.read(0, 6).argmax(1).tolist() == [0, 0, 1, 1, 2, 3]


def test_a_batch_holds_the_truth_of_every_level(tmp_path: Path):
    folder = folders.write_folder(tmp_path / "tiny", num_videos=2)
    data = open_frame_labels(folder)
    coarse = with_hierarchy(data, BY_LABEL).at_level("coarse").with_true_labels(LabelInput())
    video = coarse.videos["v0"]
    question = Question(observed=11, horizon=8, video_length=video.num_frames)
    observation, target = collate([cut(video, question, 2, 2)], "phase")
    fine = data.videos["v0"].frames()
    parents = np.array([0, 0, 1, 1])
    assert target.frames["action"][0].tolist() == fine[:11:2].tolist()
    assert target.frames["phase"][0].tolist() == parents[fine[:11:2]].tolist()
    assert observation.finest is not None
    assert observation.finest[0].tolist() == fine[:11:2].tolist()
    assert observation.labels is not None
    assert observation.labels[0].tolist() == parents[fine[:11:2]].tolist()
    assert target.future[0, 0] == parents[fine[11]]


# Other grids of the same video


def aligned(video: Video, parents: np.ndarray) -> bool:
    """Whether the timeline and the other level name every frame alike."""
    coarse, fine = video.frames(), video.levels["action"]
    return len(coarse) == len(fine) == video.num_frames and bool((parents[fine] == coarse).all())


@given(
    st.text("psdw", min_size=2, max_size=60), st.integers(1, 7), st.integers(0, 2**20), st.data()
)
def test_levels_stay_aligned_however_the_video_is_cut(
    text: str, every: int, seed: int, draw: st.DataObject
):
    dataset = with_hierarchy(tiny({"a": text, "b": "p"}), BY_LABEL).at_level("coarse")
    video, parents = dataset.videos["a"], np.array([0, 0, 1, 1])
    first = draw.draw(st.integers(0, len(text) - 1))
    assert aligned(video, parents)
    assert aligned(video.resampled(every), parents)
    assert aligned(started(video, first), parents)
    assert aligned(varied(video, Variation(warp=0.5), seed), parents)
    assert dataset.resampled(every).fingerprint() == dataset.fingerprint()


def test_labels_are_not_exchanged_at_one_level_alone():
    dataset = with_hierarchy(DATA, BY_LABEL).with_label_input(LabelInput())
    with pytest.raises(ValueError, match="leave out --relabel or --level"):
        varied(dataset.videos["a"], Variation(relabel=0.5), 0)
