"""Coming actions against what came: Ego4D's edit distance of candidate sequences.

Metrics sheet, section 6: of K candidates the best counts, chosen anew for verbs, for nouns and for
pairs. In percent; lower is better.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from actioncast.metrics import action_ids, edit_at_z

ComingByHead = Mapping[str, Float[np.ndarray, "clip place label"]]
Sequences = Mapping[str, Int[np.ndarray, "clip place"]]
DISTANCES: Mapping[Literal["levenshtein", "damerau"], str] = {
    "levenshtein": "",
    "damerau": ", swaps as one",
}
"""Both distances by what their scores' names end with: that of the released code first."""
COMING_HEADS = ("verb", "noun")


def candidates(
    probs: ComingByHead, count: int, seed: int
) -> dict[str, Int[np.ndarray, "clip place candidate"]]:
    """Candidate sequences of verbs, nouns and pairs.

    One is the most probable class of every place, the lower one of equals. Several are drawn, place
    by place and verb and noun apart, as the released baseline draws its own; they depend on the
    seed and the answers alone.

    Args:
        probs: Of verbs and of nouns.
        count: K.
        seed: Of the draws.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1 candidate, got {count}.")
    found: dict[str, Int[np.ndarray, "clip place candidate"]] = {}
    for i, head in enumerate(COMING_HEADS):
        if count == 1:
            found[head] = probs[head].argmax(-1)[..., None]
        else:
            found[head] = _drawn(probs[head], count, np.random.default_rng([seed, i]))
    found["action"] = action_ids(found["verb"], found["noun"])
    return found


def score_coming(
    probs: ComingByHead, truth: Sequences, count: int = 1, seed: int = 0
) -> dict[str, float]:
    """Edit distance at Z and the area under it by head, with either distance.

    Args:
        probs: Of verbs and of nouns.
        truth: Verbs and nouns that came.
        count: Candidates of each clip.
        seed: Of their draws.

    Raises:
        ValueError: There are not as many answers as came.
    """
    size = truth["verb"].shape[1]
    if any(probs[head].shape[:2] != truth[head].shape for head in COMING_HEADS):
        raise ValueError(
            f"a model must name as many coming actions as are asked for, {size}, got "
            f"{probs['verb'].shape[1]}; build it for them."
        )
    true = {**truth, "action": action_ids(truth["verb"], truth["noun"])}
    said = candidates(probs, count, seed)
    found: dict[str, float] = {}
    for distance, ending in DISTANCES.items():
        scored = {
            head: edit_at_z(said[head], true[head], distance=distance)
            for head in (*COMING_HEADS, "action")
        }
        found |= {f"ED@{size} {head}{ending}": 100 * s.at[-1] for head, s in scored.items()}
        found |= {f"AUED {head}{ending}": 100 * s.aued for head, s in scored.items()}
    return {name: float(score) for name, score in found.items()}


def selecting_distance(probs: ComingByHead, truth: Sequences, select_by: str) -> float:
    """The score by which a training selects, higher is better: 100 less the edit distance.

    Args:
        probs: Of verbs and of nouns; their most probable classes are the one candidate.
        truth: Verbs and nouns that came.
        select_by: A head, or mean for the mean of all three.
    """
    found = score_coming(probs, truth)
    heads: Sequence[str] = (*COMING_HEADS, "action") if select_by == "mean" else (select_by,)
    size = truth["verb"].shape[1]
    return 100 - float(np.mean([found[f"ED@{size} {head}"] for head in heads]))


def _drawn(
    probs: Float[np.ndarray, "clip place label"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "clip place candidate"]:
    """Classes drawn as they are probable."""
    below = np.cumsum(probs, axis=-1, dtype=np.float64)
    below /= below[..., -1:]
    draws = rng.random((count, *probs.shape[:2], 1))
    # A draw beyond all but the last sum is the last class's; one of no probability is never drawn.
    return np.stack([(below <= draw).sum(-1) for draw in draws], axis=-1)
