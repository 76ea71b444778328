"""What each mask hides, worked by hand, and how often each is drawn."""

from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from actioncast.layers import frame_masks
from actioncast.layers.frame_losses import boundary_targets
from actioncast.layers.frame_masks import Drawn, Mask, Masking, draw

KINDS: tuple[Mask, ...] = ("none", "all", "anticipative", "random", "boundary", "relation")
PRESETS = {name: one for name, one in vars(frame_masks).items() if isinstance(one, Masking)}
GREATEST_CHI_SQUARE = 22.5
"""Of at most 6 degrees of freedom, exceeded once in a thousand times."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden(drawn: Drawn) -> list[int]:
    return (~drawn.visible).nonzero()[:, 0].tolist()


def drawn_from(masking: Masking, frames: list[int], seed: int = 0) -> Drawn:
    labels = torch.tensor(frames, dtype=torch.long)
    return draw(masking, labels, boundary_targets(labels, 0.0), seeded(seed))


def chi_square(counts: Counter[Any], expected: dict[Any, float]) -> float:
    assert set(counts) <= set(expected)
    total = sum(counts.values())
    return sum((counts[k] - total * p) ** 2 / (total * p) for k, p in expected.items())


@pytest.mark.parametrize("name", PRESETS)
def test_kinds_are_drawn_as_often_as_they_are_listed(name: str) -> None:
    kinds = PRESETS[name].kinds
    frames, boundaries = torch.tensor([0, 0, 1, 1]), torch.tensor([0.0, 1, 1, 0])
    generator = seeded(1)
    counts = Counter(draw(PRESETS[name], frames, boundaries, generator).kind for _ in range(10_000))
    expected = {kind: kinds.count(kind) / len(kinds) for kind in kinds}
    assert chi_square(counts, expected) < GREATEST_CHI_SQUARE


def test_presets_are_those_of_papers_and_releases() -> None:
    five = ["anticipative", "boundary", "none", "random", "relation"]
    for name, clips in (("PAPER_50SALADS", 25), ("PAPER_BREAKFAST", 10), ("PAPER_GTEA", 20)):
        paper = PRESETS[name]
        assert sorted(paper.kinds) == five
        assert paper.num_clips == (clips, clips)
        assert (paper.observed_rounding, paper.partial_clip) == ("up", True)
        assert (paper.boundary_below, paper.num_relations) == (0.5, 1)
    assert Masking() == PRESETS["PAPER_50SALADS"]
    for name, clips, below, relations in (
        ("RELEASED_50SALADS", (5, 10), 0.5, 2),
        ("RELEASED_BREAKFAST", (10, 10), 0.3, 1),
    ):
        released = PRESETS[name]
        assert sorted(released.kinds) == sorted([*five, "relation"])
        assert released.num_clips == clips
        assert (released.observed_rounding, released.partial_clip) == ("down", False)
        assert (released.boundary_below, released.num_relations) == (below, relations)
    for name, below, relations in (
        ("DIFFACT_50SALADS", 0.5, 2),
        ("DIFFACT_BREAKFAST", 0.3, 1),
        ("DIFFACT_GTEA", 0.3, 1),
    ):
        diffact = PRESETS[name]
        assert sorted(diffact.kinds) == ["all", "boundary", "none", "relation", "relation"]
        assert (diffact.boundary_below, diffact.num_relations) == (below, relations)
    for one in PRESETS.values():
        assert (one.clip_length, one.future_multiple) == (10, 0)
        assert one.observed_ratios == (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    assert len(PRESETS) == 8


def test_nothing_and_everything_are_hidden() -> None:
    assert hidden(drawn_from(Masking(kinds=("none",)), [0, 1, 1])) == []
    assert hidden(drawn_from(Masking(kinds=("all",)), [0, 1, 1])) == [0, 1, 2]


@pytest.mark.parametrize(
    ("time", "ratio", "up", "down"),
    [(10, 0.2, 2, 2), (11, 0.2, 3, 2), (1, 0.2, 1, 1), (3, 0.2, 1, 1), (100, 0.55, 55, 55)],
)
def test_the_anticipative_mask_hides_all_after_a_share(
    time: int, ratio: float, up: int, down: int
) -> None:
    """0.55 of 100 is 55.00000000000001 in floating point."""
    for rounding, observed in (("up", up), ("down", down)):
        masking = Masking(
            kinds=("anticipative",), observed_ratios=(ratio,), observed_rounding=rounding
        )
        found = drawn_from(masking, [0] * time)
        assert found.kind == "anticipative"
        assert len(found.visible) == time
        assert hidden(found) == list(range(observed, time))


def test_shares_observed_are_drawn_alike() -> None:
    masking = Masking(kinds=("anticipative",))
    frames, generator = torch.zeros(10, dtype=torch.long), seeded(2)
    counts = Counter(
        int(draw(masking, frames, torch.zeros(10), generator).visible.sum()) for _ in range(7000)
    )
    assert chi_square(counts, dict.fromkeys(range(2, 9), 1 / 7)) < GREATEST_CHI_SQUARE


@pytest.mark.parametrize(
    ("time", "multiple", "observed", "total"),
    [(20, 4.0, 4, 20), (23, 4.0, 4, 20), (29, 4.0, 5, 25), (2, 4.0, 1, 5), (29, 1.5, 5, 12)],
)
def test_the_rectified_length_depends_on_what_is_observed_alone(
    time: int, multiple: float, observed: int, total: int
) -> None:
    masking = Masking(
        kinds=("anticipative",),
        observed_ratios=(0.2,),
        observed_rounding="down",
        future_multiple=multiple,
    )
    found = drawn_from(masking, [0] * time)
    assert len(found.visible) == total
    assert hidden(found) == list(range(observed, total))


def test_the_rectified_length_leaves_other_masks_alone() -> None:
    for kind in set(KINDS) - {"anticipative"}:
        masking = Masking(kinds=(kind,), future_multiple=4.0)
        assert len(drawn_from(masking, [0, 0, 1]).visible) == 3


def test_clips_lie_on_a_grid() -> None:
    """Eight frames are the clips 012, 345 and, if it may be hidden, 67."""
    masking = Masking(kinds=("random",), clip_length=3, num_clips=(1, 1))
    found = Counter(tuple(hidden(drawn_from(masking, [0] * 8, seed))) for seed in range(600))
    assert chi_square(found, dict.fromkeys(((0, 1, 2), (3, 4, 5), (6, 7)), 1 / 3)) < 13.9
    whole = replace(masking, partial_clip=False)
    found = Counter(tuple(hidden(drawn_from(whole, [0] * 8, seed))) for seed in range(600))
    assert chi_square(found, dict.fromkeys(((0, 1, 2), (3, 4, 5)), 1 / 2)) < 10.9


def test_numbers_of_clips_are_drawn_alike_both_ends_included() -> None:
    masking, generator = replace(PRESETS["RELEASED_50SALADS"], kinds=("random",)), seeded(3)
    frames, boundaries = torch.zeros(200, dtype=torch.long), torch.zeros(200)
    counts = Counter(
        int((~draw(masking, frames, boundaries, generator).visible).sum()) for _ in range(3000)
    )
    assert chi_square(counts, {10 * n: 1 / 6 for n in range(5, 11)}) < GREATEST_CHI_SQUARE


def test_no_more_clips_are_hidden_than_there_are() -> None:
    masking = Masking(kinds=("random",), num_clips=(25, 25))
    assert hidden(drawn_from(masking, [0] * 34)) == list(range(34))
    whole = replace(masking, partial_clip=False)
    assert hidden(drawn_from(whole, [0] * 34)) == list(range(30))
    assert hidden(drawn_from(whole, [0] * 9)) == []
    assert hidden(drawn_from(replace(masking, num_clips=(0, 0)), [0] * 34)) == []


def test_the_boundary_mask_hides_targets_from_its_threshold_on() -> None:
    masking = Masking(kinds=("boundary",), boundary_below=0.5)
    boundaries = torch.tensor([0.0, 0.49, 0.5, 1.0, 0.2])
    found = draw(masking, torch.tensor([0, 0, 0, 1, 1]), boundaries)
    assert hidden(found) == [2, 3]


@pytest.mark.parametrize(("below", "sigma", "num_hidden"), [(0.5, 20.0, 48), (0.3, 3.0, 10)])
def test_a_boundary_is_as_wide_as_in_the_released_code(
    below: float, sigma: float, num_hidden: int
) -> None:
    """Sheet, section 4: frames hidden around one change of action."""
    frames = torch.arange(1000) // 500
    masking = Masking(kinds=("boundary",), boundary_below=below)
    found = hidden(draw(masking, frames, boundary_targets(frames, sigma)))
    assert found == list(range(500 - num_hidden // 2, 500 + num_hidden // 2))


def test_the_relation_mask_hides_an_action_wherever_it_is() -> None:
    """Actions are drawn alike however long they last, and never the unlabelled."""
    masking = Masking(kinds=("relation",))
    frames = [3, 3, -1, 0, 7, 3, -100, 7]
    found = Counter(tuple(hidden(drawn_from(masking, frames, seed))) for seed in range(900))
    assert chi_square(found, dict.fromkeys(((0, 1, 5), (3,), (4, 7)), 1 / 3)) < 13.9


def test_two_relations_may_be_one_action() -> None:
    masking = Masking(kinds=("relation",), num_relations=2)
    found = Counter(tuple(hidden(drawn_from(masking, [5, 2, 5], seed))) for seed in range(800))
    expected = {(1,): 1 / 4, (0, 2): 1 / 4, (0, 1, 2): 1 / 2}
    assert chi_square(found, expected) < 13.9


@given(
    kind=st.sampled_from(KINDS),
    frames=st.lists(st.sampled_from([-100, -1, 0, 1, 5]), min_size=1, max_size=40),
    masking=st.builds(
        Masking,
        observed_rounding=st.sampled_from(["up", "down"]),
        clip_length=st.integers(1, 50),
        num_clips=st.sampled_from([(0, 0), (1, 3), (25, 25)]),
        partial_clip=st.booleans(),
        num_relations=st.integers(1, 9),
    ),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_any_video_can_be_masked(
    kind: Mask, frames: list[int], masking: Masking, seed: int
) -> None:
    found = drawn_from(replace(masking, kinds=(kind,)), frames, seed)
    assert found.kind == kind
    assert len(found.visible) == len(frames)
    out = set(hidden(found))
    if kind == "anticipative":
        assert 0 not in out
        assert len(list(groupby(found.visible.tolist()))) <= 2
    if kind == "random":
        assert len({frame // masking.clip_length for frame in out}) <= masking.num_clips[1]
    if kind == "relation":
        gone = {frames[i] for i in out}
        assert all(label >= 0 for label in gone)
        assert out == {i for i, label in enumerate(frames) if label in gone}
        assert bool(gone) == any(label >= 0 for label in frames)
        assert len(gone) <= masking.num_relations


def same(found: Drawn, other: Drawn) -> bool:
    return found.kind == other.kind and found.visible.equal(other.visible)


def test_draws_come_from_the_generator_or_from_torch() -> None:
    frames = torch.arange(400) // 40
    boundaries: Tensor = boundary_targets(frames, 3.0)
    state = torch.get_rng_state()
    first = [draw(Masking(), frames, boundaries, seeded(n)) for n in range(20)]
    again = [draw(Masking(), frames, boundaries, seeded(n)) for n in range(20)]
    assert all(map(same, first, again))
    assert state.equal(torch.get_rng_state())
    with torch.random.fork_rng():
        torch.manual_seed(5)
        mine = draw(Masking(), frames, boundaries)
    assert same(mine, draw(Masking(), frames, boundaries, seeded(5)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kinds": ()}, "kinds must name a mask"),
        ({"observed_ratios": (0.2, 0.0)}, "observed_ratios"),
        ({"observed_ratios": ()}, "observed_ratios"),
        ({"future_multiple": -1.0}, "future_multiple"),
        ({"num_clips": (10, 5)}, "num_clips"),
        ({"num_clips": (-1, 5)}, "num_clips"),
        ({"clip_length": 0}, "clip_length"),
        ({"num_relations": 0}, "num_relations"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masking(**wrong)
