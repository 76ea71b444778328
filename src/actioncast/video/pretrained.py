"""Hugging Face models of videos and images: which are known, how they are loaded or made.

Needs the extra `llm`. `huggingface.py` makes backbones of them.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from actioncast.video.frames import Framing

logger = logging.getLogger(__name__)

UNTRAINED = "untrained:"
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "image_size": 32,
    },
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
"""What differs from a kind's own defaults, which are those of its base model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoKind:
    """How a kind of video model orders its tokens."""

    tubelet: Callable[[Any], int]
    """Frames of a position in time, from its config."""
    num_prefix: int = 0
    """Class tokens before all others."""
    time_first: bool = True
    """Whether all places of a moment follow one another, or all moments of a place."""


VIDEO_KINDS = {
    "videomae": VideoKind(tubelet=lambda config: config.tubelet_size),
    "vivit": VideoKind(tubelet=lambda config: config.tubelet_size[0], num_prefix=1),
    "timesformer": VideoKind(tubelet=lambda _: 1, num_prefix=1, time_first=False),
    "vjepa2": VideoKind(tubelet=lambda config: config.tubelet_size),
}
IMAGE_KINDS = ("vit", "deit", "dinov2", "dinov2_with_registers", "clip", "siglip")


def load_model(name: str) -> Any:
    """A pretrained model, float32; nothing is looked up where the name is a folder."""
    transformers = _import_transformers()
    options = {"local_files_only": Path(name).is_dir()}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        options |= _options(name, config)
        # A model of images and text is asked for its images' half.
        config = getattr(config, "vision_config", config)
        model, report = transformers.AutoModel.from_pretrained(
            name, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
    except OSError as error:
        raise ValueError(
            f"a backbone must be a folder with config.json and weights, or the name of a model on "
            f"the Hugging Face hub, got {name!r}, which does not open ({error})."
        ) from None
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{name} must hold all weights of a {config.model_type}, got none of "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}: they would be random."
        )
    return _with_used_weights(model)


def untrained_model(name: str, num_frames: int) -> Any:
    """A model of a kind and size with random weights, the same every time."""
    transformers = _import_transformers()
    kind, _, size = name.removeprefix(UNTRAINED).partition("-")
    kinds = [*VIDEO_KINDS, *IMAGE_KINDS]
    if kind not in kinds or size not in SIZES:
        raise ValueError(
            f"an untrained backbone must be one of {', '.join(kinds)}, then one of "
            f"{', '.join('-' + known for known in SIZES)}, got {name!r}; write "
            f"{UNTRAINED}vit-base, for example."
        )
    sizes = dict(SIZES[size])
    if kind in ("vjepa2", "dinov2", "dinov2_with_registers"):
        # Theirs is four times the hidden size.
        sizes.pop("intermediate_size", None)
    if kind == "vjepa2":
        # Its defaults are those of its large model.
        sizes = sizes or {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        sizes |= {"crop_size": sizes.pop("image_size", 256)}
    elif kind in VIDEO_KINDS:
        sizes["num_frames"] = num_frames
    config = transformers.AutoConfig.for_model(
        f"{kind}_vision_model" if kind in ("clip", "siglip") else kind, **sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config, **_options(name, config))
    return _with_used_weights(model)


def _options(name: str, config: Any) -> dict[str, Any]:
    """Leave out the heads that the last hidden state does not need.

    Raises:
        ValueError: The model is of no kind that is known here.
    """
    kind = config.model_type.removesuffix("_vision_model")
    if kind not in (*VIDEO_KINDS, *IMAGE_KINDS):
        raise ValueError(
            f"a backbone must be one of {', '.join([*VIDEO_KINDS, *IMAGE_KINDS])}, got {name!r}, "
            f"which is a {config.model_type}; write a function that builds it and name it "
            "custom:PACKAGE.MODULE:FUNCTION."
        )
    if getattr(config, "attention_type", "") == "space_only":
        raise ValueError(
            f"a TimeSformer must attend over time, got {name!r} with attention_type='space_only'; "
            "take an image backbone instead."
        )
    if kind == "siglip":
        getattr(config, "vision_config", config).vision_use_head = False
    return {"add_pooling_layer": False} if kind in ("vit", "deit", "vivit") else {}


def _with_used_weights(model: Any) -> Any:
    """Leave out of training what masked pretraining alone moves."""
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    return model


def framing_of(name: str, config: Any) -> Framing:
    """Size from the model, mean and deviation from its preprocessor's file."""
    size = config.crop_size if config.model_type == "vjepa2" else config.image_size
    side = size if isinstance(size, int) else size[0]
    if name.startswith(UNTRAINED):
        return Framing(size=side)
    found = _preprocessor(name)
    if "image_mean" not in found or "image_std" not in found:
        logger.warning(
            "%s says neither image_mean nor image_std: frames are normalised as for ImageNet.", name
        )
        return Framing(size=side)
    return Framing(size=side, mean=tuple(found["image_mean"]), std=tuple(found["image_std"]))


def _preprocessor(name: str) -> Mapping[str, Any]:
    """Read the file itself: the processor classes need torchvision."""
    from transformers.utils.hub import cached_file  # noqa: PLC0415

    for file in ("preprocessor_config.json", "video_preprocessor_config.json"):
        path = cached_file(
            name,
            file,
            local_files_only=Path(name).is_dir(),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is not None:
            return json.loads(Path(path).read_text(encoding="utf-8"))
    return {}


def _import_transformers() -> ModuleType:
    try:
        import transformers  # noqa: PLC0415
    except ImportError:
        raise ImportError(
            "Hugging Face backbones need transformers; pip install 'actioncast[llm]'."
        ) from None
    return transformers
