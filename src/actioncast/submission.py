"""Answers as the EPIC-KITCHENS-100 challenges read them, and a check that nothing is missing.

One JSON object: `version`, `challenge`, the supervision levels `sls_pt`, `sls_tl` and `sls_td`
(https://arxiv.org/abs/2008.09890), and `results` by narration id, each with the scores of every
verb, of every noun, and of exactly 100 actions named `verb,noun` (metrics sheet, section 3).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from actioncast.clip_evaluation import ClipTask, ScoresByHead
from actioncast.data.clips import ActionClip
from actioncast.files import replace_file
from actioncast.timeline import Taxonomy

VERSION = "0.2"
NUM_ACTIONS = 100
"""Actions that are scored for every clip, the likeliest."""
CHALLENGES: Mapping[ClipTask, str] = {
    "next_action": "action_anticipation",
    "recognition": "action_recognition",
}
SHOWN = 10
"""How many of many ids a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """The levels that a submission declares, each 0 to 5; -1 declares none."""

    pretraining: int = -1
    """sls_pt: 0 none, up to private video data"""
    labels: int = -1
    """sls_tl: 0 none, up to more than the published labels"""
    data: int = -1
    """sls_td: 0 none, up to more than the published videos"""

    def __post_init__(self) -> None:
        for name in ("pretraining", "labels", "data"):
            if not -1 <= getattr(self, name) <= 5:
                raise ValueError(
                    f"the supervision level of {name} must be within 0 and 5, or -1 for none, got "
                    f"{getattr(self, name)}."
                )


def write_submission(
    path: Path,
    scores: ScoresByHead,
    clips: Sequence[ActionClip],
    taxonomy: Taxonomy,
    task: ClipTask,
    supervision: Supervision = Supervision(),
) -> None:
    """Write a submission and read it back to check it.

    Args:
        path: The file.
        scores: Probabilities by head.
        clips: What they are of.
        taxonomy: With `pairs`.
        task: What was asked.
        supervision: What the submission declares.

    Raises:
        ValueError: The taxonomy has fewer than 100 actions.
    """
    if len(taxonomy.pairs) < NUM_ACTIONS:
        raise ValueError(
            f"a submission scores {NUM_ACTIONS} actions of each clip, got a taxonomy of "
            f"{len(taxonomy.pairs)}."
        )
    names = [f"{verb},{noun}" for verb, noun in taxonomy.pairs]
    results: dict[str, Any] = {}
    for i, clip in enumerate(clips):
        actions = scores["action"][i]
        best = np.argsort(-actions, kind="stable")[:NUM_ACTIONS]
        results[clip.id] = {
            "verb": _by_number(scores["verb"][i]),
            "noun": _by_number(scores["noun"][i]),
            "action": {names[k]: _shown(actions[k]) for k in best.tolist()},
        }
    content = {
        "version": VERSION,
        "challenge": CHALLENGES[task],
        "sls_pt": supervision.pretraining,
        "sls_tl": supervision.labels,
        "sls_td": supervision.data,
        "results": results,
    }
    replace_file(path, json.dumps(content).encode())
    check_submission(path, [clip.id for clip in clips], taxonomy, task)


def check_submission(
    path: Path, ids: Sequence[str], taxonomy: Taxonomy, task: ClipTask | None = None
) -> None:
    """Refuse a file that the challenge's server would refuse, or that leaves a clip out.

    Args:
        path: The file.
        ids: Narration ids that must be answered, all and no others.
        taxonomy: Says how many verbs and nouns there are.
        task: What the submission is for; absent, either challenge.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is incomplete; the message says where.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the submission {path} does not exist.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, got {error}.") from None
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise ValueError(f'{path} must be an object with "results" by narration id.')
    wanted = [CHALLENGES[task]] if task else list(CHALLENGES.values())
    if content.get("version") != VERSION or content.get("challenge") not in wanted:
        raise ValueError(
            f"{path} must be of version {VERSION} and of the challenge {' or '.join(wanted)}, got "
            f"{content.get('version')!r} and {content.get('challenge')!r}."
        )
    for level in ("sls_pt", "sls_tl", "sls_td"):
        if content.get(level) not in range(-1, 6):
            raise ValueError(
                f"{path}: {level} must be a level of -1 to 5, got {content.get(level)!r}."
            )
    missing = [clip for clip in ids if clip not in results]
    extra = sorted(set(results) - set(ids))
    if missing or extra:
        raise ValueError(
            f"{path} must answer {len(ids)} clips, all and no others; missing are {_some(missing)}"
            f" and of no clip are {_some(extra)}."
        )
    for clip in ids:
        _check_clip(f"{path}: {clip}", results[clip], taxonomy)


def _check_clip(where: str, answer: Any, taxonomy: Taxonomy) -> None:
    for head in ("verb", "noun", "action"):
        found = answer.get(head) if isinstance(answer, dict) else None
        if not isinstance(found, dict):
            raise ValueError(f"{where} must have scores of verb, noun and action, lacks {head}.")
        if odd := [key for key, score in found.items() if not _is_score(score)]:
            raise ValueError(f"{where}: the score of {head} {odd[0]} must be a finite number.")
        if head == "action":
            continue
        every = {str(i) for i in range(len(taxonomy.heads[head]))}
        if set(found) != every:
            raise ValueError(
                f"{where} must score every {head}, 0 to {len(every) - 1}; missing are "
                f"{_some(sorted(every - set(found)))} and unknown are "
                f"{_some(sorted(set(found) - every))}."
            )
    if len(answer["action"]) != NUM_ACTIONS:
        raise ValueError(
            f"{where} must score exactly {NUM_ACTIONS} actions, got {len(answer['action'])}."
        )
    verbs, nouns = len(taxonomy.heads["verb"]), len(taxonomy.heads["noun"])
    for key in answer["action"]:
        verb, _, noun = key.partition(",")
        known = verb.isdecimal() and noun.isdecimal() and int(verb) < verbs and int(noun) < nouns
        if not known:
            raise ValueError(
                f"{where}: an action must be called by a verb of 0 to {verbs - 1} and a noun of 0 "
                f"to {nouns - 1}, such as 3,7, got {key!r}."
            )


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _by_number(scores: Float[np.ndarray, " label"]) -> dict[str, float]:
    return {str(i): _shown(score) for i, score in enumerate(scores)}


def _shown(score: np.floating[Any]) -> float:
    """Seven digits tell any two float32 apart that a ranking should."""
    return float(f"{float(score):.7g}")


def _some(ids: Sequence[str]) -> str:
    more = f", ... ({len(ids)} in all)" if len(ids) > SHOWN else ""
    return (", ".join(ids[:SHOWN]) or "none") + more
