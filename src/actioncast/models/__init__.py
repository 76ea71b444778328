"""Every model, by name. To add one: write its file, add a line here."""

from collections.abc import Mapping

from actioncast.models.futr import FUTRConfig

ModelConfig = FUTRConfig

MODELS: Mapping[str, type[ModelConfig]] = {
    "futr": FUTRConfig,
}

__all__ = ["MODELS", "ModelConfig"]
