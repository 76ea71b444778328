"""What one answer about one video costs: weights, operations, tokens, time and memory.

The columns of ActionLLM's Table III, for any model. All is measured around one call of
`inference.predict`, so that what a model does outside of its modules counts as well.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from actioncast.cost import count_flops
from actioncast.data import Video
from actioncast.inference import InferenceConfig, answers, predict
from actioncast.models.base import Anticipator, Losses
from actioncast.progress import Progress, silent
from actioncast.protocols import Question
from actioncast.types import Observation, Prediction, Target, Task

MOST_REPETITIONS = 50
"""Answers that are timed, of a model that is fast."""
BUDGET = 20.0
"""Seconds that one model may take to be measured, if one answer does not take longer."""


@runtime_checkable
class HasSequenceLength(Protocol):
    """What a model also is that reads more than one token a step: queries, text, what is masked."""

    def sequence_length(self, x: Observation) -> int:
        """Tokens that its trunk or encoder sees of each observation of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCost:
    """What a model costs, and what it was asked."""

    learnable: int
    """Weights that training moves; shared ones count once."""
    frozen: int
    """Weights that it does not move; those packed in fewer bits count as what they stand for."""
    flops: int
    """Operations of one answer; a product and its sum are two."""
    multiply_adds: float
    """A product and its sum counted as one."""
    sequence_length: int
    """Tokens that the trunk or encoder sees; of a model that does not say, the steps it reads."""
    seconds: float | None
    """Median time of one answer, features in memory; absent where none was computed."""
    seconds_p95: float | None
    """95th percentile."""
    repetitions: int
    """Answers timed, after one that warms up."""
    peak_bytes: int | None
    """Most that tensors made on the way to one answer take at once, besides weights and features;
    absent on devices that do not tell."""
    weight_bytes: int
    """What parameters and buffers take."""
    offsets: int
    """Times the model reads the video, each from another offset of the stride; all are counted."""
    device: str
    """Where it ran."""
    threads: int
    """Of PyTorch on the CPU."""
    torch: str
    """Version of PyTorch."""


def measure_answer(
    model: Anticipator,
    video: Video,
    question: Question,
    running: InferenceConfig,
    *,
    ahead: tuple[float, ...] = (),
    name: str = "time",
    progress: Progress = silent,
) -> AnswerCost:
    """Measure one answer to one question about one video.

    Args:
        model: Any model.
        video: With the features, or the labels, that the model reads.
        question: Frames seen and asked for.
        running: How the model is run.
        ahead: Seconds after each step that a model of streams is asked about.
        name: What the progress is called.
        progress: Told how far the timing is.
    """
    x = observation(model, video, question, running, ahead)
    learnable, frozen = num_weights(model)
    model.eval().to(running.device)

    def answer() -> None:
        predict(model, x, running.device)

    # What a model draws must not change what the caller draws.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = _seconds(answer, running.device)
        begun = time.perf_counter()
        flops = flops_of(model, x, running.device)
        # The first answer may have compiled a kernel.
        expected = min(first, time.perf_counter() - begun)
        peak = peak_bytes(answer, running.device)
        left = BUDGET - first - (time.perf_counter() - begun)
        times = range(min(MOST_REPETITIONS, max(1, int(left / max(expected, 1e-6)))))
        seconds = [_seconds(answer, running.device) for _ in progress(times, name)]
    return AnswerCost(
        learnable=learnable,
        frozen=frozen,
        flops=flops,
        multiply_adds=flops / 2,
        sequence_length=sequence_length(model, x),
        seconds=float(np.median(seconds)),
        seconds_p95=float(np.percentile(seconds, 95)),
        repetitions=len(seconds),
        peak_bytes=peak,
        weight_bytes=weight_bytes(model),
        offsets=len(x),
        device=running.device,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


class _Listener(Anticipator):
    """Names no action; keeps what it was asked."""

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})

    def __init__(self, model: Anticipator) -> None:
        super().__init__()
        self.taxonomy = model.taxonomy
        self.answers_told_length = model.answers_told_length
        self.heard: list[Observation] = []

    def losses(self, x: Observation, y: Target) -> Losses:  # noqa: ARG002
        return {}

    def predict(self, x: Observation) -> list[Prediction]:
        self.heard.append(x)
        num_labels = len(self.taxonomy.labels)
        return [
            Prediction(
                taxonomy=self.taxonomy,
                rate=x.rate,
                observed=x.frames_observed(i),
                past=torch.zeros(int(x.valid[i].sum()), num_labels),
                future=torch.zeros(int(x.horizon[i]), num_labels),
            )
            for i in range(len(x))
        ]


def observation(
    model: Anticipator,
    video: Video,
    question: Question,
    running: InferenceConfig,
    ahead: tuple[float, ...] = (),
) -> Observation:
    """What inference shows a model of one question, on the device that it runs on."""
    listener = _Listener(model)
    # Whoever finishes an answer wants probabilities, which the listener does not have.
    plain = InferenceConfig(stride=running.stride, anchor=running.anchor, offsets=running.offsets)
    for _ in answers(listener, [(video, question)], plain):
        pass
    (x,) = listener.heard
    return replace(x, ahead=ahead).to(running.device)


def sequence_length(model: Anticipator, x: Observation) -> int:
    """Tokens that a model sees; where it does not say, the steps that it reads."""
    if isinstance(model, HasSequenceLength):
        return model.sequence_length(x)
    return x.features.shape[1]


def num_weights(model: nn.Module) -> tuple[int, int]:
    """Learnable and frozen weights."""
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        # bitsandbytes packs two weights of 4 bits into a byte and remembers their shape.
        shape = getattr(getattr(parameter, "quant_state", None), "shape", parameter.shape)
        counts[parameter.requires_grad] += math.prod(shape)
    return counts[True], counts[False]


def weight_bytes(model: nn.Module) -> int:
    """Memory of parameters and buffers."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Answering(nn.Module):
    """A root around a model, within which whatever `predict` does is seen."""

    def __init__(self, model: Anticipator, device: str) -> None:
        super().__init__()
        self.model, self.device = model, device

    def forward(self, x: Observation) -> list[Prediction]:
        return predict(self.model, x, self.device)


def flops_of(model: Anticipator, x: Observation, device: str = "cpu") -> int:
    """Operations of one answer."""
    with _frozen(model), _nothing_fused(model):
        return count_flops(_Answering(model, device), x)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient: the counter follows those that do, where there is none."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _nothing_fused(model: nn.Module) -> Iterator[None]:
    """Run layers of PyTorch as the products they are made of, which alone the counter sees."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            if any(isinstance(part, nn.RNNBase) for part in model.modules()):
                # The flags speak of other hardware when they are set.
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def peak_bytes(answer: Callable[[], None], device: str) -> int | None:
    """Most that tensors made in a call take at once, besides what there was before."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        answer()
        return torch.cuda.max_memory_allocated(device) - before
    if kind != "cpu":
        return None
    # It would report its start and its end on standard error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        answer()
    found = profiler.kineto_results
    assert found is not None, "the profiler has results when it has ended"
    events = [event for event in found.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)


def _seconds(answer: Callable[[], None], device: str) -> float:
    begun = time.perf_counter()
    answer()
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begun
