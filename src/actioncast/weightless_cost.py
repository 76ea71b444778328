"""What ActionLLM costs on a trunk whose weights nobody has: its shapes tell.

On the device `meta` tensors have shapes and no numbers. Weights and operations are counted, time
and memory cannot be.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from actioncast.answer_cost import AnswerCost, num_weights, observation, weight_bytes
from actioncast.cost import count_flops
from actioncast.data import Video
from actioncast.inference import InferenceConfig
from actioncast.models.actionllm import ActionLLM
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.protocols import Question
from actioncast.timeline import Taxonomy
from actioncast.trunks.frozen import FrozenTrunk
from actioncast.trunks.sources import load_source

WEIGHTLESS = frozenset({"untrained:llama-7b"})
"""Trunks that have no weights, and would be too large to draw some."""


def build_weightless(config: ActionLLMConfig, taxonomy: Taxonomy) -> ActionLLM:
    """The model of a config on the device `meta`.

    Raises:
        ImportError, ValueError: The shapes of its trunk cannot be had.
    """
    with torch.device("meta"):
        trunk = FrozenTrunk(config.trunk, load_source(config.trunk))
        return ActionLLM(config, taxonomy, trunk).eval()


def measure_weightless(
    model: ActionLLM, video: Video, question: Question, running: InferenceConfig
) -> AnswerCost:
    """Count one answer to one question about one video; times are absent.

    Args:
        model: On the device `meta`.
        video: Its features are read for their shape alone.
        question: Frames seen and asked for.
        running: How the model is run.
    """
    x = observation(model, video, question, running)
    size = x.features.shape[:2]
    text = None
    if "text" in model.config.streams:
        text = torch.empty(*size, model.trunk.width, device="meta")
    visual = torch.empty_like(x.features, device="meta")
    learnable, frozen = num_weights(model)
    with _EverythingValid():
        flops = count_flops(model, visual, text, torch.empty(size, dtype=torch.bool, device="meta"))
    return AnswerCost(
        learnable=learnable,
        frozen=frozen,
        flops=flops,
        multiply_adds=flops / 2,
        sequence_length=model.sequence_length(x),
        seconds=None,
        seconds_p95=None,
        repetitions=0,
        peak_bytes=None,
        weight_bytes=weight_bytes(model),
        offsets=len(x),
        device="meta",
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def is_weightless(model: nn.Module) -> bool:
    """Whether a model has shapes and no numbers."""
    return any(parameter.is_meta for parameter in model.parameters())


class _EverythingValid(TorchFunctionMode):
    """Answers yes where a model asks whether all of one video is there, which no number tells."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        given: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is Tensor.__bool__ and given[0].is_meta:
            return True
        return function(*given, **(named or {}))
