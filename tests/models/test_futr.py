import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from actioncast.models.futr import (
    FUTR,
    OFFICIAL,
    OFFICIAL_50SALADS,
    FUTRConfig,
    mean_cross_entropy,
    mean_share_error,
)
from actioncast.models.futr_official import futr_from_official, official_names
from actioncast.timeline import UNLABELLED, Taxonomy
from actioncast.types import IGNORE, Observation, Target, Task
from goldens import golden_cases

TINY = FUTRConfig(
    feature_dim=6, hidden_dim=16, num_queries=4, num_heads=2, max_positions=24, num_decoder_layers=2
)


def taxonomy(num_labels: int) -> Taxonomy:
    return Taxonomy.of(f"a{i}" for i in range(num_labels))


def tiny(config: FUTRConfig = TINY, num_labels: int = 5, seed: int = 0) -> FUTR:
    torch.manual_seed(seed)
    return config.build(taxonomy(num_labels)).eval()


def observation(
    lengths: tuple[int, ...] = (9, 5), horizons: tuple[int, ...] = (20, 13), **fields: Any
) -> Observation:
    generator = torch.Generator().manual_seed(1)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features = torch.randn(*valid.shape, TINY.feature_dim, generator=generator)
    return Observation(
        features=features * valid[..., None],
        valid=valid,
        rate=15.0,
        horizon=torch.tensor(horizons),
        **fields,
    )


def target(**fields: Any) -> Target:
    """Labels for `observation()` and five actions."""
    frames = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2], [3, 3, 4, 4, 4] + [IGNORE] * 4])
    known = {
        "frames": {"action": frames},
        "next": {},
        "future": torch.tensor([[1, 2, 5, IGNORE], [4, 5, IGNORE, IGNORE]]),
        "durations": torch.tensor([[0.25, 0.75, math.nan, math.nan], [1.0] + [math.nan] * 3]),
    }
    return Target(**(known | fields))


# What the official code computes


@dataclass
class Golden:
    model: FUTR
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    def batch(self, name: str) -> tuple[Observation, Target]:
        """The recorded batch; padding is read off the recorded labels."""
        pad = self.config["hyper_parameters"]["pad_idx"]
        part = {key: self.tensors[f"{name}.{key}"] for key in ("features", "past_label", "target")}
        durations = self.tensors[f"{name}.duration_target"]
        x = Observation(
            features=part["features"],
            valid=part["past_label"] != pad,
            rate=15.0,
            horizon=torch.full((len(durations),), 30),
        )
        past, future = (
            part[key].long().masked_fill(part[key] == pad, IGNORE)
            for key in ("past_label", "target")
        )
        durations = durations.masked_fill(durations == pad, torch.nan)
        return x, Target(frames={"action": past}, next={}, future=future, durations=durations)


def load_golden(case: Path) -> Golden:
    config = json.loads((case / "config.json").read_text())
    state = load_file(case / "weights.safetensors")
    sizes, weights = futr_from_official(state, config["hyper_parameters"]["n_head"])
    model = sizes.build(taxonomy(config["hyper_parameters"]["n_class"] - 1)).eval()
    model.load_state_dict(weights)
    return Golden(model, state, load_file(case / "io.safetensors"), config)


def golden_batches() -> Iterator[Any]:
    for case in golden_cases("futr"):
        [folder] = case.values
        names: set[str] = {"absent"}
        if folder.is_dir():
            with safe_open(folder / "io.safetensors", "pt") as tensors:
                names = {key.split(".")[0] for key in tensors.keys() if key.endswith(".features")}  # noqa: SIM118
            assert names, f"{folder} holds no batch"
        for name in sorted(names):
            yield pytest.param(folder, name, id=f"{case.id}-{name}", marks=case.marks)


batches = pytest.mark.parametrize(("case", "batch"), [*golden_batches()])


def recorded(golden: Golden, prefix: str) -> dict[str, Tensor]:
    found = {
        key.removeprefix(prefix): value
        for key, value in golden.tensors.items()
        if key.startswith(prefix)
    }
    assert found, f"nothing recorded under {prefix}"
    return found


@batches
def test_outputs_are_the_official_ones(case: Path, batch: str) -> None:
    golden = load_golden(case)
    x, _ = golden.batch(batch)
    with torch.no_grad():
        outputs = golden.model(x.features, x.valid)
    wanted = recorded(golden, f"{batch}.out.")
    assert wanted.keys() == {"seg", "action", "duration"}
    for ours, name in zip(outputs, ("seg", "action", "duration"), strict=True):
        torch.testing.assert_close(ours, wanted[name], atol=1e-5, rtol=0, msg=name)


