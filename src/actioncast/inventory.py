"""What there is: models, recipes, data sets, and what a folder or file holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actioncast.answer_cost import num_weights
from actioncast.checkpoint import load_checkpoint, to_json
from actioncast.clip_recipes import CLIP_RECIPES
from actioncast.clip_runs import CLIP_DATASETS
from actioncast.cost_subjects import Asked
from actioncast.cost_table import cost_table
from actioncast.data import DATASETS
from actioncast.models import MODELS
from actioncast.passport import read_result
from actioncast.progress import Progress, silent
from actioncast.protocols import PROTOCOLS
from actioncast.recipe_cost import cost_of
from actioncast.recipe_trunks import require_trunks
from actioncast.recipes import RECIPES, unknown_recipe
from actioncast.run_cost import run_cost
from actioncast.runs import checkpoints, require_label_readers
from actioncast.side_by_side import end_of
from actioncast.tables import number
from actioncast.training import model_name


@dataclass(frozen=True, slots=True)
class Description:
    """The same said twice: for machines and for people."""

    facts: Mapping[str, Any]
    text: str


def describe(what: str = "") -> Description:
    """Describe a run, a checkpoint, a recipe or a result file; without a name, list what there is.

    Raises:
        ValueError, FileNotFoundError: It is none of these.
    """
    if not what:
        return _everything()
    if what in RECIPES or what in CLIP_RECIPES:
        return _recipe(what)
    path = Path(what)
    if path.is_dir():
        return _run(path)
    if path.suffix == ".json":
        return _result(path)
    raise ValueError(f"{what!r} is no recipe, run folder or result file: {unknown_recipe(what)}")


def describe_cost(
    what: Sequence[str], backbone: str = "", asked: Asked | None = None, progress: Progress = silent
) -> Description:
    """What models cost: of one recipe of MambaVL part by part, of all else a row each.

    Args:
        what: Run folders, checkpoint folders and recipes.
        backbone: Of a recipe of MambaVL that names none.
        asked: What models of whole videos are asked; absent, as in ActionLLM's Table III.
        progress: Told how far the timing of each is.

    Raises:
        ValueError, FileNotFoundError: One is none of these, or cannot be measured.
    """
    if not what:
        raise ValueError(
            "--cost must go with run folders or recipes, got 'nothing'; `actioncast info` lists "
            "the recipes."
        )
    if clips := [name for name in what if name in CLIP_RECIPES]:
        if len(what) > 1:
            raise ValueError(
                f"{clips[0]} is a recipe of short actions, whose parts have a table of their own; "
                "give it alone."
            )
        if asked is not None and asked != Asked():
            raise ValueError(
                f"{clips[0]} is a recipe of short actions and is measured on one clip; leave out "
                "what is asked about a video."
            )
        return _clip_cost(clips[0], backbone)
    if backbone:
        raise ValueError(f"--backbone must go with a recipe of MambaVL, got {what[0]}.")
    asked = asked or Asked()
    require_label_readers([Path(one) for one in what if Path(one).is_dir()], asked.labels_from)
    require_trunks(what, asked.trunk)
    paths = list(dict.fromkeys(map(Path, what)))
    named = {str(end_of(path, paths)): str(path) for path in paths}
    rows = {name: run_cost(path, asked, name, progress) for name, path in named.items()}
    facts = {"asked": to_json(asked), "rows": {name: to_json(row) for name, row in rows.items()}}
    return Description(facts, cost_table(rows))


def _clip_cost(what: str, backbone: str) -> Description:
    table = cost_of(CLIP_RECIPES[what][1], backbone)
    facts = {name: to_json(cost) for name, cost in {**table.parts, "total": table.total}.items()}
    return Description({"recipe": what, "cost": facts}, "\n".join([what, *table.lines()]))


def _everything() -> Description:
    facts: dict[str, Any] = {
        "models": list(MODELS),
        "protocols": [*PROTOCOLS, "next_action", "recognition"],
        "datasets": {**DATASETS, **CLIP_DATASETS},
        "recipes": {name: said for name, (said, _) in {**RECIPES, **CLIP_RECIPES}.items()},
    }
    lines = [f"models     {', '.join(MODELS)}", f"protocols  {', '.join(facts['protocols'])}"]
    for title in ("datasets", "recipes"):
        width = max(map(len, facts[title]))
        lines += ["", title, *[f"  {name:{width}} {said}" for name, said in facts[title].items()]]
    return Description(facts, "\n".join(lines))


def _recipe(name: str) -> Description:
    sentence, config = RECIPES[name] if name in RECIPES else CLIP_RECIPES[name]
    facts = {"recipe": name, "sentence": sentence, "model": model_name(config.model)}
    facts |= {"config": to_json(config)}
    lines = [f"{name}: {sentence}", f"model {facts['model']}", *_lines(to_json(config))]
    return Description(facts, "\n".join(lines))


def _run(path: Path) -> Description:
    folders = checkpoints(path)
    found = {split: load_checkpoint(folder) for split, folder in folders.items()}
    about = json.loads((next(iter(folders.values())) / "config.json").read_text(encoding="utf-8"))
    first = next(iter(found.values()))
    learnable, frozen = num_weights(first.model)
    facts = {
        "model": first.name,
        "parameters": learnable + frozen,
        "frozen": frozen,
        "labels": list(first.model.taxonomy.labels.names),
        "tasks": sorted(first.model.tasks),
        "splits": list(found),
        "config": about["config"],
        "run": to_json(first.run),
    }
    lines = [
        f"{path}: {first.name}, {facts['parameters']:,} parameters"
        f"{f' ({frozen:,} frozen)' if frozen else ''}, "
        f"{len(facts['labels'])} labels, answers {', '.join(facts['tasks'])}",
        f"splits {', '.join(found) or '-'}",
        *_lines({"model": facts["config"], **facts["run"]}),
    ]
    return Description(facts, "\n".join(lines))


def _result(path: Path) -> Description:
    result = read_result(path)
    facts = {"passport": to_json(result.passport), "total": result.total}
    lines = [str(path), *_lines(facts["passport"]), ""]
    lines += [f"{name:16} {number(value):>7}" for name, value in result.total.items()]
    return Description(facts, "\n".join(lines))


def _lines(value: Mapping[str, Any], indent: str = "  ") -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines += [f"{indent}{key}", *_lines(item, indent + "  ")]
        else:
            shown = ", ".join(map(str, item)) if isinstance(item, list) else item
            lines.append(f"{indent}{key:20} {shown}")
    return lines
