from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from actioncast.data.base import Dataset
from actioncast.data.frame_labels import open_frame_labels
from actioncast.data.frame_labels_writer import write_frame_labels
from actioncast.data.grammar import END, START, Activity, Grammar, future_marginals
from actioncast.data.synthetic import (
    HOT_DRINKS,
    SyntheticConfig,
    action_vectors,
    anticipation_ceiling,
    next_action_ceiling,
    segmentation_ceiling,
    synthetic_dataset,
)
from actioncast.protocols import LongTerm, Question
from actioncast.timeline import Taxonomy, Timeline, run_lengths

MANY = SyntheticConfig(num_videos=300, num_people=12, seed=7)

# Both activities begin with a; after it the first goes to b or c, the second always to c.
SMALL = Grammar(
    durations={"a": (1, 3), "b": (2, 2), "c": (1, 2)},
    activities={
        "first": Activity(
            probability=0.6,
            following={
                START: {"a": 1.0},
                "a": {"b": 0.75, "c": 0.25},
                "b": {"c": 0.5, END: 0.5},
                "c": {END: 1.0},
            },
        ),
        "second": Activity(
            probability=0.4,
            following={
                START: {"a": 0.5, "c": 0.5},
                "a": {"c": 1.0},
                "c": {"b": 1.0},
                "b": {END: 1},
            },
        ),
    },
)


@pytest.fixture(scope="module")
def many() -> Dataset:
    return synthetic_dataset(MANY)


def all_videos(grammar: Grammar) -> dict[tuple[int, ...], float]:
    """Every video a grammar can draw, with its probability, by plain enumeration."""
    names = list(grammar.durations)
    videos: dict[tuple[int, ...], float] = defaultdict(float)

    def weights(fewest: int, most: int) -> list[float]:
        raw = [min(n - fewest, most - n) + 1 for n in range(fewest, most + 1)]
        return [w / sum(raw) for w in raw]

    def go_on(chain: Activity, at: str, frames: tuple[int, ...], probability: float) -> None:
        for option, p in chain.following[at].items():
            if option == END:
                videos[frames] += probability * p
                continue
            fewest, most = grammar.durations[option]
            for n, share in enumerate(weights(fewest, most), fewest):
                more = (names.index(option),) * n
                go_on(chain, option, frames + more, probability * p * share)

    for activity in grammar.activities.values():
        go_on(activity, START, (), activity.probability)
    return videos


def by_enumeration(
    grammar: Grammar, seen: tuple[int, ...], horizon: int, video_length: int | None
) -> np.ndarray:
    marginals, total = np.zeros((horizon, len(grammar.durations))), 0.0
    for frames, probability in all_videos(grammar).items():
        if frames[: len(seen)] != seen or len(frames) <= len(seen):
            continue
        if video_length is not None and len(frames) != video_length:
            continue
        total += probability
        for t, label in enumerate(frames[len(seen) : len(seen) + horizon]):
            marginals[t, label] += probability
    return marginals / total


def within(right: np.ndarray, expected: np.ndarray, errors: float = 3.0) -> bool:
    """Whether sums over independent videos agree within so many standard errors."""
    off = right - expected
    return abs(off.mean()) <= errors * off.std(ddof=1) / np.sqrt(len(off))


def test_enumerated_videos_are_all_of_them() -> None:
    assert sum(all_videos(SMALL).values()) == pytest.approx(1)


@pytest.mark.parametrize("knows_length", [False, True])
def test_marginals_are_exact(knows_length: bool) -> None:
    checked = 0
    for frames in all_videos(SMALL):
        for observed in range(len(frames)):
            length = len(frames) if knows_length else None
            seen = frames[:observed]
            exact = by_enumeration(SMALL, seen, 6, length)
            ours = future_marginals(SMALL, np.array(seen, int), 6, length)
            np.testing.assert_allclose(ours, exact, atol=1e-12)
            checked += 1
    assert checked > 50


