"""Run an exported stream: no PyTorch model, no checkpoint, one frame at a time.

float32 runs in ONNX Runtime. Graphs with 8-bit weights, or in bfloat16, run in OpenVINO, which
multiplies with such weights without unpacking them first; ONNX Runtime runs 8-bit graphs too, with
the same numbers and no gain in speed.

Do not set OMP_PROC_BIND: the engines' threads would all share the main thread's core.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple, final

import numpy as np
from jaxtyping import Float

from actioncast.export.clam_names import AFTER, FRAME, FUTURE, PAST, STATE, is_answered_from
from actioncast.export.description import Precision, StreamDescription, read_description
from actioncast.export.state_file import KeptState, read_state, write_state

Engine = Literal["auto", "onnxruntime", "openvino"]
"""What runs the graphs; auto is the faster one for the precision."""
BadFrames = Literal["refuse", "skip"]
Tensors = Mapping[str, np.ndarray]
Graph = Callable[[Tensors], dict[str, np.ndarray]]
"""Outputs by name, of inputs by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """What one stream carries; a value of fixed size, so that one runtime serves many streams."""

    tensors: Tensors
    """As `ClamState.tensors` names them."""
    past: Mapping[str, Float[np.ndarray, "1 _"]]
    """The last answer about a frame, by head; zeros before the first."""
    frames: int
    """Given so far, skipped ones too."""
    model: str
    """Fingerprint of the model that it belongs to."""


class Step(NamedTuple):
    """What came of one frame."""

    past: Mapping[str, Float[np.ndarray, "1 _"]]
    """Probabilities of what is under way, by head; of a frame that was skipped, those before."""
    future: Mapping[str, Float[np.ndarray, "query _"]] | None
    """Of each moment ahead, or of the next actions in order; None where no answer was asked for."""
    state: StreamState


