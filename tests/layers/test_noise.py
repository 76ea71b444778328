"""The schedule and the step of DDIM against their formulas, worked by hand and by distribution."""

import math

import pytest
import torch

from actioncast.layers.diffusion import (
    cosine_signal,
    ddim_step,
    ddim_steps,
    diffuse,
    standard_noise,
    step_embedding,
)


def test_the_signal_falls_as_a_squared_cosine() -> None:
    signal = cosine_signal(1000)
    assert signal.dtype == torch.float64
    for step, expected in ((0, 0.9999587), (39, 0.9945700), (499, 0.4938436), (959, 0.0038810)):
        assert float(signal[step]) == pytest.approx(expected, abs=1e-7)
    assert float(signal[999]) == pytest.approx(2.43e-9, rel=1e-2)
    assert (signal.diff() < 0).all()


@pytest.mark.parametrize(("steps", "expected"), [(1, [999]), (4, [999, 749, 499, 249])])
def test_steps_are_spread_from_the_noisiest(steps: int, expected: list[int]) -> None:
    assert ddim_steps(1000, steps) == expected
    assert ddim_steps(10, 10) == list(range(9, -1, -1))


def test_diffusing_keeps_the_variance_of_unit_data() -> None:
    data, noise = torch.ones(2, 3), torch.full((2, 3), 2.0)
    found = diffuse(data, torch.tensor([1.0, 0.25], dtype=torch.float64), noise)
    torch.testing.assert_close(found[0], data[0].double())
    assert float(found[1, 0]) == pytest.approx(0.5 + math.sqrt(0.75) * 2)


def test_a_deterministic_step_moves_along_the_predicted_noise() -> None:
    data, noise = torch.randn(1, 4), torch.randn(1, 4)
    state = math.sqrt(0.3) * data + math.sqrt(0.7) * noise
    found = ddim_step(state, data, 0.3, 0.8, 0.0, None)
    expected = (math.sqrt(0.8) * data + math.sqrt(0.2) * noise).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_whatever_eta_a_step_leaves_the_noise_that_the_schedule_wants(eta: float) -> None:
    """Song et al., lemma 1: the marginals do not depend on eta."""
    generator = torch.Generator().manual_seed(0)
    data = torch.full((1, 200_000), 0.5, dtype=torch.float64)
    noise, more = (torch.randn(data.shape, generator=generator).double() for _ in range(2))
    state = math.sqrt(0.2) * data + math.sqrt(0.8) * noise
    found = ddim_step(state, data, 0.2, 0.6, eta, more)
    assert float(found.mean()) == pytest.approx(math.sqrt(0.6) * 0.5, abs=0.01)
    assert float(found.var()) == pytest.approx(0.4, rel=0.02)


def test_eta_one_is_the_ancestral_sampler() -> None:
    """Ho et al., Eq. 7: mean and variance of the posterior."""
    signal, following = 0.3, 0.7
    state, data = torch.tensor([1.3]), torch.tensor([-0.4])
    alpha = signal / following
    mean = math.sqrt(following) * (1 - alpha) / (1 - signal) * data
    mean = mean + math.sqrt(alpha) * (1 - following) / (1 - signal) * state
    deviation = math.sqrt((1 - following) / (1 - signal) * (1 - alpha))
    quiet = ddim_step(state, data, signal, following, 1.0, torch.zeros(1))
    loud = ddim_step(state, data, signal, following, 1.0, torch.ones(1))
    assert float(quiet) == pytest.approx(float(mean), rel=1e-6)
    assert float(loud - quiet) == pytest.approx(deviation, rel=1e-6)


def test_noise_is_that_of_torch_and_touches_no_global_state() -> None:
    state = torch.get_rng_state()
    stream = standard_noise((2, 3), 7, "cpu")
    found = [next(stream) for _ in range(4)]
    assert state.equal(torch.get_rng_state())
    assert [draw.dtype for draw in found] == [torch.float32] * 2 + [torch.float64] * 2
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = [torch.randn(2, 3, dtype=draw.dtype) for draw in found]
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
    again = standard_noise((2, 3), 7, "cpu")
    assert next(again).equal(found[0])


def test_a_step_is_embedded_as_sines_then_cosines() -> None:
    found = step_embedding(torch.tensor([0, 3]), 8)
    assert found[0].tolist() == [0.0] * 4 + [1.0] * 4
    rates = [10_000 ** (-m / 3) for m in range(4)]
    expected = [math.sin(3 * r) for r in rates] + [math.cos(3 * r) for r in rates]
    torch.testing.assert_close(found[1], torch.tensor(expected), atol=1e-6, rtol=1e-6)
