"""What CLAM learns from, and how much each part counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.cross_memory import CrossLinearAttention
from actioncast.layers.mixup import Mixup
from actioncast.models.clam import CLAM
from actioncast.models.clam_config import ClamConfig
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import IGNORE, Observation, Target

TAXONOMY = Taxonomy.of(["rest", "reach", "pour", "stir", "Ambiguous"], unknown=("Ambiguous",))
UNKNOWN = 4
SAME_SIZE = Taxonomy(
    {"activity": LabelSpace(tuple("abcd")), "action": LabelSpace(tuple("efgh"))}, primary="action"
)
WIDTH, TIME, RATE = 6, 8, 4.0
SIZES: dict[str, Any] = {
    "feature_dim": WIDTH,
    "hidden_dim": 16,
    "num_layers": 1,
    "state_dim": 4,
    "num_heads": 2,
    "act_tokens": 3,
    "memory_queries": 4,
    "gate_rank": 4,
    "predictor_layers": 1,
    "predictor_dim": 24,
}
PLAIN: dict[str, Any] = {
    "dropout": 0.0,
    "head_dropout": 0.0,
    "mixup": 0.0,
    "label_smoothing": 0.0,
    "equalise_below": 0.0,
}


def model_of(taxonomy: Taxonomy = TAXONOMY, **more: Any) -> CLAM:
    torch.manual_seed(0)
    return ClamConfig(**{**SIZES, **PLAIN, **more}).build(taxonomy).train()


def seen(anticipation_time: float = 0.0) -> Observation:
    """Two streams."""
    features = torch.randn(2, TIME, WIDTH, generator=torch.Generator().manual_seed(1))
    return Observation(
        features=features,
        valid=torch.ones(2, TIME, dtype=torch.bool),
        rate=RATE,
        horizon=torch.zeros(2, dtype=torch.long),
        anticipation_time=anticipation_time,
    )


def at_every_step(*heads: str) -> Target:
    drawn = torch.Generator().manual_seed(3)
    return Target(
        frames={head: torch.randint(4, (2, TIME), generator=drawn) for head in heads}, next={}
    )


def values(model: CLAM, x: Observation, y: Target) -> dict[str, float]:
    torch.manual_seed(7)
    return {name: loss.item() for name, loss in model.losses(x, y).items()}


def test_gates_are_float32_where_all_else_is_half() -> None:
    torch.manual_seed(0)
    layer = CrossLinearAttention(16, 2, 0.5, 4, 16.0)
    x = torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        gate = layer.gate_up(layer.gate_down(x))
        found = layer.write(x)
    assert (gate.dtype, found.keys.dtype) == (torch.bfloat16, torch.bfloat16)
    assert found.log_gate.dtype == torch.float32
    expected = F.logsigmoid(gate.float()) / 16
    torch.testing.assert_close(found.log_gate.flatten(2), expected, rtol=1e-6, atol=0)


def test_the_past_counts_by_its_weight_and_the_future_as_ever() -> None:
    x, y = seen(), at_every_step("action")
    whole, half = (values(model_of(past_weight=weight), x, y) for weight in (1.0, 0.5))
    assert half["past action"] == pytest.approx(whole["past action"] / 2, rel=1e-6)
    assert half["future action"] == pytest.approx(whole["future action"], rel=1e-6)


def test_rare_is_strictly_below_the_share() -> None:
    model = model_of(equalise_below=0.125)
    # Of eight the labels 1 and 3 have an eighth, and 4 has nothing.
    model.count_labels({"action": torch.tensor([0, 0, 1, 2, 2, 2, 2, 3])})
    assert model.learning.rare.tolist() == [False, False, False, False, True]


def test_classes_are_left_out_in_training_and_for_actions_alone() -> None:
    x, y = seen(), at_every_step("activity", "action")
    plain = values(model_of(SAME_SIZE), x, y)
    assert plain.keys() == {f"{t} {h}" for t in ("past", "future") for h in ("activity", "action")}
    model = model_of(SAME_SIZE, equalise_below=0.3, equalise=1.0)
    model.count_labels({"action": torch.tensor([0, 0, 1, 1, 2])})
    assert model.learning.rare.tolist() == [False, False, True, True]
    learnt = values(model, x, y)
    for term in ("past", "future"):
        # What is left out of a softmax takes nothing from the target.
        assert learnt[f"{term} action"] < plain[f"{term} action"] - 0.05
        assert learnt[f"{term} activity"] == pytest.approx(plain[f"{term} activity"], rel=1e-6)
    assert values(model.eval(), x, y) == pytest.approx(plain, rel=1e-6)


def fixed_share(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    drawn = Mixup.draw

    def draw(valid: Tensor, concentration: float) -> Mixup:
        return replace(drawn(valid, concentration), share=torch.tensor(share))

    monkeypatch.setattr(Mixup, "draw", draw)


def mixed_answers(model: CLAM, x: Observation, share: float) -> Tensor:
    """Log probabilities of the queries after rows that are mixed with one another."""
    features = share * x.features + (1 - share) * x.features.flip(0)
    answers = model.read(features, x.valid, None)[1]
    return model.scores(answers)["action"][..., 1:].log_softmax(-1)


def test_under_mixup_the_partners_next_action_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_share(monkeypatch, 0.25)
    model, x = model_of(mixup=0.8), seen(anticipation_time=1.0)
    found = values(model, x, Target(frames={}, next={"action": torch.tensor([1, 3])}))
    said = mixed_answers(model, x, 0.25)[:, 0]
    expected = -(0.25 * (said[0, 1] + said[1, 3]) + 0.75 * (said[0, 3] + said[1, 1])) / 2
    own = -(said[0, 1] + said[1, 3]) / 2
    assert found["future action"] == pytest.approx(expected.item(), rel=1e-5)
    assert abs(expected - own) > 1e-2


def test_under_mixup_the_partners_coming_actions_have_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed_share(monkeypatch, 0.25)
    model, x = model_of(mixup=0.8, num_coming=2), seen()
    labels = torch.tensor([[1, IGNORE], [3, 2]])
    found = values(model, x, Target(frames={}, next={}, coming={"action": labels}))
    said = mixed_answers(model, x, 0.25)
    shares = [(0.25, 0, 0, 1), (0.75, 0, 0, 3), (0.25, 1, 0, 3), (0.75, 1, 0, 1)]
    # Nobody named the second of the first row: its share counts nowhere.
    shares += [(0.75, 0, 1, 2), (0.25, 1, 1, 2)]
    total = sum(weight for weight, *_ in shares)
    expected = -sum(weight * said[i, j, k].item() for weight, i, j, k in shares) / total
    assert found["future action"] == pytest.approx(expected, rel=1e-5)


def several() -> Target:
    """Two actions under way, of steps 4 and 5 an unknown one too; ahead is one step."""
    active = torch.zeros(2, TIME, 5, dtype=torch.bool)
    active[:, :, 1] = active[:, 3:, 2] = active[:, 4:6, UNKNOWN] = True
    return Target(frames={}, next={}, active={"action": active})


def test_several_actions_are_smoothed_over_known_labels() -> None:
    model, x = model_of(label_smoothing=0.2, ahead=(0.25,)), seen()
    found = values(model, x, several())
    rows = torch.arange(2 * TIME)
    tokens, answers = model.read(x.features, x.valid, (rows // TIME, rows % TIME))
    for term, vectors, later in (("past", tokens, 0), ("future", answers[:, 0], 1)):
        scores = model.scores(vectors)["action"][..., 1 : 1 + UNKNOWN]
        said = scores.log_softmax(-1).reshape(2, TIME, UNKNOWN)
        losses = []
        for t in {0, 1, 2, 3, 6, 7} - ({0} if later else set()):
            one = said[:, t - later]
            hit = one[:, 1] + (one[:, 2] if t >= 3 else 0)
            losses.append(-0.8 * hit - 0.2 * one.mean(1))
        expected = torch.stack(losses).mean().item()
        assert found[f"{term} action"] == pytest.approx(expected, rel=1e-5), term


def test_nothing_teaches_an_unknown_label() -> None:
    model = model_of(label_smoothing=0.2, ahead=(0.25,))
    for loss in model.losses(seen(), several()).values():
        model.zero_grad()
        loss.backward(retain_graph=True)
        grad = model.heads["action"].weight.grad
        # The first row is the background's, which no label names.
        assert (grad[[0, 1 + UNKNOWN]] == 0).all()
        assert (grad[1 : 1 + UNKNOWN] != 0).any(1).all()


def test_an_unknown_label_has_no_probability_at_all() -> None:
    model, x = model_of().eval(), seen()
    with torch.no_grad():
        model.heads["action"].bias[1 + UNKNOWN] = 50.0
    for said in (*model.predict(x), *model.predict(replace(x, ahead=model.ahead))):
        for probs in (said.past, said.next["action"], said.ahead):
            if probs is not None:
                assert (probs[..., UNKNOWN] == 0).all()
                torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]))
