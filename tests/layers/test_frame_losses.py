"""Targets and losses against the released code's, scipy's and sums done by hand."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.frame_losses import (
    boundary_loss,
    boundary_targets,
    class_weights,
    frame_cross_entropy,
    smoothing_loss,
    soft_cross_entropy,
    soft_labels,
    strided_boundaries,
)
from goldens import ROOT, golden_cases, golden_file

LOSS_CASES = [
    case
    for case in [*golden_cases("actfusion"), *golden_cases("diffact")]
    if case.id == "absent" or (case.values[0] / "weights.safetensors").is_file()
]


def golden_boundaries() -> list[tuple[str, str]]:
    """Case and name of every boundary target recorded without a network."""
    return [
        (file.parent.name, name.removesuffix(".target"))
        for file in sorted((ROOT / "actfusion").glob("*/config.json"))
        for name in json.loads(file.read_text())["tensors"]
        if re.fullmatch(r"boundary.*\.target", name)
    ] or [("postprocess", "absent")]


def golden_loss(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about = json.loads((folder / "config.json").read_text())["loss"]
    return about, load_file(folder / "io.safetensors")


def steps(channels: Tensor) -> Tensor:
    return rearrange(channels, "batch label time -> batch time label")


@pytest.mark.parametrize(("case", "name"), golden_boundaries())
def test_boundary_targets_are_those_of_the_released_code(case: str, name: str) -> None:
    file = golden_file(f"actfusion/{case}/config.json")
    tensors = load_file(file.with_name("io.safetensors"))
    axes = json.loads(file.read_text())["tensors"][f"{name}.target"]["axes"]
    found = re.search(r"sigma=(None|[\d.]+)", axes)
    assert found is not None
    sigma = 0.0 if found[1] == "None" else float(found[1])
    target = boundary_targets(tensors[f"{name}.labels"], sigma)
    torch.testing.assert_close(target, tensors[f"{name}.target"].double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("folder", LOSS_CASES)
def test_targets_of_the_losses_are_those_of_the_released_code(folder: Path) -> None:
    about, tensors = golden_loss(folder)
    labels, weights = tensors["loss.labels"], tensors["loss.class_weights"]
    counts = tensors["loss.train_labels_for_weights"].flatten().bincount(minlength=len(weights))
    torch.testing.assert_close(class_weights(counts), weights, atol=1e-6, rtol=1e-6)
    boundaries = strided_boundaries(boundary_targets(labels, about["boundary_smooth"]), 1, 0)
    expected = tensors["loss.boundary"].flatten()
    torch.testing.assert_close(boundaries.float(), expected, atol=1e-6, rtol=0)
    soft = soft_labels(F.one_hot(labels[None], len(weights)).float(), about["soft_label_sigma"])
    torch.testing.assert_close(soft, steps(tensors["loss.soft_targets"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("folder", LOSS_CASES)
def test_every_term_is_that_of_the_released_code(folder: Path) -> None:
    about, tensors = golden_loss(folder)
    labels, weights = tensors["loss.labels"], tensors["loss.class_weights"]
    counted = torch.ones(1, len(labels), dtype=torch.bool)
    boundaries = boundary_targets(labels, about["boundary_smooth"])[None]
    soft = soft_labels(F.one_hot(labels[None], len(weights)).float(), about["soft_label_sigma"])
    variants = {name.split(".")[1] for name in tensors if name.endswith("_ce_loss")}
    assert variants >= {"classweight", "unweighted", "softlabel"}
    for variant in variants:
        for part in ("encoder", "decoder"):
            # A variant whose network differs has logits of its own.
            name = f"{part}_logits"
            own = tensors.get(f"loss.{variant}.{name}", tensors[f"loss.{name}"])
            logits = steps(own)
            if variant == "softlabel":
                frames = soft_cross_entropy(logits, soft, counted)
            else:
                weighted = weights if variant.startswith("classweight") else None
                frames = frame_cross_entropy(logits, labels[None], weighted, counted)
            terms = {
                "ce": frames,
                "mse": smoothing_loss(logits, counted),
                "boundary": boundary_loss(logits, boundaries, counted),
            }
            for kind, loss in terms.items():
                # The released code leaves out a term that weighs nothing.
                if not about["lambda_"][f"{part}_{kind}_loss"]:
                    continue
                expected = float(tensors[f"loss.{variant}.{part}_{kind}_loss"])
                assert float(loss) == pytest.approx(expected, abs=1e-5), (variant, part, kind)


def test_weights_are_worked_by_hand() -> None:
    found = class_weights(torch.tensor([90, 0, 30]))
    assert found.tolist() == pytest.approx([120 / 300, 120 / 30, 120 / 120])


def test_both_frames_beside_a_change_are_ones() -> None:
    frames = torch.tensor([4, 4, 4, 1, 1, 2, 4])
    assert boundary_targets(frames, 0.0).tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert boundary_targets(frames, 0.0).dtype == torch.float64


def test_a_lone_boundary_is_a_sum_of_two_bells() -> None:
    frames = torch.arange(200) // 100
    bell = [math.exp(-0.5 * (n / 3) ** 2) for n in range(14)]
    peak = bell[0] + bell[1]
    found = boundary_targets(frames, 3.0)
    expected = [1.0, *((bell[n] + bell[n + 1]) / peak for n in range(1, 12))]
    assert found[100:112].tolist() == pytest.approx(expected, abs=1e-12)
    assert found.flip(0).equal(found)


def test_close_boundaries_are_cut_at_the_peak_of_a_lone_one() -> None:
    frames = torch.tensor([0] * 50 + [1] * 2 + [2] * 50)
    found = boundary_targets(frames, 3.0)
    assert found[49:53].tolist() == [1.0] * 4
    assert (found[48] < 1) == (found[53] < 1)


@given(
    frames=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    sigma=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0]),
)
@settings(deadline=None)
def test_boundary_targets_lie_between_zero_and_one(frames: list[int], sigma: float) -> None:
    found = boundary_targets(torch.tensor(frames), sigma)
    assert found.min() >= 0
    assert found.max() == (len(set(frames)) > 1)


def test_a_video_of_one_segment_has_no_boundary() -> None:
    for time in (1, 2, 30):
        found = boundary_targets(torch.full((time,), 3), 20.0)
        assert found.tolist() == [0.0] * time
        assert strided_boundaries(found, 8, time - 1).tolist() == [0.0]


def test_a_stride_reads_from_its_first_frame_and_scales_again() -> None:
    boundaries = torch.tensor([0.0, 0.2, 0.4, 1.0, 0.8, 0.1], dtype=torch.float64)
    assert strided_boundaries(boundaries, 2, 0).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert strided_boundaries(boundaries, 3, 1).tolist() == pytest.approx([0.25, 1.0])
    assert strided_boundaries(boundaries, 1, 6).tolist() == []
    assert boundaries[3] == 1.0


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=50),
    sigma=st.sampled_from([0.3, 1.4, 4.0, 20.0]),
)
@settings(deadline=None)
def test_labels_are_smoothed_as_by_scipy(labels: list[int], sigma: float) -> None:
    """Also where the kernel reaches several times past the video's ends."""
    one_hot = F.one_hot(torch.tensor([labels, labels[::-1]]), 5).double()
    found = soft_labels(one_hot, sigma)
    expected = torch.from_numpy(gaussian_filter1d(one_hot.numpy(), sigma, axis=1))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    single = soft_labels(one_hot.float(), sigma)
    torch.testing.assert_close(single.sum(-1), torch.ones(2, len(labels)), atol=1e-6, rtol=0)


