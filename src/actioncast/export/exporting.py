"""Write a checkpoint as an exported stream: two graphs, and `stream.json` that describes them."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from actioncast.export.clam_names import AFTER, FRAME, FUTURE, PAST, STATE
from actioncast.export.description import (
    GraphFile,
    Head,
    Part,
    Precision,
    StreamDescription,
    TensorShape,
    sha256,
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
    model = require_streaming_clam(checkpoint.model)
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
    (folder / "stream.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export") as scratch:
        graphs = _graphs(model, Path(scratch), folder if large else None)
        if precision == "int8":
            graphs = _in_8_bits(model, graphs, calibration)
        if not large:
            for part, graph in graphs.items():
                replace_file(folder / f"{part}.onnx", graph)
    description = _described(checkpoint, model, folder, precision, pace, calibrated_on)
    write_description(folder, description)
    return description


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
    from actioncast.export.quantising import constants_like, in_8_bits  # noqa: PLC0415  (needs onnx)

    onnx = _package("onnx")
    parsed = {part: onnx.load_from_string(graph) for part, graph in graphs.items()}
    matrices = [matrix.numpy() for matrix in rounded_matrices(model)]
    chosen = {part: constants_like(one.graph, matrices) for part, one in parsed.items()}
    means = {} if calibration is None else _means(model, parsed, chosen, calibration)
    return {
        part: in_8_bits(one, means.get(part, {}), chosen[part]).SerializeToString(
            deterministic=True
        )
        for part, one in parsed.items()
    }


def _means(
    model: CLAM,
    graphs: Mapping[str, Any],
    chosen: Mapping[str, Collection[str]],
    calibration: Float[np.ndarray, "time feature"],
) -> dict[str, Mapping[str, np.ndarray]]:
    """Mean input of every chosen matrix, while the stream of unrounded graphs runs."""
    from actioncast.export.quantising import MeanInputs, with_inputs_shown  # noqa: PLC0415

    ort = _package("onnxruntime")
    sessions = {
        part: ort.InferenceSession(
            with_inputs_shown(graph, chosen[part]).SerializeToString(),
            providers=["CPUExecutionProvider"],
        )
        for part, graph in graphs.items()
    }
    gathered = {part: MeanInputs.empty() for part in graphs}
    names = {part: [one.name for one in own.get_outputs()] for part, own in sessions.items()}
    read = [given.name for given in sessions["answer"].get_inputs()]
    state = {STATE + n: t.numpy() for n, t in model.initial_state(1).tensors().items()}
    for frame in np.asarray(calibration[:CALIBRATION_FRAMES], np.float32):
        gathered["advance"].add(FRAME, frame[None])
        for part, given in (("advance", {FRAME: frame[None], **state}), ("answer", None)):
            inputs = {name: state[name] for name in read} if given is None else given
            found = dict(zip(names[part], sessions[part].run(None, inputs), strict=True))
            state |= {STATE + n[len(AFTER) :]: v for n, v in found.items() if n.startswith(AFTER)}
            for name, value in found.items():
                if not name.startswith((PAST, AFTER, FUTURE)):
                    gathered[part].add(name, value)
    return {part: one.means() for part, one in gathered.items()}


def _described(
    checkpoint: Checkpoint,
    model: CLAM,
    folder: Path,
    precision: Precision,
    pace: Pace,
    calibrated_on: str,
) -> StreamDescription:
    files = {part: folder / f"{part}.onnx" for part in ("advance", "answer")}
    return StreamDescription(
        model=checkpoint.name,
        fingerprint=model.fingerprint(),
        precision=precision,
        rate=pace.rate,
        stride=pace.stride,
        feature_dim=model.config.feature_dim,
        primary=model.taxonomy.primary,
        heads={
            head: Head(names=space.names, background=tuple(sorted(space.background)))
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
        graphs={
            part: GraphFile(file=file.name, sha256=sha256(file), bytes=file.stat().st_size)
            for part, file in files.items()
        },
        run={k: checkpoint.run[k] for k in ("recipe", "dataset", "split") if k in checkpoint.run},
        calibration=calibrated_on,
        versions={
            "actioncast": __version__,
            **{name: version(name) for name in ("torch", *PACKAGES)},
        },
    )
