import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.data.clip_features import open_clip_features
from actioncast.data.clip_sequences import ClipSequences, ObservedSegments
from actioncast.data.clips import VideoInfo
from actioncast.data.ego4d import is_ego4d, open_ego4d
from actioncast.data.feature_steps import FeatureSteps
from actioncast.protocols.coming import ComingActions
from actioncast.types import IGNORE
from ego4d_folders import NOUNS, RATE, VERBS, write_ego4d
from epic_folders import clip, clip_dataset

FEW = ComingActions(num_observed=3, num_actions=4, span=8.0)


def test_the_released_layout_is_read(tmp_path: Path) -> None:
    assert not is_ego4d(tmp_path)
    dataset = open_ego4d(write_ego4d(tmp_path))
    assert is_ego4d(tmp_path)
    assert dataset.taxonomy.heads["verb"].names == VERBS
    assert dataset.taxonomy.heads["noun"].names == NOUNS
    assert dataset.taxonomy.pairs == tuple((v, n) for v in range(3) for n in range(2))
    assert {part: len(clips) for part, clips in dataset.clips.items()} == {
        "train": 47,
        "validation": 26,
    }
    (third,) = (c for c in dataset.part("validation") if c.id == "e_2")
    assert (third.video, third.participant, third.place) == ("e", "video-of-e", 2)
    assert (third.start, third.stop, third.verb, third.noun, third.action) == (4.0, 5.5, 1, 1, 3)
    assert dataset.videos["e"] == VideoInfo(duration=29.0, rate=30.0)


def test_the_place_of_an_action_is_part_of_the_data(tmp_path: Path) -> None:
    dataset = open_ego4d(write_ego4d(tmp_path))
    one, *others = dataset.part("train")
    moved = replace(dataset, clips={**dataset.clips, "train": (replace(one, place=90), *others)})
    assert moved.fingerprint() != dataset.fingerprint()


