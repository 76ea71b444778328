"""From annotated videos to predictions on the video's frame grid: the only caller of `predict`.

Strides are done in `data.collate` and undone here, nowhere else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from actioncast.data.base import Video
from actioncast.data.collate import Anchor, Sample, collate, cut
from actioncast.layers.decoding import held_steps, hold_frames
from actioncast.models.base import Anticipator
from actioncast.postprocessing import (
    Postprocess,
    averaged,
    median_filtered,
    postprocessed,
    restored,
)
from actioncast.progress import Progress, silent
from actioncast.protocols.base import Question
from actioncast.timeline import seconds_to_frames
from actioncast.types import Observation, Prediction, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """How a model is run over videos."""

    stride: int = 1
    """every how many frames the model reads one"""
    anchor: Anchor = "start"
    """which observed frame is always read: the first or the last"""
    offsets: bool = False
    """read a video once from every offset of the stride and average the answers"""
    postprocess: Postprocess = "none"
    """what is done to past and future joined: a median over steps, or purge or mode over frames"""
    postprocess_size: int = 0
    """steps of the median's window, frames of the mode's, longest segment purged"""
    batch_size: int = 16
    """videos answered at once; with offsets, one at a time with all of its offsets"""
    num_samples: int = 0
    """futures to draw besides the most likely one; with offsets, read from the first of them"""
    device: str = "cpu"
    """where the model runs: cpu, cuda, cuda:1"""

    def __post_init__(self) -> None:
        if self.stride < 1 or self.batch_size < 1 or self.num_samples < 0:
            raise ValueError(
                "stride and batch_size must be at least 1 and num_samples at least 0, got "
                f"{self.stride}, {self.batch_size} and {self.num_samples}."
            )
        require_postprocess(self.postprocess, self.postprocess_size, self.offsets, self.anchor)


def as_trained(
    training: Mapping[str, Any], model: Anticipator, num_samples: int = 0, device: str = "cpu"
) -> InferenceConfig:
    """How the model of a checkpoint is run, from what the checkpoint says of its training."""
    return InferenceConfig(
        stride=int(training["stride"]),
        anchor=training["anchor"],
        # Checkpoints of earlier versions do not say these three.
        offsets=training.get("offsets", False),
        postprocess=training.get("postprocess", "none"),
        postprocess_size=training.get("postprocess_size", 0),
        batch_size=64 if not list(model.parameters()) else 8,
        num_samples=num_samples,
        device=device,
    )


def require_postprocess(postprocess: Postprocess, size: int, offsets: bool, anchor: Anchor) -> None:
    """Raise a ValueError where values that say how answers are finished do not fit together."""
    if postprocess != "none" and size < 1:
        raise ValueError(f"postprocess_size must be at least 1 for {postprocess}, got {size}.")
    if offsets and anchor != "start":
        raise ValueError(
            f"offsets read a video from every frame of a stride in turn, got anchor {anchor}; take "
            "anchor start, or no offsets."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A prediction and what it answers."""

    video: Video
    question: Question
    prediction: Prediction


def answers(
    model: Anticipator,
    asked: Sequence[tuple[Video, Question]],
    config: InferenceConfig,
    progress: Progress = silent,
) -> Iterator[tuple[int, Answer]]:
    """Answer questions about videos; yields each answer with the index of its question.

    Videos of like length share a batch, so the order is not that of `asked`; a model's answer does
    not depend on its batch.

    Raises:
        ValueError: Offsets or post-processing are asked of a model that names no frames seen.
    """
    model.eval().to(config.device)
    order = sorted(range(len(asked)), key=lambda i: asked[i][1].observed)
    size = 1 if config.offsets else config.batch_size
    batches = [order[a : a + size] for a in range(0, len(order), size)]
    for batch in progress(batches, "predict"):
        samples = [sample for i in batch for sample in _samples(model, *asked[i], config)]
        x, _ = collate(samples, model.taxonomy.primary)
        if config.offsets:
            found = [_over_offsets(_read_over(model, x, config), x, config)]
        else:
            drawn = replace(x, num_samples=config.num_samples)
            predictions = _answered(model, drawn, config.device)
            found = [_finished(_held(p, x, i), config) for i, p in enumerate(predictions)]
        for i, prediction in zip(batch, found, strict=True):
            video, question = asked[i]
            asked_for = _shortened(prediction, question.horizon)
            yield i, Answer(video=video, question=question, prediction=asked_for)