def drawn(time: int, seed: int = 0, videos: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(videos, time, 4, generator=generator)).requires_grad_()


def all_losses(logits: Tensor, counted: Tensor) -> list[Tensor]:
    videos, time, num_labels = logits.shape
    labels = torch.arange(time).expand(videos, time) % num_labels
    one_hot = F.one_hot(labels, num_labels).float()
    boundaries = torch.linspace(0, 1, time).expand(videos, time)
    return [
        frame_cross_entropy(logits, labels, None, counted),
        frame_cross_entropy(logits, labels, torch.arange(1.0, 5.0), counted),
        soft_cross_entropy(logits, one_hot, counted),
        smoothing_loss(logits, counted),
        boundary_loss(logits, boundaries, counted),
        boundary_loss(logits, boundaries, counted, through_both=True),
    ]


def test_weights_are_not_normalised() -> None:
    logits = torch.tensor([[[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]]).log()
    labels, weights = torch.tensor([[0, 1, -100]]), torch.tensor([2.0, 5.0])
    expected = -(2 * math.log(0.8) + 5 * math.log(0.5)) / 2
    found = frame_cross_entropy(logits, labels, weights, labels >= 0)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_soft_targets_are_averaged_by_their_shares() -> None:
    logits = torch.tensor([[[0.8, 0.2], [0.5, 0.5]]]).log()
    targets = torch.tensor([[[0.75, 0.25], [1.0, 0.0]]])
    expected = -(0.75 * math.log(0.8) + 0.25 * math.log(0.2) + math.log(0.5)) / 2
    found = soft_cross_entropy(logits, targets, torch.tensor([[True, True]]))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_smoothing_is_worked_by_hand_and_cut() -> None:
    probs = torch.tensor([[[0.8, 0.2], [0.5, 0.5], [0.5, 0.5]]])
    expected = (math.log(0.8 / 0.5) ** 2 + math.log(0.2 / 0.5) ** 2) / 4
    counted = torch.ones(1, 3, dtype=torch.bool)
    assert float(smoothing_loss(probs.log(), counted)) == pytest.approx(expected, rel=1e-5)
    far = torch.tensor([[[99.0, 0.0], [0.0, 99.0]]])
    assert float(smoothing_loss(far, counted[:, :2])) == 16.0


def test_the_boundary_loss_reads_the_target_of_the_later_frame() -> None:
    probs = torch.tensor([[[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]])
    boundaries = torch.tensor([[0.9, 0.0, 1.0]])
    same = [0.8 * 0.6 + 0.2 * 0.4, 0.6 * 0.1 + 0.4 * 0.9]
    expected = -(math.log(same[0]) + math.log(1 - same[1])) / 2
    counted = torch.ones(1, 3, dtype=torch.bool)
    assert float(boundary_loss(probs.log(), boundaries, counted)) == pytest.approx(expected)


def test_sure_answers_with_the_right_boundaries_cost_nothing() -> None:
    labels = torch.tensor([[0, 0, 2, 2, 1]])
    changes = (labels.diff(prepend=labels[:, :1]) != 0).double()
    counted = torch.ones(1, 5, dtype=torch.bool)
    found = boundary_loss(99.0 * F.one_hot(labels, 3), changes, counted)
    assert float(found) == pytest.approx(0, abs=1e-6)


def test_the_earlier_neighbour_stands_still_unless_asked_otherwise() -> None:
    logits, counted = drawn(2), torch.ones(1, 2, dtype=torch.bool)
    boundaries = torch.tensor([[0.0, 0.3]])
    for loss in (smoothing_loss(logits, counted), boundary_loss(logits, boundaries, counted)):
        (slope,) = torch.autograd.grad(loss, logits)
        assert not slope[0, 0].any()
        assert slope[0, 1].any()
    one = boundary_loss(logits, boundaries, counted)
    both = boundary_loss(logits, boundaries, counted, through_both=True)
    assert both == one
    (slope,) = torch.autograd.grad(both, logits)
    assert slope[0, 0].any()
    assert slope[0, 1].any()


def test_only_neighbours_that_both_count_are_averaged() -> None:
    logits, boundaries = drawn(6), torch.linspace(0, 1, 6)[None]
    counted = torch.tensor([[True, True, False, True, True, True]])

    def both(part: slice) -> Tensor:
        some = counted[:, part]
        return torch.stack(
            [
                smoothing_loss(logits[:, part], some),
                boundary_loss(logits[:, part], boundaries[:, part], some),
            ]
        )

    expected = (both(slice(0, 2)) + 2 * both(slice(3, 6))) / 3
    torch.testing.assert_close(both(slice(0, 6)), expected)


@settings(deadline=None)
@given(time=st.integers(1, 20), seed=st.integers(0, 1000), data=st.data())
def test_what_does_not_count_changes_nothing(time: int, seed: int, data: st.DataObject) -> None:
    counted = torch.tensor([data.draw(st.lists(st.booleans(), min_size=time, max_size=time))])
    logits = drawn(time, seed)
    other = torch.where(counted[..., None], logits, drawn(time, seed + 1))
    for one, another in zip(all_losses(logits, counted), all_losses(other, counted), strict=True):
        assert one.equal(another)
        (slope,) = torch.autograd.grad(one, logits, retain_graph=True)
        assert not slope[~counted].any()
        assert slope.isfinite().all()


@settings(deadline=None)
@given(time=st.integers(1, 12), seed=st.integers(0, 1000), data=st.data())
def test_every_video_weighs_the_same(time: int, seed: int, data: st.DataObject) -> None:
    """Whatever counts of each; padding is steps that do not count."""
    rows = st.lists(st.booleans(), min_size=time, max_size=time)
    counted = torch.tensor([data.draw(rows) for _ in range(3)])
    logits = drawn(time, seed, videos=3)
    alone = [torch.stack(all_losses(logits[i, None], counted[i, None])) for i in range(3)]
    together = torch.stack(all_losses(logits, counted))
    torch.testing.assert_close(together, torch.stack(alone).mean(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("time", [1, 2, 7])
def test_nothing_counted_costs_nothing(time: int) -> None:
    logits = drawn(time)
    for loss in all_losses(logits, torch.zeros(1, time, dtype=torch.bool)):
        assert loss.item() == 0
        (slope,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert slope.equal(torch.zeros_like(logits))


def test_one_step_has_no_neighbours() -> None:
    *_, smooth, boundary, both = all_losses(drawn(1), torch.ones(1, 1, dtype=torch.bool))
    assert smooth.item() == boundary.item() == both.item() == 0


def test_losses_are_computed_in_full_precision() -> None:
    """Under autocast and with logits of half the precision."""
    logits, counted = drawn(30).detach().bfloat16(), torch.ones(1, 30, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = all_losses(logits, counted)
    for one, another in zip(found, all_losses(logits.float(), counted), strict=True):
        assert one.dtype == torch.float32
        assert one.equal(another)


def test_sure_answers_keep_gradients_finite() -> None:
    logits = (200.0 * F.one_hot(torch.tensor([[0, 1, 1, 0]]), 3)).requires_grad_()
    counted = torch.ones(1, 4, dtype=torch.bool)
    for target in (0.0, 1.0):
        for through_both in (False, True):
            loss = boundary_loss(logits, torch.full((1, 4), target), counted, through_both)
            (slope,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite()
            assert slope.isfinite().all()


@pytest.mark.parametrize("sigma", [0.0, 1.4])
def test_unlabelled_steps_have_no_say_in_soft_labels(sigma: float) -> None:
    one_hot = F.one_hot(torch.tensor([[0] * 5 + [1] * 5]), 2).float()
    one_hot[:, 5:] = 0
    found = soft_labels(one_hot, sigma)
    torch.testing.assert_close(found[0, :5, 0], torch.ones(5))
    assert not found[..., 1].any()


def test_soft_labels_keep_full_precision_under_autocast() -> None:
    one_hot = F.one_hot(torch.arange(60)[None] // 20, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_labels(one_hot, 4.0)
    assert found.equal(soft_labels(one_hot, 4.0))


@given(
    frames=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    sigma=st.sampled_from([0.1, 1.0, 3.0, 20.0]),
)
@settings(deadline=None)
def test_boundaries_of_short_videos_are_cut_at_the_peak_in_a_video_as_short(
    frames: list[int], sigma: float
) -> None:
    """The mirror adds to a lone boundary's peak where the kernel reaches past the ends."""
    edges = boundary_targets(torch.tensor(frames), 0.0).numpy()
    lone = np.zeros_like(edges)
    lone[len(lone) // 2 - 1 : len(lone) // 2 + 1] = 1
    expected = gaussian_filter1d(edges, sigma).clip(max=gaussian_filter1d(lone, sigma).max())
    found = boundary_targets(torch.tensor(frames), sigma) * expected.max()
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-12, rtol=0)
