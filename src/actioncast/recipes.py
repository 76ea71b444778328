"""Recipes: a name, a sentence and every value of a training run.

One for each published setting, and small forms beside the full ones for data at hand. Any value
can be overridden on the command line: `actioncast train futr-breakfast --lr 5e-4`.
"""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from actioncast.ablation_recipes import ABLATION_RECIPES
from actioncast.checkpoint import to_json
from actioncast.clip_recipes import CLIP_RECIPES
from actioncast.diffusion_recipes import DIFFUSION_RECIPES
from actioncast.hierarchy_recipes import HIERARCHY_RECIPES
from actioncast.language_recipes import LANGUAGE_RECIPES
from actioncast.models.baselines import (
    NearestNeighbourConfig,
    NGramConfig,
    RepeatLastActionConfig,
)
from actioncast.models.futr import FUTRConfig
from actioncast.models.semi_markov import SemiMarkovConfig
from actioncast.recogniser_recipes import RECOGNISER_RECIPES
from actioncast.stream_recipes import STREAM_RECIPES
from actioncast.training import TrainConfig, flat

FUTR_BREAKFAST = TrainConfig(
    model=FUTRConfig(),
    dataset="breakfast",
    stride=3,
    epochs=60,
    batch_size=16,
    # Neither paper nor code says which checkpoint counts; all training videos train.
    selection="last",
)
FUTR_50SALADS = TrainConfig(
    model=FUTRConfig(hidden_dim=512, num_decoder_layers=2, num_queries=20, max_positions=3100),
    dataset="50salads",
    stride=6,
    epochs=70,
    batch_size=8,
    selection="last",
)
FUTR_BREAKFAST_LABELS = replace(
    FUTR_BREAKFAST,
    model=FUTRConfig(max_positions=1500),
    input="labels",
    stride=30,
    # A step is 2 s: the action that has just begun must not fall between two of them.
    anchor="end",
    epochs=20,
    warmup_epochs=2,
    ratio_jitter=0.15,
    warp=0.3,
    # Rare actions are copied as surely as frequent ones only if every action is seen often.
    relabel=0.4,
    selection="last",
)
FUTR_50SALADS_LABELS = replace(
    FUTR_BREAKFAST_LABELS,
    model=FUTRConfig(num_queries=20, max_positions=1500),
    dataset="50salads",
    epochs=100,
    batch_size=8,
    warmup_epochs=5,
)
FUTR_CAD120 = TrainConfig(
    model=FUTRConfig(num_queries=12, max_positions=800, dropout=0.3),
    dataset="cad120",
    observed_ratios=(0.2, 0.3, 0.5, 1.0),
    epochs=30,
    batch_size=16,
    warmup_epochs=3,
    ratio_jitter=0.1,
    warp=0.3,
    # Three subjects train: holding one out would cost a third of them. The number of epochs was
    # chosen by holding one out once, on split 1.
    selection="last",
    select_by="segmentation",
)
COUNTED = TrainConfig(model=RepeatLastActionConfig(), input="labels", selection="last")

RECIPES: Mapping[str, tuple[str, TrainConfig]] = {
    "futr": (
        "FUTR on your own folder of features and labels",
        TrainConfig(
            model=FUTRConfig(num_queries=12, max_positions=20_000),
            stride=3,
            observed_ratios=(0.2, 0.3, 0.5, 1.0),
            epochs=20,
            batch_size=8,
            warmup_epochs=2,
            ratio_jitter=0.1,
            selection="last",
        ),
    ),
    "futr-breakfast": (
        "FUTR on Breakfast with I3D features, published sizes, no epoch wasted at rate 0",
        FUTR_BREAKFAST,
    ),
    "futr-50salads": (
        "FUTR on 50 Salads with I3D features, released sizes, no epoch wasted at rate 0",
        FUTR_50SALADS,
    ),
    "futr-breakfast-labels": (
        "FUTR on Breakfast from true labels, one step every 2 s: minutes on a CPU",
        FUTR_BREAKFAST_LABELS,
    ),
    "futr-breakfast-labels-full": (
        "FUTR on Breakfast from true labels at the published sizes",
        replace(FUTR_BREAKFAST, input="labels"),
    ),
    "futr-50salads-labels": (
        "FUTR on 50 Salads from true labels, one step a second: minutes on a CPU",
        FUTR_50SALADS_LABELS,
    ),
    "futr-50salads-labels-full": (
        "FUTR on 50 Salads from true labels at the published sizes",
        replace(FUTR_50SALADS, input="labels"),
    ),
    "futr-cad120": ("FUTR on CAD-120 with its skeleton and object features", FUTR_CAD120),
    "futr-demo": (
        "FUTR on the embedded synthetic kitchen: seconds on a CPU",
        TrainConfig(
            model=FUTRConfig(hidden_dim=64, num_heads=4, num_queries=10, max_positions=600),
            dataset="synthetic",
            observed_ratios=(0.2, 0.3, 0.5, 1.0),
            epochs=30,
            batch_size=16,
            warmup_epochs=3,
            ratio_jitter=0.1,
            lr=2e-3,
            selection="last",
        ),
    ),
    **DIFFUSION_RECIPES,
    **ABLATION_RECIPES,
    **STREAM_RECIPES,
    **LANGUAGE_RECIPES,
    **HIERARCHY_RECIPES,
    **RECOGNISER_RECIPES,
    "repeat-last-action": ("repeat the last observed action for ever", COUNTED),
    "n-gram": (
        "the likeliest next action, for its mean duration, over and over",
        replace(COUNTED, model=NGramConfig()),
    ),
    "nearest-neighbour": (
        "copy the future of the most similar training video",
        replace(COUNTED, model=NearestNeighbourConfig()),
    ),
    "semi-markov": (
        "semi-Markov roll-outs, the answer balanced over classes",
        replace(COUNTED, model=SemiMarkovConfig()),
    ),
}


def recipe(name: str) -> TrainConfig:
    """The recipe of a name.

    Raises:
        ValueError: There is none; the message names those that are called much the same.
    """
    if name not in RECIPES:
        raise ValueError(unknown_recipe(name))
    return RECIPES[name][1]


FOLLOWS = ("feature_dim", "text_dim", "dataset", "labels_from", "captions", "seed")
"""Last words of values that follow the data or the seed, or that a passport says by itself."""


def changed_values(name: str, model: object, training: Mapping[str, Any]) -> tuple[str, ...]:
    """Values of a run that are not those of its recipe, as `model.dropout 0.2`; seeds apart.

    Args:
        name: Of the recipe; of one that there is not, nothing is known to differ.
        model: The config of the run's model.
        training: The other values of the run; what it does not say is as in the recipe.
    """
    if name not in RECIPES:
        return ()
    recipe_of_it = RECIPES[name][1]
    own = dict(flat({"model": to_json(model), **to_json(training)}))
    asked = dict(flat(to_json(recipe_of_it)))
    return tuple(
        f"{key} {own[key]}"
        for key in asked
        if own.get(key, asked[key]) != asked[key] and key.rsplit(".", 1)[-1] not in FOLLOWS
    )


def unknown_recipe(name: str) -> str:
    """What to say of a recipe that there is not."""
    known = [*RECIPES, *CLIP_RECIPES]
    near = get_close_matches(name, known, 5, 0.5) or [one for one in known if name in one][:5]
    said = f"did you mean {', '.join(near)}? " if near else ""
    return f"unknown recipe {name!r}; {said}`actioncast info` lists all {len(known)}."
