import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.metrics import legacy_ant_acc
from metrics_reference import digits

UNDEFINED = 9


def test_query_number_i_is_held_against_frame_number_i():
    # Hits at 0, 1, 2, 3 and 6 of eight; beyond the eighth frame nothing counts.
    assert legacy_ant_acc([digits("00012345")], [digits("0001114422")]) == pytest.approx(62.5)
    assert legacy_ant_acc([digits("00011144")], [digits("0001114477")]) == 100


def test_the_right_segments_in_order_are_wrong():
    """What the docstring warns of: 0 for four steps, then 1 for four."""
    assert legacy_ant_acc([digits("01222222")], [digits("00001111")]) == pytest.approx(100 / 8)
    assert legacy_ant_acc([digits("00000000")], [digits("00001111")]) == pytest.approx(50)


def test_every_sequence_weighs_the_same_however_short():
    # 1 of 1 and 2 of 8.
    found = legacy_ant_acc([digits("55555555"), digits("00555555")], [digits("5"), digits("0" * 8)])
    assert found == pytest.approx((100 + 25) / 2)


def test_undefined_frames_are_left_out():
    predicted, future = digits("01239555"), digits("0199922")
    assert legacy_ant_acc([predicted], [future], undefined=UNDEFINED) == pytest.approx(100 * 2 / 4)
    assert legacy_ant_acc([predicted], [future]) == pytest.approx(100 * 3 / 7)
    # A query that names the class is wrong where the frame has another.
    assert legacy_ant_acc([digits("9")], [digits("1")], undefined=UNDEFINED) == 0


def test_a_sequence_without_a_frame_is_left_out():
    predicted = [digits("11111111")] * 3
    futures = [digits("1110"), np.array([], dtype=int), digits("99")]
    assert legacy_ant_acc(predicted, futures, undefined=UNDEFINED) == pytest.approx(75)
    assert np.isnan(legacy_ant_acc(predicted[1:], futures[1:], undefined=UNDEFINED))
    assert np.isnan(legacy_ant_acc([], []))


def test_the_number_of_queries_is_said():
    assert legacy_ant_acc([digits("0123")], [digits("0123999")], num_queries=4) == 100
    assert legacy_ant_acc([digits("0123")], [digits("0999")], num_queries=2) == 50


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=5), st.data())
def test_each_sequence_is_counted_as_in_a_loop(futures: list[list[int]], data: st.DataObject):
    of_eight = st.lists(st.integers(0, 3), min_size=8, max_size=8)
    predicted = [data.draw(of_eight) for _ in futures]
    shares = []
    for queries, future in zip(predicted, futures, strict=True):
        kept = [i for i in range(min(8, len(future))) if future[i] != 3]
        if kept:
            shares.append(sum(queries[i] == future[i] for i in kept) / len(kept))
    found = legacy_ant_acc(
        [np.array(queries) for queries in predicted],
        [np.array(future, dtype=int) for future in futures],
        undefined=3,
    )
    expected = 100 * sum(shares) / len(shares) if shares else np.nan
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("predicted", "futures", "message"),
    [
        ([digits("01")], [], "must hold the 0 sequences"),
        ([digits("01")], [digits("012")], "first 3 frames must have a query, got 2"),
        ([np.array([0.5])], [digits("0")], "predicted labels .* must be integers"),
        ([digits("0")], [np.array([0.5])], "true labels .* must be integers"),
    ],
)
def test_what_does_not_fit_is_refused(predicted, futures, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(legacy_ant_acc)(predicted, futures)
