"""What a run or a recipe costs a video, and under which condition that was measured."""

from dataclasses import dataclass, replace

from actioncast.answer_cost import AnswerCost, measure_answer
from actioncast.cost_subjects import Asked, RandomFeatures, open_subject
from actioncast.data import Video
from actioncast.models.actionllm import ActionLLM
from actioncast.progress import Progress, silent
from actioncast.protocols import HorizonSource, Question
from actioncast.recipes import RECIPES
from actioncast.runs import Loaded, trained_protocol
from actioncast.scores import moments_of
from actioncast.types import Task
from actioncast.weightless_cost import is_weightless, measure_weightless


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a model was asked when it was measured."""

    dataset: str
    video: str
    num_frames: int
    """Frames of the whole video."""
    rate: float
    """Frames per second."""
    observed: int
    """Frames seen."""
    horizon: int
    """Frames asked for; 0 of models that do not anticipate whole stretches."""
    stride: int
    """Every how many frames the model reads one."""
    feature_dim: int
    """Width of what it reads."""
    width_assumed: bool
    """Whether that is the recipe's own, for want of data that say it."""
    random_features: bool
    """Whether features were drawn, for want of true ones."""

    def sentence(self) -> str:
        """What models of one table may share; what they read of it is each model's own."""
        asked = f"{self.horizon:,} asked for" if self.horizon else "no future asked for"
        return (
            f"video {self.video} of {self.dataset or 'no data set'}, {self.num_frames:,} frames at "
            f"{self.rate:g}/s: {self.observed:,} seen, {asked}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """A row of the table."""

    model: str
    """Its name in `MODELS`."""
    trained: bool
    """False where it was built for the table alone."""
    cost: AnswerCost
    condition: Condition


def run_cost(what: str, asked: Asked, name: str = "", progress: Progress = silent) -> RunCost:
    """Measure one answer of a run, a checkpoint or a recipe.

    Args:
        what: A run folder, a checkpoint folder or the name of a recipe of whole videos, which is
            built untrained.
        asked: The condition.
        name: What the progress is called.
        progress: Told how far it is.

    Raises:
        ValueError, FileNotFoundError: It is none of these, or something to measure it is missing.
    """
    loaded = open_subject(what, asked)
    model, video = loaded.checkpoint.model, _video(loaded, asked)
    if what in RECIPES and video.observed_labels is None:
        # Whoever will name the actions seen, a model that reads them reads as many.
        video = replace(video, observed_labels=video.frames())
    question = _question(loaded, video, asked)
    if isinstance(model, ActionLLM) and is_weightless(model):
        cost = measure_weightless(model, video, question, loaded.inference())
    else:
        cost = measure_answer(
            model,
            video,
            question,
            loaded.inference(device=asked.device),
            ahead=moments_of(model) if Task.ONLINE in model.tasks else (),
            name=name or what,
            progress=progress,
        )
    # Of what is resampled, the features that it was made of.
    features = (loaded.dataset.made_from or loaded.dataset).videos[video.id].features
    assert features is not None, "what was measured has features"
    drawn = isinstance(features, RandomFeatures)
    return RunCost(
        model=loaded.checkpoint.name,
        trained=what not in RECIPES,
        cost=cost,
        condition=Condition(
            dataset=loaded.dataset.name,
            video=video.id,
            num_frames=video.num_frames,
            rate=video.rate,
            observed=question.observed,
            horizon=question.horizon,
            stride=loaded.stride,
            feature_dim=features.num_features,
            width_assumed=isinstance(features, RandomFeatures) and features.assumed,
            random_features=drawn,
        ),
    )


def _video(loaded: Loaded, asked: Asked) -> Video:
    dataset = loaded.dataset
    if asked.video and asked.video not in dataset.videos:
        raise ValueError(
            f"{dataset.name} has no video {asked.video!r}; leave --video out, or name one of its "
            f"{len(dataset.videos)} videos, {next(iter(dataset.videos))} for example."
        )
    if asked.video:
        return dataset.videos[asked.video]
    tested = dataset.select(dataset.split(loaded.split).test)
    if not tested:
        raise ValueError(f"split {loaded.split} of {dataset.name} tests no video; say --video.")
    return sorted(tested, key=lambda video: (video.num_frames, video.id))[(len(tested) - 1) // 2]


def _question(loaded: Loaded, video: Video, asked: Asked) -> Question:
    """The shares in frames; the length is told to models that were trained knowing it."""
    observed = int(asked.observed_ratio * video.num_frames)
    if not observed:
        raise ValueError(
            f"observed_ratio must leave a frame to see, got {asked.observed_ratio:g} of "
            f"{video.num_frames} frames."
        )
    if Task.LONG_TERM not in loaded.checkpoint.model.tasks:
        return Question(observed=observed)
    told = trained_protocol(loaded).horizon_source is HorizonSource.TRUE_LENGTH
    return Question(
        observed=observed,
        horizon=int(asked.horizon_ratio * video.num_frames),
        video_length=video.num_frames if told else None,
    )
