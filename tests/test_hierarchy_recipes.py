"""m&m-Ant's recipes: the published sizes of every data set, and what each ablation takes away."""

from dataclasses import replace
from typing import Any, cast

import pytest

from actioncast.hierarchy_recipes import HIERARCHY_RECIPES
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.recipes import recipe
from actioncast.training import TrainConfig

SMALL = ("mm-ant-breakfast-labels", "mm-ant-50salads-labels", "mm-ant-cad120")
FULL = ("mm-ant-breakfast", "mm-ant-50salads", "mm-ant-darai")


def model_of(config: TrainConfig) -> MMAntConfig:
    return cast(MMAntConfig, config.model)


def changed(name: str, other: str) -> dict[str, Any]:
    """Values of the model in which a recipe differs from another, which must agree in all else."""
    ours, theirs = recipe(name), recipe(other)
    assert replace(ours, model=theirs.model) == theirs
    one, two = model_of(ours), model_of(theirs)
    return {
        field: getattr(one, field)
        for field in MMAntConfig.__dataclass_fields__
        if getattr(one, field) != getattr(two, field)
    }


@pytest.mark.parametrize(
    ("name", "width", "stride"),
    [("mm-ant-breakfast", 128, 3), ("mm-ant-50salads", 512, 6), ("mm-ant-darai", 128, 15)],
)
def test_published_sizes(name: str, width: int, stride: int) -> None:
    config = recipe(name)
    model = model_of(config)
    assert (model.hidden_dim, config.stride) == (width, stride)
    assert (model.num_encoder_layers, model.num_anticipation_layers) == (2, 1)
    assert (model.num_queries, model.num_heads, model.dropout) == (8, 8, 0.1)
    assert (config.lr, config.epochs, config.schedule) == (1e-3, 60, "cosine")
    assert (config.warmup_epochs, config.batch_size, config.weight_decay) == (10, 8, 5e-3)
    assert config.observed_ratios == (0.2, 0.3, 0.5)
    assert config.optimizer == "adamw"


@pytest.mark.parametrize("name", [*SMALL, *FULL])
def test_ablations_take_one_thing_away(name: str) -> None:
    assert changed(f"{name}-no-text", name) == {"text": "none"}
    assert changed(f"{name}-no-consistency", name) == {"intra_weight": 0.0, "inter_weight": 0.0}
    assert changed(f"{name}-no-hierarchy", name) == {"described": "predicted"}
    assert changed(f"{name}-fine-no-text", f"{name}-fine") == {"text": "none"}


@pytest.mark.parametrize("name", [*FULL, "mm-ant-50salads-labels"])
@pytest.mark.parametrize("part", ["intra", "inter"])
@pytest.mark.parametrize("weight", [0.0, 0.1, 10.0])
def test_sweeps_move_one_weight(name: str, part: str, weight: float) -> None:
    assert changed(f"{name}-{part}-{weight:g}", name) == {f"{part}_weight": weight}


def test_no_recipe_is_chosen_on_the_test_split_or_reads_true_labels_as_text() -> None:
    for name, (_, config) in HIERARCHY_RECIPES.items():
        assert config.selection == "last", name
        assert model_of(config).text in ("learned", "none"), name
        assert not config.labels_from
        assert name == "mm-ant" or config.level == ("fine" if "-fine" in name else "coarse")
