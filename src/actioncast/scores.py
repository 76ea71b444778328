"""What an evaluation gives back, and what a model must answer for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from actioncast.models.base import AnswersAhead, Anticipator
from actioncast.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one model on one set of videos, in percent where their names say no unit."""

    total: Mapping[str, float]
    """By name: `mof`, `edit`, `f1@10`... or `moc 0.2/0.1`... or `mAP`, `mAP 0.25s`...; and `mean`,
    by which models are ranked."""
    videos: Mapping[str, Mapping[str, float]]
    """By video: the same where it makes sense for one video."""


def require_task(model: Anticipator, task: Task) -> None:
    """Raise a ValueError, which lists its tasks, where a model does not answer one."""
    if task not in model.tasks:
        known = ", ".join(sorted(model.tasks))
        raise ValueError(f"{type(model).__name__} answers {known}, not {task}.")


def moments_of(model: Anticipator, otherwise: tuple[float, ...] = ()) -> tuple[float, ...]:
    """Seconds ahead that a model of streams was built for.

    Args:
        model: Any model.
        otherwise: What one that was built for none in particular is asked about.
    """
    return tuple(model.ahead) if isinstance(model, AnswersAhead) else otherwise
