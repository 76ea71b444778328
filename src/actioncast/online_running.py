"""A model of streams run over whole videos, at once or step by step, beside what was true."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from actioncast.data.base import Video
from actioncast.inference import (
    InferenceConfig,
    observed_whole,
    online_answers,
    predict,
    require_no_looking_ahead,
)
from actioncast.models.base import Anticipator, RecurrentAnticipator
from actioncast.progress import Progress, silent
from actioncast.protocols.online import Online
from actioncast.scores import moments_of
from actioncast.types import Observation, Prediction

Rows = Float[np.ndarray, "time label"]
Truth = Bool[np.ndarray, "time label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineAnswers:
    """What a model said at every step of one video, beside what was true."""

    past: Rows
    """Scores of the labels under way."""
    ahead: Float[np.ndarray, "time moment label"]
    """Scores of the labels at each moment after the step."""
    truth: Truth
    """Labels under way; several may be."""
    seconds: Float[np.ndarray, " _"]
    """Wall time of each step, where the video was streamed; else empty."""


def answer_online(
    model: Anticipator,
    videos: Sequence[Video],
    protocol: Online,
    config: InferenceConfig,
    progress: Progress = silent,
) -> list[OnlineAnswers]:
    """Run a model over whole videos; the answers to each, in the order of the videos.

    Raises:
        ValueError: The model was not built for the moments of the protocol, or leaves some out.
    """
    require_no_looking_ahead(config)
    asked = moments_of(model, protocol.ahead) if protocol.ahead else ()
    if unknown := sorted(set(protocol.ahead) - set(asked)):
        known = ", ".join(f"{moment:g}" for moment in asked) or "none"
        raise ValueError(
            f"{type(model).__name__} was built to answer {known} s ahead, got "
            f"{', '.join(f'{moment:g}' for moment in unknown)} s; ask for those it knows."
        )
    chosen = [asked.index(moment) for moment in protocol.ahead]
    if protocol.way == "at_once":
        said = {
            i: (_arrays(prediction, chosen), np.zeros(0))
            for i, prediction in online_answers(model, videos, asked, config, progress)
        }
    else:
        model.eval().to(config.device)
        said = {}
        for i in progress(range(len(videos)), "stream"):
            x = replace(observed_whole([videos[i]], model, config.stride), ahead=asked)
            said[i] = _streamed(model, x, chosen, config.device)
    found = []
    for i, video in enumerate(videos):
        (past, ahead), seconds = said[i]
        truth = online_truth(video, len(model.taxonomy.labels), config.stride)
        found.append(OnlineAnswers(past=past, ahead=ahead, truth=truth, seconds=seconds))
    return found


def online_truth(video: Video, num_labels: int, stride: int) -> Truth:
    """The labels under way at every step: all that are active, else the one of the timeline."""
    if video.active is not None:
        return video.active[::stride]
    return np.eye(num_labels, dtype=bool)[video.frames()[::stride]]


def _arrays(
    prediction: Prediction, chosen: Sequence[int]
) -> tuple[Rows, Float[np.ndarray, "time moment label"]]:
    if prediction.past is None or (chosen and prediction.ahead is None):
        raise ValueError(
            "a model of streams must name the action of every step, and those at the moments that "
            "it is asked about, got no past or no ahead; mend its predict."
        )
    past: Rows = prediction.past.float().cpu().numpy()
    if prediction.ahead is None or not chosen:
        return past, np.zeros((len(past), 0, past.shape[1]), np.float32)
    return past, prediction.ahead[:, chosen].float().cpu().numpy()


def _streamed(
    model: Anticipator, x: Observation, chosen: Sequence[int], device: str
) -> tuple[tuple[Rows, Float[np.ndarray, "time moment label"]], Float[np.ndarray, " time"]]:
    """Answer one video step by step, and time each step until its answer is there as an array.

    A model with a memory takes in one step; any other reads all steps so far anew.
    """
    state: Any = model.initial_state(1) if isinstance(model, RecurrentAnticipator) else None
    rows, seconds = [], []
    for step in range(x.features.shape[1]):
        begun = time.perf_counter()
        if isinstance(model, RecurrentAnticipator):
            with torch.inference_mode():
                (prediction,), state = model.step(_cut(x, step, step + 1).to(device), state)
        else:
            (prediction,) = predict(model, _cut(x, 0, step + 1), device)
            # Held on the frames of the video, the last of which are of the last step.
        past, ahead = _arrays(prediction, chosen)
        rows.append((past[-1], ahead[-1]))
        seconds.append(time.perf_counter() - begun)
    pasts, aheads = (np.stack(part) for part in zip(*rows, strict=True))
    return (pasts, aheads), np.array(seconds)


def _cut(x: Observation, start: int, end: int) -> Observation:
    """Some steps of one video, as if they were all that had come; the frames of the last whole."""
    left = x.frames_observed(0) - start * x.stride
    return replace(
        x,
        features=x.features[:, start:end],
        valid=x.valid[:, start:end],
        labels=None if x.labels is None else x.labels[:, start:end],
        first=None,
        observed=torch.tensor([min((end - start) * x.stride, left)]),
    )
