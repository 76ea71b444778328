from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actioncast.checkpoint import load_checkpoint, save_checkpoint
from actioncast.models.base import Anticipator
from actioncast.models.next_action_baselines import (
    ClassFrequencyConfig,
    PairNGramConfig,
    histories_of,
)
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import IGNORE, Observation, Target

PAIRS = tuple((verb, noun) for verb in range(3) for noun in range(2))
KITCHEN = Taxonomy(
    {
        "verb": LabelSpace(("take", "put", "wash")),
        "noun": LabelSpace(("tap", "pan")),
        "action": LabelSpace(tuple(f"{verb} {noun}" for verb, noun in PAIRS)),
    },
    pairs=PAIRS,
)
LETTERS = Taxonomy.of(("a", "b", "c"))
PLAIN = PairNGramConfig(order=1, discount=0.5, balance=0.0)


def observation(histories: Sequence[Sequence[int]]) -> Observation:
    """Observed actions as a padded batch."""
    longest = max(1, *(len(row) for row in histories))
    labels = torch.full((len(histories), longest), IGNORE)
    for row, known in zip(labels, histories, strict=True):
        row[: len(known)] = torch.tensor(known, dtype=torch.long)
    return Observation(
        features=torch.zeros(len(histories), longest, 1),
        valid=labels != IGNORE,
        rate=1.0,
        horizon=torch.zeros(len(histories), dtype=torch.long),
        anticipation_time=1.0,
        labels=labels,
    )


def clips(
    histories: Sequence[Sequence[int]], answers: Sequence[int], taxonomy: Taxonomy = KITCHEN
) -> tuple[Observation, Target]:
    labels = {"action": torch.tensor(answers)}
    if taxonomy.pairs:
        pairs = torch.tensor(taxonomy.pairs)[labels["action"]]
        labels |= {"verb": pairs[:, 0], "noun": pairs[:, 1]}
    return observation(histories), Target(frames={}, next=labels)


def fitted(
    config: Any, batch: tuple[Observation, Target], taxonomy: Taxonomy = KITCHEN
) -> Anticipator:
    model = config.build(taxonomy)
    model.fit_clips([batch])
    return model


def said(model: Anticipator, history: Sequence[int], head: str = "action") -> np.ndarray:
    (prediction,) = model.predict(observation([history]))
    assert prediction.next is not None
    return prediction.next[head].numpy()


def test_class_frequencies_are_the_shares_of_training() -> None:
    model = fitted(ClassFrequencyConfig(), clips([[], [0], [1], [2]], [0, 0, 3, 5]))
    assert said(model, [4]).tolist() == [0.5, 0, 0, 0.25, 0, 0.25]
    assert said(model, [4], "verb").tolist() == [0.5, 0.25, 0.25]
    assert said(model, [], "noun").tolist() == [0.5, 0.5]
    # Counting again replaces what was counted.
    model.fit_clips([clips([[]], [1])])  # type: ignore[attr-defined]
    assert said(model, []).tolist() == [0, 1, 0, 0, 0, 0]


def test_an_n_gram_discounts_and_backs_off_by_hand() -> None:
    """After a: b twice and c once. Shares with half a count of each added: 0.5, 2.5, 1.5 of 4.5."""
    batch = clips([[0], [0], [0]], [1, 1, 2], LETTERS)
    model = fitted(PLAIN, batch, LETTERS)
    shares = np.array([0.5, 2.5, 1.5]) / 4.5
    # Half a count is taken from each of two kinds: 1/3 of the mass goes to the shares.
    wanted = np.array([0, 1.5, 0.5]) / 3 + shares / 3
    np.testing.assert_allclose(said(model, [0]), wanted, rtol=1e-6)
    np.testing.assert_allclose(said(model, [2, 0]), wanted, rtol=1e-6)
    # A context that was never seen says what the shorter one does.
    np.testing.assert_allclose(said(model, [1]), shares, rtol=1e-6)
    # Before the first action there is a context of its own, here never seen.
    np.testing.assert_allclose(said(model, []), shares, rtol=1e-6)


def test_longer_contexts_refine_shorter_ones() -> None:
    batch = clips([[0, 1], [2, 1]], [0, 2], LETTERS)
    short, long = (fitted(replace(PLAIN, order=n), batch, LETTERS) for n in (1, 2))
    assert said(short, [0, 1])[0] == pytest.approx(said(short, [0, 1])[2])
    assert said(long, [0, 1])[0] > 2 * said(long, [0, 1])[2]
    assert said(long, [2, 1])[2] > 2 * said(long, [2, 1])[0]


def test_the_beginning_of_a_video_is_a_context() -> None:
    model = fitted(PLAIN, clips([[], [], [0]], [2, 2, 1], LETTERS), LETTERS)
    assert said(model, []).argmax() == 2
    assert said(model, [0]).argmax() == 1


def test_an_action_is_its_noun_then_the_verb_for_that_noun() -> None:
    """The tap was washed (4), the pan taken (1): no verb changes its noun."""
    batch = clips([[0], [1], [0], [1]], [4, 1, 4, 1])
    model = fitted(replace(PLAIN, discount=0.0), batch)
    assert said(model, [0]).argmax() == 4
    assert said(model, [1]).argmax() == 1
    actions, nouns = said(model, [0]), said(model, [0], "noun")
    by_noun = [sum(actions[i] for i, (_, n) in enumerate(PAIRS) if n == noun) for noun in (0, 1)]
    np.testing.assert_allclose(by_noun, nouns, atol=1e-6)


