import pytest
import torch
from torch import nn
from torch.nn import functional as F

from actioncast.cost import Cost, measure


class Attending(nn.Module):
    """Two heads of width 8 over five tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 16)
        self.out = nn.Linear(16, 8)

    def forward(self, x):
        heads = self.into(x).reshape(3, 5, 2, 8).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(heads, heads, heads)
        return self.out(mixed.transpose(1, 2).reshape(3, 5, 16))


class Scanning(nn.Module):
    """What it does itself goes unseen on one machine and is seen on another."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.into = nn.Linear(4, 4)
        self.seen = seen

    def forward(self, x):
        y = self.into(x)
        return y @ y.T if self.seen else (y[:, None] * y[None]).sum(-1)

    def own_flops(self, inputs, outputs):
        return 1000 * len(inputs[0]) + outputs.numel()


def test_a_linear_layer_by_hand():
    """Seven vectors, 3 x 5 products each, and as many sums."""
    cost = measure(nn.Linear(3, 5), torch.randn(7, 3))
    assert cost == Cost(parameters=20, trained=20, flops=2 * 7 * 3 * 5)
    assert cost.multiply_adds == 105


def test_a_convolution_by_hand():
    """Two output channels, 4 x 4 places, 3 x 3 taps of three channels."""
    cost = measure(nn.Conv2d(3, 2, 3, bias=False), torch.randn(1, 3, 6, 6))
    assert cost.flops == 2 * 2 * 16 * 27


@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_attention_by_hand(device):
    """Projections; for each of 3 x 2 heads scores and their mixture, 5 x 5 x 8 products each."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    cost = measure(Attending().to(device), torch.randn(3, 5, 8, device=device))
    assert cost.flops == 2 * (2 * 15 * 8 * 16 + 3 * 2 * 2 * 5 * 5 * 8)


def test_attention_that_is_written_out_costs_the_same():
    class WrittenOut(Attending):
        def forward(self, x):
            heads = self.into(x).reshape(3, 5, 2, 8).transpose(1, 2)
            mixed = (heads @ heads.mT).softmax(-1) @ heads
            return self.out(mixed.transpose(1, 2).reshape(3, 5, 16))

    x = torch.randn(3, 5, 8)
    assert measure(WrittenOut(), x).flops == measure(Attending(), x).flops


@pytest.mark.parametrize("seen", [False, True])
def test_what_a_module_says_of_itself_takes_the_place_of_what_was_seen(seen):
    x = torch.randn(6, 4)
    own, parts = 1000 * 6 + 36, 2 * 6 * 4 * 4
    assert measure(Scanning(seen), x).flops == own + parts
    # However deep it lies, and beside modules that are counted.
    assert measure(nn.Sequential(nn.Linear(4, 4), nn.Sequential(Scanning(seen))), x).flops == (
        own + 2 * parts
    )


def test_shared_weights_count_once_and_frozen_ones_are_not_trained():
    shared = nn.Linear(4, 4)
    frozen = nn.Linear(4, 4).requires_grad_(False)
    cost = measure(nn.Sequential(shared, shared, frozen), torch.randn(1, 4))
    assert cost == Cost(parameters=40, trained=20, flops=2 * 3 * 16)


def test_measuring_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    measure(module, torch.randn(8, 4))
    assert [part.training for part in module] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_costs_of_separate_modules_add_up():
    first, second = (measure(nn.Linear(3, n), torch.randn(1, 3)) for n in (2, 5))
    assert first + second == Cost(parameters=28, trained=28, flops=2 * 3 * 7)


@pytest.mark.parametrize(
    ("name", "millions", "billions"),
    [("videomae-base", 87, 180), ("videomae-large", 305, 597), ("vit-base", 86, 16 * 17.6)],
)
def test_published_costs_of_backbones_are_met(name, millions, billions):
    """VideoMAE (https://arxiv.org/abs/2203.12602) and ViT-B/16 on 16 frames of 224 x 224.

    They count a multiply-add as one, and the classifier besides.
    """
    pytest.importorskip("transformers")
    from actioncast.video.backbones import build_backbone
    from actioncast.video.base import BackboneConfig

    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(name=f"untrained:{name}"))
        clip = torch.empty(1, 16, 3, 224, 224)
    cost = measure(backbone, clip)
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert cost.multiply_adds / 1e9 == pytest.approx(billions, rel=0.005)
    assert cost.trained == 0
