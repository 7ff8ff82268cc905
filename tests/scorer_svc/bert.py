"""BERT classifiers with random weights: the graph of the real ones, none of their knowledge."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

CLASSES = 3
MASKED = -1e4


class _Graph:
    """Nodes and weights as they are written down."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[np.generic]] = {}
        self._rng = np.random.default_rng(seed)

    def node(self, operator: str, *inputs: str, **attributes: int | float | list[int]) -> str:
        name = f"{operator}_{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights[name] = value
        return name

    def random(self, *shape: int) -> str:
        """A weight as BERT's are before training: normal, deviation 0.02."""
        return self.constant(self._rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        return self.node("Add", self.node("MatMul", value, self.random(inputs, outputs)), self.random(outputs))

    def normalized(self, value: str, size: int) -> str:
        ones, zeros = np.ones(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
        return self.node("LayerNormalization", value, self.constant(ones), self.constant(zeros), axis=-1, epsilon=1e-12)

    def gelu(self, value: str) -> str:
        erf = self.node("Erf", self.node("Div", value, self.number(np.sqrt(2.0))))
        half = self.node("Mul", value, self.node("Add", erf, self.number(1.0)))
        return self.node("Mul", half, self.number(0.5))


def bert_graph(
    *, layers: int, hidden: int, heads: int, vocabulary: int, positions: int = 512, seed: int = 7
) -> onnx.ModelProto:
    """Return a float graph of input_ids and attention_mask (batch by sequence) to logits (batch by 3).

    BERT base, and so FinBERT, has 12 layers of 768 with 12 heads (Devlin et al. 2019, section 3).
    """
    graph = _Graph(seed)
    places = graph.node("Shape", "input_ids", start=1, end=2)
    here = graph.node(
        "Slice", graph.random(positions, hidden), graph.constant(np.array([0])), places, graph.constant(np.array([0]))
    )
    value = graph.node("Add", graph.node("Gather", graph.random(vocabulary, hidden), "input_ids"), here)
    value = graph.normalized(value, hidden)
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = graph.node("Mul", graph.node("Sub", graph.number(1.0), mask), graph.number(MASKED))
    mask = graph.node("Unsqueeze", mask, graph.constant(np.array([1, 2])))
    for _ in range(layers):
        value = _layer(graph, value, mask, hidden, heads)
    first = graph.node("Gather", value, graph.constant(np.array(0)), axis=1)
    graph.linear(graph.node("Tanh", graph.linear(first, hidden, hidden)), hidden, CLASSES)
    graph.nodes[-1].output[0] = "logits"
    described = helper.make_graph(
        graph.nodes,
        "bert",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in graph.weights.items()],
    )
    return helper.make_model(described, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _layer(graph: _Graph, value: str, mask: str, hidden: int, heads: int) -> str:
    split = graph.constant(np.array([0, 0, heads, hidden // heads]))

    def by_head(order: list[int]) -> str:
        projected = graph.node("Reshape", graph.linear(value, hidden, hidden), split)
        return graph.node("Transpose", projected, perm=order)

    match = graph.node("MatMul", by_head([0, 2, 1, 3]), by_head([0, 2, 3, 1]))
    match = graph.node("Add", graph.node("Div", match, graph.number(np.sqrt(hidden / heads))), mask)
    seen = graph.node("MatMul", graph.node("Softmax", match, axis=-1), by_head([0, 2, 1, 3]))
    seen = graph.node("Transpose", seen, perm=[0, 2, 1, 3])
    seen = graph.node("Reshape", seen, graph.constant(np.array([0, 0, hidden])))
    value = graph.normalized(graph.node("Add", value, graph.linear(seen, hidden, hidden)), hidden)
    wide = graph.gelu(graph.linear(value, hidden, 4 * hidden))
    return graph.normalized(graph.node("Add", value, graph.linear(wide, 4 * hidden, hidden)), hidden)
