"""Videos whose frames show their own number, and where the real ones lie."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from real_data import ROOT

HEIGHT, WIDTH, BITS = 48, 64, 8

VIDEOS = ROOT / "videos"
REAL = sorted(path for path in VIDEOS.glob("*/*") if path.suffix in (".mp4", ".mkv", ".gif"))


def real_videos() -> Path:
    """The folder of real clips; without it the calling test skips, or fails in CI."""
    if not VIDEOS.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have the clips {VIDEOS}, got no such folder.")
        pytest.skip(f"no clips {VIDEOS}; set ACTIONCAST_DATA")
    return VIDEOS


def real_weights() -> Path:
    """The weights of the small MobileNetV1, likewise."""
    path = ROOT / "backbones" / "mobilenetV1X0.25_imagenet_model_best.pth.tar"
    if not path.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have the weights {path}, got no such file.")
        pytest.skip(f"no weights {path}; set ACTIONCAST_DATA")
    return path


def numbered_image(number: int) -> np.ndarray:
    """The number in stripes of black and white, the highest bit on the left."""
    bits = np.array([number >> (BITS - 1 - i) & 1 for i in range(BITS)], dtype=np.uint8)
    stripes = np.repeat(bits * 255, WIDTH // BITS)
    return np.broadcast_to(stripes[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(image: np.ndarray) -> int:
    """The number that an image shows, whatever a codec made of its edges."""
    middles = image[HEIGHT // 2, WIDTH // BITS // 2 :: WIDTH // BITS, 0] > 127
    return int(sum(bit << (BITS - 1 - i) for i, bit in enumerate(middles)))


def write_video(
    path: Path,
    stamps: Sequence[int],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rate: int = 25,
    rotation: int = 0,
) -> Path:
    """Write frame i, which shows i, at `stamps[i]` milliseconds."""
    av = pytest.importorskip("av")
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    # AVI and MPEG-2 count frames and know no times.
    counts = path.suffix == ".avi" or codec == "mpeg2video"
    clock = Fraction(1, rate) if counts else Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.time_base = clock
        if rotation:
            stream.set_display_rotation(rotation)
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(numbered_image(i), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(stamp, 1000) / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
