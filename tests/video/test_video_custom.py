import pytest
import torch
from torch import nn

from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig
from actioncast.video.frames import Framing


class Own(nn.Module):
    """What a user plugs in."""

    width = 3
    framing = Framing(size=8)

    def __init__(self, num_frames: int, pooling: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_frames))
        self.keeps_time = pooling == "frames"

    def forward(self, clip):
        tokens = clip.mean((3, 4)) * self.scale[:, None]
        return tokens if self.keeps_time else tokens.mean(1, keepdim=True)


def own_of_no_width(**_):
    return nn.Identity()


def own_of_wrong_shape(**options):
    network = Own(**options)
    network.width = 5
    return network


def no_module(**_):
    return 3


def test_any_module_can_be_plugged_in():
    name = f"custom:{__name__}:Own"
    for pooling, tokens in (("frames", 6), ("clip", 1)):
        backbone = build_backbone(BackboneConfig(name=name, pooling=pooling, num_frames=6))
        x = torch.randn(2, 6, 3, 8, 8)
        assert backbone(x).shape == (2, tokens, 3)
        assert not backbone(x).requires_grad
    trained = build_backbone(BackboneConfig(name=name, num_frames=6, trained=True))
    assert [tuple(parameter.shape) for parameter in trained.slow_parameters()] == [(6,)]


def test_modules_that_do_not_fit_are_told_why():
    with pytest.raises(ValueError, match="attributes width, an int, and framing"):
        build_backbone(BackboneConfig(name=f"custom:{__name__}:own_of_no_width"))
    with pytest.raises(ValueError, match=r"must return a torch\.nn\.Module, got int"):
        build_backbone(BackboneConfig(name=f"custom:{__name__}:no_module"))
    backbone = build_backbone(BackboneConfig(name=f"custom:{__name__}:own_of_wrong_shape"))
    with pytest.raises(ValueError, match=r"\(2, any, 5\), got \(2, 16, 3\)"):
        backbone(torch.randn(2, 16, 3, 8, 8))