@final
class ExportedStream:
    """The graphs of a folder that `actioncast export` wrote.

    Args:
        folder: With `stream.json`.
        threads: Of the engine; 0 is as many as it thinks right.
        bad_frames: What happens to a frame that holds NaN or infinity.
        engine: What runs the graphs.

    Raises:
        FileNotFoundError, ValueError: The folder is none, is broken, or its engine is not there.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        bad_frames: BadFrames = "refuse",
        engine: Engine = "auto",
    ) -> None:
        if threads < 0:
            raise ValueError(f"threads must be 0 or more, got {threads}.")
        self.about = read_description(folder)
        self.bad_frames = bad_frames
        precision = self.about.precision
        self.engine = engine_of(precision, engine)
        made = _onnxruntime_graph if self.engine == "onnxruntime" else _openvino_graph
        files = {name: folder / graph.file for name, graph in self.about.graphs.items()}
        self._advance = made(files["advance"], threads, precision)
        self._answer = made(files["answer"], threads, precision)
        self._read = [part.name for part in self.about.state if is_answered_from(part.name)]

    def initial_state(self) -> StreamState:
        """Nothing seen yet."""
        return StreamState(
            tensors={p.name: np.zeros(p.shape, p.dtype) for p in self.about.state},
            past={
                head: np.zeros((1, len(labels.names)), np.float32)
                for head, labels in self.about.heads.items()
            },
            frames=0,
            model=self.about.fingerprint,
        )

    def step(
        self, frame: Float[np.ndarray, "*one feature"], state: StreamState, *, answer: bool = True
    ) -> Step:
        """Take one frame in.

        Args:
            frame: `[feature]` or `[1, feature]`.
            state: Before it.
            answer: Whether to say what comes; without, that part of the model is not run.

        Raises:
            ValueError: The state is that of another model; the frame has another width, or holds
                NaN or infinity and such frames are refused.
        """
        self._require_own(state)
        frame = np.ascontiguousarray(frame, np.float32).reshape(1, -1)
        if frame.shape[1] != self.about.feature_dim:
            raise ValueError(
                f"a frame must have {self.about.feature_dim} features, as the model was trained "
                f"on, frame {state.frames} has {frame.shape[1]}."
            )
        if np.isfinite(frame).all():
            found = self._advance({FRAME: frame, **_named(STATE, state.tensors)})
            state = replace(
                state,
                tensors={part.name: found[AFTER + part.name] for part in self.about.state},
                past={head: found[PAST + head] for head in self.about.heads},
                frames=state.frames + 1,
            )
        elif self.bad_frames == "skip":
            state = replace(state, frames=state.frames + 1)
        else:
            raise ValueError(
                f"a frame must hold finite numbers, frame {state.frames} holds NaN or infinity; "
                "mend the features, or skip such frames: bad_frames='skip'."
            )
        return Step(state.past, self.answer(state) if answer else None, state)

    def answer(self, state: StreamState) -> Mapping[str, Float[np.ndarray, "query _"]]:
        """What comes after the last frame taken in, by head."""
        found = self._answer({STATE + name: state.tensors[name] for name in self._read})
        return {head: found[FUTURE + head] for head in self.about.heads}

    def save_state(self, state: StreamState, path: Path, frames: int | None = None) -> None:
        """Write a state to a file; the stream can go on from it later, here or elsewhere.

        Args:
            state: After the last frame given.
            path: A safetensors file.
            frames: Of the stream, those that its stride leaves out too; absent, whole strides.
        """
        self._require_own(state)
        tensors = {**state.tensors, **_named(PAST, state.past)}
        kept = KeptState(tensors=tensors, model=state.model, steps=state.frames, frames=frames)
        write_state(path, kept)

    def restored(self, path: Path) -> StreamState:
        """The state that `save_state` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is broken, or the state of another model.
        """
        return self.taken_over(read_state(path))

    def taken_over(self, kept: KeptState) -> StreamState:
        """The state that a file held.

        Raises:
            ValueError: It is the state of another model.
        """
        like = self.initial_state()
        state = replace(
            like,
            tensors={n: part for n, part in kept.tensors.items() if not n.startswith(PAST)},
            past={head: kept.tensors.get(PAST + head, none) for head, none in like.past.items()},
            frames=kept.steps,
            model=kept.model,
        )
        self._require_own(state)
        return state

    def _require_own(self, state: StreamState) -> None:
        require_model(state.model, self.about)
        expected = {part.name: (part.shape, part.dtype) for part in self.about.state}
        found = {n: (part.shape, str(part.dtype)) for n, part in state.tensors.items()}
        if found != expected:
            odd = sorted(n for n in expected.keys() | found if expected.get(n) != found.get(n))
            raise ValueError(
                "the state must hold the tensors of this model, it differs in "
                f"{', '.join(odd)}; start the stream anew."
            )


def require_model(model: str, about: StreamDescription) -> None:
    """Raise a ValueError where a state belongs to another model."""
    if model != about.fingerprint:
        raise ValueError(
            f"the state must be one of this model ({about.fingerprint}), got one of {model}; start "
            "the stream anew, or take the export of the checkpoint that it ran on."
        )


def engine_of(precision: Precision, engine: Engine) -> Engine:
    """The engine that runs a precision.

    Raises:
        ValueError: It cannot, or is not installed.
    """
    chosen = engine
    if engine == "auto":
        chosen = "onnxruntime" if precision == "fp32" else "openvino"
    if chosen == "onnxruntime" and precision == "bfloat16":
        raise ValueError(
            "engine must be openvino for bfloat16, got onnxruntime, which has no such products."
        )
    _installed(chosen)
    return chosen


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ValueError(
            f"this stream runs in {name}, which is not installed; pip install 'actioncast[export]'."
        ) from None


def _onnxruntime_graph(file: Path, threads: int, precision: Precision) -> Graph:  # noqa: ARG001
    ort = _installed("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Two graphs take turns: one that has answered must not keep a core busy waiting.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Tensors) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _openvino_graph(file: Path, threads: int, precision: Precision) -> Graph:
    openvino = _installed("openvino")
    core = openvino.Core()
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        # Activations stay as they are: rounding them too costs more than it saves.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(str(file), "CPU", options)
    request, one_at_a_time = compiled.create_infer_request(), Lock()
    inputs = [port.get_any_name() for port in compiled.inputs]
    outputs = [_own_name(port.get_names()) for port in compiled.outputs]

    def run(given: Tensors) -> dict[str, np.ndarray]:
        # The two C types of 64 bits are two types to OpenVINO; NumPy's own is the one it knows.
        named = [np.asarray(given[name], given[name].dtype.name) for name in inputs]
        # The engine writes its next answer into the same memory, whichever stream asks for it.
        with one_at_a_time:
            request.infer(named, share_inputs=True)
            return {
                name: request.get_output_tensor(i).data.copy() for i, name in enumerate(outputs)
            }

    return run


def _own_name(names: set[str]) -> str:
    return next(name for name in names if name.startswith((PAST, AFTER, FUTURE)))


def _named(kind: str, tensors: Tensors) -> dict[str, np.ndarray]:
    return {kind + name: part for name, part in tensors.items()}
