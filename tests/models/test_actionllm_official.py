"""ActionLLM as released: recorded numbers, sizes on paper, and what was wrong with it."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from actioncast.layers.cross_modality import CrossModalityBlock
from actioncast.layers.decoding import duration_shares
from actioncast.models.actionllm import OFFICIAL, ActionLLM, ActionLLMConfig, Answers
from actioncast.models.actionllm_official import from_official
from actioncast.models.parallel_queries import ParallelQueries
from actioncast.protocols.long_term import stride_then_cut, transcript
from actioncast.timeline import Taxonomy
from actioncast.trunks import FrozenTrunk, TrunkConfig
from actioncast.trunks.meta_llama import load_meta
from actioncast.trunks.sources import Source
from actioncast.types import IGNORE, Observation, Target
from goldens import golden_cases

transformers = pytest.importorskip("transformers")
STREAMS = {"text": "text", "visual": "visual", "query": "queries"}
"""What the recorded names call a stream, and what we do."""
HEADS = {
    "seg_text": "past_text",
    "seg_vis": "past_visual",
    "action": "future",
    "duration": "durations",
}
LOSSES = {
    "seg_text": "past_text",
    "seg_vis": "past_visual",
    "action": "future",
    "duration": "duration",
}


def taxonomy(num_labels: int) -> Taxonomy:
    return Taxonomy.of(f"a{i}" for i in range(num_labels))


def one_word(text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
    """No label is read here: vectors of text are recorded."""
    assert text
    assert not add_special_tokens
    return {"input_ids": [0]}


@dataclass
class Golden:
    model: ActionLLM
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def sizes(self) -> dict[str, Any]:
        return self.about["hyper_parameters"]

    def rows(self, batch: str) -> slice:
        """The videos of a recorded batch."""
        if batch.startswith("b1"):
            row = int(batch.removeprefix("b1").removeprefix(".row") or 0)
            return slice(row, row + 1)
        return slice(0, len(self.tensors["visual"]))

    def forward(self, rows: slice) -> Answers:
        visual, text = self.tensors["visual"][rows], self.tensors["text"][rows]
        with torch.no_grad():
            return self.model(visual, text, torch.ones(visual.shape[:2], dtype=torch.bool))

    def losses(self, rows: slice) -> dict[str, Tensor]:
        """Each step has a label of its own, whose vector is the text recorded for it."""
        visual, text = self.tensors["visual"][rows], self.tensors["text"][rows]
        self.model.label_vectors = rearrange(text, "batch time width -> (batch time) width")
        x = Observation(
            features=visual,
            valid=torch.ones(visual.shape[:2], dtype=torch.bool),
            rate=30.0,
            stride=8,
            horizon=torch.full((len(visual),), 30),
            labels=torch.arange(visual.shape[0] * visual.shape[1]).reshape(visual.shape[:2]),
        )
        return self.model.losses(x, self.target(rows))

    def target(self, rows: slice) -> Target:
        pad = self.sizes["num_class"] + 1
        actions = self.tensors["labels.action"][rows].long()
        shares = self.tensors["labels.duration"][rows].float()
        return Target(
            frames={"action": self.tensors["labels.past"][rows].long()},
            next={},
            future=actions.masked_fill(actions == pad, IGNORE),
            durations=shares.masked_fill(shares == pad, math.nan),
        )


def load_golden(case: Path, folder: Path, **options: Any) -> Golden:
    about = json.loads((case / "config.json").read_text())
    sizes = about["hyper_parameters"]
    state = load_file(case / "weights.safetensors")
    # As released, the trunk lies in Meta's format, whose table of places is twice as long.
    params = {**sizes, "max_seq_len": 2 * sizes["max_seq_len"]}
    (folder / "params.json").write_text(json.dumps(params))
    torch.save(state, folder / "consolidated.00.pth")
    meta = load_meta(folder, transformers, torch.float32)
    trunk = TrunkConfig(name=str(folder))
    config = replace(
        OFFICIAL,
        trunk=trunk,
        feature_dim=sizes["feature_dim"],
        adapter_dim=sizes["hidden_proj"],
        num_queries=sizes["n_query"],
        interaction_dim=sizes["multi_hidden_proj"],
        interaction_heads=sizes["n_heads"],
        interaction_multiple=sizes["multiple_of"],
        tuning_dim=sizes["adapter_dim"],
        tuning_groups=sizes["adapter_groups"],
        norm_eps=sizes["norm_eps"],
        **options,
    )
    source = Source(model=meta.model, tokenizer=one_word, name=str(folder))
    model = ActionLLM(config, taxonomy(sizes["num_class"]), FrozenTrunk(trunk, source))
    found = model.load_state_dict(from_official(state), strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) == {"query_constant", "trunk_fingerprint"}
    return Golden(model.eval(), state, load_file(case / "io.safetensors"), about)


def recorded(golden: Golden, prefix: str) -> dict[str, Tensor]:
    found = {
        key.removeprefix(prefix): value
        for key, value in golden.tensors.items()
        if key.startswith(prefix)
    }
    assert found, f"nothing recorded under {prefix}"
    return found


def close(ours: Tensor | None, wanted: Tensor, name: str, atol: float = 1e-5) -> None:
    assert ours is not None, name
    torch.testing.assert_close(ours, wanted, atol=atol, rtol=0, msg=lambda m: f"{name}: {m}")


def golden_batches(part: str) -> Iterator[Any]:
    """Every recorded batch of every case that has this part."""
    for case in golden_cases("actionllm"):
        [folder] = case.values
        names: set[str] = {"absent"}
        if folder.is_dir():
            with safe_open(folder / "io.safetensors", "pt") as tensors:
                keys = [key for key in tensors.keys() if f".{part}." in key]  # noqa: SIM118
            names = {key.split(f".{part}.")[0] for key in keys} - {"pefix"}
            assert names, f"{folder} holds no {part}"
        for name in sorted(names):
            yield pytest.param(folder, name, id=f"{case.id}-{name}", marks=case.marks)


each_case = pytest.mark.parametrize("case", golden_cases("actionllm"))


@pytest.mark.parametrize(("case", "batch"), [*golden_batches("out")])
def test_outputs_are_the_official_ones(case: Path, batch: str, tmp_path: Path) -> None:
    golden = load_golden(case, tmp_path)
    told = golden.forward(golden.rows(batch))
    wanted = recorded(golden, f"{batch}.out.")
    assert wanted.keys() == HEADS.keys()
    for name, value in wanted.items():
        close(getattr(told, HEADS[name]), value, name)


@pytest.mark.parametrize(("case", "batch"), [*golden_batches("inter")])
def test_every_part_computes_what_the_official_one_does(
    case: Path, batch: str, tmp_path: Path
) -> None:
    golden = load_golden(case, tmp_path)
    model, seen = golden.model, dict[str, Tensor]()

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_adapted(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen["query_adapted" if output.ndim == 2 else "visual_adapted"] = output

    def keep_streams(_module: nn.Module, _inputs: Any, output: dict[str, Tensor]) -> None:
        seen.update({f"cmib_{name}": output[ours] for name, ours in STREAMS.items()})

    model.adapter.register_forward_hook(keep_adapted)
    assert model.interaction is not None
    model.interaction.register_forward_hook(keep_streams)
    llama: Any = model.trunk.model
    llama.norm.register_forward_hook(keep("final_norm"))
    for i, (layer, tuning) in enumerate(zip(llama.layers, model.tuning, strict=True)):
        tuning.register_forward_hook(keep(f"layer{i}.adapter_attn"))
        layer.self_attn.register_forward_hook(keep(f"layer{i}.attention"))
        layer.mlp.register_forward_hook(keep(f"layer{i}.feed_forward"))
    golden.forward(golden.rows(batch))
    wanted = recorded(golden, f"{batch}.inter.")
    assert wanted.keys() == seen.keys()
    for name, value in wanted.items():
        close(seen[name].expand(value.shape), value, name)


def block_inputs(golden: Golden) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tokens = {ours: golden.tensors[f"cmib.{name}_in"] for name, ours in STREAMS.items()}
    known = {s: torch.ones(value.shape[:2], dtype=torch.bool) for s, value in tokens.items()}
    return tokens, known


@each_case
@pytest.mark.parametrize("batch", ["b1", "b2"])
def test_the_block_alone_computes_what_the_official_one_does(
    case: Path, batch: str, tmp_path: Path
) -> None:
    golden = load_golden(case, tmp_path)
    tokens, known = block_inputs(golden)
    rows = golden.rows(batch)
    assert golden.model.interaction is not None
    with torch.no_grad():
        found = golden.model.interaction(
            {s: value[rows] for s, value in tokens.items()}, {s: v[rows] for s, v in known.items()}
        )
    for name, ours in STREAMS.items():
        close(found[ours], golden.tensors[f"cmib.{batch}.{name}_out"], name)


@each_case
def test_attention_of_the_block_without_places_is_the_official_one(
    case: Path, tmp_path: Path
) -> None:
    """What comes out of the output layers: after the norm, before the residual."""
    golden = load_golden(case, tmp_path, interaction_positions="none")
    block, heard = golden.model.interaction, dict[str, Tensor]()
    assert block is not None
    for s, layer in block.outputs.items():
        layer.register_forward_hook(lambda *given, s=s: heard.update({s: given[2]}))
    with torch.no_grad():
        block(*block_inputs(golden))
    for name, ours in STREAMS.items():
        close(heard[ours], golden.tensors[f"cmib.attn_only.{name}_out"], name)


@pytest.mark.parametrize(("case", "batch"), [*golden_batches("loss")])
def test_losses_are_the_official_ones(case: Path, batch: str, tmp_path: Path) -> None:
    golden = load_golden(case, tmp_path)
    rows = golden.rows(batch)
    losses = golden.losses(rows)
    wanted = recorded(golden, f"{batch}.loss.")
    for theirs, ours in LOSSES.items():
        close(losses[ours], wanted[theirs][0], ours)
    assert losses.keys() == set(LOSSES.values())
    close(torch.stack(list(losses.values())).sum(), wanted["total"][0], "total")
    raw = golden.forward(rows).durations
    _, shares = golden.model.queried.targets(golden.target(rows), raw)
    normalised = duration_shares(raw, ~shares.isnan())
    close(normalised, wanted["duration_normalised"], "duration_normalised")
    torch.testing.assert_close(normalised.sum(1), torch.ones(len(raw)))


def by_our_names(golden: Golden, marked: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where our parameters hold the marked numbers of theirs; several of theirs are one of ours."""
    nothing = {name: torch.zeros_like(value) for name, value in golden.state.items()}
    return from_official(nothing | marked)


