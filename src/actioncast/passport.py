"""What exactly was measured, and a refusal to compare what cannot be compared."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from actioncast.checkpoint import from_json, json_bytes
from actioncast.files import replace_file
from actioncast.timeline import FINE

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport:
    """The circumstances of a score. Scores compare only where `MUST_AGREE` does."""

    dataset: str
    fingerprint: str
    """Changes with any label, video, rate or split of the data."""
    splits: tuple[str, ...]
    """Splits scored; a total is their unweighted mean."""
    label_level: str = FINE
    """Level of the labels that were named and scored: `fine`, as annotated, or `coarse`."""
    num_videos: int
    """Test videos scored, over all splits."""
    num_clips: int = 0
    """Actions scored, where short actions are asked for and not whole videos."""
    task: str
    anticipation_time: float = 0.0
    """Seconds from the last moment seen to the start of the action asked for; 0 elsewhere."""
    clip: str = ""
    """Which frames of a short action were seen, in words; empty where there are none."""
    questions: str = ""
    """Whose actions questions were about, who made them and who read them; empty without any.
    `oracle` questions know the answer: a score with them is no recognition and no anticipation."""
    observed_ratios: tuple[float, ...] = ()
    horizon_ratios: tuple[float, ...] = ()
    horizon_source: str = ""
    """`true_length x 0.5` (leaks it), `observed_multiple x 4`, `seconds 300`; else empty."""
    ahead: tuple[float, ...] = ()
    """Seconds after each step at which the action was asked for as well; online alone."""
    alignment: str = ""
    """Which label an answer about a moment ahead was compared with; online alone."""
    steps_per_second: float = 0.0
    """How often the model answers, and is scored; online alone."""
    way: str = ""
    """`at once`, or `streamed` with the median time of a step; online alone."""
    input: str
    """What the model saw: features, true labels, predicted labels; a fingerprint says whose."""
    labels: str = ""
    """What the run or the folder is called that named the observed actions; empty without one."""
    captions: str = ""
    """What the folder of captions is called, the fingerprint of what was read, and the encoder that
    read it; empty without captions."""
    features_causal: str
    """yes, no or unknown: whether features of a frame see later frames."""
    metric: str
    """Which variant of the metric."""
    combined: str = "most likely"
    """Which of several sampled futures was scored, of how many."""
    selection: str
    """How the checkpoint was chosen."""
    model: str
    trunk: str = ""
    """The frozen language model that the model stands on, how it is run, and a fingerprint of its
    weights; empty without one."""
    recipe: str
    changed: tuple[str, ...] = ()
    """Values of the training, of any split, that are not those of the recipe, as
    `model.dropout 0.2`."""
    trained_on: str = ""
    """Whose questions trained the model; under another `horizon_source` the horizon is swapped."""
    inference: str = ""
    """How answers were made of what the model says: `8 offsets averaged, median 30`; else empty."""
    seeds: tuple[int, ...]
    version: str
    commit: str
    note: str = ""


LEVEL = "label_level"
"""The field in which no table allows a difference."""
MUST_AGREE = (
    "dataset",
    "fingerprint",
    "splits",
    LEVEL,
    "task",
    "anticipation_time",
    "observed_ratios",
    "horizon_ratios",
    "horizon_source",
    "ahead",
    "alignment",
    "steps_per_second",
    "input",
    "features_causal",
    "metric",
    "combined",
)
"""Fields in which scores must agree to stand in one table; so must whether the test split chose the
checkpoint (`selection`), and whether the answer was known to whoever asked (`questions`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Scores with their passport: the content of a result file."""

    passport: Passport
    total: dict[str, float]
    """Mean over the splits, in percent."""
    splits: dict[str, dict[str, float]]
    """By split; of short actions by subset: overall, unseen and tail."""
    videos: dict[str, dict[str, float]] = field(default_factory=dict)
    """By video, where one split was scored; else by `split/video`."""
    recordings: dict[str, float] = field(default_factory=dict)
    """Mean over recordings and its standard error (`+-`): cameras of one recording count once."""
    format: int = FORMAT


def write_result(result: Result, path: Path) -> None:
    """Write a result file."""
    replace_file(path, json_bytes(result))


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no result file; the message names the first wrong key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the result file {path} does not exist.")
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} must be a result file in JSON, got {error}; give a file that "
            "`actioncast evaluate` wrote."
        ) from None
    if isinstance(value, dict):
        # A class without a frame has no score: NaN here, null in JSON.
        for part in ("total", "splits", "videos", "recordings"):
            if part in value:
                value[part] = _with_nan(value[part])
    result = from_json(Result, value, str(path))
    if result.format != FORMAT:
        raise ValueError(
            f"{path} must be of format {FORMAT}, got {result.format}; it was written by another "
            "version of actioncast."
        )
    return result


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    return math.nan if value is None else value


def differences(passports: Sequence[Passport]) -> dict[str, list[str]]:
    """The fields that forbid a comparison, each with the values found."""
    found: dict[str, list[str]] = {}
    for name in MUST_AGREE:
        values = [_shown(getattr(passport, name)) for passport in passports]
        if len(set(values)) > 1:
            found[name] = values
    chosen = [_on_test(passport) for passport in passports]
    if len(set(chosen)) > 1:
        found["selection"] = [passport.selection for passport in passports]
    knowing = [_oracle(passport) for passport in passports]
    if len(set(knowing)) > 1:
        found["questions"] = [passport.questions or "none" for passport in passports]
    return found


def require_comparable(results: Mapping[str, Result], across: Sequence[str] = ()) -> None:
    """Refuse results that cannot stand side by side.

    Args:
        results: By name.
        across: Fields that are allowed to differ, because the table is about them; the level of
            labels never is.

    Raises:
        ValueError: Names the fields that differ and their values, or `across` names a wrong one.
    """
    known = {f.name for f in fields(Passport)}
    if unknown := set(across) - known:
        raise ValueError(
            f"--across must name fields of a passport ({', '.join(sorted(known))}), got "
            f"{', '.join(sorted(unknown))}."
        )
    if LEVEL in across:
        raise ValueError(
            f"--across must name fields other than {LEVEL}, got it: scores of two levels of labels "
            "answer other questions and never stand in one table; compare each level by itself."
        )
    found = differences([result.passport for result in results.values()])
    blocking = {name: values for name, values in found.items() if name not in across}
    if blocking:
        lines = [
            f"  {name}: "
            + "; ".join(f"{who}: {value}" for who, value in zip(results, values, strict=True))
            for name, values in blocking.items()
        ]
        advice = (
            "Scores of two levels of labels never stand in one table; compare each level by itself."
            if LEVEL in blocking
            else "If the difference is the point of the table, say "
            f"actioncast compare FILE... --across {' '.join(blocking)}."
        )
        raise ValueError(
            "these results cannot stand side by side, they differ in\n"
            + "\n".join(lines)
            + f"\n{advice}"
        )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _oracle(passport: Passport) -> bool:
    return passport.questions.startswith("oracle")


def _on_test(passport: Passport) -> bool:
    return "test split" in passport.selection
