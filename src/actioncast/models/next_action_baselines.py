"""Next actions by counting what followed which observed actions: what every model must beat.

No paper: class frequencies, and n-grams with absolute discounting (Ney, Essen and Kneser, 1994), to
which can be added that a noun used lately is used again (the cache of Kuhn and De Mori, 1990) and
that what is done to a thing follows what was last done to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from actioncast.models.base import ClipCounter
from actioncast.models.pair_counts import ContextCounts, combined, counted_shares, last_verbs
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE, Observation, Prediction, Target, Task

Histories = Int64[np.ndarray, "clip place"]
"""Observed actions, the latest last, -1 before the first."""
Probabilities = Float32[np.ndarray, "clip label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFrequencyConfig:
    """The same answer to everybody: how frequent each class is in training."""

    def build(self, taxonomy: Taxonomy) -> "ClassFrequency":
        """Build the model for these labels."""
        return ClassFrequency(self, taxonomy)


@final
class ClassFrequency(ClipCounter):
    """Answers with the shares of the classes, whatever was seen."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.NEXT_ACTION})

    def __init__(self, config: ClassFrequencyConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        for head, space in taxonomy.heads.items():
            self.register_buffer(f"counts_{head}", torch.zeros(len(space), dtype=torch.long))

    def fit_clips(self, batches: Iterable[tuple[Observation, Target]]) -> None:
        """Count the classes; replaces whatever was counted before."""
        for head in self.taxonomy.heads:
            getattr(self, f"counts_{head}").zero_()
        for _, y in batches:
            for head, labels in y.next.items():
                counts = getattr(self, f"counts_{head}")
                counts += torch.bincount(labels[labels != IGNORE], minlength=len(counts))

    def predict(self, x: Observation) -> list[Prediction]:
        """The same for every clip; before anything was counted, every class alike."""
        shares = {}
        for head in self.taxonomy.heads:
            counts = getattr(self, f"counts_{head}").double()
            counts = counts if counts.any() else counts + 1
            shares[head] = (counts / counts.sum()).float()
        return [
            Prediction(
                taxonomy=self.taxonomy, rate=x.rate, observed=x.frames_observed(i), next=shares
            )
            for i in range(len(x))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairNGramConfig:
    """Order, discount and balance were chosen on held-out training participants."""

    order: int = 2
    """most observed actions that a context has"""
    discount: float = 0.9
    """taken from every count for shorter contexts"""
    repeat: float = 0.0
    """share of a noun's probability that goes to nouns observed before; 0 is the plain n-gram"""
    decay: float = 0.9
    """weight of an observed noun in that over the weight of the one after it"""
    by_object: bool = False
    """what is done to a noun follows what was last done to it, not only the last action"""
    balance: float = 0.75
    """exponent of the share of a class by which its probability is divided, which a mean over
    classes rewards; 0 is the plain probability"""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4:
            raise ValueError(f"order must be within 1 and 4, got {self.order}.")
        for name in ("discount", "repeat", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within [0, 1], got {getattr(self, name)}.")
        if not 0 <= self.balance <= 2:
            raise ValueError(f"balance must be within 0 and 2, got {self.balance}.")

    def build(self, taxonomy: Taxonomy) -> "PairNGram":
        """Build the model for these labels."""
        return PairNGram(self, taxonomy)


@final
class PairNGram(ClipCounter):
    """Names the noun by what nouns and actions went before, then the verb for each noun.

    The verb by itself is named by an n-gram of its own; with `by_object` it is the sum over nouns.
    Of actions that are no pairs there is one n-gram over actions.
    """

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.NEXT_ACTION})
    histories: Int[Tensor, "clip place"]
    answers: Int[Tensor, " clip"]

    def __init__(self, config: PairNGramConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        self.pairs = np.array(taxonomy.pairs, np.int64).reshape(-1, 2)
        self.register_buffer("histories", torch.zeros(0, 1, dtype=torch.int32))
        self.register_buffer("answers", torch.zeros(0, dtype=torch.int32))
        # Made of the buffers when first needed, never saved.
        self._index: _Index | None = None
        self.register_load_state_dict_post_hook(_forget_index)  # type: ignore[no-untyped-call]

    def fit_clips(self, batches: Iterable[tuple[Observation, Target]]) -> None:
        """Store what was observed before every labelled clip; replaces what was stored before."""
        head = "action" if len(self.pairs) else self.taxonomy.primary
        rows: list[Histories] = []
        answers: list[Int64[np.ndarray, " clip"]] = []
        for x, y in batches:
            labels: np.ndarray = y.next[head].cpu().numpy()
            known = labels != IGNORE
            rows.append(histories_of(x)[known])
            answers.append(labels[known])
        place = max((row.shape[1] for row in rows), default=1)
        stacked = [np.pad(r, ((0, 0), (place - r.shape[1], 0)), constant_values=-1) for r in rows]
        device = self.histories.device
        self.histories = torch.from_numpy(np.concatenate(stacked).astype(np.int32)).to(device)
        self.answers = torch.from_numpy(np.concatenate(answers).astype(np.int32)).to(device)
        self._index = None

    def predict(self, x: Observation) -> list[Prediction]:
        """Probabilities of every head.

        Raises:
            ValueError: Nothing was counted, or the observation does not name its actions.
        """
        if not len(self.answers):
            raise ValueError(
                "the model must have counted before it predicts; call fit_clips() first."
            )
        if self._index is None:
            self._index = _Index(
                self.config,
                self.taxonomy,
                self.histories.cpu().numpy().astype(np.int64),
                self.answers.cpu().numpy().astype(np.int64),
            )
        probs = {
            head: torch.from_numpy(rows).to(x.features.device)
            for head, rows in self._index.probabilities(histories_of(x)).items()
        }
        return [
            Prediction(
                taxonomy=self.taxonomy,
                rate=x.rate,
                observed=x.frames_observed(i),
                next={head: rows[i] for head, rows in probs.items()},
            )
            for i in range(len(x))
        ]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, own in list(self.named_buffers(recurse=False)):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.shape != own.shape:
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _forget_index(module: torch.nn.Module, _: Any) -> None:
    assert isinstance(module, PairNGram)
    module._index = None


def histories_of(x: Observation) -> Histories:
    """The observed actions of every clip, the latest in the last column.

    Raises:
        ValueError: The observation does not name them.
    """
    if x.labels is None:
        raise ValueError(
            "a counting model reads the observed actions, got an observation without them; set "
            "Observation.labels to annotated or recognised actions."
        )
    labels: np.ndarray = x.labels.cpu().numpy()
    named: np.ndarray = (x.valid & (x.labels >= 0)).cpu().numpy()
    # A stable sort moves the actions to the end, in their order.
    order = np.argsort(named, axis=1, kind="stable")
    return np.take_along_axis(np.where(named, labels, -1), order, axis=1).astype(np.int64)


class _Index:
    """What followed what in training, ready to be looked up."""

    def __init__(
        self,
        config: PairNGramConfig,
        taxonomy: Taxonomy,
        histories: Histories,
        answers: Int64[np.ndarray, " clip"],
    ) -> None:
        self.config = config
        self.primary = taxonomy.primary
        self.sizes = {head: len(space) for head, space in taxonomy.heads.items()}
        self.pairs = np.array(taxonomy.pairs, np.int64).reshape(-1, 2)
        asked = {self.primary: answers}
        if len(self.pairs):
            asked = {"action": answers}
            asked |= {"verb": self.pairs[answers, 0], "noun": self.pairs[answers, 1]}
        self.shares = {
            head: counted_shares(labels, self.sizes[head]) for head, labels in asked.items()
        }
        by_kind = self._kinds(histories)
        heads = ("verb", "noun") if len(self.pairs) else (self.primary,)
        self.chains = {
            head: [
                ContextCounts(self._key(by_kind, context), asked[head], self.sizes[head])
                for context in self._contexts(head)
            ]
            for head in heads
        }
        self.verbs: list[ContextCounts] = []
        if len(self.pairs):
            verb, noun = asked["verb"], asked["noun"]
            self.verbs = [
                ContextCounts(key[:, 0], verb, self.sizes["verb"])
                for key in self._verb_keys(by_kind, noun[:, None])
            ]

    def probabilities(self, histories: Histories) -> dict[str, Probabilities]:
        """By head; rows sum to 1."""
        by_kind = self._kinds(histories)
        plain = {head: self._chain(head, by_kind, len(histories)) for head in self.chains}
        if len(self.pairs):
            nouns = self._with_repeats(plain["noun"], by_kind["noun"])
            actions = nouns[:, self.pairs[:, 1]] * self._verbs_of_nouns(by_kind)
            plain |= {"noun": nouns, "action": actions}
            if self.config.by_object:
                verb_of = np.eye(self.sizes["verb"], dtype=np.float32)[self.pairs[:, 0]]
                plain["verb"] = actions @ verb_of
        found: dict[str, Probabilities] = {}
        for head, rows in plain.items():
            rows = rows / self.shares[head] ** self.config.balance  # noqa: PLW2901
            found[head] = (rows / rows.sum(1, keepdims=True)).astype(np.float32)
        return found

    def _kinds(self, histories: Histories) -> dict[str, Histories]:
        if not len(self.pairs):
            return {self.primary: histories}
        known = np.where(histories >= 0, histories, 0)
        verbs, nouns = (np.where(histories >= 0, self.pairs[known, i], -1) for i in (0, 1))
        return {"action": histories, "verb": verbs, "noun": nouns}

    def _contexts(self, head: str) -> list[tuple[tuple[str, int], ...]]:
        """From the shortest to the longest: kind and how far back, 0 the latest."""
        whole = "action" if len(self.pairs) else self.primary
        contexts: list[tuple[tuple[str, int], ...]] = []
        for back in range(self.config.order):
            before = tuple((whole, i) for i in range(back))
            # The head's own label before the pair: seen more often.
            contexts += [(*before, (kind, back)) for kind in dict.fromkeys((head, whole))]
        return contexts

    def _key(
        self, by_kind: Mapping[str, Histories], context: Sequence[tuple[str, int]]
    ) -> Int64[np.ndarray, " clip"]:
        columns = [_back(by_kind[kind], back) for kind, back in context]
        return combined(columns, max(self.sizes.values()))

    def _chain(self, head: str, by_kind: Mapping[str, Histories], count: int) -> Probabilities:
        rows = np.tile(self.shares[head], (count, 1))
        for counts, context in zip(self.chains[head], self._contexts(head), strict=True):
            counts.refine(rows, self._key(by_kind, context), self.config.discount)
        return rows

    def _with_repeats(self, nouns: Probabilities, observed: Histories) -> Probabilities:
        """Some of the probability for nouns observed before, the latest most."""
        if not self.config.repeat:
            return nouns
        cache = np.zeros_like(nouns)
        rows = np.arange(len(observed))
        for back in range(observed.shape[1]):
            noun = _back(observed, back)
            known = noun >= 0
            cache[rows[known], noun[known]] += self.config.decay**back
        total = cache.sum(1, keepdims=True)
        mixed = (1 - self.config.repeat) * nouns + self.config.repeat * cache / total.clip(1e-9)
        return np.where(total > 0, mixed, nouns).astype(np.float32)

    def _verb_keys(
        self, by_kind: Mapping[str, Histories], nouns: Int64[np.ndarray, "_ noun"]
    ) -> list[Int64[np.ndarray, "clip noun"]]:
        """Contexts of a verb whose noun is given, for every noun asked about."""
        size = max(self.sizes.values())
        before = np.broadcast_to(
            _back(by_kind["verb"], 0)[:, None], (len(by_kind["verb"]), nouns.shape[1])
        )
        nouns = np.broadcast_to(nouns, before.shape)
        if not self.config.by_object:
            return [combined([nouns], size), combined([nouns, before], size)]
        last = last_verbs(by_kind["verb"], by_kind["noun"], nouns)
        return [
            combined([nouns], size),
            combined([last, before], size),
            combined([nouns, last], size),
        ]

    def _verbs_of_nouns(self, by_kind: Mapping[str, Histories]) -> Float[np.ndarray, "clip action"]:
        """Probability of the verb of every pair, its noun given."""
        verbs, nouns = self.pairs.T
        shares = self.shares["verb"][verbs]
        total = np.bincount(nouns, weights=shares, minlength=self.sizes["noun"])
        rows = np.tile((shares / total[nouns]).astype(np.float32), (len(by_kind["verb"]), 1))
        every = np.arange(self.sizes["noun"])[None]
        for counts, keys in zip(self.verbs, self._verb_keys(by_kind, every), strict=True):
            rows = counts.refine_pairs(rows, keys, verbs, nouns, self.config.discount)
        return rows


def _back(histories: Histories, back: int) -> Int64[np.ndarray, " clip"]:
    """The action so many before the latest; -1 where there is none."""
    if back >= histories.shape[1]:
        return np.full(len(histories), -1, np.int64)
    return histories[:, -1 - back]