def test_known_length_leaves_rows_of_zeros_after_the_end() -> None:
    marginals = future_marginals(SMALL, np.array([0, 0]), 6, 5)
    np.testing.assert_allclose(marginals.sum(1), [1, 1, 1, 0, 0, 0])
    assert (marginals[3:] == 0).all()


def test_marginals_of_no_horizon_are_empty() -> None:
    assert future_marginals(SMALL, np.array([0]), 0).shape == (0, 3)


@pytest.mark.parametrize(
    ("seen", "length"), [([1], None), ([0] * 4, None), ([0, 1, 1], 4 + 20), ([0, 1, 1], 3)]
)
def test_impossible_videos_are_refused(seen: list[int], length: int | None) -> None:
    with pytest.raises(ValueError, match="seen must be the start of a video"):
        future_marginals(SMALL, np.array(seen), 2, length)


def test_negative_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon must be 0 frames or more, got -1"):
        future_marginals(SMALL, np.array([0]), -1)


def test_next_action_ceiling_by_hand() -> None:
    # After a (probability 0.6 + 0.2): b 0.45, c 0.15 + 0.2. After a b: c 0.225, the rest ends.
    # After a c: b 0.2 (in the second activity). After c: b 0.2.
    right, asked = 0.45 + 0.225 + 0.2 + 0.2, 0.8 + 0.225 + 0.2 + 0.2
    ceiling = next_action_ceiling(SyntheticConfig(grammar=SMALL))
    assert ceiling == pytest.approx(right / asked)


def best_next(grammar: Grammar, history: tuple[str, ...]) -> str:
    scores: dict[str, float] = defaultdict(float)
    for activity in grammar.activities.values():
        probability = activity.probability
        for before, after in pairwise((START, *history)):
            probability *= activity.following.get(before, {}).get(after, 0.0)
        if probability:
            for option, p in activity.following[history[-1]].items():
                scores[option] += probability * p
    scores.pop(END, None)
    return max(scores, key=lambda name: scores[name])


def test_next_action_ceiling_is_what_the_best_guess_scores(many: Dataset) -> None:
    right, asked = [], []
    for video in many.videos.values():
        actions = [many.taxonomy.labels.names[s.label] for s in video.timeline]
        hits = [
            best_next(HOT_DRINKS, tuple(actions[:i])) == actions[i] for i in range(1, len(actions))
        ]
        right.append(sum(hits))
        asked.append(len(hits))
    ceiling = next_action_ceiling(MANY)
    assert 0.5 < ceiling < 0.9
    assert within(np.array(right), ceiling * np.array(asked))


def test_segmentation_ceiling_is_what_the_best_classifier_scores(many: Dataset) -> None:
    frames = {name: video.frames() for name, video in many.videos.items()}
    prior = np.bincount(np.concatenate(list(frames.values())))
    vectors = action_vectors(MANY)
    right = []
    for name, video in many.videos.items():
        assert video.features is not None
        features = video.features.read(0, video.num_frames)
        scores = features @ vectors.T / MANY.noise**2 + np.log(prior / prior.sum())
        right.append((scores.argmax(1) == frames[name]).sum())
    lengths = np.array([len(labels) for labels in frames.values()])
    assert within(np.array(right), segmentation_ceiling(MANY) * lengths)


def test_segmentation_ceiling_between_silence_and_deafness() -> None:
    assert segmentation_ceiling(SyntheticConfig(noise=0.0)) == 1.0
    assert segmentation_ceiling(SyntheticConfig(noise=0.05)) == pytest.approx(1.0)
    frames = np.concatenate([v.frames() for v in synthetic_dataset(MANY).videos.values()])
    most = np.bincount(frames).max() / len(frames)
    assert segmentation_ceiling(SyntheticConfig(noise=50.0)) == pytest.approx(most, abs=0.02)


def asked_at_shares(dataset: Dataset, ratio: float) -> list[Question]:
    protocol = LongTerm()
    return [protocol.question(v.num_frames, ratio, v.rate) for v in dataset.videos.values()]


def asked_after(dataset: Dataset, observed: int, horizon: int) -> list[Question]:
    assert min(v.num_frames for v in dataset.videos.values()) > observed
    return [Question(observed=observed, horizon=horizon) for _ in dataset.videos]


