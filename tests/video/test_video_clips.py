from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig
from actioncast.video.clips import IMAGES, ClipFrames, FrozenBackboneSource
from actioncast.video.frames import Framing
from video_files import number_of, numbered_image, real_videos, real_weights, write_video

STEADY = [40 * i for i in range(50)]


def write_images(folder: Path, numbers) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(numbered_image(number)).save(folder / IMAGES.format(number))


def numbers(frames: ClipFrames, video: str, times) -> list[int]:
    return [number_of(image) for image in frames.read(video, times)]


@pytest.mark.parametrize("place", ["a_1.mp4", "a_1.mkv", "a_1.MP4", "a/videos/a_1.MP4"])
def test_videos_are_found_where_people_keep_them(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True, parents=True)
    write_video(path.with_suffix(path.suffix.lower()), STEADY).rename(path)
    frames = ClipFrames(root=tmp_path)
    assert frames.find("a_1") == path
    assert numbers(frames, "a_1", [0.0, 0.5, 0.5, 1.99]) == [0, 12, 12, 49]


def test_images_of_epic_kitchens_count_from_one(tmp_path):
    write_images(tmp_path / "P01" / "rgb_frames" / "P01_02", range(1, 101))
    frames = ClipFrames(root=tmp_path, rates={"P01_02": 50.0})
    # The n-th image is shown from (n - 1) / 50 s on; half a second after the end it is the last.
    assert numbers(frames, "P01_02", [0.0, 0.0199, 0.02, 1.0, 1.99, 2.4]) == [1, 1, 2, 51, 100, 100]
    assert [numbers(frames, "P01_02", [n / 50])[0] for n in range(100)] == [*range(1, 101)]


def test_images_and_a_video_of_a_rate_show_the_same(tmp_path):
    write_images(tmp_path / "P01" / "rgb_frames" / "P01_02", range(50))
    shown = write_video(tmp_path / "P01_03.mp4", STEADY)
    frames = ClipFrames(root=shown.parent, rates={"P01_02": 25.0})
    times = np.sort(np.random.default_rng(0).uniform(0, 1.9, 20))
    images = numbers(frames, "P01_02", times)
    assert [number - 1 for number in images] == numbers(frames, "P01_03", times)


def test_what_is_wrong_with_images_is_said(tmp_path):
    folder = tmp_path / "P01" / "rgb_frames" / "P01_02"
    write_images(folder, [*range(1, 20), *range(21, 31)])
    with pytest.raises(ValueError, match=r"rates must hold .* 'P01_02'.*50 of videos of 50 frames"):
        ClipFrames(root=tmp_path).read("P01_02", [0.0])
    frames = ClipFrames(root=tmp_path, rates={"P01_02": 10.0})
    with pytest.raises(ValueError, match=r"must hold frame_0000000020\.jpg, got images up to 30"):
        frames.read("P01_02", [1.95])
    with pytest.raises(ValueError, match=r"got 4\.00 s .* ends at 3\.00 s"):
        frames.read("P01_02", [4.0])
    with pytest.raises(ValueError, match="seconds from 0 on"):
        frames.read("P01_02", [-0.5, 1.0])


def test_times_that_run_backwards_are_named(tmp_path):
    write_video(tmp_path / "a.mp4", STEADY)
    with pytest.raises(ValueError, match=r"backwards, got 1\.000 s and then 0\.500 s for 'a'"):
        ClipFrames(root=tmp_path).read("a", [0.0, 1.0, 0.5])
    with pytest.raises(ValueError, match="at least one"):
        ClipFrames(root=tmp_path).read("a", [])


def test_a_video_that_is_absent_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"P01_02\.mp4 .* P01/videos, .* P01/rgb_frames"):
        ClipFrames(root=tmp_path).find("P01_02")
    with pytest.raises(ValueError, match="without a folder"):
        ClipFrames(root=tmp_path).find("../P01_02")


class Brightness(nn.Module):
    """Each frame's mean colours, and how often it was asked."""

    width = 3
    framing = Framing(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, num_frames: int, pooling: str) -> None:  # noqa: ARG002
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, clip):
        self.calls += 1
        return clip.mean((3, 4)) * self.scale