def setting(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda entry: entry.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("verb_label", 3), r"entry \d+: verb_label must be a class of 0..2, got 3"),
        (setting("noun_label", None), "noun_label must be a class of 0..1, got None"),
        (setting("action_clip_end_sec", -1.0), "must be seconds, 0 or more, got -1.0"),
        (setting("action_clip_end_sec", float("nan")), "must be seconds"),
        (setting("action_clip_start_sec", 9.0), "must not stop before it starts"),
        (setting("action_idx", 1), "action_idx 1 of clip a stands in the train part already"),
        (setting("action_idx", 1.5), "action_idx must be a whole number, got 1.5"),
        (
            lambda entry: entry.update(clip_uid="d", action_idx=90),
            r"clip d must be of one part, got it in train too",
        ),
        (setting("clip_uid", ""), "clip_uid must be a name"),
        (setting("clip_uid", "d"), "clip d|in the train part"),
        (lambda entry: entry.clear(), "clip_uid must be a name, got None"),
    ],
)
def test_a_broken_entry_is_refused_by_name(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    write_ego4d(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        open_ego4d(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fho_lta_val.json", [], "a list of annotated actions under 'clips'"),
        ("fho_lta_val.json", {"clips": []}, "got none"),
        ("fho_lta_val.json", {"clips": [3]}, "entry 0: must be an object, got int"),
        ("fho_lta_taxonomy.json", {"verbs": ["take"]}, "a list of names under 'nouns'"),
    ],
)
def test_a_broken_file_is_refused_by_name(
    name: str, content: object, message: str, tmp_path: Path
) -> None:
    write_ego4d(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        open_ego4d(tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        open_ego4d(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_ego4d(tmp_path)
    (tmp_path / "fho_lta_val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"fho_lta_val\.json, which is not there"):
        open_ego4d(tmp_path)


# Sequences


@pytest.mark.parametrize(("count", "examples"), [(28, 0), (29, 1), (40, 12), (5, 0)])
def test_the_released_loader_counts_one_example_fewer(count: int, examples: int) -> None:
    """`range(count - 20 - 8)`: a clip of 28 actions has an example that is not counted."""
    assert len(ComingActions().asked(count)) == examples
    every = ComingActions(every_example=True).asked(count)
    assert len(every) == max(0, count - 27)
    assert list(every)[:examples] == list(ComingActions().asked(count))


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 20), st.booleans())
def test_every_example_has_all_that_is_asked_for(
    observed: int, coming: int, count: int, every: bool
) -> None:
    protocol = ComingActions(num_observed=observed, num_actions=coming, every_example=every)
    clips = [clip(f"P01_01_{i:02}", float(i), i + 1.0, i % 3) for i in range(count)]
    sequences = ClipSequences(clip_dataset(clips), protocol)
    if count < observed + coming + (not every):
        with pytest.raises(ValueError, match="must have a video of more than"):
            sequences.asked("train")
        return
    asked = sequences.asked("train")
    assert len(asked) == count - observed - coming + every
    for one in asked:
        i = clips.index(one)
        assert sequences.observed(one) == tuple(clips[i - observed + 1 : i + 1])
        assert sequences.next_clips(one) == tuple(clips[i + 1 : i + 1 + coming])
        assert sequences.coming(one)["verb"].tolist() == [c.verb for c in clips[i + 1 :][:coming]]


def test_sequences_are_in_the_order_of_the_annotation(tmp_path: Path) -> None:
    sequences = ClipSequences(open_ego4d(write_ego4d(tmp_path)), FEW)
    asked = sequences.asked("validation")
    # 12 actions leave 5 examples, 14 leave 7.
    ids = [f"d_{i}" for i in range(2, 7)] + [f"e_{i}" for i in range(2, 9)]
    assert sorted(one.id for one in asked) == sorted(ids)
    (last,) = (one for one in asked if one.id == "e_8")
    assert [one.place for one in sequences.observed(last)] == [6, 7, 8]
    # The clip begins with wash (2); its ninth action is put (1).
    assert sequences.coming(last)["verb"].tolist() == [2, 0, 1, 2]
    assert sequences.coming(last)["noun"].tolist() == [1, 1, 1, 1]
    assert sequences.coming(last)["action"].tolist() == [5, 1, 3, 5]
    with pytest.raises(ValueError, match="must be one of ego4d"):
        sequences.coming(clip("x", 0.0, 1.0))


def test_places_decide_and_not_times() -> None:
    """Actions of Ego4D overlap, and are in the order of what changes in them."""
    clips = [
        replace(clip("P01_01_0", 3.0, 4.0, 2), place=0),
        replace(clip("P01_01_1", 2.0, 9.0, 1), place=1),
        replace(clip("P01_01_2", 5.0, 6.0, 0), place=2),
    ]
    protocol = ComingActions(num_observed=1, num_actions=1, every_example=True)
    sequences = ClipSequences(clip_dataset(clips), protocol)
    assert [one.id for one in sequences.asked("train")] == ["P01_01_0", "P01_01_1"]
    assert sequences.coming(clips[0])["verb"].tolist() == [1]


def test_observed_segments_are_told_up_to_the_end_of_the_last() -> None:
    clips = [
        replace(clip("P01_01_0", 1.0, 9.0, 2, 1), place=0),
        replace(clip("P01_01_1", 3.0, 5.0, 1, 0), place=1),
        replace(clip("P01_01_2", 6.0, 7.0, 0), place=2),
    ]
    protocol = ComingActions(num_observed=2, num_actions=1, every_example=True)
    sequences = ClipSequences(clip_dataset(clips), protocol)
    source = ObservedSegments(sequences)
    tokens = source.read(clips[1])
    assert tokens == pytest.approx(
        np.array([[0, 0, 1, 0, 1, np.log(5), np.log(5)], [0, 1, 0, 1, 0, np.log(3), np.log(3)]])
    )
    assert source.labels(clips[1]).tolist() == [5, 2]
    # The end of the first lies beyond what is seen, and is not told.
    later = [replace(clips[0], stop=50.0), *clips[1:]]
    longer = ObservedSegments(ClipSequences(clip_dataset(later), protocol))
    assert (longer.read(later[1]) == tokens).all()


# Features


def steps_of(folder: Path, span: float = 8.0) -> FeatureSteps:
    dataset = open_ego4d(write_ego4d(folder))
    protocol = replace(FEW, span=span)
    files = open_clip_features(folder / "features", dataset, protocol, RATE)
    return FeatureSteps(files, dataset, span, lasts=True)


def test_features_end_with_the_last_action_observed(tmp_path: Path) -> None:
    """The last action stops at 17.5 s, where the 32nd vector of 8/15 s is over, the 33rd not."""
    source = steps_of(tmp_path)
    last = clip("e_8", 16.0, 17.5, video="e")
    assert source.grid(last) == (32 - 15, 15)
    assert source.grid(clip("e_8", 16.0, 32 * 8 / 15, video="e")) == (32 - 15, 15)
    assert source.grid(clip("e_8", 0.0, 1.0, video="e")) == (0, 1)
    told = source.read(last)
    spoilt = np.load(tmp_path / "features" / "e.npy")
    spoilt[32:] = 9
    np.save(tmp_path / "features" / "e.npy", spoilt)
    assert (source.read(last) == told).all()
    assert (told < 9).all()


def test_what_trains_observed_steps_is_what_they_show(tmp_path: Path) -> None:
    source = steps_of(tmp_path)
    for i in range(3, 9):
        last = clip(f"e_{i}", 2.0 * i, 2.0 * i + 1.5, video="e")
        found, told = source.steps(last), source.read(last)
        assert found.starts == {}
        for step, verb, noun in zip(told, found.frames["verb"], found.frames["noun"], strict=True):
            shown = np.flatnonzero(step[:5]).tolist()
            # A vector may show the end of one action and the start of the next, never here.
            assert shown == ([] if verb == IGNORE else [verb, 3 + noun])
