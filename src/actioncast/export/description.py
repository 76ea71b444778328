"""`stream.json`: what an exported stream is, so that its graphs need no checkpoint."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from math import inf, prod
from pathlib import Path
from typing import Any, Literal, get_args

from actioncast.checkpoint import from_json, json_bytes, to_json
from actioncast.export.clam_names import FUTURE, PAST
from actioncast.files import replace_file
from actioncast.timeline import LabelSpace, Taxonomy

FILE = "stream.json"
FORMAT = 1
"""Version of the folder's layout."""
Precision = Literal["fp32", "bfloat16", "int8"]
"""How weights are kept and multiplied. fp32: the numbers of PyTorch. int8: matrices of processor
and predictor in 8 bits (`rounded_matrices`), all else float32. bfloat16: products in bfloat16."""
Part = Literal["advance", "answer"]
"""`advance` takes one frame into the state and names it; `answer` says what comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShape:
    """A tensor of the state, of one stream."""

    name: str
    """As `ClamState.tensors` names it."""
    shape: tuple[int, ...]
    """With a batch of 1."""
    dtype: Literal["float32", "int64"]
    """As NumPy names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One classifier's labels."""

    names: tuple[str, ...]
    """In the order of its probabilities."""
    background: tuple[str, ...] = ()
    """Those that mean no action."""
    unknown: tuple[str, ...] = ()
    """Those that say that nobody knows; their probability is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile:
    """One graph on disk, or the weights beside it."""

    file: str
    """Its name in the folder."""
    sha256: str
    """Of the file."""
    bytes: int
    """Its length."""

    @classmethod
    def of(cls, file: Path) -> "GraphFile":
        """What is to be said of a file."""
        return cls(file=file.name, sha256=sha256(file), bytes=file.stat().st_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDescription:
    """All that a runtime must know of an exported stream."""

    model: str
    """Its name in `MODELS`."""
    fingerprint: str
    """Of the model exported; a state belongs to it."""
    precision: Precision
    """How its weights are kept and multiplied."""
    rate: float
    """Frames per second that it was trained on."""
    stride: int
    """Every how many frames it reads one."""
    feature_dim: int
    """Width of a frame's features."""
    primary: str
    """The head that names the action."""
    heads: Mapping[str, Head]
    """Labels by head."""
    ahead: tuple[float, ...]
    """Seconds after a frame that `answer` names, a row each; empty where it names actions in
    order."""
    num_coming: int
    """Next actions that `answer` names in order instead, a row each; 0 where it names moments."""
    state: tuple[TensorShape, ...]
    """What is carried from frame to frame, in the order of the graphs' inputs."""
    graphs: Mapping[str, GraphFile]
    """`advance` and `answer`."""
    run: Mapping[str, Any]
    """What the training run said of itself, in short: recipe, data set, split."""
    calibration: str
    """Frames that the rounding of int8 was fitted on; empty where none were."""
    versions: Mapping[str, str]
    """Of the packages that made the graphs."""
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of the probabilities by the names of the graphs' outputs, those of the state left
    out; empty in folders that do not say."""
    data: tuple[GraphFile, ...] = ()
    """Weights too large for the graphs, which read them from these files; mostly none."""

    def taxonomy(self) -> Taxonomy:
        """The labels of all heads."""
        spaces = {
            name: LabelSpace(head.names, frozenset(head.background), frozenset(head.unknown))
            for name, head in self.heads.items()
        }
        return Taxonomy(spaces, self.primary)

    @property
    def num_floats(self) -> int:
        """Numbers that one stream carries."""
        return sum(prod(tensor.shape) for tensor in self.state if tensor.dtype == "float32")


def write_description(folder: Path, description: StreamDescription) -> None:
    """Write `stream.json`, the last of the files: a folder without it is no exported stream."""
    stream = to_json(description)
    about = {"format": FORMAT, "stream": stream, "sha256": _digest(stream)}
    replace_file(folder / FILE, json_bytes(about))


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported stream, or what is left of one."""
    return (folder / FILE).is_file() or _holds_graphs(folder)