@pytest.mark.parametrize(("case", "batch"), [*golden_batches("grad")])
def test_gradients_are_the_official_ones(case: Path, batch: str, tmp_path: Path) -> None:
    golden = load_golden(case, tmp_path)
    torch.stack(list(golden.losses(golden.rows(batch)).values())).sum().backward()
    for name, wanted in recorded(golden, f"{batch}.grad.").items():
        compared = 0
        values = by_our_names(golden, {name: wanted})
        for ours, marks in by_our_names(golden, {name: torch.ones_like(wanted)}).items():
            if marks.any():
                gradient = golden.model.get_parameter(ours).grad
                assert gradient is not None, name
                there = marks.bool()
                tolerance = 1e-5 * float(wanted.abs().max())
                close(gradient[there], values[ours][there], name, tolerance)
                compared += int(there.sum())
        assert compared == wanted.numel()


@each_case
def test_the_same_parameters_as_there_have_no_gradient(case: Path, tmp_path: Path) -> None:
    """Counted as recorded: of the trunk and of the heads too."""
    golden = load_golden(case, tmp_path)
    golden.model.requires_grad_(True)
    torch.stack(list(golden.losses(golden.rows("b2")).values())).sum().backward()
    found = {name for name, value in golden.model.named_parameters() if value.grad is None}
    dead = {name: torch.ones_like(golden.state[name]) for name in golden.about[WITHOUT]}
    wanted = {name for name, marks in by_our_names(golden, dead).items() if marks.any()}
    assert set(golden.about[WITHOUT]) - {n for n in dead if "adapter" in n} == TABLES
    assert found == wanted | {"trunk.model.embed_tokens.weight"}


