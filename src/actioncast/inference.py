"""From annotated videos to predictions on the video's frame grid: the only caller of `predict`.

Strides are done in `data.collate` and undone here, nowhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from actioncast.data.base import Video
from actioncast.data.collate import Anchor, collate, cut, first_step
from actioncast.layers.decoding import hold_frames
from actioncast.models.base import Anticipator
from actioncast.progress import Progress, silent
from actioncast.protocols.base import Question
from actioncast.timeline import seconds_to_frames
from actioncast.types import Observation, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """How a model is run over videos."""

    stride: int = 1
    """every how many frames the model reads one"""
    anchor: Anchor = "start"
    """which observed frame is always read: the first or the last"""
    batch_size: int = 16
    """videos answered at once"""
    num_samples: int = 0
    """futures to draw besides the most likely one"""
    device: str = "cpu"
    """where the model runs: cpu, cuda, cuda:1"""

    def __post_init__(self) -> None:
        if self.stride < 1 or self.batch_size < 1 or self.num_samples < 0:
            raise ValueError(
                "stride and batch_size must be at least 1 and num_samples at least 0, got "
                f"{self.stride}, {self.batch_size} and {self.num_samples}."
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
    """
    model.eval().to(config.device)
    order = sorted(range(len(asked)), key=lambda i: asked[i][1].observed)
    batches = [order[a : a + config.batch_size] for a in range(0, len(order), config.batch_size)]
    for batch in progress(batches, "predict"):
        samples = [
            cut(*asked[i], config.stride, len(model.taxonomy.labels), config.anchor) for i in batch
        ]
        x, _ = collate(samples, model.taxonomy.primary)
        predictions = predict(
            model, replace(x, num_samples=config.num_samples), config.device, config.anchor
        )
        for i, prediction in zip(batch, predictions, strict=True):
            video, question = asked[i]
            yield i, Answer(video=video, question=question, prediction=prediction)


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


@torch.inference_mode()
def predict(
    model: Anticipator, x: Observation, device: str = "cpu", anchor: Anchor = "start"
) -> list[Prediction]:
    """Predict a batch and bring the answers about the past back to the video's frame grid."""
    predictions = model.predict(x.to(device))
    return [_restored(prediction, x, i, anchor) for i, prediction in enumerate(predictions)]


def _restored(prediction: Prediction, x: Observation, i: int, anchor: Anchor) -> Prediction:
    if prediction.past is None:
        return prediction
    observed = x.frames_observed(i)
    past = hold_frames(prediction.past, x.stride, observed, first_step(observed, x.stride, anchor))
    return replace(prediction, past=past, observed=observed)