def test_nouns_observed_before_come_again() -> None:
    """Nothing is known of what follows: a tap was seen twice, a pan once and last."""
    batch = clips([[2], [3]], [0, 1])
    repeating = replace(PLAIN, repeat=0.5, decay=0.8)
    plain, model = fitted(PLAIN, batch), fitted(repeating, batch)
    history = [4, 0, 5]
    cache = np.array([0.8 + 0.64, 1.0]) / 2.44
    wanted = 0.5 * said(plain, history, "noun") + 0.5 * cache
    np.testing.assert_allclose(said(model, history, "noun"), wanted, rtol=1e-5)
    np.testing.assert_allclose(said(model, [], "noun"), said(plain, [], "noun"), rtol=1e-6)


def test_what_follows_for_a_thing_is_what_was_last_done_to_it() -> None:
    """A thing that was taken is washed, one that was washed is put, whatever came between."""
    histories = [[0, 5], [1, 4], [4, 1], [5, 0]]
    answers = [4, 5, 2, 3]
    batch = clips(histories * 5, answers * 5)
    model = fitted(replace(PLAIN, by_object=True, repeat=0.5), batch)
    # take tap (0), then wash pan (5): of the tap, wash; of the pan, put.
    actions = said(model, [0, 5])
    assert actions[4] > max(actions[0], actions[2])
    assert actions[3] > max(actions[1], actions[5])
    verbs = [sum(actions[i] for i, (v, _) in enumerate(PAIRS) if v == verb) for verb in range(3)]
    np.testing.assert_allclose(said(model, [0, 5], "verb"), verbs, atol=1e-6)


def test_balance_divides_by_the_share_of_a_class() -> None:
    batch = clips([[0], [0], [0]], [1, 1, 2], LETTERS)
    plain, model = (fitted(replace(PLAIN, balance=b), batch, LETTERS).eval() for b in (0.0, 0.75))
    shares = np.array([0.5, 2.5, 1.5]) / 4.5
    wanted = said(plain, [0]) / shares**0.75
    np.testing.assert_allclose(said(model, [0]), wanted / wanted.sum(), rtol=1e-5)


@given(
    data=st.data(),
    order=st.integers(1, 4),
    by_object=st.booleans(),
    repeat=st.sampled_from([0.0, 0.6]),
    balance=st.sampled_from([0.0, 0.75]),
)
def test_answers_are_probabilities_whatever_was_observed(
    data: st.DataObject, order: int, by_object: bool, repeat: float, balance: float
) -> None:
    action = st.integers(0, 5)
    history = st.lists(action, max_size=6)
    histories = data.draw(st.lists(history, min_size=1, max_size=12))
    answers = data.draw(st.lists(action, min_size=len(histories), max_size=len(histories)))
    config = PairNGramConfig(order=order, by_object=by_object, repeat=repeat, balance=balance)
    model = fitted(config, clips(histories, answers))
    for asked in ([], data.draw(history)):
        for head, space in KITCHEN.heads.items():
            probs = said(model, asked, head)
            assert probs.shape == (len(space),)
            assert (probs >= 0).all()
            assert probs.sum() == pytest.approx(1, abs=1e-5)


def test_histories_keep_their_order_and_lose_their_gaps() -> None:
    x = observation([[3, 1], [2]])
    spoilt = replace(x, labels=torch.tensor([[3, 1], [2, 4]]))
    assert histories_of(spoilt).tolist() == [[3, 1], [-1, 2]]
    gap = replace(observation([[3, 0, 1]]), labels=torch.tensor([[3, IGNORE, 1]]))
    assert histories_of(gap).tolist() == [[-1, 3, 1]]


def test_what_was_counted_is_saved(tmp_path: Path) -> None:
    config = PairNGramConfig(order=2)
    model = fitted(config, clips([[0, 3], [1], []], [2, 4, 0]))
    save_checkpoint(tmp_path / "n", "pair-n-gram", model, config, {})
    again = load_checkpoint(tmp_path / "n").model
    assert again.taxonomy == KITCHEN
    for head in KITCHEN.heads:
        assert np.array_equal(said(model, [1, 0, 3], head), said(again, [1, 0, 3], head))


def test_a_clip_without_a_label_is_not_counted() -> None:
    x, y = clips([[0], [0]], [1, 2], LETTERS)
    hidden = replace(y, next={"action": torch.tensor([1, IGNORE])})
    one = fitted(PLAIN, (x, hidden), LETTERS)
    other = fitted(PLAIN, clips([[0]], [1], LETTERS), LETTERS)
    assert np.array_equal(said(one, [0]), said(other, [0]))


def test_what_cannot_be_answered_is_said() -> None:
    model = PLAIN.build(LETTERS)
    with pytest.raises(ValueError, match="must have counted before"):
        model.predict(observation([[0]]))
    model.fit_clips([clips([[0]], [1], LETTERS)])
    with pytest.raises(ValueError, match="without them"):
        model.predict(replace(observation([[0]]), labels=None))


@pytest.mark.parametrize(
    "values", [{"order": 0}, {"order": 5}, {"discount": 1.1}, {"decay": -0.1}, {"balance": 3.0}]
)
def test_values_that_are_none_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be within"):
        PairNGramConfig(**values)
