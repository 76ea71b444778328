from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from actioncast.layers.transcripts import Transcript
from actioncast.models.baselines import (
    NearestNeighbourConfig,
    NGramConfig,
    RepeatLastActionConfig,
)
from actioncast.models.semi_markov import SemiMarkovConfig
from actioncast.timeline import UNLABELLED, Segment, Timeline
from grammars import TAXONOMY, observe, spell, video

CHAIN = [("a", 10), ("b", 20), ("c", 30), ("d", 40)]
CONFIGS = [
    RepeatLastActionConfig(),
    NGramConfig(),
    NearestNeighbourConfig(rate=10.0),
    SemiMarkovConfig(num_rollouts=30),
]
FORECASTERS = CONFIGS[1:]
MIXED = [
    video([("a", 12), ("b", 20), ("c", 30), ("d", 40)], "p"),
    video([("a", 8), ("c", 25), ("b", 20), ("a", 9), ("d", 21)], "q"),
    video([("a", 10), ("b", 14), ("a", 5), ("c", 44)], "r"),
    video([("e", 17), ("b", 31), ("c", 7), ("d", 3)], "s"),
]
every_model = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
every_forecaster = pytest.mark.parametrize("config", FORECASTERS, ids=lambda c: type(c).__name__)


def fitted(config, videos=MIXED):
    model = config.build(TAXONOMY)
    model.fit(videos)
    return model


def equal(one, other):
    return torch.equal(one.future, other.future) and torch.equal(
        one.next["action"], other.next["action"]
    )


def test_an_action_lasts_until_the_next_one_starts():
    segments = [
        Segment(1.0, 2.0, 0),
        Segment(3.0, 6.0, 1),
        Segment(5.0, 7.0, 1),
        Segment(6.5, 7, 2),
    ]
    transcript = Transcript.of_timeline(Timeline.of(segments, TAXONOMY.labels), 10.0, 90)
    assert transcript.labels.tolist() == [0, 1, 2]
    assert transcript.durations.tolist() == [30, 35, 25]


def test_observed_steps_are_brought_to_frames_and_gaps_belong_to_the_action_before():
    x = observe([("a", 7), ("b", 4)], horizon=1, stride=3)
    assert x.labels is not None
    x.labels[0, 1] = UNLABELLED
    transcript = Transcript.of_observation(x, 0)
    assert transcript.labels.tolist() == [0, 1]
    assert transcript.durations.tolist() == [9, 2]


@every_forecaster
@pytest.mark.parametrize("length", [100, None])
def test_a_fixed_grammar_is_foretold_to_the_frame(config, length):
    model = fitted(config, [video(CHAIN, group) for group in "pqrs"])
    (answer,) = model.predict(observe([("a", 10), ("b", 4)], horizon=86, length=length))
    assert spell(answer.future) == "b" * 16 + "c" * 30 + "d" * 40
    assert TAXONOMY.labels.names[int(answer.next["action"].argmax())] == "c"
    assert answer.observed == 14


@every_forecaster
def test_durations_are_shares_of_a_known_length_and_seconds_otherwise(config):
    model = fitted(config, [video(CHAIN, group) for group in "pqrs"])
    seen = [("a", 20), ("b", 8)]
    (known,) = model.predict(observe(seen, horizon=172, length=200))
    assert spell(known.future) == "b" * 32 + "c" * 60 + "d" * 80
    (unknown,) = model.predict(observe(seen, horizon=172, rate=20.0))
    assert spell(unknown.future) == "b" * 32 + "c" * 60 + "d" * 80


@every_model
def test_rows_are_probabilities_and_samples_are_labels(config):
    x = observe([("a", 9), ("b", 3)], [("e", 4)], horizon=[70, 31], length=[110, 60], num_samples=7)
    for answer, horizon in zip(fitted(config).predict(x), (70, 31), strict=True):
        assert answer.future.shape == (horizon, 8)
        torch.testing.assert_close(answer.future.sum(1), torch.ones(horizon))
        torch.testing.assert_close(answer.next["action"].sum(), torch.tensor(1.0))
        assert answer.samples.shape == (7, horizon)
        assert set(answer.samples.unique().tolist()) <= set(range(5))


