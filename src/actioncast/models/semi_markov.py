"""Semi-Markov roll-outs: the strongest forecast from labels that learns nothing.

No paper; the recipe is common. What follows the labels seen so far is drawn from what followed the
longest suffix of them in training, for how long from the durations of that label; the action going
on lasts at least as long as it has. Many futures drawn give each frame a distribution P, and the
answer is the largest `P / prior ** balance`, because the mean over classes rewards rare labels.

Where the protocol gives the length of the video away, durations are shares of it; otherwise they
are seconds, and nothing depends on where the video ends. How many labels to look back and how far
to balance is chosen for either case by cross-validation within the training videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int

from actioncast.layers.rollouts import DurationPool, Outset, roll_out
from actioncast.layers.transcripts import Corpus, SuffixIndex, Transcript
from actioncast.models.counting import Forecast, Question, TranscriptAnticipator
from actioncast.timeline import Taxonomy
from actioncast.types import TrainingTimeline

_CELLS = 50
"""Points of the longest horizon at which a choice is scored."""
_MEMORY = 2**23
"""Numbers that the marginals of videos forecast together may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemiMarkovConfig:
    """What is counted, what is chosen inside the training videos, and how many futures are drawn.

    With one context and one balance, or with training videos of one group, nothing is chosen and
    the first of each is used.
    """

    contexts: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Labels to look back at most, to choose from."""
    balances: tuple[float, ...] = (0.6, 0.0, 0.2, 0.4, 0.8, 1.0)
    """Powers of the prior to divide by, to choose from; 0 answers the most likely label."""
    min_count: int = 3
    """Times that a context of two labels or more must have occurred to be used."""
    num_rollouts: int = 400
    """Futures drawn for each video."""
    inner_folds: int = 5
    """Folds of the training groups that the choice is scored on."""
    observed_ratios: tuple[float, ...] = (0.2, 0.3)
    """Shares of a training video to observe when scoring a choice."""
    horizon_ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    """Shares of a training video to anticipate when scoring a choice."""
    seed: int = 0
    """Of the roll-outs."""

    def __post_init__(self) -> None:
        if not self.contexts or min(self.contexts) < 1:
            raise ValueError(f"contexts must be label counts of 1 or more, got {self.contexts}.")
        if not self.balances or min(self.balances) < 0:
            raise ValueError(f"balances must be powers of 0 or more, got {self.balances}.")
        if min(self.min_count, self.num_rollouts, self.inner_folds - 1) < 1:
            raise ValueError(
                "min_count and num_rollouts must be at least 1 and inner_folds 2, "
                f"got {self.min_count}, {self.num_rollouts} and {self.inner_folds}."
            )
        ratios = (*self.observed_ratios, *self.horizon_ratios)
        if not self.observed_ratios or not self.horizon_ratios or min(ratios) <= 0:
            raise ValueError(
                "observed_ratios and horizon_ratios must be positive shares, "
                f"got {self.observed_ratios} and {self.horizon_ratios}."
            )
        if max(self.observed_ratios) + max(self.horizon_ratios) > 1:
            raise ValueError(
                "an observed and a horizon ratio must fit in the video together, "
                f"got {self.observed_ratios} and {self.horizon_ratios}."
            )

    def build(self, taxonomy: Taxonomy) -> "SemiMarkov":
        """Build the model for these labels."""
        return SemiMarkov(self, taxonomy)


@dataclass(frozen=True, slots=True)
class _Dynamics:
    index: SuffixIndex
    pool: DurationPool
    prior: Float[np.ndarray, " label"]


@final
class SemiMarkov(TranscriptAnticipator):
    """Draws futures from what followed the same labels in training; answers balanced marginals.

    `future` is `P / prior ** balance` normalised, where P counts the futures that have not ended:
    asked for a frame, the model takes it that the video goes on that long. `next` is not balanced;
    at time 0 it is counted exactly. In `samples` the last action of an ended future goes on.
    """

    chosen_contexts: Int[torch.Tensor, "2"]
    """For a clock of seconds and one of shares."""
    chosen_balances: Float[torch.Tensor, "2"]

    def __init__(self, config: SemiMarkovConfig, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.config = config
        contexts, balances = config.contexts[:1] * 2, config.balances[:1] * 2
        self.register_buffer("chosen_contexts", torch.tensor(contexts))
        self.register_buffer("chosen_balances", torch.tensor(balances, dtype=torch.float64))

    def fit(self, timelines: Sequence[TrainingTimeline]) -> None:
        """Store the transcripts and choose context and balance for either clock."""
        super().fit(timelines)
        for relative in (False, True):
            context, balance = self._choose(relative)
            self.chosen_contexts[int(relative)] = context
            self.chosen_balances[int(relative)] = balance

    def forecast(self, asked: Sequence[Question]) -> list[Forecast]:
        """Roll out as many videos together as memory allows."""
        forecasts: list[Forecast] = []
        together: list[Question] = []
        size = 0
        for question in asked:
            width = max(self.num_labels, question.num_samples)
            cost = max(question.horizon * width, 20 * self.config.num_rollouts)
            if together and size + cost > _MEMORY:
                forecasts += self._forecast_together(together)
                together, size = [], 0
            together.append(question)
            size += cost
        return forecasts + self._forecast_together(together) if together else forecasts

    def _dynamics(self, relative: bool) -> _Dynamics:
        if relative not in self._indexes:
            context = int(self.chosen_contexts[int(relative)])
            self._indexes[relative] = self._count(self.corpus(relative=relative), context)
        return self._indexes[relative]

    def _count(self, corpus: Corpus, context: int) -> _Dynamics:
        return _Dynamics(
            SuffixIndex.of(corpus, self.num_labels, context, self.config.min_count),
            DurationPool.of(corpus, self.num_labels),
            corpus.shares(self.num_labels),
        )

    def _forecast_together(self, asked: Sequence[Question]) -> list[Forecast]:
        relative, num = asked[0].relative, self.config.num_rollouts
        dynamics = self._dynamics(relative)
        weights = _weights(dynamics.prior, float(self.chosen_balances[int(relative)]))
        scale = np.array([question.scale for question in asked])
        horizons = np.array([question.horizon for question in asked])
        times = np.array([question.anticipation for question in asked]) / scale
        outset = self._outset([question.past for question in asked], scale, dynamics)
        limits = np.maximum(horizons / scale, times)
        drawn = roll_out(dynamics.index, dynamics.pool, outset, limits, num)
        counts = drawn.counts(scale, horizons, self.num_labels)
        later = drawn.at(times, self.num_labels)
        samples: Sequence[Int[np.ndarray, "sample _"] | None] = [None] * len(asked)
        if num_samples := asked[0].num_samples:
            limits = horizons / scale
            drawn = roll_out(dynamics.index, dynamics.pool, outset, limits, num_samples)
            samples = drawn.frames(scale, horizons)
        forecasts = []
        for i, question in enumerate(asked):
            following = dynamics.index.next_probs(outset.history[i])
            current = following
            if outset.labels[i] < self.num_labels:
                current = self.one_hot(outset.labels[i : i + 1])[0]
            future = _hold(counts[i], current) * weights
            future /= future.sum(1, keepdims=True)
            if question.anticipation and later[i].any():
                following = later[i] / later[i].sum()
            following = following.astype(np.float32)
            forecasts.append(Forecast(future=future, next=following, samples=samples[i]))
        return forecasts

    def _outset(
        self, seen: Sequence[Transcript], scale: Float[np.ndarray, " video"], dynamics: _Dynamics
    ) -> Outset:
        context = dynamics.index.context
        return Outset.of(seen, scale, self.num_labels, context, self.config.seed)

    def _choose(self, relative: bool) -> tuple[int, float]:
        """Context and balance with the best mean over classes on the inner folds.

        The counts of all folds are pooled; the score is the mean over every pair of an observed
        and a horizon ratio. The first of equals wins.
        """
        config, groups = self.config, self.transcripts.groups.cpu().numpy()
        num_folds = min(config.inner_folds, len(np.unique(groups)))
        options = [(context, balance) for context in config.contexts for balance in config.balances]
        if num_folds < 2 or len(options) == 1:
            return options[0]
        corpus, fold = self.corpus(relative=relative), groups % num_folds
        ratios, num_labels = config.observed_ratios, self.num_labels
        hits = np.zeros((len(options), len(ratios), len(config.horizon_ratios), num_labels))
        total = np.zeros(hits.shape[1:])
        for held_out in range(num_folds):
            rest = corpus.select(np.flatnonzero(fold != held_out))
            dynamics = {context: self._count(rest, context) for context in config.contexts}
            for i, ratio in enumerate(ratios):
                exam = self._exam(np.flatnonzero(fold == held_out), ratio, relative)
                total[i] += exam.frames(np.ones_like(exam.truth, bool), num_labels)
                marginals = {context: self._sit(exam, own) for context, own in dynamics.items()}
                for j, (context, balance) in enumerate(options):
                    weights = _weights(dynamics[context].prior, balance)
                    right = (marginals[context] * weights).argmax(2) == exam.truth
                    hits[j, i] += exam.frames(right, num_labels)
        moc = (hits / np.maximum(total, 1)).sum(-1) / (total > 0).sum(-1)
        return options[int(moc.mean((1, 2)).argmax())]

    def _exam(self, videos: Int[np.ndarray, " video"], ratio: float, relative: bool) -> "_Exam":
        """The training videos asked about what follows after a share of them."""
        seen, truth, lengths = [], [], []
        horizon_ratios = np.array(self.config.horizon_ratios)
        offsets = (np.arange(_CELLS) + 0.5) / _CELLS * horizon_ratios.max()
        for video in videos.tolist():
            whole = self.transcripts.transcript(video)
            ends = whole.durations.cumsum()
            observed = int(ratio * ends[-1])
            durations = np.diff(np.minimum(ends, observed), prepend=0)
            seen.append(Transcript(whole.labels[durations > 0], durations[durations > 0]))
            asked = observed + (offsets * ends[-1]).astype(int)
            at = np.searchsorted(ends, np.minimum(asked, ends[-1] - 1), "right")
            truth.append(whole.labels[at])
            lengths.append(int(ends[-1]))
        num_frames = np.array(lengths, float)
        return _Exam(
            seen=seen,
            scale=num_frames if relative else self.transcripts.rates.cpu().numpy()[videos],
            num_frames=num_frames,
            horizon=float(horizon_ratios.max()),
            truth=np.stack(truth),
            inside=offsets < horizon_ratios[:, None],
        )

    def _sit(self, exam: "_Exam", dynamics: _Dynamics) -> Float32[np.ndarray, "video cell label"]:
        limits = exam.horizon * exam.num_frames / exam.scale
        outset = self._outset(exam.seen, exam.scale, dynamics)
        drawn = roll_out(dynamics.index, dynamics.pool, outset, limits, self.config.num_rollouts)
        cells = np.full(len(limits), _CELLS)
        counts = drawn.counts(_CELLS / limits, cells, self.num_labels)
        current = np.eye(self.num_labels + 1)[outset.labels, :-1]
        return np.stack([_hold(own, now) for own, now in zip(counts, current, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exam:
    seen: list[Transcript]
    scale: Float[np.ndarray, " video"]
    num_frames: Float[np.ndarray, " video"]
    horizon: float
    """The longest, as a share of the video."""
    truth: Int[np.ndarray, "video cell"]
    inside: Bool[np.ndarray, "ratio cell"]
    """Whether a cell lies in the horizon."""

    def frames(
        self, chosen: Bool[np.ndarray, "video cell"], num_labels: int
    ) -> Float[np.ndarray, "ratio label"]:
        """Frames of each true label that the chosen cells stand for, in each horizon."""
        weights = self.num_frames[:, None] * chosen
        counts = [
            np.bincount(self.truth[:, own].ravel(), weights[:, own].ravel(), num_labels)
            for own in self.inside
        ]
        return np.stack(counts)


def _weights(prior: Float[np.ndarray, " label"], balance: float) -> Float32[np.ndarray, " label"]:
    return (np.where(prior > 0, prior, 1.0) ** -balance).astype(np.float32)


def _hold(
    counts: Int[np.ndarray, "cell label"], before: Float[np.ndarray, " label"]
) -> Float32[np.ndarray, "cell label"]:
    """Fill cells that no future reaches with the cell before."""
    reached = counts.any(1)
    if reached.all():
        return counts.astype(np.float32)
    last = np.maximum.accumulate(np.where(reached, np.arange(1, len(counts) + 1), 0))
    return np.concatenate([before[None], counts])[last].astype(np.float32)
