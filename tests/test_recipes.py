from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from actioncast.batches import CutVideos, Item, Variation
from actioncast.checkpoint import from_json, to_json
from actioncast.data import Dataset, Split, Video
from actioncast.data.collate import collate
from actioncast.features import FeatureArray
from actioncast.models.base import CountingAnticipator
from actioncast.recipes import RECIPES, recipe
from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from actioncast.training import TrainConfig, build, prepare, training_facts

LABELS: Mapping[str, int] = {"breakfast": 48, "50salads": 19, "cad120": 10, "synthetic": 13}
"""How many actions the data set of a recipe has; 10 where it names none."""
WIDTHS: Mapping[str, int] = {"breakfast": 2048, "50salads": 2048}
"""How wide its features are; 32 elsewhere."""


def stand_in(name: str) -> Dataset:
    """Three short videos that look like those of a data set."""
    num_labels, width = LABELS.get(name, 10), WIDTHS.get(name, 32)
    labels = LabelSpace(tuple(f"a{i}" for i in range(num_labels)))
    rng = np.random.default_rng(0)
    videos = {}
    for i in range(3):
        frames = np.repeat(rng.permutation(num_labels)[:6], rng.integers(30, 49, 6))
        videos[f"v{i}"] = Video(
            id=f"v{i}",
            timeline=Timeline.from_frames(frames, 15.0, labels),
            rate=15.0,
            num_frames=len(frames),
            features=FeatureArray(rng.normal(size=(len(frames), width)).astype(np.float32)),
        )
    return Dataset(
        name=name or "own",
        taxonomy=Taxonomy({"action": labels}),
        rate=15.0,
        videos=videos,
        splits={"1": Split(("v0", "v1"), ("v2",))},
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_and_takes_one_step(name: str) -> None:
    config, dataset = prepare(recipe(name), stand_in(recipe(name).dataset))
    model = build(config, dataset)
    videos = dataset.select(dataset.split("1").train)
    if isinstance(model, CountingAnticipator):
        model.fit([video.counted() for video in videos])
        assert len(model.state_dict())
        return
    assert config.model.feature_dim == dataset.num_features  # type: ignore[union-attr]
    num_labels = len(dataset.taxonomy.labels)
    cuts = CutVideos(videos, config.protocol(), config.stride, num_labels, Variation())
    x, y = collate([cuts[Item(i, r)] for i in range(2) for r in (0.3, 0.5)], "action")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    losses = model.losses(x, y)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(loss > 0 for loss in losses.values())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    moved = [n for n, value in model.state_dict().items() if not value.equal(before[n])]
    assert len(moved) >= len(before) - 1
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_name_and_a_sentence(name: str) -> None:
    sentence, config = RECIPES[name]
    assert name == name.lower()
    assert " " not in name
    assert 20 < len(sentence) <= 90
    assert not sentence.endswith(".")
    assert isinstance(config, TrainConfig)
    assert config.model.__doc__


def test_the_published_values() -> None:
    """Gong et al., CVPR 2022, and what their code sets besides."""
    breakfast, salads = recipe("futr-breakfast"), recipe("futr-50salads")
    assert (breakfast.stride, breakfast.epochs, breakfast.batch_size) == (3, 60, 16)
    assert (salads.stride, salads.epochs, salads.batch_size) == (6, 70, 8)
    for config in (breakfast, salads):
        assert (config.lr, config.weight_decay, config.warmup_epochs) == (1e-3, 5e-3, 10)
        assert config.observed_ratios == (0.2, 0.3, 0.5)
        assert (config.ratio_jitter, config.warp, config.accumulate) == (0, 0, 1)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'futurr'") as caught:
        recipe("futurr")
    assert all(name in str(caught.value) for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    config = recipe(name)
    again = from_json(type(config.model), to_json(config.model), name)
    assert again == config.model
    assert "model" not in training_facts(config)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"observed_ratios": ()}, "observed_ratios"),
        ({"observed_ratios": (0.0,)}, "observed_ratios"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"warp": -1.0}, "warp"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(recipe("futr"), **values)


def test_a_video_too_long_for_the_model_is_refused() -> None:
    config = recipe("futr")
    small = replace(config, model=replace(config.model, max_positions=20))
    with pytest.raises(ValueError, match=r"raise --stride or --model\.max-positions"):
        prepare(small, stand_in(""))


def test_no_test_data_chooses_a_recipes_checkpoint() -> None:
    assert {config.selection for _, config in RECIPES.values()} <= {"validation", "last"}
