import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from actioncast.inference import predict
from actioncast.models.base import AnswersAhead, RecurrentAnticipator
from actioncast.models.online_baselines import (
    OnlineGRU,
    OnlineGRUConfig,
    WindowTransformer,
    WindowTransformerConfig,
)
from actioncast.streaming import StreamConfig, stream
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE, Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of(["cup", "pour", "stir", "drink"])
WIDTH, RATE = 6, 2.0
AHEAD = (0.5, 1.5)
"""One and three steps at two frames a second."""
GRU = OnlineGRUConfig(feature_dim=WIDTH, hidden_dim=8, num_layers=2, ahead=AHEAD)
WINDOW = WindowTransformerConfig(
    feature_dim=WIDTH, hidden_dim=16, num_layers=2, num_heads=2, window=5, ahead=AHEAD
)
FULL = replace(WINDOW, window=0)
EACH = pytest.mark.parametrize("config", [GRU, WINDOW, FULL], ids=["gru", "window", "full"])
Config = OnlineGRUConfig | WindowTransformerConfig
Model = OnlineGRU | WindowTransformer


def built(config: Config) -> Model:
    torch.manual_seed(0)
    return config.build(TAXONOMY).eval()


def frames(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def observed(features: Tensor, lengths: tuple[int, ...] = (), **fields: Any) -> Observation:
    known = torch.tensor(lengths or (features.shape[1],) * len(features))
    valid = torch.arange(features.shape[1]) < known[:, None]
    values: dict[str, Any] = {"rate": RATE, "horizon": torch.zeros_like(known), "ahead": AHEAD}
    return Observation(features=features, valid=valid, **(values | fields))


def both(prediction: Prediction) -> tuple[Tensor, Tensor]:
    assert prediction.past is not None
    assert prediction.ahead is not None
    return prediction.past, prediction.ahead


@EACH
def test_both_tasks_are_answered_with_probabilities(config: Config) -> None:
    model = built(config)
    assert model.tasks == {Task.SEGMENTATION, Task.ONLINE}
    assert isinstance(model, AnswersAhead)
    assert model.ahead == AHEAD
    for answer, steps in zip(model.predict(observed(frames(2, 9), (9, 4))), (9, 4), strict=True):
        past, ahead = both(answer)
        assert past.shape == (steps, 4)
        assert ahead.shape == (steps, 2, 4)
        torch.testing.assert_close(past.sum(-1), torch.ones(steps))
        torch.testing.assert_close(ahead.sum(-1), torch.ones(steps, 2))
    for answer in model.predict(observed(frames(2, 9), ahead=())):
        assert answer.ahead is None


@EACH
def test_a_model_without_moments_names_the_present(config: Config) -> None:
    model = built(replace(config, ahead=()))
    x = observed(frames(1, 7), ahead=())
    assert model.predict(x)[0].ahead is None
    assert set(model.losses(x, Target(frames={"action": torch.zeros(1, 7).long()}, next={}))) == {
        "past"
    }


@EACH
@pytest.mark.parametrize("after", [0, 3, 8, 18])
def test_what_comes_later_changes_no_bit_of_an_answer(config: Config, after: int) -> None:
    model, features = built(config), frames(2, 20)
    changed = features.clone()
    changed[:, after + 1 :] = 1e4 * frames(2, 19 - after, seed=1)
    for one, other in zip(
        model.predict(observed(features)), model.predict(observed(changed)), strict=True
    ):
        for own, found in zip(both(one), both(other), strict=True):
            assert own[: after + 1].equal(found[: after + 1])
            assert not own[after + 1 :].equal(found[after + 1 :])


@EACH
def test_what_is_behind_padding_changes_no_bit_of_an_answer(config: Config) -> None:
    model, features = built(config), frames(2, 12)
    spoilt = features.clone()
    spoilt[1, 5:] = 1e4
    _, plain = model.predict(observed(features, (12, 5)))
    _, other = model.predict(observed(spoilt, (12, 5)))
    (alone,) = model.predict(observed(features[1:, :5]))
    for one, two, three in zip(both(plain), both(other), both(alone), strict=True):
        assert one.equal(two)
        torch.testing.assert_close(one, three)


@EACH
def test_a_row_without_a_step_has_an_empty_answer(config: Config) -> None:
    model = built(config)
    whole, empty = model.predict(observed(frames(2, 6), (6, 0)))
    (alone,) = model.predict(observed(frames(2, 6)[:1]))
    assert both(empty)[0].shape == (0, 4)
    assert both(empty)[1].shape == (0, 2, 4)
    for one, other in zip(both(whole), both(alone), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_steps_of_the_gru_equal_the_video_at_once(chunk: int) -> None:
    model, features = built(GRU).double(), frames(2, 20).double()
    assert isinstance(model, RecurrentAnticipator)
    state, found = model.initial_state(2), []
    for piece in features.split(chunk, 1):
        answers, state = model.step(observed(piece), state)
        found.append(answers)
    assert state.shape == (2, 2, 8)
    for i, whole in enumerate(model.predict(observed(features))):
        for part, at_once in enumerate(both(whole)):
            stepped = torch.cat([both(answers[i])[part] for answers in found])
            torch.testing.assert_close(stepped, at_once, rtol=0, atol=1e-13)


def test_the_state_of_the_gru_stops_at_the_last_real_step_of_a_row() -> None:
    model, features = built(GRU), frames(2, 9)
    assert isinstance(model, OnlineGRU)
    first = model.initial_state(2).normal_()
    _, state = model.step(observed(features, (9, 4)), first)
    _, short = model.step(observed(features[1:, :4]), first[:, 1:])
    torch.testing.assert_close(state[:, 1:], short)
    _, same = model.step(observed(features, (9, 0)), first)
    assert same[:, 1].equal(first[:, 1])
    answers, same = model.step(observed(features[:, :0]), first)
    assert same.equal(first)
    assert [len(both(answer)[0]) for answer in answers] == [0, 0]


def test_the_state_of_another_model_is_refused() -> None:
    model, x = built(GRU), observed(frames(1, 2))
    assert isinstance(model, OnlineGRU)
    for shape in ((1, 1, 8), (2, 3, 8), (2, 1, 9), (1, 8)):
        with pytest.raises(
            ValueError, match=r"must be \(layer, batch, hidden\) = \(2, 1, 8\), got"
        ):
            model.step(x, torch.zeros(shape))


def test_one_step_of_the_gru_by_hand() -> None:
    """Two equal entries become 0 under the norm, so the state moves by its biases alone."""
    model = OnlineGRUConfig(feature_dim=1, hidden_dim=2, ahead=()).build(TAXONOMY).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_()
            if name == "layers.0.bias_ih_l0":
                # Reset, update and candidate gate, each of two channels.
                parameter.copy_(torch.tensor([0.0, 0.0, math.log(3), math.log(3), 1.0, -1.0]))
            if name == "head.classifier.weight":
                parameter[0] = torch.tensor([2.0, 7.0])
    x = Observation.of_one(torch.ones(1, 1), RATE)
    (answer,), state = model.step(x, torch.tensor([[[0.4, 0.0]]]))
    kept, added = 0.75, 0.25 * math.tanh(1)
    torch.testing.assert_close(state, torch.tensor([[[kept * 0.4 + added, -added]]]))
    # The second channel is below 0 and rectified away.
    logits = torch.tensor([2 * (kept * 0.4 + added), 0.0, 0.0, 0.0])
    torch.testing.assert_close(answer.past, logits.softmax(0)[None])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("config", [WINDOW, FULL], ids=["window", "full"])
def test_a_stream_of_windows_equals_the_video_at_once(
    config: WindowTransformerConfig, stride: int
) -> None:
    model, features = built(config), frames(24)
    steps = config.window or 24
    running = StreamConfig(window=steps * stride / RATE, step=stride / RATE, horizon=0.0)
    said = list(stream(model, features.split(5), RATE, running, stride))
    x = replace(Observation.of_one(features[::stride], RATE), stride=stride)
    (whole,) = predict(model, x)
    assert whole.past is not None
    newest = [answer.past[-1] for answer in said if answer.past is not None]
    torch.testing.assert_close(torch.stack(newest), whole.past[::stride])


def test_a_window_is_answered_the_same_wherever_it_lies() -> None:
    model, features = built(WINDOW), frames(1, 30)
    assert isinstance(model, WindowTransformer)
    repeated = torch.cat([frames(1, 7, seed=1), features[:, :5], features[:, :5]], 1)
    (answer,) = model.predict(observed(repeated))
    for said in both(answer):
        torch.testing.assert_close(said[11], said[16], rtol=0, atol=0)
        assert not said[10].equal(said[11])


def test_a_window_sees_its_steps_and_none_before() -> None:
    model, features = built(WINDOW), frames(1, 12)
    (plain,) = model.predict(observed(features))
    for changed, reached in ((2, range(2, 7)), (6, range(6, 11)), (11, range(11, 12))):
        other = features.clone()
        other[:, changed] += 1
        (found,) = model.predict(observed(other))
        for one, two in zip(both(plain), both(found), strict=True):
            moved = (one != two).flatten(1).any(1).nonzero()[:, 0].tolist()
            assert moved == list(reached)


def test_the_full_context_sees_everything_before() -> None:
    model, features = built(FULL), frames(1, 40)
    (plain,) = model.predict(observed(features))
    features[:, 0] += 1
    (found,) = model.predict(observed(features))
    for one, two in zip(both(plain), both(found), strict=True):
        assert (one != two).flatten(1).any(1).all()


def test_attention_knows_distances_and_no_places() -> None:
    """Before the causal form's own start there is nothing, so a start may not be told by place."""
    model = built(replace(FULL, num_layers=1))
    assert isinstance(model, WindowTransformer)
    one = frames(1, 1)
    (answer,) = model.predict(observed(one.repeat(1, 9, 1)))
    for said in both(answer):
        torch.testing.assert_close(said, said[:1].expand_as(said))
    # Places are told apart where they differ: the same steps in another order answer otherwise.
    steps = frames(1, 4)
    swapped = steps[:, [1, 0, 2, 3]]
    last, other = (both(model.predict(observed(x))[0])[0][-1] for x in (steps, swapped))
    assert (last - other).abs().max() > 1e-4


@pytest.mark.parametrize("config", [WINDOW, FULL], ids=["window", "full"])
@pytest.mark.parametrize("steps", [1, 3, 5, 13])
def test_the_newest_answer_is_the_last_of_all(config: WindowTransformerConfig, steps: int) -> None:
    model, features = built(config), frames(2, steps)
    assert isinstance(model, WindowTransformer)
    valid = torch.ones(2, steps, dtype=torch.bool)
    for newest, each in zip(model.newest(features), model(features, valid), strict=True):
        torch.testing.assert_close(newest[:, 0], each[:, -1])


def test_kept_keys_and_values_answer_as_one_pass() -> None:
    model, features = built(FULL), frames(2, 9)
    assert isinstance(model, WindowTransformer)
    kept: Any = ()
    found = []
    with torch.inference_mode():
        for step in features.split(1, 1):
            past, ahead, kept = model.extend(step, kept)
            found.append((past, ahead))
        whole = model(features, torch.ones(2, 9, dtype=torch.bool))
    for stepped, at_once in zip(zip(*found, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.cat(stepped, 1), at_once)
    assert [part.shape for pair in kept for part in pair] == [(2, 2, 9, 8)] * 4
    with pytest.raises(ValueError, match=r"full context alone .* got a window of 5"):
        built(WINDOW).extend(features[:, :1])  # type: ignore[union-attr]


def test_groups_of_windows_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, features = built(WINDOW), frames(2, 17)
    (whole, _) = model.predict(observed(features))
    for group in (1, 3, 4, 16):
        monkeypatch.setattr("actioncast.models.online_baselines.GROUP", group)
        (found, _) = model.predict(observed(features))
        for one, two in zip(both(whole), both(found), strict=True):
            torch.testing.assert_close(one, two)


@EACH
def test_the_loss_by_hand(config: Config) -> None:
    """With a classifier of zeros every known label costs log 4, and a bias favours one of them."""
    model = built(replace(config, past_weight=2.0, ahead_weight=3.0))
    labels = torch.tensor([[0, 1, 2, IGNORE, 1], [1, 0, IGNORE, IGNORE, IGNORE]])
    x = observed(frames(2, 5), (5, 2))
    with torch.no_grad():
        model.head.classifier.weight.zero_()
        model.head.classifier.bias.copy_(torch.tensor([math.log(3), 0.0, 0.0, 0.0]))
    terms = model.losses(x, Target(frames={"action": labels}, next={}))
    # Label 0 has half the probability, any other a sixth. The first row ahead by one step names
    # 1, 2, -, 1 and by three -, 1; the second names 0 and then nothing.
    half, sixth = math.log(2), math.log(6)
    assert terms["past"].item() == pytest.approx(2 * (2 * half + 4 * sixth) / 6)
    assert terms["ahead"].item() == pytest.approx(3 * (half + 4 * sixth) / 5)


@EACH
def test_several_actions_at_once_all_count(config: Config) -> None:
    model = built(config)
    active = torch.zeros(1, 4, 4, dtype=torch.bool)
    active[0, 0, [0, 1]] = True
    active[0, 1, 1] = True
    with torch.no_grad():
        model.head.classifier.weight.zero_()
        model.head.classifier.bias.copy_(torch.tensor([math.log(3), 0.0, 0.0, 0.0]))
    frames_said = {"action": torch.full((1, 4), 2)}
    terms = model.losses(
        observed(frames(1, 4)), Target(frames=frames_said, next={}, active={"action": active})
    )
    # Steps with an action: the first with both, the second with one. One step ahead of step 0 is
    # that of step 1; three steps ahead there is none.
    half, sixth = math.log(2), math.log(6)
    assert terms["past"].item() == pytest.approx((half + 2 * sixth) / 2)
    assert terms["ahead"].item() == pytest.approx(sixth)


@EACH
def test_the_loss_of_one_batch_falls(config: Config) -> None:
    """Actions follow one another in a circle and each shows, so all that is asked can be known."""
    model = built(replace(config, dropout=0.0)).train()
    labels = torch.arange(12).remainder(4).expand(3, -1)
    x = observed(torch.eye(WIDTH)[labels] + 0.1 * frames(3, 12), (12, 12, 7))
    y = Target(frames={"action": labels.masked_fill(~x.valid, IGNORE)}, next={})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    totals = []
    for _ in range(60):
        optimizer.zero_grad()
        total = torch.stack(list(model.losses(x, y).values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) / 5 < 0.5 * totals[0]


@EACH
def test_moments_that_a_model_was_not_built_for_are_refused(config: Config) -> None:
    model = built(config)
    with pytest.raises(ValueError, match=r"answer 0\.5 s, 1\.5 s .* asked for 2 s;"):
        model.predict(observed(frames(1, 3), ahead=(2.0,)))
    with pytest.raises(ValueError, match=r"answer no moment after .* asked for 0\.5 s, 1\.5 s"):
        built(replace(config, ahead=())).predict(observed(frames(1, 3)))
    y = Target(frames={"action": torch.zeros(1, 3).long()}, next={})
    with pytest.raises(ValueError, match=r"whole number of steps of 1\.5 s"):
        model.losses(observed(frames(1, 3), stride=3), y)


@EACH
def test_what_does_not_fit_is_refused(config: Config) -> None:
    model = built(config)
    with pytest.raises(ValueError, match="features must be 6 wide, got 7"):
        model.predict(observed(torch.zeros(1, 3, 7)))
    with pytest.raises(ValueError, match="by head 'action', got no such labels"):
        model.losses(observed(frames(1, 3)), Target(frames={}, next={}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"ahead": (0.0,)}, "ahead must be seconds above 0"),
        ({"ahead": (1.0, 0.5)}, r"each more than the one before, got 1 s, 0\.5 s"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
        ({"ahead_weight": -1.0}, "must not be negative"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    for kind in (OnlineGRUConfig, WindowTransformerConfig):
        with pytest.raises(ValueError, match=message):
            kind(**wrong)


def test_wrong_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of twice num_heads"):
        WindowTransformerConfig(hidden_dim=24, num_heads=8)
    with pytest.raises(ValueError, match="window must be a number of steps, or 0"):
        WindowTransformerConfig(window=-1)
