"""What FUTR's tests leave open: an end that comes first, and seeds."""

from typing import Any

import pytest
import torch

from actioncast.models.parallel_queries import ParallelQueries
from actioncast.timeline import UNLABELLED

END, QUERIES = 4, 3


def queries(**options: Any) -> ParallelQueries:
    given = {"fill": "last_action", "end_first": "first_action"} | options
    return ParallelQueries(end=END, num_queries=QUERIES, **given)


def saying(*labels: int) -> torch.Tensor:
    """Logits so high that nothing else is drawn."""
    return torch.nn.functional.one_hot(torch.tensor(labels), END + 1) * 60.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fill": "last_query", "end_first": "nothing"}, UNLABELLED),
        ({"fill": "last_query", "end_first": "last_query"}, 2),
        ({}, 1),
        ({"end_takes_time": True}, UNLABELLED),
    ],
)
def test_samples_say_as_frames_do_who_takes_all_when_the_end_comes_first(
    options: dict[str, Any], named: int
) -> None:
    answering = queries(**options)
    logits, raw = saying(END, 1, 2), torch.zeros(QUERIES)
    logits[0, 1] = 30.0
    frames = answering.frames(logits, raw, 5)
    assert frames.any(-1).tolist() == [named != UNLABELLED] * 5
    assert named == UNLABELLED or frames.argmax(-1).tolist() == [named] * 5
    assert answering.draw(logits, raw, 5, 2).tolist() == [[named] * 5] * 2


def test_draws_follow_the_seed_and_leave_the_global_one_alone() -> None:
    logits, raw = torch.zeros(QUERIES, END + 1), torch.zeros(QUERIES)
    before = torch.get_rng_state()
    first, again, other = (queries(seed=s).draw(logits, raw, 40, 9) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