def _samples(
    model: Anticipator, video: Video, question: Question, config: InferenceConfig
) -> list[Sample]:
    """One question as the model is asked it, once for every offset."""
    if model.answers_told_length and question.horizon and question.video_length:
        # What smooths the answer must not take the end of the horizon for the end of the video.
        rest = question.video_length - question.observed
        question = replace(question, horizon=max(question.horizon, rest))
    num_labels = len(model.taxonomy.labels)
    if not config.offsets:
        return [cut(video, question, config.stride, num_labels, config.anchor)]
    offsets = range(min(config.stride, max(question.observed, 1)))
    return [cut(video, question, config.stride, num_labels, first=first) for first in offsets]


def forecast(
    model: Anticipator,
    video: Video,
    *,
    now: float,
    horizon: float,
    stride: int = 1,
    anchor: Anchor = "start",
) -> Prediction:
    """Show a model the first seconds of a video and ask for the next ones.

    Args:
        model: Any model.
        video: With the features, or the labels, that the model reads.
        now: Seconds seen.
        horizon: Seconds to anticipate.
        stride: Every how many frames the model reads one; as in its training.
        anchor: Which observed frame is always read; as in its training.

    Raises:
        ValueError: Nothing is seen, or the video has no features.
    """
    seen = min(seconds_to_frames(now, video.rate), video.num_frames)
    if seen < 1:
        raise ValueError(f"now must leave a frame to see, got {now} s at {video.rate:g} frames/s.")
    question = Question(observed=seen, horizon=seconds_to_frames(horizon, video.rate))
    config = InferenceConfig(stride=stride, anchor=anchor)
    ((_, answer),) = answers(model, [(video, question)], config)
    return answer.prediction


def next_actions(
    model: Anticipator,
    batches: DataLoader[tuple[Observation, Target]] | Sequence[tuple[Observation, Target]],
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Float[np.ndarray, "clip label"]]:
    """Probabilities of the next action of every clip, by head, in the order of the batches.

    Raises:
        ValueError: The model does not name next actions.
    """
    model.eval().to(device)
    found: dict[str, list[Float[np.ndarray, "clip label"]]] = {}
    coming = iter(batches)
    for _ in progress(range(len(batches)), "predict"):
        x, _ = next(coming)
        answers = [prediction.next for prediction in _answered(model, x, device)]
        for head in model.taxonomy.heads:
            rows = [answer[head] for answer in answers if answer is not None and head in answer]
            if len(rows) < len(answers):
                raise ValueError(
                    f"{type(model).__name__} names no next {head}; take a model of next actions."
                )
            found.setdefault(head, []).append(torch.stack(rows).float().cpu().numpy())
    return {head: np.concatenate(rows) for head, rows in found.items()}


def online_answers(
    model: Anticipator,
    videos: Sequence[Video],
    ahead: tuple[float, ...],
    config: InferenceConfig,
    progress: Progress = silent,
) -> Iterator[tuple[int, Prediction]]:
    """What a model of streams says at every step of whole videos, all steps of one in one call.

    Yields the index of a video and the answers on the grid of its steps: every `stride`-th frame
    from the first, wherever the anchor lies.

    Args:
        model: One that answers `Task.ONLINE`.
        videos: With what the model reads.
        ahead: Seconds after each step that it is asked about as well.
        config: How it is run.
        progress: Told how far it is.

    Raises:
        ValueError: Offsets or post-processing are asked for, which look ahead.
    """
    require_no_looking_ahead(config)
    model.eval().to(config.device)
    order = sorted(range(len(videos)), key=lambda i: videos[i].num_frames)
    batches = [order[a : a + config.batch_size] for a in range(0, len(order), config.batch_size)]
    for batch in progress(batches, "predict"):
        x = observed_whole([videos[i] for i in batch], model, config.stride)
        yield from zip(batch, _answered(model, replace(x, ahead=ahead), config.device), strict=True)


