"""m&m-Ant beside what the released code computes, its weights and its sizes."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from actioncast.models.mm_ant import OFFICIAL, Answers, MMAnt
from actioncast.models.mm_ant_config import RELEASED_GIVEN, RELEASED_LEARNED, MMAntConfig
from actioncast.models.mm_ant_official import from_official
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import Observation, Target, Task, Tokens
from goldens import golden_cases

HEADS = {"seg": "past", "action": "future", "duration": "durations"}
WITHOUT = "nocontext"
"""The batch of a case that nothing is said of."""


def taxonomy(num_coarse: int, num_fine: int) -> Taxonomy:
    """The released model predicts the coarse level and has a head for the fine one."""
    return Taxonomy(
        {
            "activity": LabelSpace(tuple(f"meal_{i}" for i in range(num_coarse))),
            "action": LabelSpace(tuple(f"step_{i}" for i in range(num_fine))),
        },
        "activity",
        levels=("activity", "action"),
    )


@dataclass
class Golden:
    model: MMAnt
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    def answers(self, batch: str, row: int | None = None, steps: int | None = None) -> Answers:
        """Of a recorded batch, or of one row of it alone, cut to so many steps.

        Padding is read off the recorded labels.
        """
        rows = slice(None) if row is None else slice(row, row + 1)
        features = self.tensors["features"][rows, :steps]
        pad = self.config["hyper_parameters"]["pad_idx"]
        valid = self.tensors["past_label"][rows, :steps] != pad
        said = None
        if batch != WITHOUT:
            values = self.tensors[f"{batch}.context"][rows]
            said = Tokens(values=values, valid=torch.ones(values.shape[:2], dtype=torch.bool))
        with torch.no_grad():
            return self.model(features, valid, said)


def load_golden(case: Path) -> Golden:
    """A case by our names, all sizes read off it."""
    config = json.loads((case / "config.json").read_text())
    sizes = config["hyper_parameters"]
    state = load_file(case / "weights.safetensors")
    options = replace(
        OFFICIAL,
        feature_dim=sizes["input_dim"],
        hidden_dim=sizes["hidden_dim"],
        num_heads=sizes["n_head"],
        num_encoder_layers=sizes["n_encoder_layer"],
        num_anticipation_layers=sizes["n_decoder_layer"],
        max_positions=sizes["max_pos_len"],
        text_dim=sizes["context_dim"],
    )
    labels = taxonomy(sizes["n_class"] - 1, len(state["fc_l3.bias"]))
    model = options.build(labels).eval()
    model.load_state_dict(from_official(state))
    return Golden(model, state, load_file(case / "io.safetensors"), config)


def with_weights() -> list[Any]:
    """Cases of the model; others hold losses alone."""
    return [
        case
        for case in golden_cases("mm_ant")
        if case.id == "absent" or (case.values[0] / "weights.safetensors").is_file()
    ]


def golden_batches() -> Iterator[Any]:
    for case in with_weights():
        [folder] = case.values
        names: set[str] = {"absent"}
        if folder.is_dir():
            with safe_open(folder / "io.safetensors", "pt") as tensors:
                names = {key.split(".")[0] for key in tensors.keys() if ".out." in key}  # noqa: SIM118
            assert WITHOUT in names, f"{folder} holds no batch without context"
            assert len(names) > 1, f"{folder} holds no batch with context"
        for name in sorted(names):
            yield pytest.param(folder, name, id=f"{case.id}-{name}", marks=case.marks)


each_case = pytest.mark.parametrize("case", with_weights())
each_batch = pytest.mark.parametrize(("case", "batch"), [*golden_batches()])


def recorded(golden: Golden, prefix: str) -> dict[str, Tensor]:
    found = {
        key.removeprefix(prefix): value
        for key, value in golden.tensors.items()
        if key.startswith(prefix)
    }
    assert found, f"nothing recorded under {prefix}"
    return found


def close(ours: Tensor, theirs: Tensor, name: str) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0, msg=lambda said: f"{name}: {said}")


@each_batch
def test_outputs_are_the_released_ones(case: Path, batch: str) -> None:
    golden = load_golden(case)
    told = golden.answers(batch)
    wanted = recorded(golden, f"{batch}.out.")
    assert wanted.keys() == ({"seg"} if batch == WITHOUT else HEADS.keys())
    for name, value in wanted.items():
        close(getattr(told, HEADS[name]), value, name)


@each_batch
def test_there_are_as_many_answers_as_vectors_said(case: Path, batch: str) -> None:
    golden = load_golden(case)
    told = golden.answers(batch)
    context = golden.tensors.get(f"{batch}.context")
    wanted = (len(told.past), 0 if context is None else context.shape[1])
    assert told.durations.shape == told.queries.shape == told.future.shape[:2] == wanted
    assert told.queries.all()
    assert told.described is None


@each_batch
def test_every_layer_computes_what_the_released_one_does(case: Path, batch: str) -> None:
    golden = load_golden(case)
    model, seen = golden.model, {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({name: output})

    layers: dict[str, nn.Module] = {"decoder_out": model.decoder_norm}
    layers |= {f"encoder_layer{i}": layer for i, layer in enumerate(model.encoder)}
    layers |= {f"decoder_layer{i}": layer for i, layer in enumerate(model.decoder)}
    assert model.project is not None
    layers["context_projected"] = model.project
    for name, layer in layers.items():
        layer.register_forward_hook(keep(name))
    golden.answers(batch)
    for name, wanted in recorded(golden, f"{batch}.inter.").items():
        close(seen[name], wanted, name)


@each_case
def test_single_rows_are_answered_as_in_released_test_mode(case: Path) -> None:
    golden = load_golden(case)
    checked = 0
    for name, wanted in golden.tensors.items():
        found = re.fullmatch(r"(\w+)\.test(\d+)\.out\.(\w+)", name)
        if found is None:
            continue
        batch, row, head = found[1], int(found[2]), found[3]
        told = golden.answers(batch, row, golden.config["lengths"][row])
        close(getattr(told, HEADS[head]), wanted, name)
        checked += 1
    assert checked == sum(".test" in name for name in golden.tensors)
    assert checked


@each_case
def test_weights_come_over_whole(case: Path) -> None:
    golden = load_golden(case)
    ours = from_official(golden.state)
    assert ours.keys() == dict(golden.model.named_parameters()).keys()
    assert len(ours) == len(golden.state) - ("pos_enc.pos_table" in golden.state)
    sizes = golden.config["hyper_parameters"]
    assert len(golden.model.taxonomy.heads["activity"]) == sizes["n_class"] - 1
    assert golden.model.described_head == "action"


@each_case
def test_what_is_unused_there_has_no_say_here(case: Path) -> None:
    golden = load_golden(case)
    context = next(n.split(".")[0] for n in golden.tensors if n.endswith(".context"))
    before = golden.answers(context)
    assert golden.model.generator is not None
    with torch.no_grad():
        for parameter in golden.model.generator.parameters():
            parameter.add_(7.0)
    after = golden.answers(context)
    for name in HEADS.values():
        assert getattr(before, name).equal(getattr(after, name)), name


@each_case
def test_one_who_is_told_nothing_names_no_future(case: Path) -> None:
    """The released model returns no answer; ours names no frame of the horizon."""
    golden = load_golden(case)
    valid = golden.tensors["past_label"] != golden.config["hyper_parameters"]["pad_idx"]
    count, width = len(valid), golden.model.config.text_dim
    nothing = Tokens(values=torch.zeros(count, 0, width), valid=torch.zeros(count, 0) > 0)
    x = Observation(
        features=golden.tensors["features"],
        valid=valid,
        rate=1.0,
        horizon=torch.full((count,), 6),
        modalities={"captions": nothing},
    )
    assert golden.model.tasks == {Task.SEGMENTATION, Task.LONG_TERM}
    for i, prediction in enumerate(golden.model.predict(x)):
        assert prediction.future is not None
        assert not prediction.future.any()
        logits = golden.tensors[f"{WITHOUT}.out.seg"][i, valid[i]]
        # The last class is the end's, which no step ever is.
        close(prediction.past, logits[:, :-1].softmax(-1), "past")


@pytest.mark.parametrize("name", ["backbone.weight", "transformer.encoder.layers.0.gate.weight"])
def test_a_tensor_of_no_layer_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"released m&m-Ant, got '{re.escape(name)}'"):
        from_official({name: torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("num_classes", "hidden_dim", "max_positions", "count"),
    [
        (11, 128, 2000, 1_320_648),
        (17, 128, 2000, 1_322_196),
        (6, 512, 3100, 14_491_198),
        (49, 128, 2000, 1_330_452),
        (20, 512, 3100, 14_505_562),
    ],
)
def test_the_published_numbers_of_parameters(
    num_classes: int, hidden_dim: int, max_positions: int, count: int
) -> None:
    """Sheet, section 7: classes with the end, and a fine head of 49."""
    config = replace(OFFICIAL, hidden_dim=hidden_dim, max_positions=max_positions)
    with torch.device("meta"):
        model = config.build(taxonomy(num_classes - 1, 49))
    held = {name: value.numel() for name, value in model.named_parameters()}
    assert all(value.is_meta for value in model.parameters())
    assert sum(held.values()) == count

    def of(*layers: str) -> int:
        return sum(size for name, size in held.items() if name.split(".")[0] in layers)

    if num_classes == 11:
        parts = ("positions", "embed", "encoder", "project", "past_head", "future_head")
        sizes = [256_000, 262_272, 396_544, 65_664, 1_419, 1_419]
        assert [of(part) for part in parts] == sizes
        assert of("decoder", "decoder_norm") == 264_832
        assert of("duration_head") == 129
        head = sum(size for name, size in held.items() if name.startswith("generator.head"))
        assert (of("generator") - head, head) == (66_048, 6_321)


@pytest.mark.parametrize("preset", [RELEASED_LEARNED, RELEASED_GIVEN], ids=["learned", "given"])
def test_the_earlier_releases_answer_and_learn(preset: MMAntConfig) -> None:
    """No outputs of theirs are known: that the presets build, gate and descend is all there is."""
    config = replace(preset, feature_dim=6, hidden_dim=16, num_heads=2, max_positions=20)
    torch.manual_seed(0)
    model = config.build(taxonomy(4, 3))
    fine = torch.tensor([[0, 0, 1, 1, 2], [2, 2, 0, 1, -100]])
    valid = fine >= 0
    x = Observation(
        features=torch.randn(2, 5, 6),
        valid=valid,
        rate=1.0,
        horizon=torch.tensor([6, 6]),
        finest=fine,
    )
    coarse = fine.clamp(max=1)
    y = Target(
        frames={"activity": coarse, "action": fine},
        next={},
        future=torch.tensor([[1, 2, 4], [0, 4, -100]]),
        durations=torch.tensor([[0.5, 0.5, torch.nan], [1.0, torch.nan, torch.nan]]),
    )
    model.begin_epoch(15)
    losses = model.losses(x, y)
    generates = preset is RELEASED_LEARNED
    assert ({"text", "intra", "inter"} <= set(losses)) == generates
    torch.stack(list(losses.values())).sum().backward()
    answers = model.eval().predict(x)
    assert all(answer.future is not None and len(answer.future) == 6 for answer in answers)
