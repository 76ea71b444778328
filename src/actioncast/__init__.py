"""Watches people act: what has been done, what comes next and for how long, and how sure it is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actioncast.checkpoint import load_checkpoint as load_checkpoint
    from actioncast.data import LabelInput as LabelInput
    from actioncast.data import open_dataset as open_dataset
    from actioncast.inference import forecast as forecast
    from actioncast.inference import predict as predict
    from actioncast.models import MODELS as MODELS
    from actioncast.models.base import Anticipator as Anticipator
    from actioncast.models.base import RecurrentAnticipator as RecurrentAnticipator
    from actioncast.protocols import PROTOCOLS as PROTOCOLS
    from actioncast.protocols import Question as Question
    from actioncast.recipes import RECIPES as RECIPES
    from actioncast.streaming import StreamConfig as StreamConfig
    from actioncast.streaming import stream as stream
    from actioncast.timeline import LabelSpace as LabelSpace
    from actioncast.timeline import Segment as Segment
    from actioncast.timeline import Taxonomy as Taxonomy
    from actioncast.timeline import Timeline as Timeline
    from actioncast.types import Observation as Observation
    from actioncast.types import Prediction as Prediction
    from actioncast.types import Target as Target
    from actioncast.types import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("load_checkpoint",),
    "data": ("LabelInput", "open_dataset"),
    "inference": ("forecast", "predict"),
    "models": ("MODELS",),
    "models.base": ("Anticipator", "RecurrentAnticipator"),
    "protocols": ("PROTOCOLS", "Question"),
    "recipes": ("RECIPES",),
    "streaming": ("StreamConfig", "stream"),
    "timeline": ("LabelSpace", "Segment", "Taxonomy", "Timeline"),
    "types": ("Observation", "Prediction", "Target", "Task"),
}
"""Where the public names live. They are imported when first used: torch takes seconds."""

__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"actioncast.{home}"), name)
    raise AttributeError(f"module 'actioncast' has no attribute {name!r}")
