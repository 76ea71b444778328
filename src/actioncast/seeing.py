"""Forecasts to look at: of test videos with their truth, and of a user's own input."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actioncast.data import Dataset, Video
from actioncast.inference import answers
from actioncast.own_files import own_video, read_truth
from actioncast.plotting import SUFFIXES as PICTURES
from actioncast.plotting import TimelineRow, draw_timelines
from actioncast.protocols import Question
from actioncast.runs import (
    Loaded,
    caption_folder_of,
    captioned,
    label_giver_of,
    load_checkpoints,
    load_run,
    resampled_by,
    trained_protocol,
)
from actioncast.timeline import LabelSpace, Segment, Taxonomy, Timeline, seconds_to_frames
from actioncast.timeline_files import SUFFIXES as FILES
from actioncast.timeline_files import write_timeline
from actioncast.types import Prediction, Task

MOST_FRAMES = 1_000_000
"""Longest horizon of one forecast: nine hours at 30 frames per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run says about one video."""

    name: str
    timeline: Timeline
    taxonomy: Taxonomy
    """The level of labels that the run names, and those beside it."""
    now: float
    """Seconds where the future starts."""
    truth: Timeline | None = None
    futures: tuple[Timeline, ...] = ()
    """Other futures, drawn."""

    def rows(self) -> list[TimelineRow]:
        """Truth above, forecast below, then the futures drawn."""
        rows = [TimelineRow(name=self.name, timeline=self.timeline, now=self.now)]
        rows += [
            TimelineRow(name=f"future {i}", timeline=future, now=self.now)
            for i, future in enumerate(self.futures, 1)
        ]
        if self.truth is None:
            return rows
        return [TimelineRow(name="truth", timeline=self.truth, now=math.inf), *rows]


def forecast_video(
    loaded: Loaded, video: Video, question: Question, name: str, num_samples: int = 0
) -> Forecast:
    """Ask one question about one video; the past comes from observed labels if not answered.

    Raises:
        ValueError: Futures are to be drawn from a model that draws none.
    """
    running = loaded.inference(num_samples)
    ((_, answer),) = answers(loaded.checkpoint.model, [(video, question)], running)
    timeline = answer.prediction.timeline()
    if answer.prediction.past is None:
        seen = _observed(answer.prediction, video, question)
        timeline = Timeline.of([*seen, *timeline], timeline.labels)
    futures = _futures(answer.prediction) if num_samples else ()
    return Forecast(
        name=name,
        timeline=timeline,
        taxonomy=answer.prediction.taxonomy,
        now=answer.prediction.now,
        futures=futures,
    )


def _futures(prediction: Prediction) -> tuple[Timeline, ...]:
    if prediction.samples is None:
        raise ValueError(
            "--num-samples must go with a model that draws futures, got one that does not."
        )
    labels = prediction.taxonomy.labels
    return tuple(
        Timeline.of(
            (
                replace(s, start=prediction.now + s.start, end=prediction.now + s.end)
                for s in Timeline.from_frames(frames, prediction.rate, labels)
            ),
            labels,
        )
        for frames in prediction.samples.cpu().numpy()
    )


def _observed(prediction: Prediction, video: Video, question: Question) -> Timeline:
    labels = prediction.taxonomy.labels
    told = video.at_own_level(video.labels_seen(question.observed))
    return Timeline((), labels) if told is None else Timeline.from_frames(told, video.rate, labels)


def require_picture(path: Path) -> None:
    """Refuse early what cannot be drawn.

    Raises:
        ValueError: The suffix is that of no picture.
    """
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"--plot must end with {', '.join(PICTURES)}, got {path}; rename it.")


def require_one_level(taxonomies: Mapping[str, Taxonomy]) -> None:
    """Raise a ValueError where runs, by name, speak two levels of labels: no picture shows both."""
    spaces = {taxonomy.labels.names for taxonomy in taxonomies.values()}
    if len(spaces) < 2 or not any(taxonomy.levels for taxonomy in taxonomies.values()):
        return
    said: list[str] = []
    for run, taxonomy in taxonomies.items():
        what = "the {} one" if said else "names the {} level"
        said.append(f"{run} {what.format(taxonomy.level)} ({taxonomy.primary})")
    raise ValueError(
        f"a picture must show labels of one level, got two: {', '.join(said)}; draw each level by "
        "itself."
    )


def draw_test_videos(
    runs: Mapping[str, Sequence[Loaded]],
    paths: Sequence[Path],
    videos: Sequence[str] = (),
    observed_ratio: float = 0.3,
) -> list[Path]:
    """Draw test videos: the truth above, each run's answer stacked below.

    Args:
        runs: Loaded runs by name.
        paths: Pictures to write; with several videos, the video's name goes before the suffix.
        videos: Test videos; absent, the first one of the first split.
        observed_ratio: Share of the video seen.

    Returns:
        The files written.
    """
    require_one_level({run: one[0].checkpoint.model.taxonomy for run, one in runs.items()})
    first = next(iter(runs.values()))[0]
    chosen = list(videos) or [first.dataset.split(first.split).test[0]]
    written: list[Path] = []
    for name in chosen:
        rows: list[TimelineRow] = []
        for run, loaded in runs.items():
            one = _tested_on(loaded, name)
            video = one.dataset.videos[name]
            question = _question(one, video, observed_ratio)
            forecast = forecast_video(one, video, question, Path(run).name)
            rows += forecast.rows()
            if not rows or rows[0].name != "truth":
                rows.insert(0, TimelineRow(name="truth", timeline=video.timeline, now=math.inf))
        for path in paths:
            at = path if len(chosen) == 1 else path.with_stem(f"{path.stem}-{name}")
            draw_timelines(rows, at, title=name, now=forecast.now)
            written.append(at)
    return written


def _tested_on(loaded: Sequence[Loaded], video: str) -> Loaded:
    dataset = loaded[0].dataset
    if video not in dataset.videos:
        raise ValueError(f"{dataset.name} has no video {video!r}; see its groundTruth folder.")
    for one in loaded:
        if one.split and video in dataset.split(one.split).test:
            return one
    raise ValueError(
        f"{video} is no test video of the splits this run was trained on "
        f"({', '.join(one.split for one in loaded)}); its picture would flatter. Use `actioncast "
        "predict` to see it all the same."
    )


def forecast_input(
    run: Path,
    source: str,
    *,
    data: Path | None = None,
    split: str = "",
    now: float = 0.0,
    horizon: float = 0.0,
    rate: float = 0.0,
    truth: Path | None = None,
    num_samples: int = 0,
    device: str = "cpu",
    labels_from: str = "",
    trunk: str = "",
    captions: str = "",
) -> Forecast:
    """Forecast from a feature file, a label file or a video of the run's data set.

    Args:
        run: Run or checkpoint folder.
        source: A `.npy` file, a `.txt` file of labels, or the name of a video.
        data: Where the data set lies that holds the video.
        split: Which split's checkpoint.
        now: Seconds seen; 0 is all of a file, and the first 30 % of a data set's video.
        horizon: Seconds to anticipate; 0 is as far as was seen, or half of a data set's video.
        rate: Frames per second of the input; 0 is the training data's.
        truth: A label file of the whole video.
        num_samples: Futures to draw besides.
        device: Where the model runs.
        labels_from: Who names the actions observed, if not who named them in training.
        trunk: Where the frozen model of the run lies, if not where it lay in training.
        captions: Folder of captions, if not that of the training; of a file `new.npy` it holds
            `new.vtt` or the like.

    Raises:
        ValueError, FileNotFoundError: Input and checkpoint do not fit.
    """
    if min(now, horizon, rate) < 0:
        raise ValueError(
            f"now, horizon and rate must be 0 or more, got {now:g}, {horizon:g} and {rate:g}."
        )
    if not now * max(rate, 1) <= MOST_FRAMES or not horizon * max(rate, 1) <= MOST_FRAMES:
        raise ValueError(
            f"--now and --horizon must be seconds that fit into {MOST_FRAMES:,} frames, got "
            f"{now:g} and {horizon:g}."
        )
    name = run.name
    if Path(source).suffix not in (".npy", ".txt"):
        if truth is not None or rate:
            raise ValueError(
                f"--truth and --rate must go with a file, got {source}, whose data set tells both."
            )
        loaded = load_run(run, data, split, device, labels_from, trunk, captions)
        tested = [x for x in loaded if x.split and source in x.dataset.split(x.split).test]
        one = tested[0] if tested else loaded[0]
        if source not in one.dataset.videos:
            raise ValueError(
                f"the input must be a .npy file of features, a .txt file of labels, or a video of "
                f"{one.dataset.name}, got {source!r}."
            )
        video = one.dataset.videos[source]
        question = _asked(_question(one, video, 0.3), video, now, horizon)
        forecast = forecast_video(one, video, question, name, num_samples)
        return replace(forecast, truth=video.timeline)
    checkpoint = load_checkpoints(run, split, device, trunk=trunk)[0]
    taxonomy = checkpoint.model.taxonomy
    rate = rate or float(checkpoint.run["rate"])
    video = own_video(Path(source), checkpoint.run["training"]["input"], checkpoint.model, rate)
    dataset = Dataset(
        name=Path(source).stem,
        taxonomy=taxonomy,
        rate=rate,
        videos={video.id: video},
        splits={},
    )
    if (giver := label_giver_of(checkpoint, labels_from, device)) is not None:
        dataset, _ = giver.given(dataset, str(checkpoint.run.get("split", "")))
    if (written := caption_folder_of(checkpoint, captions, device)) is not None:
        dataset, _ = captioned(checkpoint, written, dataset, str(checkpoint.run.get("split", "")))
    dataset = dataset.resampled(resampled_by(checkpoint))
    video, grid = dataset.videos[video.id], dataset.rate
    seen = min(seconds_to_frames(now, grid), video.num_frames) if now else video.num_frames
    if seen < 1:
        raise ValueError(f"--now must leave a frame to see, got {now} s at {grid:g} frames/s.")
    question = Question(
        observed=seen, horizon=max(1, seconds_to_frames(horizon, grid)) if horizon else seen
    )
    one = Loaded(checkpoint=checkpoint, dataset=dataset, split="")
    forecast = forecast_video(one, video, question, name, num_samples)
    if truth is not None:
        frames = read_truth(truth, taxonomy)
        forecast = replace(forecast, truth=Timeline.from_frames(frames, rate, taxonomy.labels))
    return forecast


def _question(loaded: Loaded, video: Video, observed_ratio: float) -> Question:
    """As in training, of a share of a video; a model that only segments sees all of it."""
    if Task.LONG_TERM not in loaded.checkpoint.model.tasks:
        return Question(observed=video.num_frames)
    return trained_protocol(loaded).question(video.num_frames, observed_ratio, video.rate)


def _asked(question: Question, video: Video, now: float, horizon: float) -> Question:
    if now:
        seen = min(max(1, seconds_to_frames(now, video.rate)), video.num_frames)
        question = replace(question, observed=seen)
    if horizon:
        question = replace(question, horizon=max(1, seconds_to_frames(horizon, video.rate)))
    if now or horizon:
        # Whoever asks in seconds does not know how long the video is.
        question = replace(question, video_length=None, step_ratio=None)
    return question


def write_forecast(forecast: Forecast, rows: Sequence[TimelineRow], path: Path) -> None:
    """Write a picture of all rows, or the forecast as a timeline file, by suffix.

    Raises:
        ValueError: The suffix is neither.
    """
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        draw_timelines(rows, path, now=forecast.now)
    elif suffix in FILES:
        write_timeline(forecast.timeline, path, now=forecast.now)
    else:
        raise ValueError(
            f"--out must end with {', '.join([*PICTURES, *FILES])}, got {path}; rename it."
        )


def forecast_facts(forecast: Forecast) -> dict[str, object]:
    """The forecast as JSON."""
    facts: dict[str, object] = {
        "run": forecast.name,
        **({"label_level": forecast.taxonomy.level} if forecast.taxonomy.levels else {}),
        "now": forecast.now,
        "segments": [
            {
                **_segment(segment, forecast.timeline.labels),
                "score": round(segment.score, 4),
                "part": "future" if segment.start >= forecast.now - 1e-9 else "past",
            }
            for segment in forecast.timeline
        ],
        "end": forecast.timeline.end,
    }
    if forecast.futures:
        facts["futures"] = [
            [_segment(segment, future.labels) for segment in future] for future in forecast.futures
        ]
    return facts


def _segment(segment: Segment, labels: LabelSpace) -> dict[str, object]:
    return {
        "start": round(segment.start, 4),
        "end": round(segment.end, 4),
        "label": labels.names[segment.label],
    }
