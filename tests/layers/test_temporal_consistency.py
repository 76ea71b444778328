"""The temporal consistency loss against the released code's, a literal loop and sums by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from consistency_reference import consistency_in_a_loop
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from actioncast.layers.temporal_consistency import temporal_consistency
from actioncast.types import IGNORE
from goldens import golden_cases

LOSS_CASES = [
    case
    for case in golden_cases("mm_ant")
    if case.id == "absent"
    or "cluster_cases" in json.loads((case.values[0] / "config.json").read_text())
]
RELEASED: dict[str, Any] = {"shared_by": "last_video", "padding_is_a_run": True}
PAD = 48
"""The label of padding in the released code."""

SHEET = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 4.0], [4.0, 6.0], [10.0, 0.0]])
A, B = [0, 0, 1, 1, 2], [0, 0, 1, 1, 1]


def total(vectors: Tensor, labels: list[list[int]], **options: Any) -> float:
    intra, inter = temporal_consistency(vectors, torch.tensor(labels), **options)
    return float(intra + inter)


def slope(vectors: Tensor, labels: Tensor, loss: Any = temporal_consistency, **how: Any) -> Tensor:
    """Gradient of both terms' sum."""
    leaf = vectors.detach().clone().requires_grad_()
    intra, inter = loss(leaf, labels, **how)
    (found,) = torch.autograd.grad(intra + inter, leaf)
    return found


