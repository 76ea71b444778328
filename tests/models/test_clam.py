"""CLAM on streams: steps are the whole, no future is seen, and what enters a state is checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from actioncast.models.clam import CHUNK, CLAM
from actioncast.models.clam_config import ClamConfig
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import IGNORE, Observation, Target, Task

TAXONOMY = Taxonomy.of(["rest", "reach", "pour", "stir", "drink"])
KITCHEN = Taxonomy(
    {
        "verb": LabelSpace(("take", "put")),
        "noun": LabelSpace(("cup", "pan", "lid")),
        "action": LabelSpace(("take cup", "put cup", "take pan", "put lid")),
    },
    pairs=((0, 0), (1, 0), (0, 1), (1, 2)),
)
SIZES: dict[str, Any] = {
    "feature_dim": 6,
    "hidden_dim": 16,
    "num_layers": 2,
    "state_dim": 4,
    "num_heads": 2,
    "act_tokens": 3,
    "memory_queries": 4,
    "gate_rank": 4,
    "predictor_layers": 2,
    "predictor_dim": 24,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "several moments": {"ahead": (0.5, 1.0, 2.0)},
    "many moments": {"ahead": tuple(0.25 * i for i in range(1, 9))},
    "in order": {"num_coming": 5},
    "gru": {"processor": "gru"},
    "lstm": {"processor": "lstm"},
    "without memory": {"memory_queries": 0},
    "two layers of memory": {"memory_layers": 2},
    "memory of tokens": {"memory_reads": "tokens"},
    "accumulated": {"positions": "accumulated"},
    "plain sigmoid": {"gate_temperature": 1.0},
    "no embeddings": {"token_embeddings": False},
}
NEAR = {"atol": 2e-6, "rtol": 1e-4}
RATE = 4.0

each_variant = pytest.mark.parametrize("variant", VARIANTS)


def model_of(variant: str = "default", taxonomy: Taxonomy = TAXONOMY, **more: Any) -> CLAM:
    torch.manual_seed(0)
    return ClamConfig(**{**SIZES, **VARIANTS[variant], **more}).build(taxonomy).eval()


def frames(time: int, seed: int = 1) -> Tensor:
    return torch.randn(time, SIZES["feature_dim"], generator=torch.Generator().manual_seed(seed))


def seen(features: Tensor, **asked: Any) -> Observation:
    return replace(Observation.of_one(features, RATE), **asked)


def answers(prediction: Any) -> dict[str, Tensor]:
    found = {"past": prediction.past, "ahead": prediction.ahead}
    for name in ("next", "coming"):
        for head, probs in (getattr(prediction, name) or {}).items():
            found[f"{name} {head}"] = probs
    return {name: rows for name, rows in found.items() if rows is not None}


@each_variant
@pytest.mark.parametrize("size", [1, 3, 128, 400])
def test_steps_of_any_size_are_the_whole(variant: str, size: int) -> None:
    model = model_of(variant)
    features = frames(400 if size >= 128 else 60)
    (whole,) = model.predict(seen(features))
    state, past = model.initial_state(1), []
    for piece in features.split(size):
        (said,), state = model.step(seen(piece), state)
        past.append(said.past)
    expected, found = answers(whole), answers(said)
    found["past"] = torch.cat(past)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], rows, **NEAR)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if "num_coming" not in VARIANTS[v]])
def test_what_is_said_at_every_step_is_what_a_stream_says_there(variant: str) -> None:
    model = model_of(variant)
    features = frames(CHUNK + 9)
    (whole,) = model.predict(seen(features, ahead=model.ahead))
    assert whole.ahead is not None
    assert whole.ahead.shape == (len(features), len(model.ahead), len(TAXONOMY.labels))
    state = model.initial_state(1)
    for t, frame in enumerate(features):
        (said,), state = model.step(seen(frame[None], ahead=model.ahead), state)
        if t < 6 or t > len(features) - 14:
            torch.testing.assert_close(said.ahead[0], whole.ahead[t], **NEAR)


@each_variant
def test_frames_after_a_step_change_no_bit_of_its_answer(variant: str) -> None:
    model = model_of(variant)
    ahead = model.ahead
    one, other = frames(40), frames(40)
    other[23:] = frames(17, seed=9) * 5
    (first,), (second,) = (model.predict(seen(f, ahead=ahead)) for f in (one, other))
    assert torch.equal(first.past[:23], second.past[:23])
    assert not torch.equal(first.past[23], second.past[23])
    if ahead:
        assert torch.equal(first.ahead[:23], second.ahead[:23])
        assert not torch.equal(first.ahead[23:], second.ahead[23:])


def test_frames_before_a_step_reach_its_answer_through_the_memory() -> None:
    """What is beyond the recent tokens is remembered, if there is a memory."""
    told = {}
    for variant in ("default", "without memory"):
        # Of the processor alone nothing older than the convolution's taps could come.
        model = model_of(variant, gate_temperature=64.0)
        for block in model.processor.blocks:
            torch.nn.init.zeros_(block.out_proj.weight)
        one, other = frames(30), frames(30)
        other[2] += 3
        (first,), (second,) = (model.predict(seen(f)) for f in (one, other))
        told[variant] = (first.next["action"] - second.next["action"]).abs().max().item()
    assert told["default"] > 1e-5
    assert told["without memory"] == 0


@each_variant
def test_a_stream_goes_on_from_a_file(variant: str, tmp_path: Path) -> None:
    model = model_of(variant)
    features = frames(31)
    _, state = model.step(seen(features[:17]), model.initial_state(1))
    (expected,), after = model.step(seen(features[17:]), state)
    save_file({k: v.contiguous() for k, v in state.tensors().items()}, tmp_path / "state")
    again = model_of(variant)
    restored = again.restored(load_file(tmp_path / "state"), state.model)
    (found,), goes_on = again.step(seen(features[17:]), restored)
    for name, rows in answers(expected).items():
        assert torch.equal(answers(found)[name], rows)
    for name, rows in after.tensors().items():
        assert torch.equal(goes_on.tensors()[name], rows)


def test_streams_side_by_side_are_streams_alone() -> None:
    model = model_of()
    x = torch.stack([frames(12, 1), frames(12, 2)])
    none = torch.zeros(2, dtype=torch.long)
    valid = torch.ones(2, 12, dtype=torch.bool)
    together = Observation(features=x, valid=valid, rate=RATE, horizon=none)
    said, state = model.step(together, model.initial_state(2))
    for i in range(2):
        (alone,), own = model.step(seen(x[i]), model.initial_state(1))
        torch.testing.assert_close(said[i].next["action"], alone.next["action"], **NEAR)
        torch.testing.assert_close(state.tokens[i], own.tokens[0], **NEAR)


def test_a_primed_stream_is_one_that_began_with_copies() -> None:
    model = model_of()
    first = frames(1)
    primed = model.prime(first, 9)
    _, stepped = model.step(seen(first.expand(9, -1)), model.initial_state(1))
    for name, rows in stepped.tensors().items():
        torch.testing.assert_close(primed.tensors()[name], rows, **NEAR)
    assert primed.seen.tolist() == [9]


def test_a_state_has_the_same_size_whatever_was_seen() -> None:
    model = model_of()
    _, after = model.step(seen(frames(200)), model.initial_state(1))
    assert after.num_floats == model.initial_state(1).num_floats
    # Two blocks of 32 channels: 3 inputs and 4 entries each; 2 heads of 4 x 8; 3 tokens of 16.
    assert after.num_floats == 2 * 32 * (3 + 4) + 2 * 4 * 8 + 3 * 16


def test_the_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"verb": 97, "noun": 300, "action": 3806}
    heads = {head: LabelSpace(tuple(str(i) for i in range(n))) for head, n in names.items()}
    # Weights without memory have no numbers to make a fingerprint of.
    monkeypatch.setattr(CLAM, "fingerprint", lambda _: "")
    with torch.device("meta"):
        model = ClamConfig().build(Taxonomy(heads))
    assert sum(p.numel() for p in model.parameters()) == 106_857_198
    parts = (model.processor, model.memory, model.predictor, model.heads)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts if part is not None]
    assert counts == [26_670_080, 17_083_008, 58_790_912, 4_311_150]
    # Sheet, section 5, less the fourth input of each convolution, which no step reads.
    assert model.initial_state(1).num_floats == 233_472 - 4 * 2048


# Bad input


def test_a_frame_that_is_no_number_is_named_and_enters_no_state() -> None:
    model = model_of()
    features = frames(5)
    features[3, 2] = torch.nan
    state = model.initial_state(1)
    with pytest.raises(ValueError, match="NaN or infinity in frame 3"):
        model.step(seen(features), state)
    assert all(not part.isnan().any() for part in state.tensors().values())


def test_a_frame_of_another_width_is_refused() -> None:
    model = model_of()
    with pytest.raises(ValueError, match=r"must have 6 features.*got 7"):
        model.step(seen(torch.zeros(2, 7)), model.initial_state(1))


@pytest.mark.parametrize(
    "other",
    [{"hidden_dim": 8}, {"processor": "gru"}, {"gate_temperature": 1.0}, {"act_tokens": 5}],
)
def test_a_state_of_another_model_is_refused(other: dict[str, Any]) -> None:
    model, stranger = model_of(), model_of(**other)
    with pytest.raises(ValueError, match="state must be one of this model"):
        model.step(seen(frames(2)), stranger.initial_state(1))
    kept = stranger.initial_state(1)
    with pytest.raises(ValueError, match="the state must"):
        model.restored(kept.tensors(), kept.model)


def test_a_state_of_other_weights_is_refused() -> None:
    model, trained = model_of(), model_of()
    with torch.no_grad():
        trained.predictor.queries += 0.1
    with pytest.raises(ValueError, match="state must be one of this model"):
        model.step(seen(frames(2)), trained.initial_state(1))


def test_a_state_of_the_same_model_before_it_learned_more_is_refused() -> None:
    model = model_of()
    state = model.initial_state(1)
    model.load_state_dict(model_of(gate_temperature=1.0).state_dict())
    with torch.no_grad():
        model.predictor.queries += 0.1
    with pytest.raises(ValueError, match="state must be one of this model"):
        model.step(seen(frames(2)), state)


@pytest.mark.parametrize("name", ["memory 0", "tokens", "processor scan 0"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_kept_state_that_is_spoilt_is_refused(name: str, value: float) -> None:
    model = model_of()
    state = model.initial_state(1)
    tensors = {key: part.clone() for key, part in state.tensors().items()}
    tensors[name].flatten()[3] = value
    with pytest.raises(ValueError, match=f"NaN, infinity.* in {name}"):
        model.restored(tensors, state.model)


def test_a_kept_state_that_counts_less_than_no_frame_is_refused() -> None:
    model = model_of()
    state = model.initial_state(1)
    with pytest.raises(ValueError, match="less than no frame"):
        model.restored({**state.tensors(), "seen": torch.tensor([-3])}, state.model)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("tokens", torch.float64), ("memory 0", torch.bfloat16)],
)
def test_a_kept_state_of_other_types_is_refused(name: str, dtype: torch.dtype) -> None:
    model = model_of()
    state = model.initial_state(1)
    tensors = {**state.tensors(), name: state.tensors()[name].to(dtype)}
    with pytest.raises(ValueError, match=f"as its {name}"):
        model.restored(tensors, state.model)


def test_steps_keep_no_graph_of_what_was_seen() -> None:
    model = model_of()
    (said,), state = model.step(seen(frames(3)), model.initial_state(1))
    assert not any(part.requires_grad for part in state.tensors().values())
    assert not said.past.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_frames_of_other_types_are_read_as_the_model_computes(dtype: torch.dtype) -> None:
    model = model_of()
    whole = frames(4).round()
    (expected,), _ = model.step(seen(whole), model.initial_state(1))
    x = replace(seen(whole), features=whole[None].to(dtype))
    (found,), _ = model.step(x, model.initial_state(1))
    assert torch.equal(found.past, expected.past)


def test_a_state_of_other_streams_is_refused() -> None:
    model = model_of()
    with pytest.raises(ValueError, match="of 1 streams"):
        model.step(seen(frames(2)), model.initial_state(2))


def test_moments_that_it_does_not_name_are_refused() -> None:
    model = model_of("several moments")
    with pytest.raises(ValueError, match=r"0\.5, 1\.0, 2\.0.*got \(0\.25,\)"):
        model.predict(seen(frames(4), ahead=(0.25,)))
    with pytest.raises(ValueError, match="got 3 s"):
        model.predict(seen(frames(4), anticipation_time=3.0))


def test_tokens_spread_over_the_past_are_for_whole_windows() -> None:
    model = model_of(act_choice="uniform")
    (said,) = model.predict(seen(frames(9)))
    assert said.next is not None
    with pytest.raises(ValueError, match="no stream can"):
        model.step(seen(frames(9)), model.initial_state(1))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"hidden_dim": 15}, "multiples of num_heads"),
        ({"ahead": ()}, "increasing seconds"),
        ({"ahead": (1.0, 1.0)}, "increasing seconds"),
        ({"gate_temperature": 0.0}, "gate_temperature must be positive"),
        ({"act_tokens": 0}, "act_tokens must be at least 1"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ClamConfig(**{**SIZES, **wrong})


# What it learns


def learning(time: int = 8, **more: Any) -> tuple[CLAM, Observation, Target]:
    model = model_of(dropout=0.0, head_dropout=0.0, **more).train()
    x = torch.stack([frames(time, 1), frames(time, 2)])
    valid = torch.ones(2, time, dtype=torch.bool)
    observation = replace(
        seen(x[0]), features=x, valid=valid, horizon=torch.zeros(2, dtype=torch.long)
    )
    labels = torch.randint(5, (2, time), generator=torch.Generator().manual_seed(3))
    return model, observation, Target(frames={"action": labels}, next={})


def test_the_future_of_whole_videos_is_what_lies_ahead() -> None:
    model, x, y = learning(mixup=0.0, label_smoothing=0.0, equalise_below=0.0)
    found = model.losses(x, y)["future action"]
    scores = model.read(x.features, x.valid, None)[0]
    assert scores.shape[1] == 8
    every = replace(x, ahead=model.ahead)
    model.eval()
    total, count = 0.0, 0
    for i, said in enumerate(model.predict(every)):
        for t in range(8 - 4):
            total -= said.ahead[t, 0, y.frames["action"][i, t + 4]].log().item()
            count += 1
    assert found.item() == pytest.approx(total / count, rel=1e-4)


def test_background_teaches_nothing_not_even_mixed() -> None:
    model, x, y = learning(mixup=0.8)
    nothing = {"action": torch.full((2, 8), IGNORE)}
    losses = model.losses(x, replace(y, frames=nothing))
    assert all(loss.item() == 0 for loss in losses.values())
    some = y.frames["action"].clone()
    some[:, 2:] = IGNORE
    torch.manual_seed(5)
    first = model.losses(x, replace(y, frames={"action": some}))
    moved = replace(x, features=x.features.clone())
    moved.features[:, 3:] += 1
    torch.manual_seed(5)
    second = model.losses(moved, replace(y, frames={"action": some}))
    # The two labelled steps come before what was changed: only they count.
    assert first["past action"].item() == pytest.approx(second["past action"].item(), rel=1e-5)


def test_the_clips_own_action_is_asked_at_its_last_step() -> None:
    model, x, _ = learning(mixup=0.0, label_smoothing=0.0, past_weight=0.0)
    valid = x.valid.clone()
    valid[1, 5:] = False
    x = replace(x, valid=valid, anticipation_time=1.0)
    y = Target(frames={}, next={"action": torch.tensor([2, 4])})
    (name, found), *none = model.losses(x, y).items()
    assert not none
    assert name == "future action"
    said = [p.next["action"] for p in model.eval().predict(x)]
    expected = -(said[0][2].log() + said[1][4].log()) / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    starts = torch.full((2, 8), IGNORE)
    starts[0, 7], starts[1, 4] = 2, 4
    y = Target(frames={}, next={}, starts={"action": starts})
    dense = model_of(asks_at="starts", mixup=0.0, label_smoothing=0.0, past_weight=0.0)
    by_step = dense.losses(x, y)
    assert by_step["future action"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_action_that_starts_within_a_window_is_asked_for() -> None:
    model, x, _ = learning(
        asks_at="starts", mixup=0.0, label_smoothing=0.0, past_weight=0.0, equalise_below=0.0
    )
    starts = torch.full((2, 8), IGNORE)
    starts[0, 2], starts[0, 7], starts[1, 5] = 3, 1, 0
    losses = model.losses(x, Target(frames={}, next={}, starts={"action": starts}))
    said = [p.ahead[:, 0] for p in model.eval().predict(replace(x, ahead=model.ahead))]
    expected = -torch.stack([said[0][2, 3], said[0][7, 1], said[1][5, 0]]).log().mean()
    assert losses["future action"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_actions_in_order_are_asked_of_its_queries() -> None:
    model = model_of("in order", KITCHEN, mixup=0.0, label_smoothing=0.0, past_weight=0.0)
    assert model.tasks == {Task.SEGMENTATION, Task.COMING}
    x = seen(frames(6))
    coming = {"verb": torch.tensor([[1, 0, 1]]), "noun": torch.tensor([[2, IGNORE, 1]])}
    losses = model.losses(x, Target(frames={}, next={}, coming=coming))
    (said,) = model.predict(x)
    assert said.coming["verb"].shape == (5, 2)
    expected = -torch.stack([said.coming["noun"][0, 2], said.coming["noun"][2, 1]]).log().mean()
    assert losses["future noun"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.keys() == {"future verb", "future noun"}


def test_several_actions_at_once_all_count() -> None:
    model, x, y = learning(label_smoothing=0.0)
    active = torch.zeros(2, 8, 5, dtype=torch.bool)
    active[:, :, 1] = active[:, 4:, 3] = True
    losses = model.losses(x, replace(y, active={"action": active}))
    model.eval()
    total = 0.0
    for said in model.predict(x):
        total -= said.past[:, 1].log().sum().item() + said.past[4:, 3].log().sum().item()
    assert losses["past action"].item() == pytest.approx(total / 16, rel=1e-4)
