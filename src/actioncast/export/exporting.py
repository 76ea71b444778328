"""Write a checkpoint as an exported stream: two graphs, and `stream.json` that describes them."""

import contextlib
import io
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float

from actioncast import __version__
from actioncast.checkpoint import Checkpoint
from actioncast.export.clam_graphs import (
    ClamAdvance,
    ClamAnswer,
    require_streaming_clam,
    rounded_matrices,
)
from actioncast.export.clam_names import FUTURE, PAST, STATE
from actioncast.export.description import (
    FILE,
    GraphFile,
    Head,
    Part,
    Precision,
    StreamDescription,
    TensorShape,
    write_description,
)
from actioncast.export.pace import Pace, pace_of
from actioncast.files import replace_file
from actioncast.models.clam import CLAM

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""What writing graphs needs besides PyTorch."""
LARGEST = 2_000_000_000
"""Bytes of weights that still fit into one file of a format that ends at 2 GB."""
OPSET = 20
SCRATCH = ".export"
"""How the folders begin in which graphs are made; `tempfile` puts 8 characters after it."""
DATA = ".onnx.data"
"""How PyTorch ends the name of the file beside a graph that holds its weights."""
CALIBRATION_FRAMES = 512
"""Frames that mean inputs are taken from, at most."""


def export_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    precision: Precision = "fp32",
    calibration: Float[np.ndarray, "time feature"] | None = None,
    calibrated_on: str = "",
) -> StreamDescription:
    """Write a checkpoint of CLAM as graphs for a live stream of one.

    Args:
        checkpoint: Its model is moved to the CPU.
        folder: Is made; an older export in it is replaced.
        precision: Of its weights and products.
        calibration: Frames of the kind that it will see, for int8: what rounding does to their
            mean is put back. Absent, nothing is.
        calibrated_on: What those are, for `stream.json`.

    Raises:
        ValueError: The model cannot be exported, a package is missing, or the frames do not fit.
    """
    training = checkpoint.run.get("training", {})
    alone = not training.get("labels_from") and training.get("resample", 1) == 1
    model = require_streaming_clam(checkpoint.model, on_streams=alone)
    for name in PACKAGES:
        _package(name)
    pace = pace_of(checkpoint.run)
    _require_calibration(model, precision, calibration)
    large = 4 * sum(p.numel() for p in model.parameters()) > LARGEST
    if large and precision == "int8":
        raise ValueError("int8 is for models of less than 2 GB of weights; say --precision fp32.")
    model = model.cpu().eval()
    folder.mkdir(parents=True, exist_ok=True)
    # An export that stops half way must not look like the one before.
    (folder / FILE).unlink(missing_ok=True)
    _sweep(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        graphs = _graphs(model, Path(scratch), folder if large else None)
        if precision == "int8":
            graphs = _in_8_bits(model, graphs, calibration)
        if not large:
            for part, graph in graphs.items():
                replace_file(folder / f"{part}.onnx", graph)
    description = _described(checkpoint, model, folder, precision, pace, calibrated_on)
    write_description(folder, description)
    return description


def _sweep(folder: Path) -> None:
    """Remove what killed exports left half written, which would fill the disk in time."""
    parts = tuple(f"{part}." for part in get_args(Part))
    for rest in folder.glob(f"{SCRATCH}*"):
        # Somebody else's folder may begin so too; one of an export holds graphs or nothing.
        own = re.fullmatch(r"[a-z0-9_]{8}", rest.name.removeprefix(SCRATCH))
        if not own or rest.is_symlink() or not rest.is_dir():
            continue
        if all(file.name.startswith(parts) for file in rest.iterdir()):
            shutil.rmtree(rest)
    for name in (FILE, *(f"{part}.onnx" for part in get_args(Part))):
        for rest in folder.glob(f".{name}.*"):
            rest.unlink(missing_ok=True)
    for part in get_args(Part):
        # Of an export that was larger: the graph that read it is about to be replaced.
        (folder / f"{part}{DATA}").unlink(missing_ok=True)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ValueError(
            f"export needs {name}, which is not installed; pip install 'actioncast[export]'."
        ) from None


def _require_calibration(
    model: CLAM, precision: Precision, calibration: Float[np.ndarray, "time feature"] | None
) -> None:
    if calibration is None:
        return
    if precision != "int8":
        raise ValueError(f"calibration is for int8, got precision {precision}; leave it out.")
    width = model.config.feature_dim
    if calibration.ndim != 2 or calibration.shape[1] != width or not len(calibration):
        raise ValueError(
            f"calibration must be frames of {width} features, (time, {width}), got shape "
            f"{calibration.shape}."
        )
    if not np.isfinite(calibration).all():
        raise ValueError("calibration must hold finite numbers, got NaN or infinity.")


def _graphs(model: CLAM, scratch: Path, large: Path | None) -> dict[str, bytes]:
    """Both graphs, their constants folded; those too large for it are written as they are."""
    found: dict[str, bytes] = {}
    modules: dict[Part, ClamAdvance | ClamAnswer] = {
        "advance": ClamAdvance(model),
        "answer": ClamAnswer(model),
    }
    for part, module in modules.items():
        inputs, outputs = module.names()
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module.eval(),
                module.example(),
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
        assert program is not None
        if large is not None:
            program.save(str(large / f"{part}.onnx"), external_data=True)
            continue
        file = scratch / f"{part}.onnx"
        program.save(str(file), external_data=False)
        found[part] = _folded(file)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on what it does are for its developers."""
    loud = {name: logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    levels = {name: logger.level for name, logger in loud.items()}
    for logger in loud.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loud.items():
            logger.setLevel(levels[name])


def _folded(file: Path) -> bytes:
    """A graph whose constants are computed, without the traces of the code that it came from."""
    onnx, ort = _package("onnx"), _package("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file.with_suffix(".folded"))
    options.log_severity_level = 3
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    return model.SerializeToString(deterministic=True)


def _in_8_bits(
    model: CLAM, graphs: Mapping[str, bytes], calibration: Float[np.ndarray, "time feature"] | None
) -> dict[str, bytes]:
    from actioncast.export.quantising import (  # noqa: PLC0415  (needs onnx)
        Means,
        constants_like,
        in_8_bits,
        mean_inputs,
    )

    onnx = _package("onnx")
    parsed = {part: onnx.load_from_string(graph) for part, graph in graphs.items()}
    matrices = [matrix.numpy() for matrix in rounded_matrices(model)]
    chosen = {part: constants_like(one.graph, matrices) for part, one in parsed.items()}
    means: Mapping[str, Means] = {}
    if calibration is not None:
        state = {STATE + n: t.numpy() for n, t in model.initial_state(1).tensors().items()}
        means = mean_inputs(parsed, chosen, state, calibration[:CALIBRATION_FRAMES])
    return {
        part: in_8_bits(one, means.get(part, {}), chosen[part]).SerializeToString(
            deterministic=True
        )
        for part, one in parsed.items()
    }


def _described(
    checkpoint: Checkpoint,
    model: CLAM,
    folder: Path,
    precision: Precision,
    pace: Pace,
    calibrated_on: str,
) -> StreamDescription:
    parts: tuple[Part, ...] = get_args(Part)
    beside = [folder / f"{part}{DATA}" for part in parts]
    return StreamDescription(
        model=checkpoint.name,
        fingerprint=model.fingerprint(),
        precision=precision,
        rate=pace.rate,
        stride=pace.stride,
        feature_dim=model.config.feature_dim,
        primary=model.taxonomy.primary,
        heads={
            head: Head(
                names=space.names,
                background=tuple(sorted(space.background)),
                unknown=tuple(sorted(space.unknown)),
            )
            for head, space in model.taxonomy.heads.items()
        },
        ahead=model.ahead,
        num_coming=model.config.num_coming,
        state=tuple(
            TensorShape(
                name=name,
                shape=tuple(tensor.shape),
                dtype="float32" if tensor.is_floating_point() else "int64",
            )
            for name, tensor in model.initial_state(1).tensors().items()
        ),
        graphs={part: GraphFile.of(folder / f"{part}.onnx") for part in parts},
        data=tuple(GraphFile.of(file) for file in beside if file.exists()),
        outputs=_outputs(model),
        run={k: checkpoint.run[k] for k in ("recipe", "dataset", "split") if k in checkpoint.run},
        calibration=calibrated_on,
        versions={
            "actioncast": __version__,
            **{name: version(name) for name in ("torch", *PACKAGES)},
        },
    )


def _outputs(model: CLAM) -> dict[str, tuple[int, ...]]:
    """Shapes of the probabilities that the graphs give, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for module in (ClamAdvance(model), ClamAnswer(model)):
        with torch.no_grad():
            shapes = [tuple(tensor.shape) for tensor in module.eval()(*module.example())]
        given = zip(module.names()[1], shapes, strict=True)
        found |= {name: shape for name, shape in given if name.startswith((PAST, FUTURE))}
    return found