def drawn(videos: int, time: int, hidden: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(videos, time, hidden, generator=generator, dtype=torch.float64)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Vectors and labels, padded, unlabelled in places, or wholly."""
    videos, time = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    names = st.sampled_from([0, 1, 2, IGNORE])
    runs = st.lists(st.tuples(names, st.integers(1, 4)), max_size=8)
    rows = [[label for label, n in draw(runs) for _ in range(n)] for _ in range(videos)]
    labels = torch.tensor([(row + [IGNORE] * time)[:time] for row in rows])
    return drawn(videos, time, seed=draw(st.integers(0, 1000))), labels


@pytest.mark.parametrize("folder", LOSS_CASES)
def test_values_and_gradients_are_those_of_the_released_code(folder: Path) -> None:
    cases = json.loads((folder / "config.json").read_text())["cluster_cases"]
    tensors = load_file(folder / "io.safetensors")
    assert cases
    for name, about in cases.items():
        vectors, labels = tensors[f"{name}.E"], tensors[f"{name}.labels"]
        labels = labels.masked_fill(labels == PAD, IGNORE)
        assert len(labels) == len(about["intervals_inclusive"])
        ways = [RELEASED] if len(labels) > 1 else [RELEASED, {"padding_is_a_run": True}]
        for way in ways:
            intra, inter = temporal_consistency(vectors, labels, **way)
            expected = tensors[f"{name}.grad"]
            assert float(intra) == pytest.approx(float(tensors[f"{name}.intra"]), abs=1e-5), name
            assert float(inter) == pytest.approx(float(tensors[f"{name}.inter"]), abs=1e-5), name
            assert float(intra + inter) == pytest.approx(
                float(tensors[f"{name}.loss"]), abs=1e-5
            ), name
            near = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(slope(vectors, labels, **way), expected, atol=near, rtol=0)


@pytest.mark.parametrize("way", [{}, RELEASED])
def test_the_worked_case_of_the_sheet(way: dict[str, Any]) -> None:
    intra, inter = temporal_consistency(SHEET[None], torch.tensor([A]), **way)
    assert float(intra) == pytest.approx(1 / 3, abs=1e-6)
    by_hand = (1 / math.sqrt(34) + 1 / 9 + 1 / math.sqrt(61)) / 2
    assert float(inter) == pytest.approx(by_hand, abs=1e-5)
    assert float(inter) == pytest.approx(0.205323, abs=1e-6)
    assert float(intra + inter) == pytest.approx(0.538656, abs=1e-6)
    alone = temporal_consistency(SHEET[None], torch.zeros(1, 5, dtype=torch.long), **way)
    assert [float(term) for term in alone] == pytest.approx([8.80, 0.0], abs=1e-6)


def test_released_the_order_of_a_batch_matters_and_ours_it_does_not() -> None:
    twice = SHEET.expand(2, -1, -1)
    assert total(twice, [A, B], **RELEASED) == pytest.approx(2.010750, abs=1e-6)
    assert total(twice, [B, A], **RELEASED) == pytest.approx(1.866486, abs=1e-6)
    assert total(twice, [A, B]) == total(twice, [B, A])
    both = [total(SHEET[None], [A]), total(SHEET[None], [B])]
    assert total(twice, [A, B]) == pytest.approx(sum(both) / 2)


@settings(deadline=None)
@given(
    batch=batches(),
    shared_by=st.sampled_from(["video", "last_video"]),
    padding_is_a_run=st.booleans(),
)
def test_a_loop_over_frames_and_pairs_finds_the_same(
    batch: tuple[Tensor, Tensor], shared_by: str, padding_is_a_run: bool
) -> None:
    way: dict[str, Any] = {"shared_by": shared_by, "padding_is_a_run": padding_is_a_run}
    found, expected = temporal_consistency(*batch, **way), consistency_in_a_loop(*batch, **way)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
    slopes = slope(*batch, **way), slope(*batch, loss=consistency_in_a_loop, **way)
    torch.testing.assert_close(*slopes, atol=1e-10, rtol=1e-8)


@settings(deadline=None)
@given(batch=batches(), shift=st.floats(-3, 3))
def test_where_everything_lies_has_no_say(batch: tuple[Tensor, Tensor], shift: float) -> None:
    vectors, labels = batch
    pushed = slope(vectors, labels).sum((0, 1))
    torch.testing.assert_close(pushed, torch.zeros_like(pushed), atol=1e-9, rtol=0)
    moved = temporal_consistency(vectors + shift, labels)
    for one, other in zip(moved, temporal_consistency(vectors, labels), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@settings(deadline=None)
@given(batch=batches(), scale=st.floats(1.1, 5))
def test_scaled_up_runs_spread_and_move_apart(batch: tuple[Tensor, Tensor], scale: float) -> None:
    vectors, labels = batch
    intra, inter = temporal_consistency(vectors, labels)
    wider, farther = temporal_consistency(scale * vectors, labels)
    torch.testing.assert_close(wider, scale**2 * intra)
    assert farther < inter or (inter == 0 and farther == 0)


@settings(deadline=None)
@given(batch=batches(), data=st.data())
def test_the_order_of_videos_has_no_say(batch: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    vectors, labels = batch
    order = data.draw(st.permutations(range(len(labels))))
    moved = temporal_consistency(vectors[order], labels[order])
    torch.testing.assert_close(moved, temporal_consistency(vectors, labels))


@settings(deadline=None)
@given(batch=batches(), room=st.integers(1, 5), what=st.sampled_from([7.0, math.nan, math.inf]))
def test_padding_has_no_say(batch: tuple[Tensor, Tensor], room: int, what: float) -> None:
    vectors, labels = batch
    padding = (len(labels), room)
    longer = torch.cat([vectors, vectors.new_full((*padding, 3), what)], 1)
    named = torch.cat([labels, labels.new_full(padding, IGNORE)], 1)
    found, expected = temporal_consistency(longer, named), temporal_consistency(vectors, labels)
    torch.testing.assert_close(found, expected)
    pushed = slope(longer, named)
    torch.testing.assert_close(pushed[:, : labels.shape[1]], slope(vectors, labels))
    assert not pushed[:, labels.shape[1] :].any()


def test_every_video_weighs_the_same_however_many_runs_it_has() -> None:
    vectors = drawn(3, 9)
    labels = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8], [1] * 9, [0] * 4 + [2] * 5])
    intra, inter = temporal_consistency(vectors, labels)
    alone = [temporal_consistency(vectors[i, None], labels[i, None]) for i in range(3)]
    assert float(intra) == pytest.approx(sum(float(one) for one, _ in alone) / 3)
    # A video of one run has no pair, and so no say in the mean over pairs.
    assert float(inter) == pytest.approx((float(alone[0][1]) + float(alone[2][1])) / 2)


def test_a_video_without_a_label_has_no_say() -> None:
    vectors, nobody = drawn(2, 5), [IGNORE] * 5
    found = temporal_consistency(vectors, torch.tensor([A, nobody]))
    torch.testing.assert_close(found, temporal_consistency(vectors[:1], torch.tensor([A])))


def test_released_padding_is_a_run_like_any_other() -> None:
    padded = torch.tensor([[*A[:3], IGNORE, IGNORE]])
    named = torch.tensor([[*A[:3], 5, 5]])
    released = temporal_consistency(SHEET[None], padded, padding_is_a_run=True)
    assert released == temporal_consistency(SHEET[None], named)
    assert released != temporal_consistency(SHEET[None], padded)


def test_frames_without_a_label_end_a_run() -> None:
    labels = torch.tensor([[3, 3, IGNORE, 3, IGNORE]])
    intra, inter = temporal_consistency(SHEET[None], labels)
    assert float(intra) == pytest.approx(0.5 / 2)
    assert float(inter) == pytest.approx(1 / (1e-5 + math.hypot(3, 6)))


@pytest.mark.parametrize("way", [{}, {"shared_by": "last_video"}])
@pytest.mark.parametrize("time", [0, 1, 4])
def test_nothing_labelled_costs_nothing(way: dict[str, Any], time: int) -> None:
    vectors = drawn(2, time)
    labels = torch.full((2, time), IGNORE)
    assert temporal_consistency(vectors, labels, **way) == (0, 0)
    assert slope(vectors, labels, **way).equal(torch.zeros_like(vectors))


def test_centroids_that_coincide_have_finite_gradients() -> None:
    labels = torch.tensor([[0, 0, 1, 1, 2]])
    # The first two runs have one centroid; the third lies elsewhere.
    vectors = torch.tensor([[[0.0], [2.0], [1.0], [1.0], [4.0]]])
    _, inter = temporal_consistency(vectors, labels)
    assert float(inter) == pytest.approx((1e5 + 2 / 3) / 2, rel=1e-5)
    pushed = slope(vectors, labels)
    assert pushed.isfinite().all()
    # Neither pushes the other; the third pushes both, at a distance of 3.
    spread = torch.tensor([-1.0, 1.0, 0.0, 0.0, 0.0]) / 3
    force = torch.tensor([-0.5, -0.5, -0.5, -0.5, 2.0]) / 9 / 2
    # The loss falls where centroids move apart, so it grows against the force.
    torch.testing.assert_close(pushed[0, :, 0], spread - force, atol=1e-5, rtol=0)


def test_constant_vectors_have_finite_gradients() -> None:
    found = slope(torch.ones(2, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]]))
    assert found.equal(torch.zeros(2, 6, 4))


def test_half_precision_is_counted_in_full() -> None:
    vectors, labels = drawn(2, 40).bfloat16(), torch.arange(40).expand(2, 40) // 7
    with torch.autocast("cpu", torch.bfloat16):
        found = temporal_consistency(vectors, labels)
    assert found == temporal_consistency(vectors.float(), labels)
    assert {term.dtype for term in found} == {torch.float32}