def require_no_looking_ahead(config: InferenceConfig) -> None:
    """Raise a ValueError where a model is run so that later steps have a say in earlier ones."""
    if config.offsets or config.postprocess != "none":
        raise ValueError(
            "answers at every step must come from the past alone, got offsets or postprocess, "
            "which look ahead; run the model without."
        )


def require_labels_of_the_past(videos: Sequence[Video]) -> None:
    """Raise a ValueError where the observed labels of an earlier step change with later ones."""
    for video in videos:
        labels = video.observed_labels
        if labels is not None and not isinstance(labels, np.ndarray) and not labels.causal:
            raise ValueError(
                "a model that answers at every step must read labels that come from the past alone,"
                f" got for {video.id} those of a recogniser that looks ahead; name another one with"
                " --labels-from, such as a run of frame-classifier."
            )


def observed_whole(videos: Sequence[Video], model: Anticipator, stride: int) -> Observation:
    """Whole videos as a stream shows them: every `stride`-th frame from the first.

    Raises:
        ValueError: Their observed labels look ahead.
    """
    require_labels_of_the_past(videos)
    num_labels = len(model.taxonomy.labels)
    asked = [Question(observed=video.num_frames) for video in videos]
    samples = [cut(*one, stride, num_labels) for one in zip(videos, asked, strict=True)]
    return collate(samples, model.taxonomy.primary)[0]


def coming_actions(
    model: Anticipator,
    batches: DataLoader[tuple[Observation, Target]] | Sequence[tuple[Observation, Target]],
    device: str = "cpu",
    progress: Progress = silent,
    heads: Sequence[str] = ("verb", "noun"),
) -> dict[str, Float[np.ndarray, "clip place label"]]:
    """Probabilities of the actions that come after every clip, by head, in order.

    Args:
        model: Answers `Task.COMING`.
        batches: Clips.
        device: Where the model runs.
        progress: Told how far it is.
        heads: Whose answers are kept: those of all actions would fill the memory.

    Raises:
        ValueError: The model does not name the actions to come.
    """
    model.eval().to(device)
    found: dict[str, list[Float[np.ndarray, "clip place label"]]] = {}
    asked = iter(batches)
    for _ in progress(range(len(batches)), "predict"):
        x, _ = next(asked)
        answers = [prediction.coming for prediction in _answered(model, x, device)]
        for head in heads:
            rows = [answer[head] for answer in answers if answer is not None and head in answer]
            if len(rows) < len(answers):
                raise ValueError(
                    f"{type(model).__name__} names no coming {head}; take a model of coming "
                    "actions."
                )
            found.setdefault(head, []).append(torch.stack(rows).float().cpu().numpy())
    return {head: np.concatenate(rows) for head, rows in found.items()}


def predict(model: Anticipator, x: Observation, device: str = "cpu") -> list[Prediction]:
    """Predict a batch and bring the answers about the past back to the video's frame grid."""
    return [_held(prediction, x, i) for i, prediction in enumerate(_answered(model, x, device))]


@torch.inference_mode()
def _answered(model: Anticipator, x: Observation, device: str) -> list[Prediction]:
    """What the model says of each observation, its past still on the grid of the observation."""
    return model.predict(x.to(device))


def _read_over(model: Anticipator, x: Observation, config: InferenceConfig) -> list[Prediction]:
    """What the model says from each offset; samples are drawn from the first alone."""
    predictions = _answered(model, x, config.device)
    if config.num_samples:
        first = replace(next(iter(x)), num_samples=config.num_samples)
        (drawn,) = _answered(model, first, config.device)
        predictions[0] = replace(predictions[0], samples=drawn.samples)
    return predictions


def _held(prediction: Prediction, x: Observation, i: int) -> Prediction:
    if prediction.past is None:
        return prediction
    observed = x.frames_observed(i)
    first = x.first_frame(i)
    past = hold_frames(prediction.past, x.stride, observed, first)
    ahead = prediction.ahead
    if ahead is not None:
        ahead = ahead[held_steps(len(ahead), x.stride, observed, first).to(ahead.device)]
    levels = {
        head: hold_frames(named, x.stride, observed, first)
        for head, named in prediction.levels.items()
    }
    return replace(prediction, past=past, levels=levels, ahead=ahead, observed=observed)