def brightness(num_frames: int = 2, **options):
    config = BackboneConfig(name=f"custom:{__name__}:Brightness", num_frames=num_frames, **options)
    return build_backbone(config)


@pytest.fixture
def videos(tmp_path) -> ClipFrames:
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", STEADY)
    return ClipFrames(root=tmp_path / "videos")


def test_tokens_are_those_of_the_backbone_and_are_made_once(videos, tmp_path):
    backbone = brightness()
    source = FrozenBackboneSource(videos, backbone, tmp_path / "cache")
    tokens = source.read_at("a", [0.2, 1.0])
    prepared = backbone.framing.prepare(videos.read("a", [0.2, 1.0]))
    assert np.allclose(tokens, prepared.mean((2, 3)).numpy())
    assert tokens.dtype == np.float32
    assert (source.name, source.width) == (f"custom:{__name__}:Brightness", 3)
    assert np.array_equal(source.read_at("a", np.array([0.2, 1.0])), tokens)
    again = FrozenBackboneSource(videos, brightness(), tmp_path / "cache")
    assert np.array_equal(again.read_at("a", [0.2, 1.0]), tokens)
    assert backbone.network.calls == 1
    assert again._backbone.network.calls == 0


def test_other_times_videos_and_weights_are_kept_apart(videos, tmp_path):
    first, second = brightness(), brightness()
    second.network.scale.data.mul_(2)
    sources = [FrozenBackboneSource(videos, b, tmp_path / "cache") for b in (first, second)]
    kept = [source.read_at("a", [0.2, 1.0]) for source in sources]
    assert np.allclose(kept[1], 2 * kept[0])
    assert not np.allclose(sources[0].read_at("a", [0.28, 1.0]), kept[0])
    sources[0].read_at("b", [0.2, 1.0])
    assert first.network.calls == 3
    assert len([*(tmp_path / "cache").rglob("*.npy")]) == 4


def test_a_video_that_was_exchanged_is_read_again(videos, tmp_path):
    backbone = brightness()
    source = FrozenBackboneSource(videos, backbone, tmp_path / "cache")
    before = source.read_at("a", [0.2, 1.0])
    write_video(videos.root / "a.mp4", [80 * i for i in range(50)])
    assert not np.allclose(source.read_at("a", [0.2, 1.0]), before)
    assert backbone.network.calls == 2


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_file_is_made_again(videos, tmp_path, content):
    backbone = brightness()
    source = FrozenBackboneSource(videos, backbone, tmp_path / "cache")
    tokens = source.read_at("a", [0.2, 1.0])
    (path,) = (tmp_path / "cache").rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    assert np.array_equal(source.read_at("a", [0.2, 1.0]), tokens)
    assert backbone.network.calls == 2
    assert np.array_equal(np.load(path), tokens)


def test_a_trained_backbone_is_not_kept(videos, tmp_path):
    with pytest.raises(ValueError, match="of a frozen backbone alone"):
        FrozenBackboneSource(videos, brightness(trained=True), tmp_path)


def test_times_that_the_backbone_does_not_take_are_named(videos, tmp_path):
    source = FrozenBackboneSource(videos, brightness(), tmp_path / "cache")
    with pytest.raises(ValueError, match="clips of 2 frames, got 3"):
        source.read_at("a", [0.1, 0.2, 0.3])
    assert not [*(tmp_path / "cache").rglob("*.npy")]


def test_real_clips_become_tokens(tmp_path):
    pytest.importorskip("av")
    frames = ClipFrames(root=real_videos() / "epic_clips")
    backbone = build_backbone(BackboneConfig(name=f"mobilenet:{real_weights()}"))
    source = FrozenBackboneSource(frames, backbone, tmp_path)
    times = np.linspace(10.0, 12.0, 16)
    tokens = source.read_at("248", times)
    assert tokens.shape == (16, 256)
    assert np.isfinite(tokens).all()
    assert np.array_equal(source.read_at("248", times), tokens)
