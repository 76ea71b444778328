"""`stream.json`: what an exported stream is, so that its graphs need no checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from actioncast.checkpoint import from_json, json_bytes
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile:
    """One graph on disk."""

    file: str
    """Its name in the folder."""
    sha256: str
    """Of the file."""
    bytes: int
    """Its length."""


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

    def taxonomy(self) -> Taxonomy:
        """The labels of all heads."""
        spaces = {
            name: LabelSpace(tuple(head.names), frozenset(head.background))
            for name, head in self.heads.items()
        }
        return Taxonomy(spaces, self.primary)

    @property
    def num_floats(self) -> int:
        """Numbers that one stream carries."""
        total = 0
        for tensor in self.state:
            size = 1
            for axis in tensor.shape:
                size *= axis
            total += size if tensor.dtype == "float32" else 0
        return total


def write_description(folder: Path, description: StreamDescription) -> None:
    """Write `stream.json`, the last of the files: a folder without it is no exported stream."""
    about = {"format": FORMAT, "stream": description}
    replace_file(folder / FILE, json_bytes(about))


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported stream."""
    return (folder / FILE).is_file()


def read_description(folder: Path) -> StreamDescription:
    """Read `stream.json` and check that the graphs beside it are those that it was written with.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is broken, or of another export.
    """
    file = folder / FILE
    if not file.is_file():
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
    for graph in description.graphs.values():
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


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