def _over_offsets(
    predictions: Sequence[Prediction], x: Observation, config: InferenceConfig
) -> Prediction:
    """One answer on the video's grid from those of every offset of one video."""
    first, observed = predictions[0], x.frames_observed(0)
    frames = _merged(predictions, x, config)
    levels: dict[str, Float[Tensor, "frame label"]] = {}
    for head in first.levels:
        alone = [replace(p, past=p.levels[head], future=None, levels={}) for p in predictions]
        levels[head] = _merged(alone, x, config)
    named = None
    if first.next is not None:
        everything = [prediction.next for prediction in predictions if prediction.next is not None]
        named = {head: torch.stack([n[head] for n in everything]).mean(0) for head in first.next}
    return _split(replace(first, next=named, levels={}), frames, observed, levels)


def _merged(
    predictions: Sequence[Prediction], x: Observation, config: InferenceConfig
) -> Float[Tensor, "frame label"]:
    """Past and future of one video on its own grid from those of every offset."""
    observed = x.frames_observed(0)
    horizon = min(0 if p.future is None else len(p.future) for p in predictions)
    steps = averaged(
        [
            _steps(prediction, x.first_frame(i), config.stride, observed, observed + horizon)
            for i, prediction in enumerate(predictions)
        ]
    )
    if config.postprocess == "median":
        steps = median_filtered(steps, config.postprocess_size)
    frames = restored(steps, config.stride, observed + horizon)
    return postprocessed(frames, config.postprocess, config.postprocess_size)


def _steps(
    prediction: Prediction, offset: int, stride: int, observed: int, num_frames: int
) -> Float[Tensor, "time label"]:
    """Past and future on the steps that one offset has within `num_frames`.

    Steps that `past` does not answer take the row of the future at the frame that they stand for;
    one before the future starts, which rounding can hide from a model, takes its first row.
    """
    past = _past(prediction)[: len(range(offset, num_frames, stride))]
    if prediction.future is None or num_frames == observed:
        return past
    asked = range(offset + stride * len(past), num_frames, stride)
    rows = torch.tensor([max(0, frame - observed) for frame in asked], dtype=torch.long)
    return torch.cat([past, prediction.future[rows.to(past.device)]])


def _finished(prediction: Prediction, config: InferenceConfig) -> Prediction:
    """Post-process the frames of one answer, past and future joined."""
    if config.postprocess == "none":
        return prediction
    past = _past(prediction)
    frames = past if prediction.future is None else torch.cat([past, prediction.future])
    levels = {head: _smoothed(named, config) for head, named in prediction.levels.items()}
    return _split(prediction, _smoothed(frames, config), len(past), levels)


def _smoothed(
    frames: Float[Tensor, "frame label"], config: InferenceConfig
) -> Float[Tensor, "frame label"]:
    if config.postprocess == "median":
        # Each step is held for `stride` frames here: as many as lie from the first of the window's
        # steps to the last.
        window = (config.postprocess_size - 1) * config.stride + 1
        frames = median_filtered(frames, window)
    return postprocessed(frames, config.postprocess, config.postprocess_size)


def _past(prediction: Prediction) -> Float[Tensor, "time label"]:
    if prediction.past is None:
        raise ValueError(
            "offsets and postprocess must go with a model that names the frames seen, got one that "
            "anticipates alone; run it without."
        )
    return prediction.past


def _split(
    prediction: Prediction,
    frames: Float[Tensor, "frame label"],
    observed: int,
    levels: Mapping[str, Float[Tensor, "frame _"]],
) -> Prediction:
    future = None if prediction.future is None else frames[observed:]
    past = frames[:observed]
    return replace(prediction, past=past, levels=levels, future=future, observed=observed)


def _shortened(prediction: Prediction, horizon: int) -> Prediction:
    """The future as far as it was asked for."""
    future, samples = prediction.future, prediction.samples
    return replace(
        prediction,
        future=None if future is None else future[:horizon],
        samples=None if samples is None else samples[:, :horizon],
    )
