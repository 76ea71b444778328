import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from gated_memory_reference import (
    StateUpdate,
    read_by_algorithms,
    read_in_a_loop,
    states_in_a_loop,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers import gated_memory, gated_memory_chunks
from actioncast.layers.gated_memory import (
    CHUNK,
    final_state,
    memory_step,
    read_all,
    read_each,
    triton_usable,
)
from goldens import golden_cases

GATES = ("gla", "sigmoid", "hard")
LENGTHS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5)
BY_STEP = ("log_gate", "k", "v")


def inputs_of(
    steps: int = 3 * CHUNK + 5,
    gates: str = "gla",
    *,
    each: bool = False,
    sizes: tuple[int, int, int, int, int] = (2, 3, 5, 7, 4),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random inputs; `sizes` are batch, heads, keys, values and queries."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    batch, heads, keys, values, queries = sizes
    noise = drawn(batch, steps, heads, keys)
    log_gate = {
        "gla": F.logsigmoid(noise) / 16,
        "sigmoid": F.logsigmoid(3 * noise),
        # Half of them forget everything, half keep nearly all.
        "hard": torch.where(noise > 0, -60.0, 1e-3 * noise),
    }[gates]
    return {
        "queries": drawn(batch, *([steps] if each else []), heads, queries, keys),
        "log_gate": log_gate,
        "k": drawn(batch, steps, heads, keys),
        "v": drawn(batch, steps, heads, values),
        "first": drawn(batch, heads, keys, values),
    }


def ours(**inputs: Any) -> tuple[Tensor, Tensor]:
    """`read_all` or `read_each`, as the queries are."""
    read = read_each if inputs["queries"].ndim == 5 else read_all
    found = read(**inputs)
    return found.o, found.last


def last_only(queries: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    return queries.sum(), final_state(**inputs)


def differentiated(
    function: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Outputs, and gradients of a sum that weighs every entry of them differently."""
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    found = function(**leaves)
    generator = torch.Generator().manual_seed(9)
    weigh = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in found]
    sum((t * w.to(t)).sum() for t, w in zip(found, weigh, strict=True)).backward()  # type: ignore[union-attr]
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {"o": found[0].detach(), "last": found[1].detach(), **gradients}


def near(found: dict[str, Tensor], true: dict[str, Tensor], share: float = 1e-5) -> None:
    assert found.keys() == true.keys()
    for name, value in found.items():
        assert value.shape == true[name].shape, name
        if not value.numel():
            continue
        worst = float((value.detach().double() - true[name].detach().double()).abs().max())
        # At one step no state is forgotten but `first`'s: a gradient can be nought.
        most = max(float(true[name].abs().max()), 1e-3)
        assert worst <= share * most, f"{name} differs by {worst} of {most}"


@pytest.mark.parametrize("case", golden_cases("clam"))
def test_all_forms_give_the_golden_recurrence(case: Path) -> None:
    tensors = load_file(case / "io.safetensors")
    kinds = sorted(name.removesuffix(".log_g") for name in tensors if name.endswith(".log_g"))
    if not kinds:
        pytest.skip(f"{case.name} is no recurrence")
    axes = json.loads((case / "config.json").read_text())["tensors"]
    for kind in kinds:
        assert axes[f"{kind}.log_g"]["axes"] == "[B,H,T,dk]"
        log_gate, k, v = (tensors[f"{kind}.{n}"].transpose(1, 2) for n in ("log_g", "k", "v"))
        queries, given_state = tensors[f"{kind}.q"], tensors[f"{kind}.S0"]
        for start, first in (("init_zero", None), ("init_S0", given_state)):
            o = tensors[f"{kind}.{start}.o"].transpose(1, 2)
            last = tensors[f"{kind}.{start}.S_last"]
            each = queries[:, None].expand(-1, k.shape[1], -1, -1, -1)
            states = {"final": final_state(log_gate, k, v, first=first)}
            for name, found in {
                "fixed": read_all(queries, log_gate, k, v, first=first),
                "shared": read_all(queries[0], log_gate, k, v, first=first),
                "each": read_each(each, log_gate, k, v, first=first),
            }.items():
                assert (found.o - o).abs().max() < 1e-5, (kind, start, name)
                states[name] = found.last
            state = torch.zeros_like(given_state) if first is None else first
            for t in range(k.shape[1]):
                state = memory_step(log_gate[:, t], k[:, t], v[:, t], state)
                assert (queries @ state - o[:, t]).abs().max() < 1e-5, (kind, start, t)
            for name, found_state in {**states, "steps": state}.items():
                assert (found_state - last).abs().max() < 1e-5, (kind, start, name)


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
def test_outputs_and_gradients_are_those_of_the_loop(gates: str, steps: int, each: bool) -> None:
    inputs = inputs_of(steps, gates, each=each)
    exact = {name: value.double() for name, value in inputs.items()}
    near(differentiated(ours, inputs), differentiated(read_in_a_loop, exact))
    found = differentiated(last_only, inputs)

    def loop(queries: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        return queries.sum(), states_in_a_loop(**given)[:, -1]

    near(found, differentiated(loop, exact))


@pytest.mark.parametrize("gates", GATES)
def test_the_default_size_is_right_over_a_thousand_steps(gates: str) -> None:
    inputs = inputs_of(1000, gates, sizes=(1, 2, 64, 128, 10))
    exact = {name: value.double() for name, value in inputs.items()}
    near(differentiated(ours, inputs), differentiated(read_in_a_loop, exact))


@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 64, 1000])
def test_no_number_depends_on_chunks_and_parts(
    chunk: int, each: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(each=each)
    whole = differentiated(ours, inputs)
    for at_once in (1, 40, 10_000):
        monkeypatch.setattr(gated_memory_chunks, "STEPS_AT_ONCE", at_once)
        near(differentiated(lambda **given: ours(**given, chunk=chunk), inputs), whole)


@given(cut=st.integers(0, 40), seed=st.integers(0, 5), gates=st.sampled_from(GATES))
@settings(max_examples=20, deadline=None)
def test_two_halves_with_the_carried_state_make_the_whole(cut: int, seed: int, gates: str) -> None:
    inputs = inputs_of(40, gates, seed=seed)
    whole, last = ours(**inputs)
    parts, read_last, only_last = [], inputs["first"], inputs["first"]
    for part in (slice(0, cut), slice(cut, 40)):
        own = {name: inputs[name][:, part] for name in BY_STEP}
        o, read_last = ours(queries=inputs["queries"], **own, first=read_last)
        only_last = final_state(**own, first=only_last)
        parts.append(o)
    near({"o": torch.cat(parts, 1), "last": read_last}, {"o": whole, "last": last})
    near({"last": only_last}, {"last": last})


@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
def test_gradcheck_in_float64(each: bool) -> None:
    made = inputs_of(5, "sigmoid", each=each, sizes=(2, 2, 3, 2, 2), dtype=torch.float64)
    leaves = [value.requires_grad_() for value in made.values()]

    def read(*values: Tensor) -> tuple[Tensor, Tensor]:
        return ours(**dict(zip(made, values, strict=True)), chunk=2)

    def state(log_gate: Tensor, k: Tensor, v: Tensor, first: Tensor) -> Tensor:
        return final_state(log_gate, k, v, first=first)

    assert torch.autograd.gradcheck(read, leaves)
    assert torch.autograd.gradcheck(state, leaves[1:])


def test_algorithm_2_is_what_autograd_finds() -> None:
    """The oracle itself: gradients by gates, which the algorithms take as they are, and k^T v."""
    made = inputs_of(6, "sigmoid", dtype=torch.float64)
    near(differentiated(read_by_algorithms, made), differentiated(read_in_a_loop, made), 1e-12)
    gates = torch.rand(1, 4, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    written = torch.randn(1, 4, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(StateUpdate.apply, (gates, written))


def test_a_memory_that_never_forgets_adds_and_one_that_always_does_keeps_one_step() -> None:
    """By hand: S = K^T V where gates are 1, S = k_T^T v_T where they are 0, logarithms and all."""
    inputs = inputs_of()
    queries, k, v = inputs["queries"], inputs["k"], inputs["v"]
    never = torch.zeros_like(k)
    added = torch.einsum("bthk,bthv->bhkv", k, v)
    torch.testing.assert_close(final_state(never, k, v), added)
    torch.testing.assert_close(read_all(queries, never, k, v).last, added)
    written = k[..., None] * v[..., None, :]
    for low in (-200.0, -float("inf")):
        always = torch.full_like(k, low)
        found = read_all(queries, always, k, v, first=inputs["first"])
        torch.testing.assert_close(found.o, queries[:, None] @ written)
        torch.testing.assert_close(found.last, written[:, -1])
        torch.testing.assert_close(final_state(always, k, v, first=inputs["first"]), written[:, -1])


def test_a_worked_example() -> None:
    """One key, gates 1/2 and 1/4 after the first step: 8, then 4 + 6, then 2.5 + 1."""
    log_gate = torch.tensor([1.0, 0.5, 0.25]).log().reshape(1, 3, 1, 1)
    k, v = torch.tensor([2.0, 3.0, 1.0]), torch.tensor([4.0, 2.0, 1.0])
    k, v = k.reshape(1, 3, 1, 1), v.reshape(1, 3, 1, 1)
    found = read_all(torch.ones(1, 1, 1), log_gate, k, v)
    assert found.o.flatten().tolist() == pytest.approx([8.0, 10.0, 3.5])
    assert final_state(log_gate, k, v).item() == pytest.approx(3.5)


@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
def test_heads_know_nothing_of_one_another(each: bool) -> None:
    inputs, order = inputs_of(each=each), torch.tensor([2, 0, 1])
    permuted = {n: t.index_select(t.ndim - 3 if n in ("queries", "first") else 2, order)
                for n, t in inputs.items()}  # fmt: skip
    o, last = ours(**inputs)
    o_permuted, last_permuted = ours(**permuted)
    near({"o": o_permuted, "last": last_permuted}, {"o": o[:, :, order], "last": last[:, order]})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_keep_a_float32_state_and_float32_sums(dtype: torch.dtype) -> None:
    inputs = {name: t if name == "first" else t.to(dtype) for name, t in inputs_of().items()}
    exact = {name: value.float() for name, value in inputs.items()}
    (o, last), (exact_o, exact_last) = ours(**inputs), ours(**exact)
    assert (o.dtype, last.dtype) == (dtype, torch.float32)
    assert torch.equal(o, exact_o.to(dtype))
    assert torch.equal(last, exact_last)
    log_gate, k, v, first = (inputs[name] for name in (*BY_STEP, "first"))
    assert final_state(log_gate, k, v, first=first).dtype == torch.float32
    assert memory_step(log_gate[:, 0], k[:, 0], v[:, 0], first).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_raises_half_gates_in_the_states_own_type(dtype: torch.dtype) -> None:
    inputs = {name: t if name == "first" else t.to(dtype) for name, t in inputs_of(1).items()}
    log_gate, k, v = (inputs[name][:, 0] for name in BY_STEP)
    exact = log_gate.float().exp()[..., None] * inputs["first"]
    exact = exact + k.float()[..., None] * v.float()[..., None, :]
    assert torch.equal(memory_step(log_gate, k, v, inputs["first"]), exact)


def test_autocast_changes_no_bit() -> None:
    inputs = inputs_of()
    plain = {**differentiated(ours, inputs), "final": last_only(**inputs)[1]}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = {**differentiated(ours, inputs), "final": last_only(**inputs)[1]}
    for name, value in plain.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
def test_padding_leaves_no_trace(each: bool) -> None:
    inputs = inputs_of(40, each=each)
    valid = torch.arange(40) < torch.tensor([[40], [23]])
    # Padding in the middle too, and what stands there is no number.
    valid[0, 7] = False
    padded = (*BY_STEP, "queries") if each else BY_STEP
    leaves = {
        n: t.masked_fill(~valid.reshape(2, 40, *[1] * (t.ndim - 2)), float("nan"))
        if n in padded
        else t.clone()
        for n, t in inputs.items()
    }
    leaves = {name: value.requires_grad_() for name, value in leaves.items()}
    o, last = ours(**leaves, valid=valid)
    assert not o[~valid].any()
    state = final_state(**{n: leaves[n] for n in (*BY_STEP, "first")}, valid=valid)
    (o.square().sum() + last.square().sum() + state.square().sum()).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all(), name
    for sample in (0, 1):
        real = valid[sample]
        alone = {n: t[sample : sample + 1] for n, t in inputs.items()}
        alone |= {n: alone[n][:, real] for n in padded}
        true_o, true_last = ours(**alone)
        near(
            {"o": o[sample][real], "last": last[sample], "final": state[sample]},
            {"o": true_o[0], "last": true_last[0], "final": true_last[0]},
        )


def test_gradients_stay_finite_whatever_the_gates() -> None:
    inputs = inputs_of(200, "hard")
    for low in (-60.0, -1e4, -1e30, -float("inf")):
        own = {**inputs, "log_gate": inputs["log_gate"].masked_fill(inputs["log_gate"] < -1, low)}
        for found in (differentiated(ours, own), differentiated(last_only, own)):
            for name, value in found.items():
                assert value.isfinite().all(), (name, low)


@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
def test_no_step_leaves_the_state_and_no_query_reads_nothing(each: bool) -> None:
    inputs = inputs_of(0, each=each)
    found = differentiated(ours, inputs)
    assert found["o"].shape == (2, 0, 3, 4, 7)
    assert torch.equal(found["last"], inputs["first"])
    state = final_state(**{name: inputs[name] for name in BY_STEP}, first=inputs["first"])
    assert torch.equal(state, inputs["first"])
    inputs = inputs_of(20, each=each, sizes=(2, 3, 5, 7, 0))
    o, last = ours(**inputs)
    assert o.shape == (2, 20, 3, 0, 7)
    near({"last": last}, {"last": last_only(**inputs)[1]})


def test_a_step_keeps_the_state_that_it_was_given() -> None:
    inputs = inputs_of()
    before = inputs["first"].clone()
    memory_step(*(inputs[name][:, 0] for name in BY_STEP), inputs["first"])
    assert torch.equal(inputs["first"], before)


def test_a_bad_chunk_and_a_missing_kernel_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of()
    with pytest.raises(ValueError, match="chunk must be at least 1 step, got 0"):
        ours(**inputs, chunk=0)
    monkeypatch.setattr(gated_memory, "_triton_installed", lambda: False)
    with pytest.raises(ValueError, match="install it"):
        ours(**inputs, form="triton")
    assert not triton_usable(inputs["v"])


KERNEL_CHECK = """
import torch
import test_gated_memory as own
from actioncast.layers import gated_memory_triton
from actioncast.layers.gated_memory import final_state

gated_memory_triton.CHECKPOINT = 8


def kernel(**given):
    return own.ours(**given, form="triton")


def kernel_state(queries, **given):
    return queries.sum(), final_state(**given, form="triton")


def compared(steps, gates, each, sizes):
    made = own.inputs_of(steps, gates, each=each, sizes=sizes)
    own.near(own.differentiated(kernel, made), own.differentiated(own.ours, made))
    if not each:
        found = own.differentiated(kernel_state, made)
        own.near(found, own.differentiated(own.last_only, made))


# Neither steps nor keys nor values nor queries fill their blocks.
for each in (False, True):
    for gates in own.GATES:
        compared(19, gates, each, (1, 2, 5, 35, 3))
    for steps in (0, 1, 8):
        compared(steps, "sigmoid", each, (2, 1, 17, 4, 18))
made = own.inputs_of(19)
made["queries"] = made["queries"][0].expand(2, -1, -1, -1)
valid = torch.arange(19) < torch.tensor([[19], [11]])
found = own.ours(**made, valid=valid, form="triton")
true = own.ours(**made, valid=valid)
own.near(dict(zip("os", found)), dict(zip("os", true)))
half = {name: t if name == "first" else t.bfloat16() for name, t in made.items()}
found, true = own.ours(**half, form="triton"), own.ours(**half)
assert found[0].dtype == torch.bfloat16 and found[1].dtype == torch.float32
own.near({"last": found[1]}, {"last": true[1]})
own.near({"o": found[0]}, {"o": true[0]}, 0.01)
print("kernel compared")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_under_tritons_interpreter_gives_the_numbers_of_pytorch() -> None:
    """In a process of its own: Triton reads the variable when it is imported."""
    here = Path(__file__).parent
    search = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", KERNEL_CHECK],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(search)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "kernel compared" in done.stdout, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("form", ["torch", "triton"])
@pytest.mark.parametrize("each", [False, True], ids=["fixed", "each"])
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_the_numbers_of_the_loop(
    form: str, each: bool, gates: str, dtype: torch.dtype
) -> None:
    if form == "triton" and find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    inputs = inputs_of(300, gates, each=each, sizes=(2, 3, 64, 128, 10))
    given = {n: t if n == "first" else t.to(dtype) for n, t in inputs.items()}
    exact = {name: value.double() for name, value in given.items()}
    moved = {name: value.cuda() for name, value in given.items()}
    found = differentiated(lambda **own: ours(**own, form=form), moved)
    share = 1e-5 if dtype == torch.float32 else 0.02
    true = differentiated(read_in_a_loop, exact)
    near({name: value.cpu() for name, value in found.items()}, true, share)
