import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig
from actioncast.video.frames import Framing
from video_files import REAL, real_videos, real_weights


@pytest.fixture(scope="module")
def mobilenet():
    return build_backbone(BackboneConfig(name=f"mobilenet:{real_weights()}", num_frames=4))


def frames_of_real_clips(framing: Framing) -> torch.Tensor:
    """Four frames from each of ten clips: one gesture, and all that are no gestures but one."""
    pytest.importorskip("av")
    from actioncast.video.decode import VideoFile

    real_videos()
    clips = []
    for path in [p for p in REAL if p.parent.name != "gestures"][::2] + REAL[-3:-2]:
        with VideoFile(path) as video:
            times = np.linspace(0, video.duration - 0.1, 4)
            clips.append(framing.prepare(video.frames_at(times)))
    return torch.stack(clips)


def test_mobilenet_tells_real_clips_apart(mobilenet):
    """Frames of one clip are closer to one another than to those of any other clip in the mean."""
    clips = frames_of_real_clips(mobilenet.framing)
    features = F.normalize(mobilenet(clips), dim=-1)
    assert features.shape == (len(clips), 4, 256)
    alike = torch.einsum("aif,bjf->abij", features, features)
    between = alike.mean((2, 3))
    within = (alike.diagonal().sum((0, 1)) - 4) / 12
    own = between.clone().fill_diagonal_(-1)
    assert (within > own.amax(1)).float().mean() >= 0.8
    assert within.mean() > between[~torch.eye(len(clips), dtype=torch.bool)].mean() + 0.15


def test_mobilenets_rectifiers_are_those_that_its_statistics_were_taken_with(mobilenet):
    """The variances that its last normalisations kept are met on other pictures."""
    clips = frames_of_real_clips(mobilenet.framing)
    ratios = []

    def compare(norm, inputs, _):
        alive = norm.running_var > 1e-3
        ratios.append((inputs[0].var((0, 2, 3)) / norm.running_var)[alive].median().item())

    norms = [part for part in mobilenet.modules() if isinstance(part, nn.BatchNorm2d)]
    handles = [norm.register_forward_hook(compare) for norm in norms]
    mobilenet(clips)
    for handle in handles:
        handle.remove()
    assert len(ratios) == 27
    assert 0.75 < np.mean(ratios[-8:]) < 1.25


def test_mobilenet_gives_its_map_as_tokens(mobilenet):
    config = BackboneConfig(name=mobilenet.config.name, num_frames=4, pooling="tokens")
    tokens = build_backbone(config)
    x = torch.randn(1, 4, 3, 224, 224)
    assert tokens(x).shape == (1, 4 * 49, 256)
    by_frame = tokens(x).unflatten(1, (4, 49)).mean(2)
    assert torch.allclose(by_frame, mobilenet(x), atol=1e-5)


def test_other_weights_than_mobilenets_are_named(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, path)
    with pytest.raises(ValueError, match="weights of a MobileNetV1"):
        build_backbone(BackboneConfig(name=f"mobilenet:{path}"))
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="file of PyTorch weights"):
        build_backbone(BackboneConfig(name=f"mobilenet:{path}"))
