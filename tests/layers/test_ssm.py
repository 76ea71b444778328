import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scan_reference import scan_in_a_loop
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers import scan_kernel, scan_loop, ssm
from actioncast.layers.ssm import Discretisation, selective_scan, selective_step
from goldens import golden_cases

EULER, HOLD = Discretisation.EULER, Discretisation.ZERO_ORDER_HOLD
each_form = pytest.mark.parametrize("discretisation", [EULER, HOLD])


@pytest.fixture(params=["compiled", "pytorch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to scan float32 on a CPU."""
    if request.param == "pytorch":
        monkeypatch.setattr(ssm, "kernel", lambda: None)
    elif scan_kernel.kernel() is None:
        pytest.skip("no C compiler here")
    return str(request.param)


def time_first(t: Tensor | None) -> Any:
    """Goldens are `[batch, channel, time]`; constant matrices stay as they are."""
    return t if t is None or t.ndim < 3 else t.movedim(-1, 1)


def golden_inputs(case: Path) -> Iterator[tuple[str, dict[str, Tensor], bool]]:
    tensors = load_file(case / "io.safetensors")
    told = json.loads((case / "config.json").read_text()).get("cases", {})
    names = {key.split(".")[0] for key in tensors if key.split(".")[0] in told}
    for name in sorted(names) or [""]:
        start = f"{name}." if name else ""
        own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        yield name, own, bool(told.get(name, {}).get("delta_softplus", False))


def scan_golden(own: dict[str, Tensor], softplus: bool, form: Discretisation) -> ssm.Scan:
    return selective_scan(
        time_first(own["u"]),
        time_first(own["delta"]),
        own["A"],
        time_first(own["B"]),
        time_first(own["C"]),
        own.get("D"),
        time_first(own.get("z")),
        own.get("delta_bias"),
        softplus=softplus,
        discretisation=form,
    )


@pytest.mark.parametrize("case", golden_cases("ssm"))
def test_scans_are_those_of_the_public_reference_and_of_exact_hold(case: Path, way: str) -> None:
    compared = 0
    for name, own, softplus in golden_inputs(case):
        for kind, form in (("official", EULER), ("zoh", HOLD)):
            if f"{kind}.y" not in own:
                continue
            found = scan_golden(own, softplus, form)
            near = {"atol": 1e-5, "rtol": 0.0, "check_dtype": False}
            where = f"{name} {kind} {way}"
            assert_close(found.y, time_first(own[f"{kind}.y"]), where, **near)
            assert_close(found.last, own[f"{kind}.last_state"], where, **near)
            compared += 1
    assert compared


def assert_close(found: Tensor, expected: Tensor, where: str, **near: Any) -> None:
    torch.testing.assert_close(found, expected, **near, msg=lambda said: f"{where}: {said}")


@pytest.mark.parametrize("case", golden_cases("ssm"))
def test_gradients_are_those_of_the_public_reference(case: Path, way: str) -> None:
    for name, own, softplus in golden_inputs(case):
        gradients = {k.removeprefix("grad."): v for k, v in own.items() if k.startswith("grad.")}
        weight = gradients.pop("weight", None)
        if weight is None:
            continue
        leaves = {key: own[key].clone().requires_grad_() for key in gradients}
        found = scan_golden({**own, **leaves}, softplus, EULER)
        (found.y * time_first(weight)).sum().backward()
        for key, expected in gradients.items():
            grad = leaves[key].grad
            assert grad is not None
            assert_close(
                grad,
                expected,
                f"{name} {key} {way}",
                atol=1e-5 * float(expected.abs().max()),
                rtol=0,
            )


def inputs_of(
    batch: int = 2,
    steps: int = 70,
    channels: int = 21,
    states: int = 5,
    *,
    groups: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random inputs; lengths that no chunk and no vector divides."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    middle = (groups,) if groups else ()
    return {
        "u": drawn(batch, steps, channels),
        "delta": drawn(batch, steps, channels).exp() * 0.2,
        "a": -drawn(channels, states).exp(),
        "b": drawn(batch, steps, *middle, states),
        "c": drawn(batch, steps, *middle, states),
        "first": drawn(batch, channels, states),
    }


def differentiated(
    function: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Outputs, last state, and gradients of a sum that weighs every entry of both differently."""
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    y, last = function(**leaves)
    generator = torch.Generator().manual_seed(9)
    weigh = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (y, last)]
    sum((t * w.to(t.dtype)).sum() for t, w in zip((y, last), weigh, strict=True)).backward()
    return y.detach(), last.detach(), {n: leaf.grad for n, leaf in leaves.items()}  # type: ignore[misc]


def ours(form: Discretisation) -> Callable[..., tuple[Tensor, Tensor]]:
    def scan(**inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = selective_scan(**inputs, discretisation=form)  # type: ignore[arg-type]
        return found.y, found.last

    return scan


@each_form
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"steps": 1},
        {"steps": 32, "channels": 16},
        {"steps": 33, "channels": 1},
        {"batch": 1, "steps": 200, "channels": 530, "states": 16},
        {"channels": 7, "states": 1},
        {"channels": 60, "groups": 3},
        {"channels": 96, "groups": 3, "steps": 130},
        {"channels": 200, "groups": 2, "steps": 300, "states": 16},
    ],
    ids=str,
)
def test_it_equals_the_loop_that_autograd_differentiates(
    sizes: dict[str, int], discretisation: Discretisation, way: str
) -> None:
    inputs = inputs_of(**sizes)
    exact = {name: value.double() for name, value in inputs.items()}
    held = discretisation is HOLD
    y, last, gradients = differentiated(ours(discretisation), inputs)

    def loop(**leaves: Tensor) -> tuple[Tensor, Tensor]:
        return grouped_loop(**leaves, zero_order_hold=held)

    true_y, true_last, true_gradients = differentiated(loop, exact)
    near(y, true_y, way)
    near(last, true_last, way)
    for name, gradient in gradients.items():
        near(gradient, true_gradients[name], f"{name} {way}")


def grouped_loop(zero_order_hold: bool, **given: Tensor) -> tuple[Tensor, Tensor]:
    """The loop on each group of channels by itself."""
    if given["b"].ndim == 3:
        return scan_in_a_loop(**given, zero_order_hold=zero_order_hold)
    groups, parts = given["b"].shape[2], []
    for group in range(groups):
        own = slice(
            group * given["a"].shape[0] // groups, (group + 1) * given["a"].shape[0] // groups
        )
        parts.append(
            scan_in_a_loop(
                given["u"][..., own],
                given["delta"][..., own],
                given["a"][own],
                given["b"][:, :, group],
                given["c"][:, :, group],
                first=given["first"][:, own],
                zero_order_hold=zero_order_hold,
            )
        )
    return torch.cat([y for y, _ in parts], 2), torch.cat([last for _, last in parts], 1)


def near(found: Tensor, true: Tensor, where: str, share: float = 1e-5) -> None:
    worst = float((found.detach().double() - true).abs().max())
    assert worst <= share * float(true.abs().max()), f"{where} differs by {worst}"


@each_form
@pytest.mark.parametrize("groups", [0, 3])
def test_gradcheck_in_float64(groups: int, discretisation: Discretisation) -> None:
    made = inputs_of(2, 7, 6, 3, groups=groups, dtype=torch.float64)
    leaves = [value.requires_grad_() for value in made.values()]

    def scan(*given: Tensor) -> tuple[Tensor, Tensor]:
        return ours(discretisation)(**dict(zip(made, given, strict=True)))

    assert torch.autograd.gradcheck(scan, leaves)


@each_form
def test_gradcheck_across_chunks_and_where_a_is_nought(discretisation: Discretisation) -> None:
    made = inputs_of(1, scan_loop.CHUNK + 3, 2, 2, dtype=torch.float64)
    # Values on both sides of where the series takes over, and the limit itself.
    made["a"] = torch.tensor([[-3.0, -1e-9], [0.0, -0.7]], dtype=torch.float64)
    leaves = [made[name].requires_grad_() for name in ("u", "delta", "b", "c", "first")]

    def scan(u: Tensor, delta: Tensor, b: Tensor, c: Tensor, first: Tensor) -> Tensor:
        return selective_scan(
            u, delta, made["a"], b, c, first=first, discretisation=discretisation
        ).y

    assert torch.autograd.gradcheck(scan, leaves)


def test_the_gradient_by_a_has_no_seam_between_series_and_quotient(way: str) -> None:
    """x = dt A runs over seven orders of magnitude, in both directions from where they meet."""
    steps = torch.logspace(-5, 2, 300)[None, :, None]
    inputs = inputs_of(1, 300, 1, 2)
    inputs |= {"delta": steps, "a": torch.tensor([[-0.5, -1.0]])}
    exact = {name: value.double() for name, value in inputs.items()}
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    ours(HOLD)(**leaves)[0].sum().backward()
    true = {k: v.clone().requires_grad_() for k, v in exact.items()}
    scan_in_a_loop(**true, zero_order_hold=True)[0].sum().backward()
    for name in inputs:
        near(leaves[name].grad, true[name].grad, f"{name} {way}")  # type: ignore[arg-type]


@each_form
@given(cut=st.integers(0, 40), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_two_halves_make_the_whole(discretisation: Discretisation, cut: int, seed: int) -> None:
    inputs = inputs_of(2, 40, 18, 4, seed=seed)
    whole = selective_scan(**inputs, discretisation=discretisation)  # type: ignore[arg-type]
    by_step = ("u", "delta", "b", "c")
    state, parts = inputs["first"], []
    for part in (slice(0, cut), slice(cut, 40)):
        own = {name: inputs[name][:, part] for name in by_step}
        found = selective_scan(**own, a=inputs["a"], first=state, discretisation=discretisation)
        state = found.last
        parts.append(found.y)
    torch.testing.assert_close(torch.cat(parts, 1), whole.y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, whole.last, atol=1e-5, rtol=1e-5)


@each_form
def test_steps_one_by_one_are_the_sequence(discretisation: Discretisation, way: str) -> None:
    inputs = inputs_of()
    whole = selective_scan(**inputs, discretisation=discretisation)  # type: ignore[arg-type]
    state, outputs = inputs["first"], []
    for t in range(inputs["u"].shape[1]):
        before = state.clone()
        u, delta, b, c = (inputs[name][:, t] for name in ("u", "delta", "b", "c"))
        y, after = selective_step(u, delta, inputs["a"], b, c, state, discretisation=discretisation)
        assert torch.equal(state, before), "a step must leave the state that it was given"
        state = after
        outputs.append(y)
    near(torch.stack(outputs, 1), whole.y, way)
    near(state, whole.last, way)


def test_groups_and_constants_are_what_they_say(way: str) -> None:
    inputs = inputs_of(groups=3)
    whole = selective_scan(**inputs)  # type: ignore[arg-type]
    for group in range(3):
        own = slice(7 * group, 7 * group + 7)
        alone = selective_scan(
            inputs["u"][..., own],
            inputs["delta"][..., own],
            inputs["a"][own],
            inputs["b"][:, :, group],
            inputs["c"][:, :, group],
            first=inputs["first"][:, own],
        )
        near(whole.y[..., own], alone.y, way)
    constant = torch.randn(21, 5)
    held = selective_scan(inputs["u"], inputs["delta"], inputs["a"], constant, constant)
    for channel in (0, 20):
        only = slice(channel, channel + 1)
        row = constant[channel].expand(2, 70, 5)
        alone = selective_scan(
            inputs["u"][..., only], inputs["delta"][..., only], inputs["a"][only], row, row
        )
        near(held.y[..., only], alone.y, way)


@each_form
def test_padding_leaves_no_trace(discretisation: Discretisation, way: str) -> None:
    inputs = inputs_of()
    lengths = torch.tensor([70, 41])
    valid = torch.arange(70) < lengths[:, None]
    options: dict[str, Any] = {"softplus": True, "discretisation": discretisation}
    found = selective_scan(**inputs, **options, valid=valid)  # type: ignore[arg-type]
    spoilt = {
        name: value.masked_fill(~valid[(...,) + (None,) * (value.ndim - 2)], float("nan"))
        if name in ("u", "delta", "b", "c")
        else value
        for name, value in inputs.items()
    }
    leaves = {name: value.clone().requires_grad_() for name, value in spoilt.items()}
    again = selective_scan(**leaves, **options, valid=valid)  # type: ignore[arg-type]
    assert torch.equal(found.y, again.y)
    assert torch.equal(found.last, again.last)
    assert not again.y[~valid].any()
    again.y.square().sum().backward()
    for name in ("u", "delta", "b", "c"):
        grad = leaves[name].grad
        assert grad is not None
        assert not grad[~valid].any(), name
        assert grad.isfinite().all(), name
    short = {k: v[1:, :41] if k in ("u", "delta", "b", "c") else v for k, v in inputs.items()}
    short["first"] = inputs["first"][1:]
    alone = selective_scan(**short, **options)  # type: ignore[arg-type]
    near(again.y[1:, :41], alone.y, way)
    near(again.last[1:], alone.last, way)


def test_four_thousand_steps_of_random_gates_stay_finite(way: str) -> None:
    generator = torch.Generator().manual_seed(3)
    steps = 4000
    for form in (EULER, HOLD):
        for scale in (1e-3, 1.0, 60.0):
            delta = torch.rand(1, steps, 32, generator=generator) * scale
            leaves = [
                torch.randn(1, steps, 32, generator=generator).requires_grad_(),
                delta.requires_grad_(),
                (-torch.randn(32, 16, generator=generator).mul(2).exp()).requires_grad_(),
                torch.randn(1, steps, 16, generator=generator).requires_grad_(),
                torch.randn(1, steps, 16, generator=generator).requires_grad_(),
            ]
            found = selective_scan(*leaves, discretisation=form)
            found.y.square().mean().backward()
            assert found.y.isfinite().all(), (form, scale, way)
            for leaf in leaves:
                assert leaf.grad is not None
                assert leaf.grad.isfinite().all(), (form, scale, way)


def test_hold_reaches_the_steady_state_and_euler_does_not(way: str) -> None:
    """For a constant input h tends to -B / A u, what the differential equation says."""
    a = torch.tensor([[-0.5, -2.0]]).expand(3, 2)
    u, b = torch.full((1, 400, 3), 1.7), torch.tensor([0.3, -1.1]).expand(1, 400, 2)
    delta = torch.full((1, 400, 3), 0.4)
    steady = (-b[0, 0] / a * 1.7)[None]
    held = selective_scan(u, delta, a, b, b, discretisation=HOLD).last
    euler = selective_scan(u, delta, a, b, b, discretisation=EULER).last
    assert (held - steady).abs().max() < 1e-5, way
    assert (euler - steady).abs().max() > 0.05, way


def test_state_and_sums_are_float32_under_autocast(way: str) -> None:
    inputs = inputs_of(steps=130)
    plain = selective_scan(**inputs)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = selective_scan(**inputs)  # type: ignore[arg-type]
    assert found.last.dtype == torch.float32
    assert torch.equal(found.y, plain.y), way
    halves = {
        name: value.bfloat16() if name in ("u", "b", "c") else value
        for name, value in inputs.items()
    }
    found = selective_scan(**halves)  # type: ignore[arg-type]
    exact = selective_scan(**{name: value.float() for name, value in halves.items()})  # type: ignore[arg-type]
    assert (found.y.dtype, found.last.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(found.last, exact.last)
    assert torch.equal(found.y, exact.y.bfloat16())


@pytest.mark.parametrize("harm", ["cut", "empty", "garbage", "page", "other"])
def test_a_harmed_library_is_made_anew_and_never_loaded(
    harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A library cut short ends the process that loads it, with a bus error."""
    if scan_kernel.kernel() is None:
        pytest.skip("no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scan_kernel.kernel.cache_clear()
    try:
        assert scan_kernel.kernel() is not None
        (kept,) = (tmp_path / "actioncast").iterdir()
        whole = kept.read_bytes()
        page = len(whole) // 2
        kept.unlink()
        kept.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "empty": b"",
                "garbage": b"no library",
                "page": whole[:page] + bytes(4096) + whole[page + 4096 :],
                "other": whole.replace(b"actioncast_scan", b"actioncast_scam"),
            }[harm]
        )
        scan_kernel.kernel.cache_clear()
        found = scan_kernel.kernel()
        assert found is not None
        assert scan_kernel._is_whole(kept)
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    finally:
        scan_kernel.kernel.cache_clear()


def test_the_name_of_the_library_changes_with_what_made_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if scan_kernel.kernel() is None:
        pytest.skip("no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = scan_kernel._compiler("")
    names = [scan_kernel._compiled(command).name]
    monkeypatch.setattr(scan_kernel, "_processor", lambda: "another")
    names.append(scan_kernel._compiled(command).name)
    changed = tmp_path / "selective_scan.c"
    changed.write_text(scan_kernel.SOURCE.read_text() + "\n/* changed */\n")
    monkeypatch.setattr(scan_kernel, "SOURCE", changed)
    names.append(scan_kernel._compiled(command).name)
    assert len(set(names)) == 3


def test_bias_softplus_skip_and_gate_come_in_the_public_order(way: str) -> None:
    inputs = inputs_of()
    d, bias, z = torch.randn(21), torch.randn(21), torch.randn(2, 70, 21)
    found = selective_scan(**inputs, d=d, z=z, delta_bias=bias, softplus=True)  # type: ignore[arg-type]
    steps = F.softplus(inputs["delta"] + bias)
    y, last = scan_in_a_loop(**{**inputs, "delta": steps})
    near(found.y, (y + d * inputs["u"]) * F.silu(z), way)
    near(found.last, last, way)


def test_an_empty_sequence_leaves_the_state(way: str) -> None:
    inputs = inputs_of(steps=0)
    found = selective_scan(**inputs)  # type: ignore[arg-type]
    assert found.y.shape == (2, 0, 21)
    assert torch.equal(found.last, inputs["first"]), way


def test_threads_share_channels_and_change_nothing() -> None:
    if scan_kernel.kernel() is None:
        pytest.skip("no C compiler here")
    inputs = inputs_of(2, 300, 200, 16, groups=2)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(differentiated(ours(HOLD), inputs))
    finally:
        torch.set_num_threads(threads)
    for y, last, gradients in found[1:]:
        assert torch.equal(y, found[0][0])
        assert torch.equal(last, found[0][1])
        for name, gradient in gradients.items():
            near(gradient, found[0][2][name].double(), name)


def test_without_a_compiler_it_warns_once_and_scans_in_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = inputs_of()
    before = selective_scan(**inputs)  # type: ignore[arg-type]
    scan_kernel.kernel.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    try:
        with caplog.at_level(logging.WARNING, "actioncast"):
            for _ in range(3):
                without = selective_scan(**inputs)  # type: ignore[arg-type]
    finally:
        scan_kernel.kernel.cache_clear()
    near(without.y, before.y.double(), "without a compiler")
    said = [r.getMessage() for r in caplog.records if "compiler" in r.getMessage()]
    assert len(said) == 1
    assert "Install gcc or clang" in said[0]


def test_a_compiler_that_fails_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(scan_kernel.COMPILER_VARIABLE, "false")
    scan_kernel.kernel.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "actioncast"):
            assert scan_kernel.kernel() is None
            assert scan_kernel.kernel() is None
    finally:
        scan_kernel.kernel.cache_clear()
    assert len(caplog.records) == 1
    assert "false could not compile" in caplog.records[0].getMessage()
    assert not list(tmp_path.rglob("*.so"))


def test_the_compiled_scan_is_kept_for_the_next_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if scan_kernel.kernel() is None:
        pytest.skip("no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scan_kernel.kernel.cache_clear()
    try:
        assert scan_kernel.kernel() is not None
        (kept,) = (tmp_path / "actioncast").iterdir()
        written = kept.stat().st_mtime_ns
        scan_kernel.kernel.cache_clear()
        assert scan_kernel.kernel() is not None
        assert kept.stat().st_mtime_ns == written
    finally:
        scan_kernel.kernel.cache_clear()


@pytest.mark.parametrize("groups", [0, 3])
def test_the_public_kernel_is_given_what_it_wants(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with its signature and layout, time last; itself it needs a GPU."""
    inputs = inputs_of(groups=groups)
    first = inputs.pop("first")
    valid = torch.arange(70) < torch.tensor([[70], [33]])
    d, z, bias = torch.randn(21), torch.randn(2, 70, 21), torch.randn(21)
    rest: dict[str, Any] = {"d": d, "z": z, "delta_bias": bias, "softplus": True, "valid": valid}
    expected = selective_scan(**inputs, **rest)  # type: ignore[arg-type]
    asked = []

    def kernel(
        u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, *, return_last_state: bool
    ) -> tuple[Tensor, Tensor]:
        assert return_last_state
        asked.append((u.shape, b.shape))
        time_first_again = [t.movedim(-1, 1) for t in (b, c)]
        y, last = grouped_loop(
            u=u.movedim(-1, 1),
            delta=delta.movedim(-1, 1),
            a=a,
            b=time_first_again[0],
            c=time_first_again[1],
            first=torch.zeros_like(first),
            zero_order_hold=False,
        )
        return y.movedim(1, -1), last

    monkeypatch.setattr(ssm, "_public_kernel", lambda *_: kernel)
    found = selective_scan(**inputs, **rest)  # type: ignore[arg-type]
    assert asked == [((2, 21, 70), (2, max(groups, 1), 5, 70))]
    near(found.y, expected.y.double(), "outputs")
    near(found.last, expected.last.double(), "last state")


def test_the_public_kernel_is_for_gpus_and_eulers_form_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told by a stand-in that is asked for its device; nothing is computed."""
    import sys
    from types import ModuleType, SimpleNamespace

    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = lambda: None  # type: ignore[attr-defined]
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    choose: Any = getattr(ssm._public_kernel, "__wrapped__", ssm._public_kernel)
    on_gpu: Any = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    on_cpu: Any = SimpleNamespace(is_cuda=False, dtype=torch.float32)
    exact: Any = SimpleNamespace(is_cuda=True, dtype=torch.float64)
    assert choose(on_gpu, EULER, None) is interface.selective_scan_fn  # type: ignore[attr-defined]
    assert choose(on_cpu, EULER, None) is None
    assert choose(exact, EULER, None) is None
    assert choose(on_gpu, HOLD, None) is None
    assert choose(on_gpu, EULER, torch.zeros(1)) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_form
def test_a_gpu_gives_the_numbers_of_the_cpu(discretisation: Discretisation) -> None:
    inputs = inputs_of(steps=130, channels=64, states=16)
    y, last, gradients = differentiated(ours(discretisation), inputs)
    moved = {name: value.cuda() for name, value in inputs.items()}
    leaves = {name: value.requires_grad_() for name, value in moved.items()}
    found_y, found_last = ours(discretisation)(**leaves)
    near(found_y.cpu(), y, "outputs")
    near(found_last.cpu(), last, "last state")
    assert gradients