def read_description(folder: Path) -> StreamDescription:
    """Read `stream.json` and check it against itself and against the graphs beside it.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is broken, was changed, or is of another export.
    """
    file = folder / FILE
    if not file.is_file():
        if _holds_graphs(folder):
            raise FileNotFoundError(
                f"{folder} holds graphs and no {FILE}, as an export leaves it that did not end; "
                "export again."
            )
        raise FileNotFoundError(
            f"{folder} holds no {FILE}; give a folder that `actioncast export` wrote."
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        version, stream = about["format"], about["stream"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} must be the JSON that `actioncast export` wrote.") from None
    if version != FORMAT:
        raise ValueError(
            f"{file} must be of format {FORMAT}, got {version}; export the run again with this "
            "version of actioncast."
        )
    description = from_json(StreamDescription, stream, str(file))
    for where, sentence in chain(
        _odd_numbers(description), _odd_labels(description), _odd_files(description)
    ):
        raise ValueError(f"{file}: {where} {sentence}; export the run again.")
    if about.get("sha256", _digest(stream)) != _digest(stream):
        raise ValueError(
            f"{file} must be as `actioncast export` wrote it, its own SHA-256 is another: {FILE} "
            "was changed after export; export again."
        )
    for graph in (*description.graphs.values(), *description.data):
        path = folder / graph.file
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} must hold {graph.file}, it is missing; export the run again."
            )
        if sha256(path) != graph.sha256:
            raise ValueError(
                f"{path} must be the file that {FILE} was written with, its SHA-256 is another; "
                "copy the whole folder again, or export the run again."
            )
    return description


def _holds_graphs(folder: Path) -> bool:
    return any((folder / f"{part}.onnx").is_file() for part in get_args(Part))


def _digest(stream: Any) -> str:
    """Of what JSON holds, whatever its layout."""
    return hashlib.sha256(json.dumps(stream, sort_keys=True).encode()).hexdigest()


def _odd_numbers(about: StreamDescription) -> Iterator[tuple[str, str]]:
    """Fields of rate, sizes and moments that cannot be as they are, and what they must be."""
    if not 0 < about.rate < inf:
        yield "rate", f"must be finite frames a second above 0, got {about.rate}"
    for name in ("stride", "feature_dim"):
        if getattr(about, name) < 1:
            yield name, f"must be 1 or more, got {getattr(about, name)}"
    if about.num_coming < 0:
        yield "num_coming", f"must be 0 or more, got {about.num_coming}"
    moments = (0.0, *about.ahead)
    if not all(one < two < inf for one, two in pairwise(moments)):
        yield "ahead", f"must be increasing seconds above 0, got {about.ahead}"
    if bool(about.ahead) == bool(about.num_coming):
        yield "ahead", "must name moments, or else num_coming a number of actions, got both or none"
    for tensor in about.state:
        if tensor.shape[:1] != (1,) or min(tensor.shape) < 1:
            yield f"state.{tensor.name}", f"must have the shape of one stream, got {tensor.shape}"


def _odd_labels(about: StreamDescription) -> Iterator[tuple[str, str]]:
    """Labels that are none, or for which the graphs give no probabilities or others."""
    for name, head in about.heads.items():
        try:
            LabelSpace(head.names, frozenset(head.background), frozenset(head.unknown))
        except ValueError as error:
            yield f"heads.{name}", f"must be a list of labels: {str(error).rstrip('.')}"
    if about.primary not in about.heads:
        heads = ", ".join(about.heads)
        yield "primary", f"must be one of the heads {heads}, got {about.primary!r}"
    if not about.outputs:
        return
    expected = {kind + head for kind in (PAST, FUTURE) for head in about.heads}
    if odd := sorted(expected ^ about.outputs.keys()):
        yield "outputs", f"must be past and future of every head, they differ in {', '.join(odd)}"
        return
    queries = about.num_coming or len(about.ahead)
    for name, head in about.heads.items():
        for kind, rows in ((PAST, 1), (FUTURE, queries)):
            shape = about.outputs[kind + name]
            if len(shape) != 2 or shape[1] != len(head.names):
                found = f"{len(head.names)} and {shape}"
                yield f"heads.{name}.names", f"must be as many as {kind}{name} gives, got {found}"
            elif shape[0] != rows:
                where = "num_coming" if about.num_coming else "ahead"
                yield where, f"must be as many as {kind}{name} has rows, got {rows} and {shape}"


def _odd_files(about: StreamDescription) -> Iterator[tuple[str, str]]:
    """Names of tensors, graphs and files that cannot be."""
    names = [tensor.name for tensor in about.state]
    if len(set(names)) < len(names):
        yield "state", f"must name each tensor once, got {', '.join(names)}"
    if about.graphs.keys() != set(get_args(Part)):
        parts = ", ".join(about.graphs) or "none"
        yield "graphs", f"must be {' and '.join(get_args(Part))}, got {parts}"
    named = {f"graphs.{part}.file": graph.file for part, graph in about.graphs.items()}
    named |= {f"data.{i}.file": one.file for i, one in enumerate(about.data)}
    for where, name in named.items():
        if name in ("", ".", "..") or set(name) & set("/\\:\0"):
            yield where, f"must be the plain name of a file in the folder, got {name!r}"


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
