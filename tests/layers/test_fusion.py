from dataclasses import replace

import pytest
import torch
from torch import nn

from actioncast.layers.fusion import Fusion, MambaFusion, StateSpaceFusion
from actioncast.models.mamba_vl import MambaVLConfig, build_fusion
from actioncast.types import Tokens

SMALL = MambaVLConfig(
    feature_dim=10, modalities=(("questions", 6), ("objects", 4)), hidden_dim=8, state_dim=4
)
FUSIONS = ("mamba", "s6", "mlp", "transformer")
each_fusion = pytest.mark.parametrize("name", FUSIONS)


def fusion_of(name: str, **values: object) -> Fusion:
    torch.manual_seed(0)
    return build_fusion(replace(SMALL, fusion=name, num_layers=2, **values)).eval()  # type: ignore[arg-type]


def modalities_of(batch: int = 3, seed: int = 0) -> list[Tokens]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for width, length in ((10, 7), (6, 5), (4, 3)):
        values = torch.randn(batch, length, width, generator=generator)
        made.append(Tokens(values=values, valid=torch.ones(batch, length, dtype=torch.bool)))
    return made


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_fusion_has_the_published_number_of_parameters() -> None:
    """Mamba Fusion, Table 4: about 9 million more than the backbone."""
    published = MambaVLConfig()
    assert count(build_fusion(published)) == 8_698_368
    alone = build_fusion(replace(published, modalities=()))
    # Another modality brings a block and a projection, and shares A.
    brought = (8_698_368 - 1536 * 16) // 2
    assert count(alone) == brought + 1536 * 16
    assert count(build_fusion(replace(published, shared=False))) == 8_698_368 + 1536 * 16


@each_fusion
def test_padding_leaves_no_trace(name: str) -> None:
    fusion, given = fusion_of(name), modalities_of()
    lengths = torch.tensor([[7, 5, 3], [4, 1, 0], [1, 0, 2]])
    padded = [
        Tokens(values=x.values, valid=torch.arange(x.values.shape[1]) < lengths[:, i, None])
        for i, x in enumerate(given)
    ]
    spoilt = [
        replace(x, values=x.values.masked_fill(~x.valid[..., None], float("nan"))) for x in padded
    ]
    found = fusion(spoilt)
    torch.testing.assert_close(found, fusion(padded))
    longer = [
        Tokens(
            values=torch.cat([x.values, torch.ones(3, 4, x.values.shape[2])], 1),
            valid=torch.cat([x.valid, torch.zeros(3, 4, dtype=torch.bool)], 1),
        )
        for x in padded
    ]
    torch.testing.assert_close(fusion(longer), found, atol=1e-6, rtol=1e-5)
    for i in range(3):
        alone = fusion([x.one(i) for x in padded])
        torch.testing.assert_close(alone[0], found[i], atol=1e-6, rtol=1e-5)


@each_fusion
def test_a_row_without_any_token_is_a_number(name: str) -> None:
    fusion = fusion_of(name)
    nothing = [replace(x, valid=torch.zeros_like(x.valid)) for x in modalities_of()]
    leaves = [replace(x, values=x.values.requires_grad_()) for x in nothing]
    found = fusion(leaves)
    assert found.isfinite().all()
    found.sum().backward()
    for leaf in leaves:
        assert leaf.values.grad is None or not leaf.values.grad.any()


@each_fusion
def test_every_modality_has_a_say(name: str) -> None:
    fusion, given = fusion_of(name), modalities_of()
    base = fusion(given)
    for i, tokens in enumerate(given):
        other = list(given)
        other[i] = replace(tokens, values=tokens.values + 1)
        assert (fusion(other) - base).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "sees_order"), [("mamba", 1), ("s6", 1), ("transformer", 1), ("mlp", 0)]
)
def test_the_order_of_words_matters_but_to_the_mlp(name: str, sees_order: int) -> None:
    fusion, given = fusion_of(name), modalities_of()
    turned = [given[0], replace(given[1], values=given[1].values.flip(1)), given[2]]
    moved = float((fusion(turned) - fusion(given)).detach().abs().max())
    assert (moved > 1e-4) == bool(sees_order)


@pytest.mark.parametrize("name", ["mamba", "s6"])
def test_the_gradient_of_the_shared_a_is_the_sum_of_the_branches(name: str) -> None:
    fusion, given = fusion_of(name), modalities_of()
    shared = fusion.A_log
    assert isinstance(shared, nn.Parameter)
    fusion(given).square().sum().backward()
    whole = shared.grad
    assert whole is not None
    # The same answer, with one branch after another left to move A.
    parts = []
    for kept in range(3):
        shared.grad = None
        branches(fusion, given, kept).square().sum().backward()
        assert shared.grad is not None
        parts.append(shared.grad)
    size = float(whole.abs().max())
    assert all(part.abs().max() > 0.01 * size for part in parts)
    torch.testing.assert_close(torch.stack(parts).sum(0), whole, atol=1e-5 * size, rtol=0.0)


def branches(fusion: Fusion, given: list[Tokens], kept: int) -> torch.Tensor:
    """The fused vector, in which branch `kept` alone moves `A_log`."""
    assert isinstance(fusion, MambaFusion | StateSpaceFusion)
    layers = fusion.blocks if isinstance(fusion, MambaFusion) else fusion.scans
    total = torch.zeros(len(given[0].values), 8)
    for i, (project, layer, x) in enumerate(zip(fusion.projections, layers, given, strict=True)):
        assert fusion.A_log is not None
        a_log = fusion.A_log if i == kept else fusion.A_log.detach()
        y = layer(project(x.values), x.valid, a_log)
        total = total + y.sum(1) / x.valid.sum(1, keepdim=True)
    return total


def test_two_copies_of_a_have_just_the_parts() -> None:
    given = modalities_of()[:2]
    values = {"modalities": (("questions", 6),)}
    shared, apart = fusion_of("mamba", **values), fusion_of("mamba", **values, shared=False)
    assert isinstance(shared, MambaFusion)
    assert isinstance(apart, MambaFusion)
    apart.load_state_dict(
        {
            **{k: v for k, v in shared.state_dict().items() if k != "A_log"},
            **{f"blocks.{i}.A_log": shared.A_log for i in range(2)},
        }
    )
    for fusion in (shared, apart):
        fusion(given).square().sum().backward()
    parts = [block.A_log.grad for block in apart.blocks]
    assert shared.A_log is not None
    assert shared.A_log.grad is not None
    size = float(shared.A_log.grad.abs().max())
    assert all(part.abs().max() > 0.01 * size for part in parts)
    assert (parts[0] - parts[1]).abs().max() > 0.01 * size
    torch.testing.assert_close(sum(parts), shared.A_log.grad, atol=1e-5 * size, rtol=0.0)


def test_a_silent_text_branch_adds_nothing_and_moves_no_a() -> None:
    """Bare state space, D = 0, steps of 0: the branch is a constant of nought."""
    fusion = fusion_of("s6")
    assert isinstance(fusion, StateSpaceFusion)
    text = fusion.scans[1]
    with torch.no_grad():
        text.D.zero_()
        text.step.weight.zero_()
        text.step.bias.fill_(-200.0)
    given = modalities_of()
    without = [given[0], replace(given[1], valid=torch.zeros_like(given[1].valid)), given[2]]
    torch.testing.assert_close(fusion(given), fusion(without))
