"""The contract that every model signs."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar, final, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Target, Task, TrainingTimeline

Losses = dict[str, Float[Tensor, ""]]
StateT = TypeVar("StateT")


class Anticipator(nn.Module, ABC):
    """Names the actions seen so far and those to come.

    `forward` belongs to each model; the rest of the package calls only the methods below.
    Features come in on the grid of the observation; the future goes out on the grid of the video
    (see `types.py`).
    """

    tasks: ClassVar[frozenset[Task]]
    """The questions that this model can answer."""
    trains_on_whole_videos: ClassVar[bool] = False
    """Whether it is shown whole videos in training and hides parts of them itself, so that it
    learns every one of its tasks from them."""
    causal: ClassVar[bool] = False
    """Whether what it says of a step seen (`Prediction.past`) never depends on later steps."""
    reads_labels: bool = False
    """Whether it reads `Observation.labels`, the observed actions as somebody named them."""
    reads_captions: bool = False
    """Whether it reads the modality `captions`, what was written about what is observed."""
    answers_told_length: bool = False
    """Whether its answer runs to the end of a video whose length it is told, whatever the horizon;
    inference then asks for all of it, and cuts it to the horizon last."""
    taxonomy: Taxonomy

    @abstractmethod
    def losses(self, x: Observation, y: Target) -> Losses:
        """Weighted loss terms by name; the trainer sums them."""

    @abstractmethod
    def predict(self, x: Observation) -> list[Prediction]:
        """One prediction for each observation of the batch."""

    def begin_epoch(self, epoch: int) -> None:
        """Told by the trainer which epoch comes, from 0, for losses that change as it goes on."""

    def fast_parameters(self) -> list[nn.Parameter]:
        """Those that learn at a peak rate of their own (`fast_lr`); none, if not said."""
        return []

    def slow_parameters(self) -> list[nn.Parameter]:
        """Those that were trained before, of a backbone (`backbone_lr`); none, if not said."""
        return []


class CountingAnticipator(Anticipator):
    """An anticipator that learns by counting whole timelines and has nothing to descend.

    It reads `Observation.labels`. What it has counted lives in its buffers and is saved with them.
    """

    reads_labels = True

    @abstractmethod
    def fit(self, timelines: Sequence[TrainingTimeline]) -> None:
        """Count; replaces whatever was counted before."""

    @final
    def losses(self, x: Observation, y: Target) -> Losses:  # noqa: ARG002
        """No terms: there is no parameter to move."""
        return {}


class ClipCounter(Anticipator):
    """Names the next action by counting clips and has nothing to descend.

    It reads `Observation.labels`, the observed actions. What it has counted lives in its buffers
    and is saved with them.
    """

    @abstractmethod
    def fit_clips(self, batches: Iterable[tuple[Observation, Target]]) -> None:
        """Count; replaces whatever was counted before."""

    @final
    def losses(self, x: Observation, y: Target) -> Losses:  # noqa: ARG002
        """No terms: there is no parameter to move."""
        return {}


@runtime_checkable
class CountsLabels(Protocol):
    """What a model also is that must know how frequent classes are before it descends."""

    def count_labels(self, labels: Mapping[str, Int[Tensor, " clip"]]) -> None:
        """Take in the class of every training clip, by head; replaces what it counted before."""


@runtime_checkable
class AnswersAhead(Protocol):
    """What a model of `Task.ONLINE` also is: it answers the moments that it was built for."""

    @property
    def ahead(self) -> tuple[float, ...]:
        """Seconds after each step; `Observation.ahead` must be these, or empty."""


class CountsFirst(ABC):
    """What a model also is that must see how its training labels lie before it descends."""

    @abstractmethod
    def count(self, timelines: Sequence[TrainingTimeline]) -> None:
        """Take in the videos that it is about to train on; replaces what it counted before.

        A resumed run counts again, so that what was counted need not be saved.
        """


class RecurrentAnticipator(Anticipator, Generic[StateT]):
    """An anticipator whose memory of the past has a fixed size."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> StateT:
        """The memory before the first frame."""

    @abstractmethod
    def step(self, x: Observation, state: StateT) -> tuple[list[Prediction], StateT]:
        """Take new frames in; stepping over a video equals predicting it at once."""