WITHOUT = "parameters_without_gradient"
TABLES = {"tok_embeddings.weight", "output.weight"}


@each_case
def test_places_of_tokens_give_the_corrected_outputs(case: Path, tmp_path: Path) -> None:
    golden = load_golden(case, tmp_path, interaction_positions="tokens")
    told, streams = golden.forward(golden.rows("b2")), dict[str, Tensor]()
    for name, value in recorded(golden, "pefix.out.").items():
        close(getattr(told, HEADS[name]), value, name)
    assert golden.model.interaction is not None
    golden.model.interaction.register_forward_hook(lambda *given: streams.update(given[2]))
    golden.forward(golden.rows("b2"))
    for name, ours in STREAMS.items():
        close(streams[ours], golden.tensors[f"pefix.cmib_{name}"], name)


@each_case
@pytest.mark.parametrize("positions", ["tokens", "batch"])
def test_only_places_of_the_batch_change_an_answer_with_its_row(
    case: Path, positions: str, tmp_path: Path
) -> None:
    golden = load_golden(case, tmp_path, interaction_positions=positions)
    both = golden.forward(golden.rows("b2"))
    for theirs, name in HEADS.items():
        told = getattr(both, name)
        for row in range(len(told)):
            alone = getattr(golden.forward(slice(row, row + 1)), name)
            moved = float((alone - told[row]).abs().max())
            if row and positions == "batch":
                wanted = golden.about["pe_bug_max_abs_diff_row1_batch1_vs_batch2"][theirs]
                assert row > 1 or moved == pytest.approx(wanted, abs=1e-4)
            else:
                assert moved < 1e-5


