from dataclasses import replace
from typing import Any

import pytest
import torch

from actioncast.models.frame_classifier import FrameClassifier, FrameClassifierConfig
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import IGNORE, Observation, Target

TAXONOMY = Taxonomy.of("abc")


def classifier(taxonomy: Taxonomy = TAXONOMY, **values: Any) -> FrameClassifier:
    torch.manual_seed(0)
    config = FrameClassifierConfig(feature_dim=4, hidden_dim=8, **values)
    return config.build(taxonomy).eval()


def linear(**values: Any) -> FrameClassifier:
    """One whose logits are the first three features."""
    model = classifier(num_layers=0, dropout=0.0, **values)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.eye(3, 4))
        model.classifier.bias.zero_()
    return model


def seen(*rows: list[float]) -> Observation:
    return Observation.of_one(torch.tensor(rows), 10.0)


def labelled(*labels: int) -> Target:
    return Target(frames={"action": torch.tensor([labels])}, next={})


def test_without_hidden_layers_it_is_linear():
    assert [name for name, _ in linear().named_parameters()] == [
        "classifier.weight",
        "classifier.bias",
    ]
    (prediction,) = linear().predict(seen([1.0, 2.0, 3.0, 9.0], [0.0, 0.0, 0.0, 9.0]))
    expected = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]).softmax(-1)
    torch.testing.assert_close(prediction.past, expected)


def test_the_loss_is_the_mean_over_labelled_steps():
    """ln 3 of a step that knows nothing, and ln(1 + 2 / e^2) of one that leans the right way."""
    x = seen([0.0] * 4, [2.0, 0.0, 0.0, 0.0], [0.0, 50.0, 0.0, 0.0])
    loss = linear().losses(x, labelled(1, 0, IGNORE))["past"]
    assert loss.item() == pytest.approx((1.098612 + 0.239540) / 2, abs=1e-5)


def test_label_smoothing_spreads_a_share_over_all_labels():
    """Logits 2, 0, 0 of label 0: log probabilities -0.23954 and twice -2.23954."""
    x = seen([2.0, 0.0, 0.0, 0.0])
    loss = linear(label_smoothing=0.3).losses(x, labelled(0))["past"]
    assert loss.item() == pytest.approx(0.7 * 0.239540 + 0.1 * (0.239540 + 2 * 2.239540), abs=1e-5)


def test_of_several_actions_at_once_each_counts():
    x = seen([2.0, 1.0, 0.0, 0.0])
    active = {"action": torch.tensor([[[True, True, False]]])}
    loss = linear().losses(x, replace(labelled(0), active=active))["past"]
    expected = -torch.tensor([2.0, 1.0, 0.0]).log_softmax(-1)[:2].sum()
    torch.testing.assert_close(loss, expected)


def test_a_label_that_says_that_nobody_knows_is_neither_learned_nor_said():
    space = LabelSpace(("a", "b", "?"), unknown=frozenset({"?"}))
    model = linear(taxonomy=Taxonomy({"action": space}))
    x = seen([0.0, 0.0, 9.0, 0.0], [1.0, 1.0, 9.0, 0.0])
    (prediction,) = model.predict(x)
    torch.testing.assert_close(prediction.past, torch.tensor([[0.5, 0.5, 0.0]] * 2))
    assert model.losses(x, labelled(2, 0))["past"].item() == pytest.approx(0.693147, abs=1e-5)


def test_nothing_labelled_is_no_loss():
    loss = classifier().losses(seen([1.0] * 4), labelled(IGNORE))["past"]
    assert loss.item() == 0


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_step_is_named_from_its_own_vector(layers: int):
    model = classifier(num_layers=layers)
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    (together,) = model.predict(Observation.of_one(features, 10.0))
    for step in range(5):
        (alone,) = model.predict(Observation.of_one(features[step, None], 10.0))
        torch.testing.assert_close(alone.past[0], together.past[step])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"feature_dim": 0}, "feature_dim and hidden_dim must be at least 1"),
        ({"num_layers": -1}, "num_layers at least 0"),
        ({"dropout": 1.0}, r"must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"must be in \[0, 1\)"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        FrameClassifierConfig(**values)


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="must be 4 wide, got 3; set feature_dim"):
        classifier()(torch.zeros(1, 2, 3))


def test_labels_of_another_head_are_refused():
    y = Target(frames={"verb": torch.zeros(1, 1, dtype=torch.long)}, next={})
    with pytest.raises(ValueError, match="by head 'action', got no such labels"):
        classifier().losses(seen([0.0] * 4), y)
