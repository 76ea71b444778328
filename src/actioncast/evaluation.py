"""Protocol x split -> scores: one row a video, one total, with a passport."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int

from actioncast.data import Video
from actioncast.inference import Answer, InferenceConfig, answers
from actioncast.metrics import long_term_scores, moc, moc_counts, segmentation_scores
from actioncast.models.base import Anticipator
from actioncast.online_evaluation import score_online
from actioncast.progress import Progress, silent
from actioncast.protocols import HorizonSource, LongTerm, Online, Question, Segmentation
from actioncast.scores import Scores, moments_of, require_task
from actioncast.timeline import UNLABELLED
from actioncast.types import Task, most_likely

if TYPE_CHECKING:
    from actioncast.training import TrainConfig

Frames = Int[np.ndarray, " _"]
Counts = Int[np.ndarray, " label"]
Combine = Literal["most_likely", "mean_of_samples", "best_of_samples"]
"""Which future is scored: the most likely one, every sampled one (scores averaged), or for each
video and window the sample that scores best, which an oracle chose."""


def score_segmentation(
    model: Anticipator,
    videos: Sequence[Video],
    protocol: Segmentation,
    config: InferenceConfig,
    progress: Progress = silent,
) -> Scores:
    """Frame accuracy, edit and F1 of whole videos.

    The other levels of a hierarchy that the model names stand after the mean, which they have no
    say in, each under its head: the same scores, and `distinct`, the distinct labels answered for
    each distinct true one, by which one sees a level that has collapsed to a few.

    Raises:
        ValueError: The model does not segment.
    """
    require_task(model, Task.SEGMENTATION)
    asked = [(video, Question(observed=video.num_frames)) for video in videos]
    primary = model.taxonomy.primary
    found: dict[str, dict[int, Frames]] = {primary: {}}
    for i, answer in answers(model, asked, config, progress):
        assert answer.prediction.past is not None
        found[primary][i] = most_likely(answer.prediction.past)
        for head, named in answer.prediction.levels.items():
            # Of a head that a video is not labelled at, `frames_of` would say the primary one.
            if all(head in video.levels for video in videos):
                found.setdefault(head, {})[i] = most_likely(named)
    total: dict[str, float] = {}
    rows: dict[str, dict[str, float]] = {video.id: {} for video in videos}
    for head, by_video in found.items():
        predicted = [by_video[i] for i in range(len(videos))]
        truth = [v.frames() if head == primary else v.frames_of(head) for v in videos]
        scores = segmentation_scores(
            predicted,
            truth,
            background=model.taxonomy.heads[head].background_labels,
            legacy_last_segment=protocol.legacy_last_segment,
        )
        overlaps = [f"f1@{round(100 * overlap)}" for overlap in scores.counts.overlaps]
        f1 = dict(zip(overlaps, scores.f1, strict=True))
        of_videos = {"mof": scores.video_mof, "edit": scores.video_edit}
        own = {"mof": scores.mof, "edit": scores.edit, **f1}
        said = "" if head == primary else f"{head} "
        if head == primary:
            own["mean"] = scores.avg
        else:
            of_videos["distinct"] = _distinct(predicted, truth)
            own["distinct"] = float(of_videos["distinct"].mean())
        total |= {f"{said}{name}": value for name, value in own.items()}
        for i, video in enumerate(videos):
            rows[video.id] |= {f"{said}{name}": float(v[i]) for name, v in of_videos.items()}
    return Scores(total=total, videos=rows)


def score_long_term(
    model: Anticipator,
    videos: Sequence[Video],
    protocol: LongTerm,
    config: InferenceConfig,
    combine: Combine = "most_likely",
    progress: Progress = silent,
) -> Scores:
    """MoC of every window; frames of a window that were not predicted are wrong.

    Raises:
        ValueError: The model does not anticipate, or has no samples to combine.
    """
    require_task(model, Task.LONG_TERM)
    if combine != "most_likely" and not config.num_samples:
        raise ValueError(f"combine={combine} needs num_samples of 1 or more, got 0.")
    places = [
        (ratio, v)
        for ratio in protocol.observed_ratios
        for v, video in enumerate(videos)
        if _is_shown(video, ratio, protocol)
    ]
    if empty := set(protocol.observed_ratios) - {ratio for ratio, _ in places}:
        raise ValueError(
            f"a share must leave a frame to see of one video at least, got {min(empty):g}, which "
            "leaves none of any; observe a larger share."
        )
    asked = [
        (videos[v], protocol.question(videos[v].num_frames, ratio, videos[v].rate))
        for ratio, v in places
    ]
    futures: dict[int, list[Frames]] = {}
    for i, answer in answers(model, asked, config, progress):
        futures[i] = _futures(answer, combine)
    by_ratio: dict[float, dict[int, list[Frames]]] = {r: {} for r in protocol.observed_ratios}
    for i, (ratio, v) in enumerate(places):
        by_ratio[ratio][v] = futures[i]
    truth = [video.frames() for video in videos]
    num_labels = len(model.taxonomy.labels)
    draws = max(1, config.num_samples) if combine != "most_likely" else 1
    per_draw = [
        _cells(
            {r: {v: f[d] for v, f in fs.items()} for r, fs in by_ratio.items()},
            truth,
            num_labels,
            protocol,
        )
        for d in range(draws)
    ]
    if combine == "best_of_samples":
        total = _best(by_ratio, truth, num_labels, protocol)
    else:
        total = {name: float(np.mean([cells[name] for cells in per_draw])) for name in per_draw[0]}
    total["mean"] = float(np.mean(list(total.values())))
    chosen = np.max if combine == "best_of_samples" else np.mean
    rows = {
        video.id: {
            name: float(chosen([hits(f) for f in by_ratio[ratio][v]]))
            for ratio in protocol.observed_ratios
            if v in by_ratio[ratio]
            for beta in protocol.horizon_ratios
            for name, hits in [
                (
                    f"mof {ratio:g}/{beta:g}",
                    _window_accuracy(truth[v], protocol.window(len(truth[v]), ratio, beta)),
                )
            ]
        }
        for v, video in enumerate(videos)
    }
    return Scores(total=total, videos=rows)


def selection_score(model: Anticipator, held: Sequence[Video], config: "TrainConfig") -> float:
    """The score by which training selects a checkpoint."""
    device = str(next((p.device for p in model.parameters()), "cpu"))
    running = InferenceConfig(
        stride=config.stride,
        anchor=config.anchor,
        offsets=config.offsets,
        postprocess=config.postprocess,
        postprocess_size=config.postprocess_size,
        batch_size=config.batch_size,
        device=device,
    )
    if config.select_by == "online":
        return score_online(model, held, Online(ahead=moments_of(model)), running).total["mean"]
    if config.select_by == "long_term":
        return score_long_term(model, held, config.protocol(), running).total["mean"]
    segmented = score_segmentation(model, held, Segmentation(), running).total
    if config.select_by == "segmentation":
        return segmented["mof"]
    anticipated = score_long_term(model, held, config.protocol(), running).total
    return (segmented["mean"] + anticipated["mean"]) / 2


def mean_over_splits(splits: Mapping[str, Scores]) -> dict[str, float]:
    """The unweighted mean over splits, as every paper reports."""
    names = next(iter(splits.values())).total
    return {name: float(np.mean([s.total[name] for s in splits.values()])) for name in names}


def _distinct(predicted: Sequence[Frames], truth: Sequence[Frames]) -> Float[np.ndarray, " video"]:
    """Distinct labels answered for each distinct true one of every video, in percent."""
    return np.array(
        [
            100 * len(np.unique(said[said != UNLABELLED])) / len(np.unique(true))
            for said, true in zip(predicted, truth, strict=True)
        ]
    )


def _futures(answer: Answer, combine: Combine) -> list[Frames]:
    prediction, horizon = answer.prediction, answer.question.horizon
    if combine == "most_likely":
        assert prediction.future is not None
        return [_whole(most_likely(prediction.future), horizon)]
    if prediction.samples is None:
        raise ValueError(
            f"combine={combine} needs a model that samples futures; this one does not."
        )
    return [_whole(sample, horizon) for sample in prediction.samples.cpu().numpy()]


def _whole(frames: Frames, horizon: int) -> Frames:
    """A future of exactly `horizon` frames; those not predicted name nothing."""
    return np.pad(frames[:horizon], (0, max(0, horizon - len(frames))), constant_values=UNLABELLED)


def _is_shown(video: Video, ratio: float, protocol: LongTerm) -> bool:
    """Whether a share leaves a frame to see; a video of which none is left is refused, or not."""
    if protocol.question(video.num_frames, ratio, video.rate).observed:
        return True
    if protocol.too_short == "refuse":
        raise ValueError(
            f"video {video.id} is so short that a share of {ratio:g} leaves no frame to see; take "
            "it out of the split, observe a larger share, or say --too-short leave_out."
        )
    return False


def _cells(
    predicted: Mapping[float, Mapping[int, Frames]],
    truth: Sequence[Frames],
    num_labels: int,
    protocol: LongTerm,
) -> dict[str, float]:
    # With the true length the published windows end with the horizon asked for (see
    # LongTerm.window); with the others a horizon that ends inside a window misses frames.
    known = protocol.horizon_source is HorizonSource.TRUE_LENGTH
    cells = [
        cell
        for ratio, futures in predicted.items()
        for cell in long_term_scores(
            {ratio: list(futures.values())},
            [truth[v] for v in futures],
            num_labels,
            horizon_ratios=protocol.horizon_ratios,
            missing="skip" if known else "wrong",
        )
    ]
    return {f"moc {cell.observed_ratio:g}/{cell.horizon_ratio:g}": cell.moc for cell in cells}


def _best(
    by_ratio: Mapping[float, Mapping[int, Sequence[Frames]]],
    truth: Sequence[Frames],
    num_labels: int,
    protocol: LongTerm,
) -> dict[str, float]:
    """MoC when an oracle picks, for each video and window, the sample of highest MoC."""
    total: dict[str, float] = {}
    for ratio, futures in by_ratio.items():
        for beta in protocol.horizon_ratios:
            correct, frames = np.zeros(num_labels, int), np.zeros(num_labels, int)
            for v, draws in futures.items():
                labels = truth[v]
                start, end = protocol.window(len(labels), ratio, beta)
                counts = [
                    moc_counts(_whole(draw, end - start), labels[start:end], num_labels)
                    for draw in draws
                ]
                best = max(counts, key=_merit) if end > start else counts[0]
                correct, frames = correct + best[0], frames + best[1]
            total[f"moc {ratio:g}/{beta:g}"] = moc(correct, frames)
    return total


def _merit(counts: tuple[Counts, Counts]) -> tuple[float, int]:
    """MoC, and frames hit among samples that differ by rounding alone."""
    return round(moc(*counts), 9), int(counts[0].sum())


def _window_accuracy(truth: Frames, window: tuple[int, int]) -> Callable[[Frames], float]:
    start, end = window

    def accuracy(future: Frames) -> float:
        if end <= start:
            return float("nan")
        return float(100 * (_whole(future, end - start) == truth[start:end]).mean())

    return accuracy
