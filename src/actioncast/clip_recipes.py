"""Every recipe of short actions; those that count, which every other must beat, stand here."""

from collections.abc import Mapping
from dataclasses import replace

from actioncast.clip_config import ClipTrainConfig
from actioncast.models.next_action_baselines import ClassFrequencyConfig, PairNGramConfig
from actioncast.next_action_recipes import NEXT_ACTION_RECIPES
from actioncast.stream_recipes import STREAM_CLIP_RECIPES

COUNTED = ClipTrainConfig(model=ClassFrequencyConfig(), selection="last")

CLIP_RECIPES: Mapping[str, tuple[str, ClipTrainConfig]] = {
    "class-frequency-ek100": ("the classes that are most frequent, whatever was seen", COUNTED),
    "pair-n-gram-ek100": (
        "n-grams of verbs, nouns and pairs over the observed actions",
        replace(COUNTED, model=PairNGramConfig()),
    ),
    "object-n-gram-ek100": (
        "the same, with nouns that come again and what was last done to each of them",
        replace(COUNTED, model=PairNGramConfig(repeat=0.5, decay=0.8, by_object=True)),
    ),
    **NEXT_ACTION_RECIPES,
    **STREAM_CLIP_RECIPES,
}