# The published numbers of parameters, on the meta device


def on_paper(config: ActionLLMConfig, num_labels: int = 19) -> ActionLLM:
    """LLaMA-7B's shapes without its weights."""
    config = replace(config, trunk=replace(config.trunk, name="untrained:llama-7b"))
    with torch.device("meta"):
        model = config.build(taxonomy(num_labels))
    held = [t for t in (*model.parameters(), *model.buffers()) if not t.is_meta]
    assert sum(t.numel() for t in held) < 100, "weights were allocated"
    return model


def learned(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"tuning_dim": 2}, 3_680_768),
        ({"tuning_dim": 4}, 4_205_120),
        ({"tuning_dim": 6}, 4_729_472),
        ({"tuning_dim": 8}, 5_253_824),
        ({"interaction_dim": 256}, 7_025_472),
        ({"interaction_dim": 64}, 3_089_856),
    ],
)
def test_the_published_numbers_of_parameters(options: dict[str, Any], count: int) -> None:
    """Tables III, VI and VII."""
    model = on_paper(replace(OFFICIAL, **options))
    assert learned(model) == count
    frozen = sum(p.numel() for p in model.trunk.parameters())
    # LLaMA's output over 32,000 words is never read, and so not a part of the trunk.
    assert frozen + 32_000 * 4096 == 6_738_415_616
    assert not any(p.requires_grad for p in model.trunk.parameters())
    heads = sum(p.numel() for p in (*model.past_heads.parameters(), model.future_head.weight))
    assert heads == 4096 * (19 + 19 + 20) == 237_568


@pytest.mark.parametrize(("num_labels", "heads"), [(19, 237_568), (48, 593_920)])
def test_by_default_heads_learn_and_nothing_is_dead(num_labels: int, heads: int) -> None:
    model = on_paper(ActionLLMConfig(), num_labels)
    assert learned(model) == 3_549_696 + heads
    unused = learned(on_paper(replace(ActionLLMConfig(), unused_parameters=True), num_labels))
    assert unused - learned(model) == 655_424
    official = learned(on_paper(OFFICIAL, num_labels))
    assert official == 4_205_120, "the count of the released code depends on no data set"


def test_without_the_block_only_its_parameters_are_missing() -> None:
    whole, none = (learned(on_paper(replace(OFFICIAL, interaction=i))) for i in ("both", "none"))
    assert whole - none == 2 * 524_288 + 198_144 + 589_824 + 768


# Worked by hand: the sheet, section 11.3

CASE = np.repeat([0, 1, 2, 1, 3], [5, 6, 4, 5, 3])
END = 4


@pytest.mark.parametrize(
    ("alpha", "shift", "kept", "actions", "shares"),
    [
        (0.2, 0, [0], [0, 1, 2, END], [0.25, 0.5, 0.25]),
        (0.3, 0, [0, 3], [1, 2, 1, END], [0.5, 0.25, 0.25]),
        (0.5, 0, [0, 3, 6, 9], [2, 1, 3, END], [0.25, 0.5, 0.25]),
        (0.3, 2, [6, 9], [2, 1, 3, END], [0.25, 0.5, 0.25]),
        (0.5, 2, [6, 9, 12, 15], [1, 3, END], [0.5, 0.5]),
        # Two queries: the end is lost, and the shares no longer sum to 1.
        (0.3, 0, [0, 3], [1, 2], [0.5, 0.25]),
    ],
)
def test_worked_case_a(
    alpha: float, shift: int, kept: list[int], actions: list[int], shares: list[float]
) -> None:
    pieces = stride_then_cut(len(CASE), alpha, 3, start=shift)
    assert list(pieces.past) == kept
    told = transcript(CASE[pieces.future])
    queries = ParallelQueries(
        end=END,
        num_queries=2 if END not in actions else 6,
        fill="last_query",
        end_first="nothing",
    )
    y = Target(
        frames={},
        next={},
        future=torch.tensor([[*told.labels, END]]),
        durations=torch.tensor([[*told.shares, math.nan]]),
    )
    found, numbers = queries.targets(y, torch.zeros(1, queries.num_queries))
    padding = queries.num_queries - len(actions)
    assert found.tolist() == [actions + [IGNORE] * padding]
    assert numbers[0, : len(shares)].tolist() == shares
    assert numbers[0, len(shares) :].isnan().all()


