"""Probabilities of clips against their labels: recall and accuracy, of all and of the hard subsets.

Metrics sheet, sections 3 and 4: every clip counts, those too of which nothing could be seen.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from actioncast.data.clip_samples import HEADS
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.metrics import in_top_k, mean_over_classes, tail_actions

ScoresByHead = Mapping[str, Float[np.ndarray, "clip label"]]
ClipTask = Literal["next_action", "recognition"]
JOINT = "joint top-5 action"
"""A name of its own for what InAViT calls the recall of actions: the verb among five verbs and the
noun among five nouns, 25 pairs in all. Far above the recall of actions, and no such thing."""
KNOWN = "recall@5 known action"
"""Actions ranked among the pairs that training has. The 3,806 are those of training and validation:
whoever ranks them is told which new pairs come up in validation, and rare classes gain by it."""
BOTH = "top-1 verb and noun"
"""The best verb and the best noun, both right: what papers with two heads call top-1 action."""
SUBSETS = ("overall", "unseen", "tail")


def labels_of(clips: Sequence[ActionClip]) -> dict[str, Int[np.ndarray, " clip"]]:
    """True classes by head."""
    return {head: np.array([clip.label(head) for clip in clips], np.int64) for head in HEADS}


def subsets(
    clips: Sequence[ActionClip], dataset: ClipDataset
) -> dict[str, dict[str, Bool[np.ndarray, " clip"]]]:
    """Which clips belong to each subset, by subset and head."""
    labels = labels_of(clips)
    unseen = np.array([clip.participant in dataset.unseen for clip in clips], bool)
    everything = np.ones(len(clips), bool)
    rare = {head: dataset.tail.get(head, frozenset[int]()) for head in ("verb", "noun")}
    tail = {head: np.isin(labels[head], list(rare[head])) for head in ("verb", "noun")}
    tail["action"] = tail_actions(
        labels["verb"], labels["noun"], tail_verbs=rare["verb"], tail_nouns=rare["noun"]
    )
    return {
        "overall": dict.fromkeys(HEADS, everything),
        "unseen": dict.fromkeys(HEADS, unseen),
        "tail": tail,
    }


def score_clips(
    scores: ScoresByHead, clips: Sequence[ActionClip], dataset: ClipDataset, task: ClipTask
) -> dict[str, dict[str, float]]:
    """Scores in percent by subset, then by metric; NaN where a subset is empty.

    Of next actions class-mean recall@5 comes first, of recognition top-1 accuracy. Ties rank by
    ascending id.
    """
    labels = labels_of(clips)
    top5 = {head: in_top_k(scores[head], labels[head], 5) for head in HEADS}
    top1 = {head: in_top_k(scores[head], labels[head], 1) for head in HEADS}
    joint = top5["verb"] & top5["noun"]
    both = top1["verb"] & top1["noun"]
    known = np.zeros(scores["action"].shape[1], bool)
    known[[clip.action for clip in dataset.clips.get("train", ())]] = True
    # Below every probability, so that what is not known is never among five.
    among_known = np.where(known, scores["action"], -1.0)
    found5 = in_top_k(among_known, labels["action"], 5) & known[labels["action"]]
    found: dict[str, dict[str, float]] = {}
    for subset, members in subsets(clips, dataset).items():
        recall = {
            f"recall@5 {head}": mean_over_classes(top5[head][m], labels[head][m])
            for head, m in members.items()
        }
        first = {f"top-1 {head}": _share(top1[head][m]) for head, m in members.items()}
        five = {f"top-5 {head}": _share(top5[head][m]) for head, m in members.items()}
        own = members["action"]
        mixed = {
            KNOWN: mean_over_classes(found5[own], labels["action"][own]),
            BOTH: _share(both[own]),
            JOINT: mean_over_classes(joint[own], labels["action"][own]),
        }
        parts = [recall, first, five] if task == "next_action" else [first, five, recall]
        found[subset] = {name: value for part in (*parts, mixed) for name, value in part.items()}
    return found


def selecting_score(
    scores: ScoresByHead, clips: Sequence[ActionClip], task: ClipTask, select_by: str
) -> float:
    """The score by which a training selects: recall@5, or top-1 accuracy in recognition.

    Args:
        scores: Probabilities by head.
        clips: What they are of.
        task: What was asked.
        select_by: A head, or mean for the mean of all three.
    """
    labels = labels_of(clips)
    heads = HEADS if select_by == "mean" else (select_by,)
    found: list[float] = []
    for head in heads:
        if task == "recognition":
            found.append(_share(in_top_k(scores[head], labels[head], 1)))
        else:
            found.append(mean_over_classes(in_top_k(scores[head], labels[head], 5), labels[head]))
    return float(np.mean(found))


def _share(hits: Bool[np.ndarray, " clip"]) -> float:
    return float(100 * hits.mean()) if len(hits) else np.nan