def hits(dataset: Dataset, questions: list[Question], ceiling: float) -> Iterator[np.ndarray]:
    """Right frames of the oracle and of repeating, and what the ceiling expects, by video."""
    rows = []
    for video, q in zip(dataset.videos.values(), questions, strict=True):
        frames = video.frames()
        seen, truth = frames[: q.observed], frames[q.observed : q.observed + q.horizon]
        marginals = future_marginals(HOT_DRINKS, seen, q.horizon, q.video_length)
        oracle = marginals.argmax(1)[: len(truth)] == truth
        repeated = truth == seen[-1]
        # A forecast is certain to expect no more than the ceiling, before any dice are thrown.
        assert marginals[:, seen[-1]].sum() <= marginals.max(1).sum() + 1e-9
        rows.append((oracle.sum(), repeated.sum(), ceiling * len(truth)))
    yield from np.array(rows).T


@pytest.mark.parametrize("ratio", [0.2, 0.3])
def test_anticipation_ceiling_with_true_length(many: Dataset, ratio: float) -> None:
    questions = asked_at_shares(many, ratio)
    ceiling = anticipation_ceiling(MANY, list(zip(many.videos.values(), questions, strict=True)))
    oracle, repeated, expected = hits(many, questions, ceiling)
    assert 0.5 < ceiling < 0.9
    assert within(oracle, expected)
    assert repeated.sum() < 0.8 * expected.sum()


def test_anticipation_ceiling_without_length(many: Dataset) -> None:
    questions = asked_after(many, 30, 60)
    ceiling = anticipation_ceiling(MANY, list(zip(many.videos.values(), questions, strict=True)))
    oracle, repeated, expected = hits(many, questions, ceiling)
    assert within(oracle, expected)
    assert repeated.sum() < 0.8 * expected.sum()


def test_knowing_the_length_never_hurts(many: Dataset) -> None:
    videos = list(many.videos.values())[:100]
    told = [(v, LongTerm().question(v.num_frames, 0.3, v.rate)) for v in videos]
    untold = [(v, replace(q, video_length=None)) for v, q in told]
    assert anticipation_ceiling(MANY, untold) < anticipation_ceiling(MANY, told)


def test_a_ceiling_of_nothing_is_refused(many: Dataset) -> None:
    video = next(iter(many.videos.values()))
    with pytest.raises(ValueError, match="at least one question must have a horizon"):
        anticipation_ceiling(MANY, [(video, Question(observed=10))])


def test_same_seed_same_data_other_seed_other_data() -> None:
    config = SyntheticConfig(num_videos=12)
    one, two = synthetic_dataset(config), synthetic_dataset(config)
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != synthetic_dataset(replace(config, seed=1)).fingerprint()
    for name, video in one.videos.items():
        assert video.features is not None
        again = two.videos[name].features
        assert again is not None
        np.testing.assert_array_equal(video.features.read(0, 300), again.read(0, 300))


def test_noise_and_number_of_videos_leave_labels_alone() -> None:
    one = synthetic_dataset(SyntheticConfig(num_videos=12))
    two = synthetic_dataset(SyntheticConfig(num_videos=24, noise=2.0))
    for name, video in one.videos.items():
        np.testing.assert_array_equal(video.frames(), two.videos[name].frames())


def test_features_without_noise_are_the_vectors_of_their_actions() -> None:
    config = SyntheticConfig(num_videos=12, noise=0.0)
    vectors = action_vectors(config)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(13), atol=1e-12)
    for video in synthetic_dataset(config).videos.values():
        assert video.features is not None
        read = video.features.read(0, video.num_frames)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, vectors[video.frames()], atol=1e-6)


def test_videos_are_sentences_of_the_grammar(many: Dataset) -> None:
    names = many.taxonomy.labels.names
    assert names == tuple(HOT_DRINKS.durations)
    for video in many.videos.values():
        runs = run_lengths(video.frames())
        for label, first, end in runs:
            fewest, most = HOT_DRINKS.durations[names[label]]
            assert fewest <= end - first <= most
        chain = HOT_DRINKS.activities[video.id.split("_")[1]]
        actions = [START, *(names[label] for label, _, _ in runs), END]
        assert all(after in chain.following[before] for before, after in pairwise(actions))
        assert 45 <= video.num_frames <= 271


