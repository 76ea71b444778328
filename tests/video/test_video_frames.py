import numpy as np
import pytest
import torch

from actioncast.video.frames import (
    Framing,
    centre_crop,
    normalise,
    random_crop,
    resize_short_side,
)


def places(height: int, width: int) -> torch.Tensor:
    """Every pixel holds its own number."""
    return torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)


def test_the_shorter_side_gets_the_size_and_the_longer_one_keeps_the_shape():
    for height, width, wanted in ((720, 1280, (224, 398)), (1280, 720, (398, 224))):
        frames = np.zeros((1, height, width, 3), dtype=np.uint8)
        assert resize_short_side(frames, 224).shape == (1, 3, *wanted)


def test_what_has_the_size_stays_as_it_is():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 11, 3), dtype=np.uint8)
    resized = resize_short_side(frames, 8)
    assert np.array_equal(
        (resized * 255).round().numpy().astype(np.uint8).transpose(0, 2, 3, 1), frames
    )


def test_fine_stripes_become_grey_and_not_moire():
    """Without a filter against aliasing every fifth column would be picked: all white or black."""
    frames = np.zeros((1, 100, 100, 3), dtype=np.uint8)
    frames[:, :, ::2] = 255
    inner = resize_short_side(frames, 20)[..., 1:-1]
    assert inner.sub(0.5).abs().max() < 0.05


def test_the_mean_of_a_frame_survives():
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    resized = resize_short_side(frames, 16)
    assert resized.mean().item() == pytest.approx(frames.mean() / 255, abs=0.01)


def test_the_centre_is_the_centre():
    assert centre_crop(places(4, 6), 2).flatten().tolist() == [8, 9, 14, 15]
    assert centre_crop(places(3, 4), 2).flatten().tolist() == [1, 2, 5, 6]


def test_random_crops_are_squares_of_the_frame_one_for_the_clip():
    frames = places(5, 7).repeat(3, 2, 1, 1)
    corners = set()
    for seed in range(200):
        crop = random_crop(frames, 3, np.random.default_rng(seed))
        assert (crop == crop[:1, :1]).all()
        top, left = divmod(int(crop[0, 0, 0, 0]), 7)
        assert torch.equal(crop[0, 0], frames[0, 0, top : top + 3, left : left + 3])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(5)}


def test_the_same_seed_crops_the_same():
    crops = [random_crop(places(50, 60), 20, np.random.default_rng(7)) for _ in range(2)]
    assert torch.equal(*crops)


def test_a_crop_larger_than_its_frame_is_refused():
    with pytest.raises(ValueError, match=r"got 5 pixels of 4 x 9"):
        centre_crop(places(4, 9), 5)


def test_colours_are_normalised_channel_by_channel():
    frames = torch.tensor([0.5, 0.6, 0.7])[None, :, None, None]
    normal = normalise(frames, (0.5, 0.5, 0.5), (0.1, 0.2, 0.4))
    assert torch.allclose(normal.flatten(), torch.tensor([0.0, 0.5, 0.5]))


def test_a_framing_does_it_all():
    framing = Framing(size=4, short_side=6, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    white = np.full((2, 12, 18, 3), 255, dtype=np.uint8)
    for clip in (
        framing.prepare(white),
        framing.prepare_at_random(white, np.random.default_rng(0)),
    ):
        assert clip.shape == (2, 3, 4, 4)
        assert clip.dtype == torch.float32
        assert torch.allclose(clip[:, :, 0, 0], torch.tensor([1.0, 1.0, 0.0]))


def test_framings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="short_side must be at least size"):
        Framing(size=8, short_side=6)
    with pytest.raises(ValueError, match="std must be above 0"):
        Framing(size=8, std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="size must be at least 1"):
        Framing(size=0)
