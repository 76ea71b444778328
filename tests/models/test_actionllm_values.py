"""Values of ActionLLM's config that must change what they say, each by itself."""

from dataclasses import replace

import pytest
import torch

from actioncast.models.actionllm import ActionLLM, ActionLLMConfig
from actioncast.timeline import Taxonomy
from actioncast.trunks import TrunkConfig
from actioncast.types import Observation, Target

TINY = ActionLLMConfig(
    trunk=TrunkConfig(name="untrained:bert-tiny"),
    feature_dim=6,
    adapter_dim=8,
    num_queries=5,
    interaction_dim=16,
    interaction_heads=4,
    interaction_multiple=16,
    dropout=0.0,
)
TAXONOMY = Taxonomy.of(["pour milk", "stir", "cut"])


def built(config: ActionLLMConfig) -> ActionLLM:
    torch.manual_seed(0)
    return config.build(TAXONOMY)


def seen() -> Observation:
    generator = torch.Generator().manual_seed(1)
    return Observation(
        features=torch.randn(2, 7, 6, generator=generator),
        valid=torch.tensor([[True] * 4 + [False] * 3, [True] * 5 + [False] * 2]),
        rate=5.0,
        horizon=torch.tensor([10, 10]),
        labels=torch.tensor([[0, 0, 1, 1, -100, -100, -100], [2, 2, 0, 0, 1, -100, -100]]),
    )


def truth() -> Target:
    labels = seen().labels
    assert labels is not None
    return Target(
        frames={"action": labels},
        next={},
        future=torch.tensor([[1, 2, 3], [2, 3, -100]]),
        durations=torch.tensor([[0.25, 0.75, float("nan")], [1.0, float("nan"), float("nan")]]),
    )


@pytest.mark.parametrize("term", ["past_text", "past_visual", "future", "duration"])
def test_a_weight_of_three_trebles_its_term_and_no_other(term: str):
    plain = built(TINY).losses(seen(), truth())
    heavy = built(replace(TINY, **{f"{term}_weight": 3.0})).losses(seen(), truth())
    assert set(plain) == {"past_text", "past_visual", "future", "duration"}
    for name, loss in plain.items():
        times = 3.0 if name == term else 1.0
        torch.testing.assert_close(heavy[name], times * loss)


def test_normal_queries_go_by_the_seed():
    first, again, other = (
        built(replace(TINY, queries="normal", seed=seed)).query_constant for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("modalities", "tokens"), [("both", 15), ("vision", 10), ("text", 10)])
def test_the_length_of_a_sequence_counts_no_padding(modalities: str, tokens: int):
    model = built(replace(TINY, modalities=modalities))
    assert model.sequence_length(seen()) == tokens


def test_what_attention_of_the_block_says_drops_out():
    block = built(replace(TINY, dropout=0.999)).interaction
    assert block is not None
    # Its own weights drop out as well: without them only the output's dropout is left.
    block.drop = 0.0
    block.train()
    streams = {name: torch.randn(1, 3, 16) for name in block.streams}
    valid = {name: torch.ones(1, 3, dtype=torch.bool) for name in block.streams}
    torch.manual_seed(0)
    trained = block(streams, valid)
    block.eval()
    still = block(streams, valid)
    assert all(not torch.allclose(trained[name], still[name]) for name in block.streams)


def test_nothing_of_a_trunk_trains():
    model = built(TINY)
    model.train()
    assert not any(part.training for part in model.trunk.model.modules())
