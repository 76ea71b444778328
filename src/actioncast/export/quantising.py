"""Weights of a graph in 8 bits, activations in float32.

Every output of a chosen matrix has its own symmetric scale, so that `W x` becomes `s * (Q x)` with
`Q` in [-127, 127]. What rounding does to the mean of the inputs is added back as a constant
(bias correction, as in Nagel et al., https://arxiv.org/abs/1906.04721): the inputs of a predictor
whose queries are learned hardly move, so that this is most of it. The means are those of frames
that the unrounded model runs over.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from jaxtyping import Float
from onnx import helper, numpy_helper

from actioncast.export.clam_names import AFTER, FRAME, FUTURE, PAST, STATE

LEVELS = 127
"""Largest entry of a rounded matrix; symmetric, so that there is no offset to subtract."""
Means = Mapping[str, Float[np.ndarray, " entry"]]
"""Mean input of a matrix, by the name of the tensor."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product with a constant matrix."""

    place: int
    """Of its node in the graph."""
    reads: str
    """Name of what the matrix is multiplied with."""
    weight: str
    """Name of the matrix."""
    outputs_first: bool
    """Whether a row of the matrix is an output, else a column."""


def constants_like(
    graph: onnx.GraphProto, matrices: Sequence[Float[np.ndarray, "_ _"]]
) -> set[str]:
    """Names of the constants that hold some of these matrices, as they are or transposed."""
    wanted = {_key(matrix) for matrix in matrices} | {_key(matrix.T) for matrix in matrices}
    return {
        tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) == 2
        and tensor.data_type == onnx.TensorProto.FLOAT
        and _key(numpy_helper.to_array(tensor)) in wanted
    }


def _key(matrix: Float[np.ndarray, "_ _"]) -> tuple[tuple[int, ...], bytes]:
    return matrix.shape, hashlib.sha256(np.ascontiguousarray(matrix).tobytes()).digest()


def products(graph: onnx.GraphProto, chosen: Collection[str]) -> list[Product]:
    """Products with chosen constants."""
    found = []
    for place, node in enumerate(graph.node):
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in chosen:
            first = any(a.name == "transB" and a.i == 1 for a in node.attribute)
            found.append(Product(place, node.input[0], node.input[1], first))
    return found


def with_inputs_shown(model: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """The same graph, which also gives out what is multiplied with each chosen constant."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    given = {value.name for value in shown.graph.input}
    names = [product.reads for product in products(shown.graph, chosen)]
    for name in dict.fromkeys(name for name in names if name not in given):
        shown.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return shown


@dataclass
class MeanInputs:
    """Means that are gathered frame by frame."""

    totals: dict[str, Float[np.ndarray, " entry"]]
    counts: dict[str, int]

    @classmethod
    def empty(cls) -> "MeanInputs":
        """Nothing gathered."""
        return cls({}, {})

    def add(self, name: str, values: Float[np.ndarray, "*rows entry"]) -> None:
        """Take in what went into a matrix once."""
        rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
        self.totals[name] = self.totals.get(name, 0.0) + rows.sum(0)
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def means(self) -> Means:
        """By the name of the tensor."""
        return {name: total / self.counts[name] for name, total in self.totals.items()}


def mean_inputs(
    graphs: Mapping[str, onnx.ModelProto],
    chosen: Mapping[str, Collection[str]],
    state: Mapping[str, np.ndarray],
    frames: Float[np.ndarray, "time feature"],
) -> dict[str, Means]:
    """Mean input of every chosen matrix of both graphs, while they run over frames.

    Args:
        graphs: `advance` and `answer`, not rounded.
        chosen: Names of the matrices, by graph.
        state: Before the first frame, by the graphs' names of inputs.
        frames: Of one stream.
    """
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
    state = dict(state)
    for frame in np.asarray(frames, np.float32):
        gathered["advance"].add(FRAME, frame[None])
        for part, given in (("advance", {FRAME: frame[None], **state}), ("answer", None)):
            inputs = {name: state[name] for name in read} if given is None else given
            found = dict(zip(names[part], sessions[part].run(None, inputs), strict=True))
            state |= {STATE + n[len(AFTER) :]: v for n, v in found.items() if n.startswith(AFTER)}
            for name, value in found.items():
                if not name.startswith((PAST, AFTER, FUTURE)):
                    gathered[part].add(name, value)
    return {part: one.means() for part, one in gathered.items()}


def rounded(
    matrix: Float[np.ndarray, "_ _"],
) -> tuple[np.ndarray, Float[np.ndarray, " output"]]:
    """8-bit entries and the scale of each output."""
    most = np.abs(matrix).max(1)
    # An output without weights has no scale of its own; any keeps it at zero.
    scale = (np.where(most > 0, most, 1.0) / LEVELS).astype(np.float32)
    return np.rint(matrix / scale[:, None]).clip(-LEVELS, LEVELS).astype(np.int8), scale


def in_8_bits(model: onnx.ModelProto, means: Means, chosen: Collection[str]) -> onnx.ModelProto:
    """The graph with chosen matrices rounded.

    Args:
        model: Its constants must be folded.
        means: Mean inputs; where one is missing, no mean is put back.
        chosen: Names of the matrices.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = {product.place: product for product in products(graph, chosen)}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for place, node in enumerate(graph.node):
        product = found.get(place)
        if product is None:
            nodes.append(node)
            continue
        name = product.weight
        matrix = numpy_helper.to_array(constants[name])
        by_output = matrix if product.outputs_first else matrix.T
        entries, scale = rounded(by_output)
        if name not in done:
            done.add(name)
            stored = entries if product.outputs_first else entries.T
            graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(stored), f"{name} entries")
            )
            graph.initializer.append(numpy_helper.from_array(scale, f"{name} scale"))
            parts = [f"{name} entries", f"{name} scale"]
            axis = 0 if product.outputs_first else 1
            nodes.append(
                helper.make_node("DequantizeLinear", parts, [f"{name} rounded"], axis=axis)
            )
        node.input[1] = f"{name} rounded"
        nodes.append(node)
        mean = means.get(product.reads)
        if mean is not None:
            lost = (by_output - entries * scale[:, None]).astype(np.float64) @ mean
            nodes.append(_added(graph, node, lost.astype(np.float32)))
    for name in done:
        graph.initializer.remove(constants[name])
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _added(
    graph: onnx.GraphProto, node: onnx.NodeProto, constant: Float[np.ndarray, " output"]
) -> onnx.NodeProto:
    """A node that adds a constant to what another gives."""
    output = node.output[0]
    node.output[0] = f"{output} without its mean"
    graph.initializer.append(numpy_helper.from_array(constant, f"{output} mean"))
    return helper.make_node("Add", [node.output[0], f"{output} mean"], [output])
