"""Gate, schedule and averages against the released code's and sums by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from actioncast.layers.decoding import duration_shares
from actioncast.layers.gated_objective import (
    change_weighted_cross_entropy,
    consistency_share,
    cross_entropy_over_all_rows,
    focal_cross_entropy,
    gated_terms,
    wrongness,
)
from actioncast.types import IGNORE
from goldens import golden_cases

LOSS_CASES = [
    case
    for case in golden_cases("mm_ant")
    if case.id == "absent"
    or "warmup_factor_0_30_60" in json.loads((case.values[0] / "config.json").read_text())
]
FINE_WITHOUT_A_LABEL = 7
"""From which class on fine rows of the golden cases are masked."""

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(params=LOSS_CASES)
def golden(request: pytest.FixtureRequest) -> Golden:
    folder: Path = request.param
    return json.loads((folder / "config.json").read_text()), load_file(folder / "io.safetensors")


def masked(labels: Tensor, pad: int) -> Tensor:
    return labels.masked_fill(labels == pad, IGNORE)


def test_the_share_of_consistency_is_the_released_factor(golden: Golden) -> None:
    factors = golden[0]["warmup_factor_0_30_60"]
    assert len(factors) > 60
    found = [consistency_share(epoch) for epoch in range(len(factors))]
    assert found == pytest.approx(factors, abs=1e-12)


def test_cross_entropies_are_those_of_the_released_code(golden: Golden) -> None:
    about, tensors = golden
    logits, classes = tensors["ce.logits"], about["ce"]["n"]
    plain = cross_entropy_over_all_rows(logits, masked(tensors["ce.labels"], about["ce"]["pad"]))
    assert float(plain) == pytest.approx(float(tensors["ce.loss"]), abs=1e-5)
    pad = classes - 1
    punished = cross_entropy_over_all_rows(
        logits, masked(tensors["ce_padclass.labels"], pad), pad_class=pad
    )
    assert float(punished) == pytest.approx(float(tensors["ce_padclass.loss"]), abs=1e-5)
    assert (logits.argmax(-1) == pad).any(), "or the penalty is not looked at"


def test_the_future_is_weighed_as_by_the_released_code(golden: Golden) -> None:
    about, tensors = golden
    videos = len(tensors["wce.last_observed"])
    found = change_weighted_cross_entropy(
        tensors["wce.logits"].unflatten(0, (videos, -1)),
        masked(tensors["wce.labels"], about["ce"]["pad"]).unflatten(0, (videos, -1)),
        tensors["wce.last_observed"],
        tensors["wce.first_future"],
    )
    assert float(found) == pytest.approx(float(tensors["wce.loss"]), abs=1e-5)


def test_focal_cross_entropy_is_that_of_the_released_code(golden: Golden) -> None:
    _, tensors = golden
    labels = tensors["focal.labels"]
    labels = labels.masked_fill(labels >= FINE_WITHOUT_A_LABEL, IGNORE)
    found = focal_cross_entropy(tensors["focal.logits"], labels)
    assert float(found) == pytest.approx(float(tensors["focal.loss"]), abs=1e-5)


def test_durations_are_shared_as_by_the_released_code(golden: Golden) -> None:
    _, tensors = golden
    found = duration_shares(tensors["duration.raw"], tensors["duration.mask"] > 0)
    torch.testing.assert_close(found, tensors["duration.normalised"], atol=1e-5, rtol=0)


def test_durations_of_the_sheet() -> None:
    raw = torch.tensor([0.5, 1.0, -1.0])
    shares = duration_shares(raw, torch.tensor([True, True, False]))
    assert shares.tolist() == pytest.approx([0.3775, 0.6225, 0.0], abs=5e-5)
    assert duration_shares(raw, torch.zeros(3, dtype=torch.bool)).tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("epoch", "share"),
    [(0, 0), (15, 0.5), (30, 1), (45, 0.5), (60, 0), (7.5, 0.25), (52.5, 0.25), (61, 0), (999, 0)],
)
def test_the_share_of_consistency_rises_and_falls(epoch: float, share: float) -> None:
    assert consistency_share(epoch) == pytest.approx(share)


def test_peak_and_end_are_where_one_says() -> None:
    assert [consistency_share(epoch, 1, 5) for epoch in range(6)] == [0, 1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize(("peak", "end"), [(0, 60), (60, 60), (70, 60), (-1, 60)])
def test_a_peak_outside_of_the_schedule_is_refused(peak: float, end: float) -> None:
    with pytest.raises(ValueError, match="peak must lie above 0 and before end"):
        consistency_share(3, peak, end)


def test_wrongness_is_worked_by_hand() -> None:
    yes, no = torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.bool)
    assert float(wrongness(yes, yes, yes)) == 1
    for fine, coarse in ((no, yes), (yes, no), (no, no)):
        assert float(wrongness(fine, coarse, yes)) == 5
    fine = torch.tensor([[True, True, False, False]])
    coarse = torch.tensor([[True, False, True, False]])
    seen = torch.ones_like(fine)
    assert float(wrongness(fine, coarse, seen)) == pytest.approx((1 + 5 + 5 + 5) / 4)
    assert float(wrongness(fine, coarse, seen, 2.0)) == pytest.approx((1 + 2 + 2 + 2) / 4)


def test_frames_that_do_not_count_have_no_say_in_wrongness() -> None:
    right = torch.tensor([[True, False, False]])
    assert float(wrongness(right, right, torch.tensor([[True, True, False]]))) == 3
    assert float(wrongness(right, right, torch.zeros(1, 3, dtype=torch.bool))) == 1


def weights(at: float | Tensor, share: float) -> list[float]:
    one = torch.ones(())
    found = gated_terms(
        fine={"fine": one},
        consistency={"intra": one, "inter": one},
        rest={"actions": one, "durations": one},
        wrongness=at,
        share=share,
    )
    assert list(found) == ["fine", "intra", "inter", "actions", "durations"]
    assert found["intra"] == found["inter"]
    assert found["actions"] == found["durations"]
    return [float(found[name]) for name in ("fine", "intra", "actions")]


def test_the_gate_of_the_sheet() -> None:
    assert weights(1.0, 0.25) == [0, 0, 1]
    assert weights(5.0, 0.25) == pytest.approx([0.8 * 0.75, 0.8 * 0.25, 0.2])
    assert weights(torch.tensor(5.0), 0.0) == pytest.approx([0.8, 0, 0.2])
    assert weights(torch.tensor(5.0), 1.0) == pytest.approx([0, 0.8, 0.2])


@given(at=st.floats(1, 20), share=st.floats(0, 1))
def test_fine_consistency_and_rest_share_one_whole(at: float, share: float) -> None:
    assert sum(weights(at, share)) == pytest.approx(1)


def test_gated_terms_keep_their_gradients() -> None:
    leaf = torch.ones((), requires_grad=True)
    terms = gated_terms(
        fine={"fine": 2 * leaf}, consistency={}, rest={"rest": leaf}, wrongness=5.0, share=0.5
    )
    (slope,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaf)
    assert float(slope) == pytest.approx(2 * 0.4 + 0.2)


THREE, PADDED = 2 * torch.eye(3), torch.tensor([0, 0, IGNORE])


def test_denominators_of_the_sheet() -> None:
    own, other = -math.log(math.exp(2) / (math.exp(2) + 2)), math.log(math.exp(2) + 2)
    assert float(cross_entropy_over_all_rows(THREE, PADDED)) == pytest.approx((own + other) / 3)
    assert float(cross_entropy_over_all_rows(THREE, PADDED)) == pytest.approx(0.826363, abs=1e-6)
    counted = float(cross_entropy_over_all_rows(THREE[:2], PADDED[:2]))
    assert counted == pytest.approx(1.239545, abs=1e-6)
    for last, expected in ((1, 8.263633), (0, 0.826363)):
        weighed = change_weighted_cross_entropy(
            THREE[None], PADDED[None], torch.tensor([last]), torch.tensor([0])
        )
        assert float(weighed) == pytest.approx(expected, abs=1e-5)


def test_each_video_weighs_by_its_own_change() -> None:
    logits, labels = torch.zeros(2, 2, 4), torch.tensor([[1, 2], [3, IGNORE]])
    found = change_weighted_cross_entropy(
        logits, labels, torch.tensor([1, 0]), torch.tensor([1, 3]), change=4.0
    )
    assert float(found) == pytest.approx(math.log(4) * (1 + 1 + 4 + 0) / 4)


def test_rows_predicted_as_padding_cost_two_more_without_a_gradient() -> None:
    # The first row names the class of padding and has a label; the second has none.
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]]).requires_grad_()
    labels = torch.tensor([0, IGNORE, 0])
    plain = cross_entropy_over_all_rows(logits, labels)
    punished = cross_entropy_over_all_rows(logits, labels, pad_class=2)
    assert (punished - plain).item() == pytest.approx(2 / 3, abs=1e-6)
    slopes = [torch.autograd.grad(loss, logits)[0] for loss in (plain, punished)]
    torch.testing.assert_close(*slopes)


def test_focal_is_worked_by_hand() -> None:
    logits = torch.tensor([[[0.8, 0.2], [0.5, 0.5]]]).log()
    labels = torch.tensor([[0, IGNORE]])
    expected = -(0.2**2) * math.log(0.8) / 2
    assert float(focal_cross_entropy(logits, labels)) == pytest.approx(expected, rel=1e-5)
    scaled = focal_cross_entropy(logits, labels, gamma=1.0, alpha=0.25)
    assert float(scaled) == pytest.approx(-0.25 * 0.2 * math.log(0.8) / 2, rel=1e-5)
    plain = focal_cross_entropy(logits, labels, gamma=0.0)
    assert plain == cross_entropy_over_all_rows(logits, labels)


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_labelled_costs_nothing(rows: int) -> None:
    logits = torch.randn(2, rows, 4, requires_grad=True)
    labels, none = torch.full((2, rows), IGNORE), torch.zeros(2, dtype=torch.long)
    for loss in (
        cross_entropy_over_all_rows(logits, labels, pad_class=3),
        focal_cross_entropy(logits, labels),
        change_weighted_cross_entropy(logits, labels, none, none),
    ):
        (slope,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0
        assert not slope.any()


def test_sure_answers_have_finite_gradients() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(focal_cross_entropy(logits, torch.tensor([0, 0])), logits)
    assert slope.isfinite().all()
