"""The order in which modules may import one another, read from the source itself."""

import ast
from pathlib import Path

import pytest

import actioncast

SOURCE = Path(actioncast.__file__).parent
LEVELS = (
    {"timeline", "files", "progress", "published", "metrics"},
    {"text_vectors"},
    {"types", "features", "plotting", "timeline_files", "text_encoders"},
    {"layers", "protocols", "video", "cost", "trunks"},
    {"models", "data"},
    {"postprocessing", "questions"},
    {"inference", "batches", "checkpoint", "optimisation"},
    {
        *("evaluation", "streaming", "passport", "training", "tables"),
        "clip_coming",
        *("answer_cost", "weightless_cost"),
        *("clip_config", "clip_frames", "clip_sources", "clip_evaluation", "clip_variation"),
        *("scores", "online_running", "online_evaluation"),
        "recognised",
        "own_files",
        *("captions", "caption_files"),
        *("export", "stream_sources", "stream_lines"),
    },
    {
        "lightning_parts",
        "lightning_run",
        "lightning_sharding",
        "recipes",
        "diffusion_recipes",
        "ablation_recipes",
        "stream_recipes",
        "recogniser_recipes",
        "language_recipes",
        "hierarchy_recipes",
        "runs",
        *("run_cost", "cost_subjects", "cost_table", "recipe_trunks"),
        "convert",
        *("clip_recipes", "next_action_recipes", "recipe_cost", "clip_training", "clip_runs"),
    },
    {"scoring", "options", "clip_scoring", "clip_bench", "submission", "side_by_side"},
    {"seeing", "bench", "inventory", "clip_verbs", "online_verbs", "stream_verbs"},
    {"demo"},
    {"__main__"},
)
"""A module imports modules of its own level, without cycles, or of levels above in this list."""
ALLOWED = {
    "layers": {"timeline", "types", "files", "layers"},
    "models": {"timeline", "types", "layers", "models", "video", "trunks", "text_encoders"},
    "trunks": {"trunks"},
    "video": {"timeline", "types", "files", "video"},
    "cost": set[str](),
    "protocols": {"timeline", "types", "protocols"},
    "features": {"timeline"},
    "metrics": {"metrics"},
    "types": {"timeline"},
    "timeline": set[str](),
    "data": {"timeline", "types", "features", "protocols", "data"},
}
"""All that the lower parts know."""
DEFERRED = {("training", "lightning_run")}
"""Imported inside a function, because lightning takes seconds to import."""


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "__init__.py"
    }


def imports(path: Path, *, at_the_top: bool = False) -> set[str]:
    """Dotted names that a module imports; not those for the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and at_the_top:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        pending += ast.iter_child_nodes(node)
    return found


def part(name: str) -> str:
    return name.partition(".")[0]


def parts_imported(path: Path, *, at_the_top: bool = False) -> set[str]:
    """Parts of the package, its files and folders, that a module imports."""
    own = {name for name in imports(path, at_the_top=at_the_top) if name.startswith("actioncast.")}
    parts = {name.split(".")[1] for name in own}
    return {name for name in parts if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists()}


def level(name: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if part(name) in names)


def test_every_module_has_its_level():
    assert {part(name) for name in modules()} == set().union(*LEVELS)


@pytest.mark.parametrize("name", modules())
def test_imports_point_one_way(name: str):
    wrong = {
        other
        for other in parts_imported(modules()[name])
        if level(other) > level(name) and (name, other) not in DEFERRED
    }
    assert not wrong


@pytest.mark.parametrize("name", [name for name in modules() if part(name) in ALLOWED])
def test_lower_parts_know_only_what_they_stand_on(name: str):
    assert parts_imported(modules()[name]) <= ALLOWED[part(name)] | {part(name)}


def test_no_module_waits_for_itself():
    """Peel off, again and again, every module whose imports at the top are all peeled off."""
    names = modules()
    waiting: dict[str, set[str]] = {}
    for name, path in names.items():
        wanted = {n.removeprefix("actioncast.") for n in imports(path, at_the_top=True)}
        prefixes = {".".join(w.split(".")[:i]) for w in wanted for i in range(1, 4)}
        waiting[name] = (prefixes & set(names)) - {name}
        if "." in name:
            # A package's own __init__ imports its modules; they wait for each other alone.
            waiting[name] -= {part(name)}
    while free := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in free:
            del waiting[name]
    assert not waiting


@pytest.mark.parametrize("name", [n for n in modules() if part(n) in ("timeline", "metrics")])
def test_timelines_and_metrics_need_no_torch(name: str):
    outside = {part(other) for other in imports(modules()[name])} - {"actioncast"}
    assert not outside & {"torch", "lightning", "safetensors", "einops"}


def test_features_and_label_files_need_no_torch():
    for name in ("features", "timeline_files", "data.frame_labels", "protocols.long_term"):
        assert "torch" not in {part(other) for other in imports(modules()[name])}


def test_lightning_is_imported_by_three_modules_alone():
    who = [
        name
        for name, path in modules().items()
        if {"lightning", "pytorch_lightning"} & {part(other) for other in imports(path)}
    ]
    assert who == ["lightning_parts", "lightning_run", "lightning_sharding"]


def test_only_the_command_line_and_recipes_know_tyro():
    for name, path in modules().items():
        if part(name) in ("models", "layers", "types", "timeline", "data", "protocols", "metrics"):
            assert "tyro" not in {part(other) for other in imports(path)}


def test_predict_is_called_in_one_place():
    """`inference.py` puts answers back on the grid of the video."""
    who = [
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "predict"
    ]
    assert who == ["inference"]


def test_a_helper_lives_with_its_user_or_gets_a_noun():
    last = {name.split(".")[-1] for name in modules()}
    assert not last & {"utils", "util", "helpers", "helper", "misc", "common"}


def test_annotations_are_left_to_the_shape_checker():
    """`from __future__ import annotations` would blind the hook."""
    for path in modules().values():
        assert "__future__.annotations" not in imports(path)
