"""What a stream carries, in a file: tensors, whose they are, and how far the stream has come."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as tensor_bytes

from actioncast.files import replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptState:
    """What a file of a state holds."""

    tensors: Mapping[str, np.ndarray]
    """As `ClamState.tensors` names them, and the last answer about a frame, by head."""
    model: str
    """Fingerprint of the model that it belongs to."""
    steps: int
    """Frames that the model was given, skipped ones too."""
    frames: int | None = None
    """Frames of the stream, those that the stride leaves out too; absent where nobody counted them:
    the stream then stands `steps` strides after its start."""

    def frames_at(self, stride: int) -> int:
        """Frames of the stream so far."""
        return self.steps * stride if self.frames is None else self.frames


def write_state(path: Path, kept: KeptState) -> None:
    """Write a safetensors file in one step; what was there before stays until it is whole."""
    # safetensors knows no arrays with gaps, and numbers of 64 bits by NumPy's own name alone.
    whole = {n: np.ascontiguousarray(part, part.dtype.name) for n, part in kept.tensors.items()}
    about = {"model": kept.model, "frames": str(kept.steps)}
    if kept.frames is not None:
        about["stream_frames"] = str(kept.frames)
    replace_file(path, tensor_bytes(whole, about))


def read_state(path: Path) -> KeptState:
    """A saved state.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no saved state.
    """
    require_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"the state {path} does not exist.")
    content = path.read_bytes()
    try:
        tensors = read_tensors(content)
        length = int.from_bytes(content[:8], "little")
        about = json.loads(content[8 : 8 + length])["__metadata__"]
        frames = about.get("stream_frames")
        return KeptState(
            tensors=tensors,
            model=about["model"],
            steps=int(about["frames"]),
            frames=None if frames is None else int(frames),
        )
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError):
        raise ValueError(
            f"{path} must be a state that `actioncast stream --state` wrote, got another file or a "
            "part of one; start the stream anew under another name."
        ) from None


def require_file(path: Path) -> None:
    """Raise a ValueError where a state is to be kept under the name of a folder."""
    if path.is_dir():
        raise ValueError(
            f"--state must be a file, got the folder {path}; name a file in it: "
            f"{path / 'stream.state'}."
        )