@batches
def test_every_layer_computes_what_the_official_one_does(case: Path, batch: str) -> None:
    golden = load_golden(case)
    x, _ = golden.batch(batch)
    model, seen = golden.model, {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({name: output})

    layers = {"input_embed": model.embed, "decoder_out": model.decoder_norm}
    layers |= {f"encoder_layer{i}": layer for i, layer in enumerate(model.encoder)}
    layers |= {f"decoder_layer{i}": layer for i, layer in enumerate(model.decoder)}
    for name, layer in layers.items():
        layer.register_forward_hook(keep(name))
    with torch.no_grad():
        model(x.features, x.valid)
    for name, wanted in recorded(golden, f"{batch}.inter.").items():
        torch.testing.assert_close(seen[name], wanted, atol=1e-5, rtol=0, msg=name)


@batches
def test_losses_are_the_official_ones(case: Path, batch: str) -> None:
    golden = load_golden(case)
    losses = golden.model.losses(*golden.batch(batch))
    wanted = recorded(golden, f"{batch}.loss.")
    for ours, theirs in (("past", "seg"), ("future", "action"), ("duration", "duration")):
        torch.testing.assert_close(losses[ours], wanted[theirs][0], atol=1e-5, rtol=0, msg=ours)
    torch.testing.assert_close(sum(losses.values()), wanted["total"][0], atol=1e-5, rtol=0)


@batches
def test_gradients_are_the_official_ones(case: Path, batch: str) -> None:
    golden = load_golden(case)
    sum(golden.model.losses(*golden.batch(batch)).values()).backward()
    names = official_names(len(golden.model.encoder), len(golden.model.decoder))
    for name, wanted in recorded(golden, f"{batch}.grad.").items():
        ours = golden.model.get_parameter(names[name]).grad
        assert ours is not None
        tolerance = 1e-5 * float(wanted.abs().max())
        torch.testing.assert_close(
            ours.reshape(wanted.shape), wanted, atol=tolerance, rtol=0, msg=name
        )


@pytest.mark.parametrize("case", golden_cases("futr"))
def test_single_clips_are_answered_as_in_official_test_mode(case: Path) -> None:
    golden = load_golden(case)
    clips = 0
    for name, wanted in golden.tensors.items():
        source = re.search(
            r"same as (\w+) row (\d+) cut to (\d+)", golden.config["tensors"][name].get("axes", "")
        )
        if source is None:
            continue
        batch, row, length = source[1], int(source[2]), int(source[3])
        features = golden.tensors[f"{batch}.features"][row, None, :length]
        with torch.no_grad():
            outputs = golden.model(features, torch.ones(1, length, dtype=torch.bool))
        ours = dict(zip(("seg", "action", "duration"), outputs, strict=True))
        torch.testing.assert_close(ours[name.split(".")[-1]], wanted, atol=1e-5, rtol=0, msg=name)
        clips += 1
    assert clips == sum(name.startswith("test") for name in golden.tensors)
    assert clips


@pytest.mark.parametrize("case", golden_cases("futr"))
def test_official_weights_come_over_whole(case: Path) -> None:
    golden = load_golden(case)
    heads = golden.config["hyper_parameters"]["n_head"]
    parallel = {f"module.{name}": tensor for name, tensor in golden.state.items()}
    config, weights = futr_from_official(parallel, heads)
    assert config == golden.model.config
    names = official_names(config.num_encoder_layers, config.num_decoder_layers)
    assert golden.state.keys() - names.keys() <= {"pos_enc.pos_table"}
    for theirs, ours in names.items():
        assert golden.model.state_dict()[ours].equal(weights[ours])
        assert weights[ours].equal(golden.state[theirs].reshape(weights[ours].shape))
    sizes = golden.config["hyper_parameters"]
    assert (config.feature_dim, config.max_positions) == (sizes["input_dim"], sizes["max_pos_len"])
    assert config.num_queries == sizes["n_query"]
    assert config.fill == "last_query"


# Conversion


def as_official(model: FUTR) -> dict[str, Tensor]:
    names = official_names(len(model.encoder), len(model.decoder))
    weights = model.state_dict()
    state = {theirs: weights[ours] for theirs, ours in names.items()}
    state["pos_embedding"] = state["pos_embedding"][None]
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_conversion_round_trip(prefix: str) -> None:
    model = tiny()
    state = {prefix + name: tensor for name, tensor in as_official(model).items()}
    state[f"{prefix}pos_enc.pos_table"] = torch.zeros(1, 3000, 16)
    config, weights = futr_from_official(state, num_heads=2)
    assert config == replace(TINY, fill="last_query")
    again = tiny(config, num_labels=len(weights["past_head.weight"]), seed=1)
    again.load_state_dict(weights)
    x = observation()
    for ours, theirs in zip(again(x.features, x.valid), model(x.features, x.valid), strict=True):
        assert ours.equal(theirs)


def test_another_checkpoint_is_refused_with_a_few_of_its_keys() -> None:
    with pytest.raises(ValueError, match=r"without fc\.bias.*and \d+ more.*with backbone\.weight"):
        futr_from_official({"backbone.weight": torch.zeros(2, 2)})
    state = as_official(tiny())
    del state["fc_len.bias"]
    with pytest.raises(ValueError, match=r"without fc_len\.bias, and with none besides"):
        futr_from_official(state, num_heads=2)
    with pytest.raises(ValueError, match=r"without none, and with stage\.0 besides"):
        futr_from_official(as_official(tiny()) | {"stage.0": torch.zeros(1)}, num_heads=2)


def test_tensors_that_do_not_fit_each_other_are_refused() -> None:
    state = as_official(tiny()) | {"fc.bias": torch.zeros(9)}
    with pytest.raises(ValueError, match=r"future_head\.bias \(9,\) for \(6,\)"):
        futr_from_official(state, num_heads=2)
    with pytest.raises(ValueError, match="hidden_dim must be a multiple of num_heads"):
        futr_from_official(as_official(tiny()), num_heads=7)


# Sizes and initial weights


@pytest.mark.parametrize(
    ("config", "num_labels", "count"),
    [(OFFICIAL, 48, 1_193_314), (OFFICIAL_50SALADS, 19, 17_380_904)],
    ids=["breakfast", "50salads"],
)
def test_the_published_number_of_parameters(
    config: FUTRConfig, num_labels: int, count: int
) -> None:
    with torch.device("meta"):
        model = config.build(taxonomy(num_labels))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = FUTRConfig(num_queries=64).build(taxonomy(48))
    bound = math.sqrt(6 / (2001 * 128))
    assert 0.99 * bound < model.positions.abs().max() <= bound
    assert model.queries.std().item() == pytest.approx(1.0, abs=0.05)
    assert model.embed.weight.abs().max() <= math.sqrt(6 / (2048 + 128))
    assert not model.encoder[0].attention.project.bias.any()


# Losses


def test_ce_and_duration_error_by_hand() -> None:
    rows = [[0, 2.0], [1, 1.0], [4, 3.0], [2, 2.0], [3, 2.0], [1, 2.0], [4, 2.0]]
    first = torch.zeros(2, 4, 5)
    first[0, 3] = 1
    for place, (label, value) in zip([0, 1, 2, 4, 5, 6, 7], rows, strict=True):
        first.view(8, 5)[place, int(label)] = value
    labels = torch.tensor([[0, 2, 4, IGNORE], [2, 3, 1, 4]])
    assert mean_cross_entropy(first, labels).item() == pytest.approx(0.607101, abs=1e-6)
    raw = torch.tensor([[1.0, 3, 2, 5], [2, 1, 1, 4]]).log()
    nan = math.nan
    shares = torch.tensor([[0.5, 0.5, nan, nan], [0.25, 0.25, 0.5, nan]])
    assert mean_share_error(raw, shares).item() == pytest.approx(0.05)


def test_targets_are_padded_or_cut_to_the_queries() -> None:
    """The transcript of 23 frames a5 b6 c4 b5 d3 at stride 3, after a fifth of them."""
    nan = math.nan
    x = replace(observation((2,), (11,)))
    frames = {"action": torch.tensor([[0, 0]])}
    actions, shares = [0, 1, 2, 4], [0.25, 0.5, 0.25, nan]

    def losses(num_queries: int, extra: int = 0) -> dict[str, float]:
        model = tiny(replace(TINY, num_queries=num_queries), num_labels=4)
        y = Target(
            frames=frames,
            next={},
            future=torch.tensor([actions + [IGNORE] * extra]),
            durations=torch.tensor([shares + [nan] * extra]),
        )
        _, logits, raw = model(x.features, x.valid)
        counted = min(num_queries, 4)
        by_hand = -logits[0].log_softmax(-1)[range(counted), actions[:counted]].mean()
        named = raw[0, :3].softmax(0)
        error = (named - torch.tensor([0.25, 0.5, 0.25])).square().mean()
        terms = model.losses(x, y)
        assert terms["future"].item() == pytest.approx(by_hand.item(), abs=1e-6)
        assert terms["duration"].item() == pytest.approx(error.item(), abs=1e-6)
        return {name: term.item() for name, term in terms.items()}

    assert losses(6) == losses(6, extra=2) == losses(6, extra=9)
    losses(4)
    losses(3)


def test_a_batch_without_a_future_trains_segmentation_alone() -> None:
    model = tiny()
    x, y = observation(), target()
    nothing = replace(
        y,
        future=torch.full((2, 4), IGNORE),
        durations=torch.full((2, 4), torch.nan),
    )
    for without in (nothing, replace(nothing, future=None, durations=None)):
        model.zero_grad()
        terms = model.losses(x, without)
        assert terms["past"] > 0
        assert terms["future"] == terms["duration"] == 0
        sum(terms.values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        assert not model.future_head.weight.grad.any()


def test_a_row_without_a_future_does_not_count() -> None:
    model = tiny()
    x, y = observation(), target()
    future, durations = y.future.clone(), y.durations.clone()
    future[1], durations[1] = IGNORE, torch.nan
    both = model.losses(x, replace(y, future=future, durations=durations))
    first = next(iter(x))
    alone = model.losses(
        first,
        replace(
            y,
            frames={"action": y.frames["action"][:1]},
            future=future[:1],
            durations=durations[:1],
        ),
    )
    for name in ("future", "duration"):
        assert both[name].item() == pytest.approx(alone[name].item(), abs=1e-6)


def test_labels_of_the_future_alone_are_enough_and_none_are_not() -> None:
    model = tiny()
    terms = model.losses(observation(), target(frames={}))
    assert terms["past"] == 0
    assert terms["future"] > 0
    with pytest.raises(ValueError, match=r"'action'.*got neither"):
        model.losses(observation(), target(frames={}, future=None))


def test_the_end_has_a_duration_only_when_it_takes_time() -> None:
    x = observation()
    nan = math.nan
    beyond = target(durations=torch.tensor([[0.2, 0.5, 0.3, nan], [1.0, nan, nan, nan]]))
    within = target(durations=torch.tensor([[0.2, 0.5, nan, nan], [1.0, nan, nan, nan]]))
    model = tiny()
    whole = target(durations=torch.tensor([[0.2 / 0.7, 0.5 / 0.7, nan, nan], [1.0, nan, nan, nan]]))
    shared_out, exact = model.losses(x, beyond)["duration"], model.losses(x, whole)["duration"]
    torch.testing.assert_close(shared_out, exact)
    assert not torch.isclose(shared_out, model.losses(x, within)["duration"])

    timed = tiny(replace(TINY, end_takes_time=True))
    raw = timed(x.features, x.valid)[2]
    first = (raw[0, :3].softmax(0) - torch.tensor([0.2, 0.5, 0.3])).square().sum()
    second = (raw[1, :2].softmax(0) - torch.tensor([1.0, 0.0])).square().sum()
    assert timed.losses(x, beyond)["duration"].item() == pytest.approx(
        ((first + second) / 5).item(), abs=1e-6
    )


def test_weights_scale_their_terms() -> None:
    weighted = replace(TINY, past_weight=2.0, future_weight=0.0, duration_weight=3.0)
    plain, scaled = (
        tiny().losses(observation(), target()),
        tiny(weighted).losses(observation(), target()),
    )
    assert scaled["past"] == 2 * plain["past"]
    assert scaled["future"] == 0
    assert scaled["duration"].item() == pytest.approx(3 * plain["duration"].item())


def test_the_loss_reaches_every_parameter_and_falls() -> None:
    model = tiny().train()
    x, y = observation(), target()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = sum(model.losses(x, y).values())
        loss.backward()
        if not history:
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                # Shares do not change when all raw durations grow alike.
                assert name == "duration_head.bias" or parameter.grad.any(), name
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.3 * history[0]


def test_dropout_acts_in_training_and_on_attention_weights() -> None:
    x = observation()
    model = tiny(replace(TINY, dropout=0.5))
    calm = model.encoder[0].attention
    memory = torch.randn(1, 5, 16)
    assert calm(memory, memory).equal(calm(memory, memory))
    calm.train()
    assert not calm(memory, memory).equal(calm(memory, memory))
    assert not model(x.features, x.valid)[0].equal(model(x.features, x.valid)[0])


# Predictions


@pytest.mark.parametrize("fill", ["last_action", "last_query"])
def test_an_answer_covers_past_and_horizon(fill: str) -> None:
    model = tiny(replace(TINY, fill=fill))
    x = observation(stride=3, observed=torch.tensor([26, 14]))
    assert model.tasks == {Task.SEGMENTATION, Task.LONG_TERM}
    for prediction, steps, observed, horizon in zip(
        model.predict(x), (9, 5), (26, 14), (20, 13), strict=True
    ):
        assert prediction.observed == observed
        assert prediction.past is not None
        assert prediction.past.shape == (steps, 5)
        assert prediction.future is not None
        assert prediction.future.shape == (horizon, 5)
        torch.testing.assert_close(prediction.past.sum(-1), torch.ones(steps))
        named = prediction.future.any(-1)
        torch.testing.assert_close(prediction.future.sum(-1), named.float())
        assert fill == "last_query" or named.all()
        assert prediction.samples is None


def test_nothing_is_anticipated_when_nothing_is_asked() -> None:
    first, second = tiny().predict(observation(horizons=(0, 7), num_samples=2))
    assert first.future is None
    assert first.samples is None
    assert second.future is not None
    assert second.samples is not None
    assert second.samples.shape == (2, 7)


def speaking(
    labels: list[int], durations: list[float], config: FUTRConfig = TINY, num_labels: int = 4
) -> FUTR:
    """A model whose queries name these labels, most probably, whatever it sees.

    With `decoder_norm` writing one coordinate for each query the heads read a table.
    """
    model = tiny(replace(config, num_queries=len(labels)), num_labels)
    assert len(labels) <= config.hidden_dim
    model.decoder_norm = _Table(len(labels), config.hidden_dim)
    with torch.no_grad():
        model.future_head.weight.zero_()
        model.future_head.bias.copy_(torch.linspace(0.5, 0.0, num_labels + 1))
        model.duration_head.weight.zero_()
        model.duration_head.bias.zero_()
        for query, (label, duration) in enumerate(zip(labels, durations, strict=True)):
            model.future_head.weight[label, query] = 5.0
            model.duration_head.weight[0, query] = duration
    return model


class _Table(torch.nn.Module):
    def __init__(self, num_queries: int, width: int) -> None:
        super().__init__()
        self.rows = torch.eye(num_queries, width)

    def forward(self, slots: Tensor) -> Tensor:
        return self.rows.expand(len(slots), -1, -1)


def answered(model: FUTR, horizon: int = 10, num_samples: int = 0) -> list[int]:
    [prediction] = model.predict(observation((4,), (horizon,), num_samples=num_samples))
    assert prediction.future is not None
    return torch.where(prediction.future.any(-1), prediction.future.argmax(-1), UNLABELLED).tolist()


END = 4


def test_the_end_first_leaves_the_horizon_to_the_most_likely_action() -> None:
    model = speaking([END, 1, 2, 3], [0.0] * 4)
    assert answered(model) == [0] * 10
    released = speaking([END, 1, 2, 3], [0.0] * 4, replace(TINY, fill="last_query"))
    assert answered(released) == [3] * 10


def test_residue_and_missing_end() -> None:
    released = replace(TINY, fill="last_query")
    assert answered(speaking([0, 1, 2, END], [0.0] * 4)) == [0] * 3 + [1] * 3 + [2] * 4
    assert answered(speaking([0, 1, 2, END], [0.0] * 4, released)) == (
        [0] * 3 + [1] * 3 + [2] * 3 + [UNLABELLED]
    )
    for config in (TINY, released):
        assert answered(speaking([0, 1, 2, 3], [0.0] * 4, config), 8) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_no_frame_is_named_after_an_end_that_takes_time() -> None:
    config = replace(TINY, end_takes_time=True)
    model = speaking([0, 1, END, 2], [0.0, math.log(2), math.log(2), 3.0], config)
    assert answered(model) == [0] * 2 + [1] * 4 + [UNLABELLED] * 4
    assert answered(speaking([END, 1, 2, 3], [0.0] * 4, config)) == [UNLABELLED] * 10


def test_the_end_is_taken_out_of_the_probabilities() -> None:
    model = speaking([0, END], [0.0, 0.0])
    [prediction] = model.predict(observation((4,), (3,)))
    logits = model.future_head.bias + model.future_head.weight[:, 0]
    assert prediction.future is not None
    torch.testing.assert_close(prediction.future[0], logits[:END].softmax(0))


def test_samples_follow_the_probabilities_of_the_queries() -> None:
    model = speaking([0, 1, END, 2], [0.0] * 4)
    [prediction] = model.predict(observation((4,), (10,), num_samples=4000))
    assert prediction.samples is not None
    assert prediction.samples.shape == (4000, 10)
    assert ((prediction.samples >= 0) & (prediction.samples < END)).all()
    probs = (model.future_head.bias + model.future_head.weight[:, 0]).softmax(0)
    # An end drawn first stands for the query's best action, which is 0.
    wanted = probs[:END] + torch.eye(END)[0] * probs[END]
    first = torch.bincount(prediction.samples[:, 0], minlength=END) / 4000
    torch.testing.assert_close(first, wanted, atol=0.03, rtol=0)
    assert len(prediction.samples.unique(dim=0)) > 10
    again = model.predict(observation((4,), (10,), num_samples=4000))[0].samples
    assert prediction.samples.equal(again)
    other = speaking([0, 1, END, 2], [0.0] * 4, replace(TINY, seed=1))
    assert not prediction.samples.equal(
        other.predict(observation((4,), (10,), num_samples=4000))[0].samples
    )


def test_the_global_seed_is_left_alone() -> None:
    model = tiny()
    before = torch.get_rng_state()
    model.predict(observation(num_samples=3))
    assert torch.get_rng_state().equal(before)


def test_same_input_same_answer() -> None:
    model, x = tiny(), observation(num_samples=5)
    for one, two in zip(model.predict(x), model.predict(x), strict=True):
        assert one.past.equal(two.past)
        assert one.future.equal(two.future)
        assert one.samples.equal(two.samples)


def test_padding_and_company_change_nothing() -> None:
    model, x = tiny(), observation(num_samples=5)
    for one, alone in zip(model.predict(x), x, strict=True):
        [two] = model.predict(alone)
        torch.testing.assert_close(one.past, two.past, atol=1e-6, rtol=0)
        torch.testing.assert_close(one.future, two.future, atol=1e-6, rtol=0)
        assert one.samples.equal(two.samples)


def test_padding_is_never_looked_at() -> None:
    model, x = tiny(), observation()
    noisy = torch.where(x.valid[..., None], x.features, torch.tensor(1e3))
    for clean, other in zip(model(x.features, x.valid), model(noisy, x.valid), strict=True):
        if clean.shape[1] == x.valid.shape[1]:
            clean, other = clean[x.valid], other[x.valid]  # noqa: PLW2901
        torch.testing.assert_close(clean, other, atol=1e-6, rtol=0)


def test_the_order_of_the_past_matters() -> None:
    model, x = tiny(), observation((9,), (20,))
    backwards = model(x.features.flip(1), x.valid)[1]
    assert (model(x.features, x.valid)[1] - backwards).abs().max() > 1e-4


# What is refused


def test_a_sequence_beyond_the_position_table_is_refused() -> None:
    tiny()(torch.zeros(1, 24, 6), torch.ones(1, 24, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"at most 24 steps, got 25; use a larger stride.*max_pos"):
        tiny()(torch.zeros(1, 25, 6), torch.ones(1, 25, dtype=torch.bool))


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="features must be 6 wide, got 7; set feature_dim"):
        tiny()(torch.zeros(1, 3, 7), torch.ones(1, 3, dtype=torch.bool))


def test_an_observation_of_nothing_is_refused() -> None:
    valid = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match="at least one valid step"):
        tiny()(torch.zeros(2, 2, 6), valid)
    with pytest.raises(ValueError, match="at least one valid step"):
        tiny()(torch.zeros(1, 0, 6), torch.ones(1, 0, dtype=torch.bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 130}, "multiple of num_heads, got 130 and 8"),
        ({"num_queries": 0}, "num_queries must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"past_weight": -1.0}, "past_weight must not be negative, got -1.0"),
        ({"end_takes_time": True, "fill": "last_query"}, "end_takes_time must come with"),
    ],
)
def test_an_impossible_config_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FUTRConfig(**options)
