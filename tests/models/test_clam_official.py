"""The released modules, and the recurrence that they meant, from the same weights."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from actioncast.layers.cross_memory import CrossMemory, Positions
from actioncast.layers.query_predictor import QueryPredictor
from actioncast.models.clam import CLAM
from actioncast.models.clam_official import OFFICIAL, clam_from_official, clam_name, clam_weights
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import Observation
from goldens import golden_cases

NEAR = {"atol": 1e-5, "rtol": 0.0}


def cases_of(part: str) -> list[Any]:
    """Every case that holds this part of the model."""
    found = []
    for case in golden_cases("clam"):
        if case.id == "absent":
            found.append(case)
            continue
        file = case.values[0] / "weights.safetensors"
        weights = load_file(file) if file.is_file() else {}
        kinds = {
            "full": any(name.startswith("encoder.") for name in weights),
            "memory": "layers.0.multihead_attn.q.weight" in weights,
            "predictor": "layers.0.linear1.weight" in weights,
        }
        if kinds[part]:
            found.append(case)
    return found


def opened(case: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    sizes = json.loads((case / "config.json").read_text())["hyper_parameters"]
    return (
        sizes,
        load_file(case / "weights.safetensors"),
        load_file(case / "io.safetensors"),
    )


def part_weights(weights: Mapping[str, Tensor], prefix: str, ours: str) -> dict[str, Tensor]:
    named = clam_weights({f"{prefix}.{name}": tensor for name, tensor in weights.items()})
    return {name.removeprefix(f"{ours}."): tensor for name, tensor in named.items()}


def memory_of(
    sizes: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    positions: Positions,
    order: Any = "recurrent",
    temperature: float | None = None,
) -> CrossMemory:
    memory = CrossMemory(
        sizes["d_model"],
        sizes["n_clusters"],
        len({n.split(".")[1] for n in weights if n.startswith("layers.")}),
        sizes["n_heads"],
        sizes["expand_k"],
        sizes["gate_low_rank_dim"],
        temperature or sizes["gate_logit_normalizer"],
        0.0,
        positions,
        order,
    )
    memory.load_state_dict(part_weights(weights, "clustering", "memory"))
    return memory.eval()


memory_cases = pytest.mark.parametrize("case", cases_of("memory"))
predictor_cases = pytest.mark.parametrize("case", cases_of("predictor"))
full_cases = pytest.mark.parametrize("case", cases_of("full"))


@memory_cases
def test_the_released_memory_is_reproduced(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    memory = memory_of(sizes, weights, "accumulated", "reversed")
    torch.testing.assert_close(memory(tensors["x"]), tensors["official.out"], **NEAR)
    # The recurrence is no such thing: the test can tell.
    right = memory_of(sizes, weights, "accumulated")(tensors["x"])
    assert (right - tensors["official.out"]).norm() > 0.05 * tensors["official.out"].norm()


@memory_cases
@pytest.mark.parametrize(
    ("positions", "name"), [("accumulated", "keepstream"), ("separate", "textbook")]
)
def test_the_corrected_memory_holds_at_every_step(
    positions: Positions, name: str, case: Path
) -> None:
    sizes, weights, tensors = opened(case)
    # The reference is float64: of several layers float32 has no digits left to compare at 1e-5.
    memory = memory_of(sizes, weights, positions).double()
    x, expected = tensors["x"].double(), tensors[f"corrected.{name}.out"]
    batch, time = x.shape[:2]
    places = torch.arange(batch * time)
    every, last = memory.every(
        x, memory.initial_state(batch, "cpu"), (places // time, places % time)
    )
    torch.testing.assert_close(every.reshape(expected.shape), expected, **NEAR)
    torch.testing.assert_close(memory(x), expected[:, -1], **NEAR)
    states = memory.initial_state(batch, "cpu")
    for t in range(time):
        states = memory.write(x[:, t : t + 1], states)
        torch.testing.assert_close(memory.read(states), expected[:, t], **NEAR)
    for stepped, at_once in zip(states, last, strict=True):
        torch.testing.assert_close(stepped, at_once, **NEAR)
    for layer, state in enumerate(states):
        if (known := of_layer(tensors, "states", layer)) is not None:
            torch.testing.assert_close(state, known[:, :, -1], **NEAR)


def of_layer(tensors: Mapping[str, Tensor], name: str, layer: int) -> Tensor | None:
    """What the reference wrote down of a layer; of a single one it does not say which."""
    own = tensors.get(f"corrected.layer{layer}.{name}")
    return tensors.get(f"corrected.{name}") if own is None and layer == 0 else own


@memory_cases
def test_float32_is_as_near_as_rounding_lets_it(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    for positions, name in (("accumulated", "keepstream"), ("separate", "textbook")):
        found = memory_of(sizes, weights, positions)(tensors["x"])
        expected = tensors[f"corrected.{name}.out"][:, -1].float()
        assert (found - expected).norm() < 1e-5 * expected.norm()


@memory_cases
def test_what_is_written_is_as_the_formulas_say(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    memory = memory_of(sizes, weights, "accumulated")
    written = memory.layers[0].state.write(tensors["x"])
    for name, found in (
        ("log_gate", written.log_gate),
        ("k", written.keys),
        ("v", written.values),
    ):
        expected = of_layer(tensors, name, 0)
        assert expected is not None
        torch.testing.assert_close(found, expected.float().transpose(1, 2), **NEAR)


@memory_cases
def test_the_gates_temperature_is_a_field(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    if "corrected.keepstream.tau1.out_last" not in tensors:
        pytest.skip("this case has one temperature alone")
    plain = memory_of(sizes, weights, "accumulated", temperature=1.0).double()
    expected = tensors["corrected.keepstream.tau1.out_last"]
    torch.testing.assert_close(plain(tensors["x"].double()), expected, **NEAR)


def predictor_of(
    sizes: Mapping[str, Any], weights: Mapping[str, Tensor], positions: Positions
) -> QueryPredictor:
    predictor = QueryPredictor(
        sizes["d_model"],
        len(weights["query_embed.weight"]),
        sizes["n_dec_layer"],
        sizes["d_ffn"],
        sizes["n_heads"],
        0.0,
        positions,
    )
    predictor.load_state_dict(part_weights(weights, "decoder", "predictor"))
    return predictor.eval()


@predictor_cases
def test_the_released_predictor_is_reproduced(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    predictor = predictor_of(sizes, weights, "accumulated")
    memory, positions = tensors["memory"], tensors["memory_pos"][0]
    torch.testing.assert_close(predictor(memory, positions), tensors["official.out"], **NEAR)
    torch.testing.assert_close(predictor(memory), tensors["official.out_nopos"], **NEAR)


@predictor_cases
def test_positions_added_as_in_other_decoders_give_the_textbook_answer(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    predictor = predictor_of(sizes, weights, "separate").double()
    answer = predictor(tensors["memory"].double(), tensors["memory_pos"][0].double())
    torch.testing.assert_close(answer, tensors["textbook.out"], **NEAR)


def model_of(case: Path, *, released: bool) -> CLAM:
    sizes, weights, _ = opened(case)
    config, ours = clam_from_official(
        weights,
        num_heads=sizes["n_heads"],
        act_tokens=sizes["k_tokens"],
        gate_temperature=sizes["gate_logit_normalizer"],
        released_behaviour=released,
    )
    if not released:
        config = replace(config, positions="accumulated")
    heads = {
        head: LabelSpace(tuple(f"{head} {i}" for i in range(count - 1)))
        for head, count in zip(("action", "verb", "noun"), sizes["classes"], strict=True)
    }
    model = config.build(Taxonomy(heads))
    model.load_state_dict(ours)
    return model.eval()


HEADS = (("action", "actions"), ("verb", "verbs"), ("noun", "nouns"))


@full_cases
def test_the_whole_released_model_is_reproduced(case: Path) -> None:
    _, _, tensors = opened(case)
    model = model_of(case, released=True)
    past, future = model(tensors["x"])
    for head, theirs in HEADS:
        torch.testing.assert_close(past[head], tensors[f"official.past_{theirs}"], **NEAR)
        torch.testing.assert_close(future[head], tensors[f"official.future_{theirs}"], **NEAR)
    assert (model.config.gate_order, model.config.positions) == (
        OFFICIAL.gate_order,
        OFFICIAL.positions,
    )


@full_cases
def test_the_corrected_stream_is_reproduced_step_by_step(case: Path) -> None:
    _, _, tensors = opened(case)
    model = model_of(case, released=False).double()
    x, first = tensors["x"].double(), model.config.act_tokens
    state = model.initial_state(len(x))
    for t in range(x.shape[1]):
        _, state = model.take_in(x[:, t : t + 1], state)
        if t + 1 < first:
            continue
        scores = model.scores(model.answer(state))
        assert model.memory is not None
        clusters = model.memory.read(state.memory)
        expected = tensors["corrected.stream.clusters"][:, t + 1 - first]
        torch.testing.assert_close(clusters, expected, **NEAR)
        for head, theirs in HEADS:
            expected = tensors[f"corrected.stream.future_{theirs}"][:, t + 1 - first]
            torch.testing.assert_close(scores[head], expected, **NEAR)


@full_cases
def test_a_stream_refuses_the_released_order_of_gates(case: Path) -> None:
    _, _, tensors = opened(case)
    model = model_of(case, released=True)
    x = Observation.of_one(tensors["x"][0], rate=4.0)
    with pytest.raises(ValueError, match="no stream can"):
        model.step(x, model.initial_state(1))


def test_a_name_that_the_released_model_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter called"):
        clam_name("encoder.layers.0.attention.weight")


@memory_cases
def test_the_released_order_holds_for_rows_of_unequal_length(case: Path) -> None:
    sizes, weights, tensors = opened(case)
    memory = memory_of(sizes, weights, "accumulated", "reversed")
    x = tensors["x"][:1].expand(2, -1, -1).clone()
    valid = torch.ones(x.shape[:2], dtype=torch.bool)
    valid[1, 25:] = False
    together = memory(x, valid)
    torch.testing.assert_close(together[:1], memory(x[:1]), **NEAR)
    torch.testing.assert_close(together[1:], memory(x[1:, :25]), **NEAR)