class Told(ActionLLM):
    """Says what it was told to say."""

    def forward(self, *_: Any) -> Answers:  # type: ignore[override]
        return self.answers  # type: ignore[return-value]


LOGITS = (
    *([2.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 0, 0, 3.0], [1.0, 1, 1, 1, 1]),
    *([0, 0, 2.0, 0, 0], [0, 0, 0, 2.0, 0], [0, 2.0, 0, 0, 0], [0, 0, 0, 0, 2.0]),
)
RAW = ((1.0, 3, 2, 5), (2.0, 1, 1, 4))


@pytest.mark.parametrize(
    ("divisor", "error"), [("sum", 0.25), ("per_video", 0.125), ("per_segment", 0.05)]
)
def test_worked_case_b(divisor: Any, error: float) -> None:
    """Seven targets and five segments in two videos; FUTR divides by the segments."""
    config = ActionLLMConfig(
        trunk=TrunkConfig(name="untrained:llama-tiny"),
        feature_dim=3,
        num_queries=4,
        duration_loss=divisor,
    )
    model = Told(config, taxonomy(END))
    future = rearrange(torch.tensor(LOGITS), "(batch query) label -> batch query label", batch=2)
    nothing = torch.zeros(2, 1, END)
    model.answers = Answers(
        past_text=nothing, past_visual=nothing, future=future, durations=torch.tensor(RAW).log()
    )
    nan = math.nan
    y = Target(
        frames={},
        next={},
        future=torch.tensor([[0, 2, END, IGNORE], [2, 3, 1, END]]),
        durations=torch.tensor([[0.5, 0.5, nan, nan], [0.25, 0.25, 0.5, nan]]),
    )
    x = Observation(
        features=torch.zeros(2, 1, 3),
        valid=torch.ones(2, 1, dtype=torch.bool),
        rate=1.0,
        horizon=torch.tensor([4, 4]),
        labels=torch.zeros(2, 1, dtype=torch.long),
    )
    losses = model.losses(x, y)
    assert losses["past_text"] == losses["past_visual"] == 0
    assert float(losses["future"]) == pytest.approx(0.607101, abs=1e-6)
    assert float(losses["future"]) * 7 == pytest.approx(4.249709, abs=1e-5)
    assert float(losses["duration"]) == pytest.approx(error)
    shares = duration_shares(torch.tensor(RAW).log(), ~torch.as_tensor(y.durations).isnan())
    assert shares.flatten().tolist() == pytest.approx([0.25, 0.75, 0, 0, 0.5, 0.25, 0.25, 0])


# What section 11.2 says of places


@pytest.mark.parametrize("positions", ["tokens", "batch"])
def test_only_places_of_the_batch_take_tokens_in_any_order(positions: Any) -> None:
    torch.manual_seed(0)
    block = CrossModalityBlock(
        ("text", "visual", "queries"), 8, 2, 16, dropout=0.0, positions=positions
    )
    tokens = {"text": torch.randn(1, 6, 8), "visual": torch.randn(1, 6, 8)}
    tokens["queries"] = torch.ones(1, 3, 8)
    known = {s: torch.ones(value.shape[:2], dtype=torch.bool) for s, value in tokens.items()}
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = {s: v[:, order] if s != "queries" else v for s, v in tokens.items()}
    with torch.no_grad():
        plain, other = block(tokens, known), block(moved, known)
    for s in ("text", "visual"):
        same = torch.allclose(plain[s][:, order], other[s], atol=1e-5)
        assert same == (positions == "batch")
    alike = torch.allclose(plain["queries"], plain["queries"][:, :1], atol=1e-6)
    assert alike == (positions == "batch")
    assert torch.allclose(plain["queries"], other["queries"], atol=1e-5) == (positions == "batch")


def test_text_beside_the_official_names_is_left_out() -> None:
    found = from_official(
        {
            "adapter_proj.conv_A.weight": torch.ones(2, 3),
            "layers.11.adapter_attn.conv_D.weight": torch.ones(4, 2, 1),
            "layers.11.attention.wq.weight": torch.ones(4, 4),
            "norm.weight": torch.ones(4),
            "tok_embeddings.weight": torch.ones(5, 4),
        }
    )
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "adapter.0.weight": (2, 3),
        "tuning.11.up": (4, 2),
    }
