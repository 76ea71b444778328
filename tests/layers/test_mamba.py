import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from actioncast.layers.mamba import MambaBlock, MambaState, initialise_steps
from actioncast.layers.ssm import Discretisation
from goldens import golden_cases

NEAR = {"atol": 1e-5, "rtol": 0.0}


def blocks_of(case: Path) -> list[MambaBlock]:
    """The blocks of a released stack, under their public names."""
    weights = load_file(case / "weights.safetensors")
    sizes = json.loads((case / "config.json").read_text())["hyper_parameters"]
    blocks = []
    for layer in range(sizes["n_layer"]):
        start = f"layers.{layer}.mixer."
        own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        block = MambaBlock(sizes["d_model"], sizes["d_state"], taps=sizes["d_conv"])
        block.load_state_dict(own)
        blocks.append(block)
    return blocks


def mamba_cases() -> list[object]:
    return [p for p in golden_cases("clam") if "mamba" in str(p.id) or p.id == "absent"]


@pytest.mark.parametrize("case", mamba_cases())
def test_public_weights_give_the_public_answers(case: Path) -> None:
    tensors = load_file(case / "io.safetensors")
    for layer, block in enumerate(blocks_of(case)):
        x = tensors[f"official.inter.layer{layer}.mixer_in"]
        expected = tensors[f"official.inter.layer{layer}.mixer_out"]
        torch.testing.assert_close(block(x), expected, **NEAR)


@pytest.mark.parametrize("case", mamba_cases())
def test_one_token_at_a_time_is_the_public_step(case: Path) -> None:
    tensors = load_file(case / "io.safetensors")
    block = blocks_of(case)[0]
    x = tensors["official.inter.layer0.mixer_in"]
    state, outputs = block.initial_state(len(x)), []
    for token in x.unbind(1):
        y, state = block.step(token, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), tensors["official.step.layer0.out"], **NEAR)
    torch.testing.assert_close(state.state, tensors["official.step.layer0.ssm_state"], **NEAR)
    # The public state keeps one input more, which the next step drops.
    inputs = tensors["official.step.layer0.conv_state"][:, :, 1:].movedim(-1, 1)
    torch.testing.assert_close(state.inputs, inputs, **NEAR)


def block_of(form: Discretisation = Discretisation.ZERO_ORDER_HOLD) -> MambaBlock:
    torch.manual_seed(0)
    return MambaBlock(12, 4, discretisation=form)


@pytest.mark.parametrize("form", list(Discretisation))
@pytest.mark.parametrize("chunk", [1, 2, 5, 19])
def test_chunks_of_any_length_are_the_sequence(form: Discretisation, chunk: int) -> None:
    block, x = block_of(form), torch.randn(3, 19, 12)
    whole, last = block.run(x)
    state: MambaState | None = None
    outputs = []
    for part in x.split(chunk, 1):
        y, state = block.run(part, before=state)
        outputs.append(y)
    assert state is not None
    torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(state.state, last.state, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(state.inputs, last.inputs)


def test_padding_leaves_no_trace_in_outputs_or_state() -> None:
    block, x = block_of(), torch.randn(3, 9, 12)
    lengths = [9, 2, 0]
    valid = torch.arange(9) < torch.tensor(lengths)[:, None]
    spoilt = x.masked_fill(~valid[..., None], 50.0)
    y, state = block.run(spoilt, valid)
    assert not y[~valid].any()
    for i, length in enumerate(lengths):
        alone, own = block.run(x[i, None, :length])
        torch.testing.assert_close(y[i, None, :length], alone, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(state.state[i, None], own.state, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(state.inputs[i, None], own.inputs, atol=1e-6, rtol=1e-5)


def test_no_step_sees_a_later_one() -> None:
    block, x = block_of(), torch.randn(1, 8, 12, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, 3].sum(), x)
    assert gradient[0, :4].abs().sum(-1).all()
    assert not gradient[0, 4:].any()


def test_the_order_of_steps_matters() -> None:
    block, x = block_of(), torch.randn(1, 8, 12)
    assert (block(x).mean(1) - block(x.flip(1)).mean(1)).abs().max() > 1e-3


def test_first_steps_are_spread_between_the_two_lengths() -> None:
    torch.manual_seed(1)
    layer = torch.nn.Linear(4, 4000)
    initialise_steps(layer)
    steps = F.softplus(layer.bias.detach())
    assert 1e-3 * 0.99 < float(steps.min()) < 2e-3
    assert 0.05 < float(steps.max()) < 0.1 * 1.01
    logs = steps.log()
    middle = (torch.tensor(1e-3).log() + torch.tensor(0.1).log()) / 2
    assert abs(float(logs.mean() - middle)) < 0.1


def test_what_must_not_decay_is_marked() -> None:
    marked = {
        name
        for name, parameter in block_of().named_parameters()
        if getattr(parameter, "_no_weight_decay", False)
    }
    assert marked == {"A_log", "D", "dt_proj.bias"}


def test_it_runs_under_autocast_with_a_float32_state() -> None:
    block, x = block_of(), torch.randn(2, 40, 12)
    exact, state = block.run(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_state = block.run(x)
    assert rough_state.state.dtype == torch.float32
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert (rough_state.state - state.state).abs().max() < 0.05 * state.state.abs().max()
