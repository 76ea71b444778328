"""Every value of a training on short actions: what is asked, what is seen, how it is learned."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from actioncast.data.action_history import HistoryConfig
from actioncast.data.visor import VisorConfig
from actioncast.models import ModelConfig
from actioncast.models.next_action_baselines import PairNGramConfig
from actioncast.optimisation import Optimisation
from actioncast.protocols.coming import ComingActions
from actioncast.protocols.next_action import ClipPlace, ClipProtocol, NextAction, Recognition
from actioncast.questions.modes import QuestionMode
from actioncast.video.base import BackboneConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTrainConfig(Optimisation):
    """Everything that a training on short actions depends on, besides the data."""

    model: Annotated[ModelConfig, tyro.conf.AvoidSubcommands] = field(
        default_factory=PairNGramConfig
    )
    """the model and its sizes; widths of features and modalities follow what it is shown"""
    dataset: str = "epic100"
    """folder name of the data set under the data root, where --data does not name one"""
    task: Literal["next_action", "recognition", "coming_actions"] = "next_action"
    """name the action to come, the one that the clip shows, or many to come in their order"""
    anticipation_time: float = 1.0
    """seconds from the last moment seen to the start of the action, for next_action"""
    span: float = 64 / 30
    """seconds of video seen, for next_action and coming_actions"""
    num_frames: int = 16
    """frames read of them, evenly"""
    frames: ClipPlace = "before_action"
    """where the frames lie: inside_action shows frames of the very action, as the released InAViT
    does, and is no anticipation"""
    num_observed: int = 8
    """actions observed, for coming_actions"""
    num_actions: int = 20
    """actions to come that are asked for, for coming_actions"""
    every_example: bool = False
    """ask after the last of each video as well, which Ego4D's released code leaves out, for
    coming_actions"""
    candidates: int = 1
    """sequences of which the best is scored, drawn by their probabilities, for coming_actions; one
    is the most probable class of each place"""
    input: Literal["history", "features", "frames"] = "history"
    """the first modality: observed past actions, feature files, or frames"""
    history: HistoryConfig = field(default_factory=HistoryConfig)
    """how much of the past is told"""
    exchange: float = 0.0
    """share of the training clips, drawn anew each time, in which all nouns take one another's
    places, observed and to come alike; for history"""
    clip_share: float = 1.0
    """share of the training clips that an epoch shows, drawn anew for each"""
    supervise: Literal["clip", "steps"] = "clip"
    """what trains: the clip asked for, or besides the action at each step shown and the one that
    starts the anticipation time after it; steps need a history with a rate, or every_step"""
    features: Path = Path("features")
    """folder of feature files, one .npy a video, or RULSTM's LMDB; relative to the data set"""
    feature_rate: float = 30.0
    """steps per second of feature files"""
    every_step: bool = False
    """read every step of feature files within the span, in place of moments spread evenly: fewer
    where the video has just begun, never the same one twice; num_frames is then their number"""
    videos: Path = Path("videos")
    """folder of the videos, or of their frames, for frames; relative to the data set"""
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name=""))
    """a frozen backbone that makes tokens of frames; without a name the model's own sees them"""
    frame_cache: Path = Path("cache")
    """folder that keeps what a frozen backbone made"""
    objects: bool = False
    """tell VISOR's objects in view as a modality besides"""
    object_file: Path = Path("../visor/visor_boxes.csv.gz")
    """their file; relative to the data set"""
    visor: VisorConfig = field(default_factory=VisorConfig)
    """which objects are told"""
    questions: QuestionMode = QuestionMode.NONE
    """whose actions the questions are about; with oracle a score is none of recognition"""
    question_file: str = ""
    """questions from files instead of templates: `{part}` stands for train and for validation"""
    text_encoder: str = "minilm"
    """who reads the questions: minilm, hash:64, or a folder or hub name"""
    text_cache: str = ""
    """folder that keeps what was encoded; absent, nothing is kept"""
    questions_together: bool = False
    """both questions encoded as one text, instead of one after the other"""
    question_seed: int = 0
    """which paraphrase of a template is asked"""
    select_by: Literal["verb", "noun", "action", "mean"] = "action"
    """whose score selects: class-mean recall@5, top-1 accuracy in recognition, or the edit distance
    of coming_actions"""

    def __post_init__(self) -> None:
        Optimisation.__post_init__(self)
        self.protocol()
        if not 0 < self.feature_rate < 1e6:
            raise ValueError(
                f"feature_rate must be a positive number of steps per second, got "
                f"{self.feature_rate}."
            )
        if self.frames == "inside_action" and self.input == "history":
            raise ValueError(
                "frames inside_action moves them into the action, got input history, which has "
                "none; say --frames before_action."
            )
        recognised = self.questions is QuestionMode.PREDICTED and self.task == "recognition"
        if recognised and not self.question_file:
            raise ValueError(
                "predicted questions of recognition need a question file made from a recogniser's "
                "answers, got none; say --question-file, or other questions."
            )
        if self.input == "frames":
            self._check_backbones()
        if not 0 <= self.exchange < 1 or (self.exchange and self.input != "history"):
            raise ValueError(
                "exchange must be a share within [0, 1), above 0 with input history alone, got "
                f"{self.exchange} with input {self.input}."
            )
        self._check_steps()
        self._check_coming()
        if self.question_file and self.questions in (QuestionMode.NONE, QuestionMode.GENERIC):
            raise ValueError(
                f"question_file must go with oracle or predicted questions, got {self.questions}."
            )

    def _check_steps(self) -> None:
        if not 0 < self.clip_share <= 1:
            raise ValueError(f"clip_share must be a share within (0, 1], got {self.clip_share}.")
        coming = self.task == "coming_actions" and self.input == "features"
        stepped = self.every_step or coming or (self.input == "history" and self.history.rate > 0)
        if self.supervise == "steps" and (not stepped or self.task == "recognition"):
            raise ValueError(
                "supervise steps must go with anticipation from steps in time, got "
                f"{self.task} from {self.input} without; say --history.rate 4, or --input features "
                "--every-step."
            )
        if not self.every_step:
            return
        before = self.task == "next_action" and self.frames == "before_action"
        if self.input != "features" or not before:
            raise ValueError(
                "every_step reads feature files up to a moment before the action, got input "
                f"{self.input}, task {self.task} and frames {self.frames}; leave it out."
            )
        if self.num_frames != (steps := round(self.span * self.feature_rate)):
            raise ValueError(
                f"num_frames must be the steps of {self.span:g} s at {self.feature_rate:g} a "
                f"second with every_step, {steps}, got {self.num_frames}."
            )

    def _check_backbones(self) -> None:
        own: BackboneConfig | None = getattr(self.model, "backbone", None)
        named = [one for one in (self.backbone, own) if one is not None and one.name]
        if len(named) != 1:
            raise ValueError(
                f"input frames needs one backbone, got {len(named)}; say --backbone.name for a "
                "frozen one, or --model.backbone.name for one that learns with the model."
            )
        if self.backbone.trained:
            raise ValueError(
                "backbone must stay as it is, got trained; one that learns is the model's own: say "
                "--model.backbone.name."
            )
        if named[0].num_frames != self.num_frames:
            raise ValueError(
                f"num_frames must be those that {named[0].name} sees, {named[0].num_frames}, got "
                f"{self.num_frames}."
            )

    def _check_coming(self) -> None:
        if self.candidates < 1 or (self.candidates > 1 and self.task != "coming_actions"):
            raise ValueError(
                "candidates must be at least 1, above that with task coming_actions alone, got "
                f"{self.candidates} with {self.task}."
            )
        if self.task != "coming_actions":
            return
        asked = self.questions is not QuestionMode.NONE or self.objects
        if self.input == "frames" or asked or self.exchange or self.history.rate:
            raise ValueError(
                "coming_actions reads features or the actions observed, without questions, "
                "objects, an exchange or a rate of the history; take those away."
            )

    def coming(self) -> ComingActions:
        """What is asked where the actions to come are."""
        return ComingActions(
            num_observed=self.num_observed,
            num_actions=self.num_actions,
            span=self.span,
            feature_rate=self.feature_rate,
            every_example=self.every_example,
        )

    def protocol(self) -> ClipProtocol:
        """What a clip is asked, and which moments of it may be seen."""
        if self.task == "coming_actions":
            return self.coming()
        if self.task == "recognition":
            return Recognition(num_frames=self.num_frames)
        return NextAction(
            anticipation_time=self.anticipation_time,
            span=self.span,
            num_frames=self.num_frames,
            clip=self.frames,
        )