def test_splits_share_no_person_and_test_everybody_once() -> None:
    dataset = synthetic_dataset(SyntheticConfig())
    assert len(dataset.videos) == 60
    tested: list[str] = []
    for split in dataset.splits.values():
        train = {video.group for video in dataset.select(split.train)}
        test = {video.group for video in dataset.select(split.test)}
        assert not train & test
        assert {*split.train, *split.test} == set(dataset.videos)
        tested += split.test
    assert sorted(tested) == sorted(dataset.videos)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_splits": 1}, "2 splits or more"),
        ({"num_people": 3}, "a person for each"),
        ({"num_videos": 5}, "a video for each person"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"noise": -1.0}, "noise and seed 0 or more"),
        ({"seed": -1}, "noise and seed 0 or more"),
        ({"feature_dim": 12}, "feature_dim must be at least 13"),
    ],
)
def test_wrong_configurations_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**wrong)


def test_wrong_grammars_are_refused() -> None:
    with pytest.raises(ValueError, match="probabilities after start must sum to 1"):
        Activity(probability=1.0, following={START: {"a": 0.5}, "a": {END: 1.0}})
    with pytest.raises(ValueError, match="must stand after it in the chain, got a"):
        Activity(probability=1.0, following={START: {"b": 1}, "a": {END: 1}, "b": {"a": 1}})
    with pytest.raises(ValueError, match="must begin with 'start'"):
        Activity(probability=1.0, following={"a": {END: 1.0}})
    chain = Activity(probability=1.0, following={START: {"a": 1.0}, "a": {END: 1.0}})
    with pytest.raises(ValueError, match="a must last from 1 frame up"):
        Grammar(durations={"a": (0, 2)}, activities={"x": chain})
    with pytest.raises(ValueError, match="got b without"):
        Grammar(durations={"a": (1, 2), "b": (1, 2)}, activities={"x": chain})
    with pytest.raises(ValueError, match=r"must sum to 1, got 2\.0"):
        Grammar(durations={"a": (1, 2)}, activities={"x": chain, "y": chain})


def test_a_written_folder_reads_back_the_same(tmp_path: Path) -> None:
    dataset = synthetic_dataset(SyntheticConfig(num_videos=12, rate=7.5))
    write_frame_labels(dataset, tmp_path / "drinks")
    read = open_frame_labels(tmp_path / "drinks")
    assert (read.name, read.rate, read.warnings) == ("synthetic", 7.5, ())
    assert read.taxonomy == dataset.taxonomy
    assert read.fingerprint() == dataset.fingerprint()
    assert read.splits == dataset.splits
    for name, video in dataset.videos.items():
        assert video.features is not None
        back = read.videos[name].features
        assert back is not None
        n = video.num_frames
        np.testing.assert_array_equal(back.read(0, n), video.features.read(0, n))


def test_a_written_folder_may_lack_features_and_have_background(tmp_path: Path) -> None:
    dataset = synthetic_dataset(SyntheticConfig(num_videos=12))
    taxonomy = Taxonomy.of(dataset.taxonomy.labels.names, background=["idle"])
    videos = {
        name: replace(
            video,
            features=None,
            timeline=Timeline(video.timeline.segments, taxonomy.labels),
        )
        for name, video in dataset.videos.items()
    }
    changed = replace(dataset, taxonomy=taxonomy, videos=videos)
    write_frame_labels(changed, tmp_path)
    read = open_frame_labels(tmp_path)
    assert read.taxonomy.labels.background == {"idle"}
    assert not (tmp_path / "features").exists()
    assert read.fingerprint() == changed.fingerprint() != dataset.fingerprint()


def test_a_full_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="must be a new or an empty folder"):
        write_frame_labels(synthetic_dataset(SyntheticConfig(num_videos=12)), tmp_path)
