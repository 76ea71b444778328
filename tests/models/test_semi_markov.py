from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from actioncast.layers.rollouts import DurationPool, Outset, roll_out
from actioncast.layers.transcripts import Corpus, SuffixIndex, Transcript
from actioncast.models.semi_markov import SemiMarkovConfig
from grammars import TAXONOMY, observe, spell, video

END = 8


def corpus_of(*words: str) -> Corpus:
    """One video a word, every letter one unit long."""
    labels = [TAXONOMY.labels.index(letter) for word in words for letter in word]
    videos = [i for i, word in enumerate(words) for _ in word]
    return Corpus(np.array(labels), np.ones(len(labels)), np.array(videos))


def fixed(context=2, balance=0.0, **options):
    """A model that has nothing to choose."""
    return SemiMarkovConfig(contexts=(context,), balances=(balance,), **options)


def fitted(config, videos):
    model = config.build(TAXONOMY)
    model.fit(videos)
    return model


def next_labels(index, past):
    """What the deepest state of a history has been followed by."""
    history = [TAXONOMY.labels.index(letter) for letter in past[::-1]]
    history += [END] * (index.context - len(history))
    state = index.find(np.array([history[: index.context]]))[0, -1]
    start, count = index.starts[state], index.counts[state]
    return Counter(index.next_labels[start : start + count].tolist()), int(index.depths[state])


words = st.text("abcd", min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=8), words, st.integers(1, 4), st.integers(1, 3))
def test_the_index_counts_what_followed_the_longest_frequent_suffix(seen, past, context, min_count):
    index = SuffixIndex.of(corpus_of(*seen), 8, context, min_count)
    padded = "^" * context
    slots = [
        (padded + word[:i], word[i] if i < len(word) else "$")
        for word in seen
        for i in range(len(word) + 1)
    ]
    wanted, depth = [label for _, label in slots], 0
    for length in range(1, context + 1):
        suffix = (padded + past)[-length:]
        followed = [label for before, label in slots if before.endswith(suffix)]
        if len(followed) < (1 if length == 1 else min_count):
            break
        wanted, depth = followed, length
    codes = {"$": END, **{name: i for i, name in enumerate("abcd")}}
    assert next_labels(index, past) == (Counter(codes[label] for label in wanted), depth)


@settings(max_examples=40, deadline=None)
@given(st.lists(words, min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 3))
def test_the_state_after_a_label_is_that_of_the_longer_history(seen, context, min_count):
    index = SuffixIndex.of(corpus_of(*seen), 8, context, min_count)
    for word in seen:
        history = [END] * context
        state = index.find(np.array([history]))[0, -1]
        for letter in word:
            label = TAXONOMY.labels.index(letter)
            start = index.starts[state]
            slots = np.arange(start, start + index.counts[state])
            slot = slots[index.next_labels[slots] == label][0]
            history = [label, *history[:-1]]
            state = index.next_states[index.depths[state], slot]
            assert state == index.find(np.array([history]))[0, -1]


def test_a_context_seen_too_rarely_gives_way_to_a_shorter_one():
    seen = ["abc"] * 2 + ["dbe"] * 5
    assert next_labels(SuffixIndex.of(corpus_of(*seen), 8, 2, 3), "ab") == (
        Counter({2: 2, 4: 5}),
        1,
    )
    assert next_labels(SuffixIndex.of(corpus_of(*seen), 8, 2, 2), "ab") == (Counter({2: 2}), 2)
    counts, depth = next_labels(SuffixIndex.of(corpus_of(*seen), 8, 2, 3), "h")
    assert (depth, counts[1], counts[END]) == (0, 7, 7)


def chi_square(counts, probs):
    expected = np.array(probs) * sum(counts)
    return float(((np.array(counts) - expected) ** 2 / expected).sum())


def test_futures_are_drawn_as_often_as_the_grammar_says():
    """From a: b 1/2, c 1/3, d 1/6; then e. b lasts 1 frame 1/3 of the time, else 3."""
    spellings = [[("a", 4), ("b", 1), ("e", 9)]] + [[("a", 4), ("b", 3), ("e", 9)]] * 2
    spellings += [[("a", 4), ("c", 2), ("e", 9)]] * 2 + [[("a", 4), ("d", 2), ("e", 9)]]
    model = fitted(fixed(), [video(spelling) for spelling in spellings])
    (answer,) = model.predict(observe([("a", 3)], horizon=5, num_samples=6000))
    drawn = Counter(spell(torch.eye(8)[row]) for row in answer.samples)
    probs = {"abeee": 1 / 6, "abbbe": 1 / 3, "accee": 1 / 3, "addee": 1 / 6}
    assert set(drawn) == set(probs)
    # The 0.999 quantile of chi-square with 3 degrees of freedom.
    assert chi_square([drawn[word] for word in probs], list(probs.values())) < 16.3
    assert chi_square([drawn[word] for word in probs], [1 / 4] * 4) > 16.3