@every_model
def test_an_honest_question_is_answered_without_the_length_of_the_video(config):
    """Both the video's length and the horizon may tell where a video ends."""
    model, seen = fitted(config), [("a", 9), ("b", 6)]
    answers = [
        model.predict(replace(observe(seen, horizon=horizon), features=torch.zeros(1, 15, 0)))[0]
        for horizon in (60, 120)
    ]
    assert torch.equal(answers[0].future, answers[1].future[:60])
    assert torch.equal(answers[0].next["action"], answers[1].next["action"])


@every_forecaster
def test_a_known_length_is_used(config):
    model, seen = fitted(config), [("a", 9), ("b", 6)]
    short, long = (model.predict(observe(seen, horizon=60, length=n))[0] for n in (75, 300))
    assert not torch.equal(short.future, long.future)


@every_model
@pytest.mark.parametrize("length", [120, None])
@pytest.mark.parametrize("anticipation_time", [0.0, 2.5])
def test_a_video_gets_the_same_answer_alone_and_in_any_batch(config, length, anticipation_time):
    model = fitted(config)
    x = observe(
        [("a", 9), ("b", 3)], [("e", 4)], [], [("a", 9), ("b", 3)], [("h", 30), ("b", 2)],
        horizon=[70, 31, 20, 50, 0], length=length,
        anticipation_time=anticipation_time, num_samples=4,
    )  # fmt: skip
    together = model.predict(x)
    for one, answer in zip(x, together, strict=True):
        (alone,) = model.predict(one)
        assert equal(alone, answer)
        assert torch.equal(alone.samples, answer.samples)
    assert torch.equal(together[0].future[:50], together[3].future)


@every_model
def test_the_same_question_gets_the_same_answer(config):
    x = observe([("a", 9), ("b", 3)], horizon=40, num_samples=5)
    model, again = fitted(config), fitted(config)
    (one,), (two,), (three,) = model.predict(x), model.predict(x), again.predict(x)
    assert equal(one, two)
    assert equal(one, three)
    assert torch.equal(one.samples, three.samples)


@every_model
def test_what_was_counted_is_restored_from_a_file(config):
    model, restored = fitted(config), fitted(config, [video(CHAIN)])
    x = observe([("a", 9), ("b", 3)], [], horizon=40, num_samples=5)
    before = restored.predict(x)
    restored.load_state_dict(load(save(model.state_dict())))
    for answer, expected in zip(restored.predict(x), model.predict(x), strict=True):
        assert equal(answer, expected)
    if not isinstance(config, RepeatLastActionConfig):
        assert not equal(before[0], restored.predict(x)[0])


@every_model
def test_fitting_again_forgets_what_was_counted(config):
    model = fitted(config, [video([("a", 5), ("f", 9)])] * 3)
    x = observe([("a", 9), ("b", 3)], [], horizon=40)
    model.predict(x)
    model.fit(MIXED)
    for answer, expected in zip(model.predict(x), fitted(config).predict(x), strict=True):
        assert equal(answer, expected)


@every_model
@pytest.mark.parametrize("spelling", [CHAIN, [("a", 10)]], ids=["one video", "one segment"])
def test_labels_and_contexts_never_seen_are_answered(config, spelling):
    model = fitted(config, [video(spelling)])
    x = observe([("g", 5), ("h", 90)], [("d", 3), ("a", 2)], [("a", 99)], horizon=30, num_samples=2)
    for answer in model.predict(x):
        torch.testing.assert_close(answer.future.sum(1), torch.ones(30))
        torch.testing.assert_close(answer.next["action"].sum(), torch.tensor(1.0))


@every_model
def test_before_the_first_frame_the_first_actions_are_expected(config):
    model = fitted(config, [video(CHAIN, group) for group in "pqrs"])
    (answer,) = model.predict(observe([], horizon=5, num_samples=3))
    assert spell(answer.future) == "aaaaa"
    assert int(answer.next["action"].argmax()) == 0
    assert answer.samples.eq(0).all()


@every_model
def test_no_training_video_is_refused(config):
    with pytest.raises(ValueError, match="at least one training video"):
        config.build(TAXONOMY).fit([])
    with pytest.raises(ValueError, match="at least one segment, got none in video 0"):
        config.build(TAXONOMY).fit([video([])])


