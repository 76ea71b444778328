import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_frames import image_rate
from actioncast.clip_sources import Sources, sources
from actioncast.clip_training import build_for_clips, clip_batches, fit_widths
from actioncast.data.clips import ClipDataset
from actioncast.inference import next_actions
from actioncast.models.mamba_vl import MambaVLConfig
from actioncast.video.base import BackboneConfig
from actioncast.video.frames import Framing
from epic_folders import clip, clip_dataset, real_path
from video_files import write_video


class Colours(nn.Module):
    """The mean red, green and blue of each frame, times a weight that can learn."""

    width = 3
    framing = Framing(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, num_frames: int, pooling: str) -> None:  # noqa: ARG002
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((3, 4)) * self.scale


COLOURS = BackboneConfig(name=f"custom:{__name__}:Colours", num_frames=4)
MODEL = MambaVLConfig(hidden_dim=8, state_dim=2, modalities=())
FROZEN = ClipTrainConfig(model=MODEL, input="frames", backbone=COLOURS, num_frames=4, span=1.0)
LEARNING = replace(
    FROZEN,
    model=replace(MODEL, backbone=replace(COLOURS, trained=True)),
    backbone=BackboneConfig(name=""),
)
EARLY, LATE = clip("P01_01_0", 0.5, 1.0), clip("P01_01_1", 3.0, 4.0, verb=2, noun=1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "P01_01.mp4", range(0, 5000, 40))
    return tmp_path


def shown(config: ClipTrainConfig, home: Path) -> tuple[ClipTrainConfig, ClipDataset, Sources]:
    dataset = clip_dataset([EARLY, LATE], duration=5.0)
    config = replace(config, frame_cache=home / "cache")
    found = sources(config, dataset, home)
    return fit_widths(config, found), dataset, found


def test_a_frozen_backbone_gives_tokens_of_the_window(home: Path) -> None:
    config, _, found = shown(FROZEN, home)
    assert (found.first.name, found.first.width) == ("frames", 3)
    assert found.first.read(LATE).shape == (4, 3)
    assert not len(found.first.read(EARLY)), "nothing can be seen a second before 0.5 s"
    assert config.model.feature_dim == 3  # type: ignore[union-attr]
    assert "frozen" in found.input
    assert list((home / "cache").rglob("*.npy"))


def test_a_backbone_that_learns_sees_the_frames_and_learns(home: Path) -> None:
    config, dataset, found = shown(LEARNING, home)
    model = build_for_clips(config, dataset)
    ((x, y),) = clip_batches(dataset.part("train"), found, 1.0)
    assert x.clip is not None
    assert x.clip.shape == (2, 4, 3, 8, 8)
    assert x.features.shape[2] == 0
    assert x.valid.tolist() == [[False], [True]]
    assert x.clip[0].abs().sum() == 0 < x.clip[1].sum()
    torch.stack(list(model.losses(x, y).values())).sum().backward()
    assert model.slow_parameters()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.slow_parameters())


def test_frozen_and_learning_see_the_same_at_first(home: Path) -> None:
    answers = []
    for config in (FROZEN, LEARNING):
        fitted, dataset, found = shown(config, home)
        torch.manual_seed(0)
        model = build_for_clips(fitted, dataset)
        batches = clip_batches(dataset.part("train"), found, 1.0)
        answers.append(next_actions(model, batches))
    for head, rows in answers[0].items():
        assert np.allclose(rows.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(rows, answers[1][head], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "values", "sentence"),
    [
        (FROZEN, {"backbone": BackboneConfig(name="")}, "needs one backbone, got 0"),
        (LEARNING, {"backbone": COLOURS}, "needs one backbone, got 2"),
        (FROZEN, {"backbone": replace(COLOURS, trained=True)}, "must stay as it is, got trained"),
        (FROZEN, {"num_frames": 8}, "num_frames must be those that .* sees, 4, got 8"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(
    config: ClipTrainConfig, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(config, **values)


def test_images_were_written_as_often_as_the_annotation_counts_frames() -> None:
    """`start_frame` over `start_timestamp` in the published rows, by the rate of the video."""
    path = real_path("epic100")
    with (path / "EPIC_100_video_info.csv").open() as file:
        rates = {row["video_id"]: float(row["fps"]) for row in csv.DictReader(file)}
    seen = set()
    for name in ("EPIC_100_validation.csv", "EPIC_100_train_reconstructed.csv"):
        with (path / name).open() as file:
            for row in csv.DictReader(file):
                if not row["start_timestamp"] or not row["start_frame"].isdecimal():
                    continue
                hours, minutes, seconds = row["start_timestamp"].split(":")
                start = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
                rate = rates[row["video_id"]]
                assert abs(int(row["start_frame"]) - start * image_rate(rate)) <= 1.01, row
                seen.add(round(rate))
    assert {30, 48, 50, 60, 90} <= seen


@pytest.mark.parametrize(
    ("rate", "images"), [(50.0, 50.0), (47.95, 60.0), (52.0, 60.0), (59.94, 60.0), (29.97, 60.0)]
)
def test_only_videos_of_fifty_frames_were_written_fifty_times_a_second(
    rate: float, images: float
) -> None:
    assert image_rate(rate) == images