def test_draws_of_different_videos_and_steps_are_independent():
    spellings = [[("a", 2), (x, 1), (y, 1)] for x in "bc" for y in "de"]
    model = fitted(fixed(context=1), [video(spelling) for spelling in spellings])
    x = observe([("a", 2)], [("h", 1), ("a", 2)], horizon=2, num_samples=4000)
    one, other = (answer.samples for answer in model.predict(x))
    pairs = Counter(map(tuple, torch.stack([one[:, 0], one[:, 1]], 1).tolist()))
    assert chi_square([pairs[x, y] for x in (1, 2) for y in (3, 4)], [1 / 4] * 4) < 16.3
    pairs = Counter(map(tuple, torch.stack([one[:, 0], other[:, 0]], 1).tolist()))
    assert chi_square([pairs[x, y] for x in (1, 2) for y in (1, 2)], [1 / 4] * 4) < 16.3


def test_the_action_going_on_lasts_longer_than_it_has():
    """a lasted 4, 6, 8 or 10 frames; after 5 of them 1, 3 or 5 are left with equal chances."""
    model = fitted(fixed(num_rollouts=3000), [video([("a", n), ("b", 20)]) for n in (4, 6, 8, 10)])
    (answer,) = model.predict(observe([("a", 5)], horizon=8))
    wanted = torch.tensor([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    torch.testing.assert_close(answer.future[:, 0], wanted, atol=0.04, rtol=0)
    torch.testing.assert_close(answer.future[:, 1], 1 - answer.future[:, 0])


def test_an_action_longer_than_any_of_its_label_lasts_as_others_that_long_did():
    model = fitted(fixed(), [video([("a", 4), ("b", 20)])])
    (answer,) = model.predict(observe([("a", 8)], horizon=20))
    assert spell(answer.future) == "a" * 12 + "b" * 8
    (answer,) = model.predict(observe([("a", 25)], horizon=20))
    assert spell(answer.future) == "b" * 20


def test_a_future_that_ended_leaves_the_frames_to_those_that_go_on():
    model = fitted(fixed(), [video([("a", 10)])] * 3 + [video([("a", 10), ("b", 10)])])
    (answer,) = model.predict(observe([("a", 5)], horizon=30))
    assert spell(answer.future) == "a" * 5 + "b" * 25
    assert int(answer.next["action"].argmax()) == 1


def test_samples_let_the_last_action_go_on():
    model = fitted(fixed(), [video([("a", 10), ("b", 10)])])
    (answer,) = model.predict(observe([("a", 5)], horizon=30, num_samples=2))
    assert spell(torch.eye(8)[answer.samples[1]]) == "a" * 5 + "b" * 25


def test_futures_are_the_same_however_many_are_drawn():
    videos = [video([("a", n), ("bcd"[n % 3], 9), ("e", n)]) for n in range(1, 9)]
    model, x = fitted(fixed(), videos), observe([("a", 1)], horizon=20, num_samples=9)
    few, many = (
        model.predict(observe([("a", 1)], horizon=20, num_samples=n))[0].samples for n in (9, 99)
    )
    assert torch.equal(few, many[:9])
    other = fitted(fixed(seed=1), videos).predict(x)[0].samples
    assert not torch.equal(few, other)


def test_the_balance_divides_by_the_share_of_time_in_training():
    """b follows a twice as often as c but takes eight times as long."""
    videos = [video([("a", 10), ("b", 8)])] * 2 + [video([("a", 10), ("c", 2)])]
    plain, balanced = (
        fitted(fixed(balance=balance, num_rollouts=999), videos) for balance in (0.0, 1.0)
    )
    x = observe([("a", 9)], horizon=3)
    (one,), (other,) = plain.predict(x), balanced.predict(x)
    assert spell(one.future) == "abb"
    assert spell(other.future) == "acc"
    prior = torch.tensor([30 / 48, 16 / 48, 2 / 48])
    wanted = one.future[1, :3] / prior
    torch.testing.assert_close(other.future[1, :3], wanted / wanted.sum())
    assert torch.equal(one.next["action"], other.next["action"])


DEPENDS_ON_THE_FIRST = [
    video([(first, 10), ("a", 10), (last, 80)], group=str(person))
    for person in range(6)
    for first, last in (("e", "b"), ("f", "c"))
]


def test_the_context_that_forecasts_held_out_people_best_is_chosen():
    config = SemiMarkovConfig(
        contexts=(1, 2), balances=(0.0,), observed_ratios=(0.15,), num_rollouts=20
    )
    model = fitted(config, DEPENDS_ON_THE_FIRST)
    assert model.chosen_contexts.tolist() == [2, 2]


def test_the_balance_that_forecasts_held_out_people_best_is_chosen():
    """b follows a three times in five: always b scores 50, always c scores 50, too.

    Rare c is short, so that dividing by the prior hits all of c and still all of the long b.
    """
    videos = [
        video([("a", 50), ("b", 50)] if i % 5 < 3 else [("a", 50), ("c", 5), ("b", 45)], str(i))
        for i in range(20)
    ]
    config = SemiMarkovConfig(
        contexts=(1,), balances=(0.0, 1.0), observed_ratios=(0.45,), horizon_ratios=(0.5,)
    )
    assert fitted(config, videos).chosen_balances.tolist() == [1.0, 1.0]


def test_a_choice_is_scored_on_people_who_were_not_counted():
    """What one person does after e and a misleads about the other; in-sample it would help."""
    spellings = [("p", "e", "b")] * 4 + [("q", "e", "c")] * 5
    spellings += [(person, "h", "b") for person in "rstuvw" for _ in range(2)]
    videos = [video([(x, 10), ("a", 10), (y, 80)], person) for person, x, y in spellings]
    config = SemiMarkovConfig(contexts=(2, 1), balances=(0.0,), observed_ratios=(0.15,))
    assert fitted(config, videos).chosen_contexts.tolist() == [1, 1]


def test_one_group_leaves_nothing_to_choose_from():
    config = SemiMarkovConfig(contexts=(1, 2), balances=(0.4, 0.0), observed_ratios=(0.15,))
    alone = [video([("e", 10), ("a", 10), ("b", 80)], "one person")] * 6
    model = fitted(config, alone)
    assert model.chosen_contexts.tolist() == [1, 1]
    assert model.chosen_balances.tolist() == [0.4, 0.4]


def test_choices_are_saved():
    options = {"balances": (0.0,), "observed_ratios": (0.15,), "num_rollouts": 20}
    model = fitted(SemiMarkovConfig(contexts=(1, 2), **options), DEPENDS_ON_THE_FIRST)
    restored = SemiMarkovConfig(contexts=(1, 2), **options).build(TAXONOMY)
    restored.load_state_dict(load(save(model.state_dict())))
    assert restored.chosen_contexts.tolist() == [2, 2]
    x = observe([("f", 10), ("a", 5)], horizon=40)
    assert torch.equal(restored.predict(x)[0].future, model.predict(x)[0].future)


def test_many_videos_are_forecast_in_parts_of_bounded_size(monkeypatch):
    model = fitted(fixed(), DEPENDS_ON_THE_FIRST)
    x = observe(*([("e", n), ("a", 2)] for n in range(1, 9)), horizon=list(range(30, 38)))
    whole = model.predict(x)
    monkeypatch.setattr("actioncast.models.semi_markov._MEMORY", 1)
    for one, other in zip(whole, model.predict(x), strict=True):
        assert torch.equal(one.future, other.future)


def test_rollouts_stop_at_their_limit():
    corpus = corpus_of("ab" * 50)
    index, pool = SuffixIndex.of(corpus, 8, 2, 1), DurationPool.of(corpus, 8)
    past = Transcript(np.array([0]), np.array([1]))
    outset = Outset.of([past, past], np.array([2.0, 2.0]), 8, 2, 0)
    drawn = roll_out(index, pool, outset, np.array([3.0, 6.0]), 4)
    assert drawn.ends.max() == 6.5
    first = drawn.futures < 4
    assert drawn.ends[first].max() == 3.5
    counts = drawn.counts(np.array([2.0, 2.0]), np.array([6, 12]), 8)
    assert [len(own) for own in counts] == [6, 12]
    assert counts[0][:, 0].tolist() == [4, 0, 0, 4, 4, 0]
    assert (counts[1].sum(1) == 4).all()
    assert drawn.at(np.array([0.0, 0.5]), 8)[:, :2].tolist() == [[4, 0], [0, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contexts": ()}, "contexts must be label counts"),
        ({"contexts": (0,)}, "contexts must be label counts"),
        ({"balances": (-0.1,)}, "balances must be powers"),
        ({"inner_folds": 1}, "inner_folds 2"),
        ({"num_rollouts": 0}, "num_rollouts"),
        ({"observed_ratios": (0.0,)}, "must be positive shares"),
        ({"observed_ratios": (0.6,)}, "must fit in the video together"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SemiMarkovConfig(**options)