@every_forecaster
def test_predicting_before_counting_is_refused(config):
    with pytest.raises(ValueError, match=r"call fit\(\) first"):
        config.build(TAXONOMY).predict(observe([("a", 1)], horizon=2))


@every_model
def test_observed_labels_are_required(config):
    x = replace(observe([("a", 4)], horizon=2), labels=None)
    with pytest.raises(ValueError, match=r"set Observation\.labels"):
        fitted(config).predict(x)


def test_repeat_names_the_last_action_throughout():
    (answer,) = fitted(RepeatLastActionConfig()).predict(observe([("a", 3), ("c", 1)], horizon=9))
    assert spell(answer.future) == "c" * 9


@every_forecaster
def test_next_names_the_action_at_a_later_time(config):
    model = fitted(config, [video(CHAIN, group) for group in "pqrs"])
    named = []
    for seconds in (0.0, 0.5, 1.5, 1.7, 4.5, 4.7):
        x = observe([("a", 10), ("b", 4)], horizon=1, anticipation_time=seconds)
        named.append(spell(model.predict(x)[0].next["action"][None]))
    assert "".join(named) == "cbbccd"


def test_the_ngram_keeps_to_the_most_frequent_continuation_of_the_longest_suffix():
    videos = [video([("a", 5), ("b", 5), ("c", 5)])] * 3 + [video([("d", 5), ("b", 5), ("e", 5)])]
    model = fitted(NGramConfig(), videos)
    for first, wanted in (("a", "c"), ("d", "e"), ("f", "c")):
        (answer,) = model.predict(observe([(first, 5), ("b", 5)], horizon=5))
        assert spell(answer.future) == wanted * 5
    torch.testing.assert_close(answer.next["action"][[2, 4]], torch.tensor([0.75, 0.25]))


def test_the_ngram_takes_the_mean_of_what_lasted_longer_than_the_action_going_on():
    videos = [video([("a", n), ("b", m)]) for n, m in ((4, 8), (10, 12), (16, 22))]
    model = fitted(NGramConfig(), videos)
    for elapsed, remaining in ((2, 8), (5, 8), (11, 5), (17, 5)):
        (answer,) = model.predict(observe([("a", elapsed)], horizon=14))
        assert spell(answer.future) == "a" * remaining + "b" * (14 - remaining)


def test_the_neighbour_is_the_video_that_agrees_with_most_frames():
    videos = [
        video([("a", 10), ("b", 10), ("c", 30)]),
        video([("a", 14), ("b", 6), ("d", 30)]),
        video([("e", 20), ("f", 30)]),
    ]
    model = fitted(NearestNeighbourConfig(), videos)
    x = observe([("a", 13), ("b", 7)], [("a", 11), ("b", 9)], horizon=30, length=50, num_samples=3)
    one, other = model.predict(x)
    assert spell(one.future) == "d" * 30
    assert spell(other.future) == "c" * 30
    assert [row[0] for row in one.samples.tolist()] == [3, 2, 5]


def test_the_neighbours_future_is_scaled_to_the_length_of_the_video():
    model = fitted(NearestNeighbourConfig(), [video([("a", 10), ("b", 20), ("c", 20)])])
    (answer,) = model.predict(observe([("a", 40)], horizon=160, length=200))
    assert spell(answer.future) == "b" * 80 + "c" * 80


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NGramConfig(context=0), "context must be at least 1"),
        (lambda: NearestNeighbourConfig(rate=0.0), "must be positive"),
        (lambda: NearestNeighbourConfig(share_steps=0), "must be positive"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_ngram_samples_follow_the_counts():
    videos = [video([("a", 5), ("b", 5)])] * 3 + [video([("a", 5), ("c", 5)])]
    model = fitted(NGramConfig(), videos)
    (answer,) = model.predict(observe([("a", 5)], horizon=5, num_samples=4000))
    drawn = np.bincount(answer.samples[:, 0].numpy(), minlength=8)
    assert drawn[[1, 2]].sum() == 4000
    assert ((drawn[1] - 3000) ** 2 / 3000 + (drawn[2] - 1000) ** 2 / 1000) < 10.8
