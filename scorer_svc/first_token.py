"""A BERT classifier reads one token of its last layer, the first: the rest of that layer need not be computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

# Operators that do to each element the same, inputs of fewer axes spread over it.
ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Pow", "Relu", "Sqrt", "Sub", "Tanh"})
# Operators that do to each vector along the last axis the same.
VECTOR_BY_VECTOR = frozenset({"LayerNormalization", "ReduceMean", "Softmax"})
# In the shape given to a Reshape: as long as that axis of the input.
COPIED = 0

_Axis = tuple[str, int]
_Use = tuple[NodeProto, int, int]  # a node, which of its inputs, the axis of which it wants the first element alone


def first_token_only(model: onnx.ModelProto) -> bool:
    """Rewrite a graph to compute of its last layer what its logits are made of; tell whether anything was saved.

    Where a Gather takes the first element of axis 1, that axis is followed upwards for as long as nothing else reads
    it, through operators that treat its elements alike; there (the last layer's input, whose keys and values read it
    whole) a Slice takes the one element. Graphs of floats answer as before. Where activations are quantised their
    scale is that of the one token from there on. What cannot be shown to be so is left as it is.
    """
    try:
        graph = _Graph(model)
    except onnx.shape_inference.InferenceError:
        return False
    graph.make_shapes_constant()
    return graph.take_first_early()


class _Graph:
    """A graph with what is looked up in it: who makes and who reads a tensor, its axes, its value."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph: GraphProto = model.graph
        self._makers = {name: node for node in self._graph.node for name in node.output}
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self._rank = {name: len(tensor.dims) for name, tensor in self._weights.items()}
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            if value.type.tensor_type.HasField("shape"):
                self._rank[value.name] = len(value.type.tensor_type.shape.dim)

    def make_shapes_constant(self) -> None:
        """Give a constant to each Reshape whose shape is made of its input's own lengths and of constants."""
        for node in self._graph.node:
            made = self._makers.get(node.input[1]) if node.op_type == "Reshape" else None
            if made is None or made.op_type != "Concat":
                continue
            shape = [self._part_of_shape(node.input[0], axis, part) for axis, part in enumerate(made.input)]
            known = [length for length in shape if length is not None]
            if len(known) == len(shape):
                node.input[1] = self._constant(f"{node.output[0]}_shape", known)

    def take_first_early(self) -> bool:
        """Move each Gather of a first token up as far as it goes; tell whether one moved."""
        wants: dict[str, list[_Use]] = defaultdict(list)
        for node in self._graph.node:
            if node.op_type == "Gather" and _numbers(node, "axis") == [1] and self._is_zero(node.input[1]):
                wants[node.input[0]].append((node, 0, 1))
        readers: dict[str, int] = defaultdict(int)
        for name in (*(name for node in self._graph.node for name in node.input), *self._outputs()):
            readers[name] += 1
        saved = False
        upwards: list[NodeProto] = []
        for node in reversed(self._graph.node):
            for name in node.output:
                uses = wants.pop(name, [])
                axes = {axis for _, _, axis in uses}
                alone = len(uses) == readers[name] and len(axes) == 1
                sources = self._sources(node, axes.pop()) if alone and name == node.output[0] else []
                saved |= bool(sources)
                if uses and not sources:
                    upwards += self._slices(name, uses)
                for place, axis in sources:
                    wants[node.input[place]].append((node, place, axis))
            upwards.append(node)
        for name, uses in wants.items():
            upwards += self._slices(name, uses)
        if saved:
            self._keep(upwards)
        return saved

    def _part_of_shape(self, value: str, axis: int, part: str) -> int | None:
        """Return what to write for one part of the shape that a value gets: a number, COPIED, or None for unknown."""
        number = self._value(part)
        if number is not None:
            return int(number.item()) if number.size == 1 else None
        unsqueeze = self._makers.get(part)
        gather = self._makers.get(unsqueeze.input[0]) if unsqueeze and unsqueeze.op_type == "Unsqueeze" else None
        shape = self._makers.get(gather.input[0]) if gather and gather.op_type == "Gather" else None
        place = self._value(gather.input[1]) if gather and shape and shape.op_type == "Shape" else None
        if shape is None or place is None or place.size != 1 or shape.attribute:
            return None
        return COPIED if self._comes_from((value, axis), (shape.input[0], int(place.item()))) else None

    def _comes_from(self, axis: _Axis, source: _Axis) -> bool:
        """Tell whether an axis can be followed up to another, which then has its length."""
        seen: set[_Axis] = set()
        waiting = [axis]
        while waiting:
            here = waiting.pop()
            if here == source:
                return True
            node = self._makers.get(here[0])
            if here not in seen and node is not None and here[0] == node.output[0]:
                waiting += [(node.input[place], above) for place, above in self._sources(node, here[1])]
            seen.add(here)
        return False

    def _sources(self, node: NodeProto, axis: int) -> list[tuple[int, int]]:
        """Return the inputs and their axes whose n-th elements make the n-th of an axis of the first output.

        Empty where there are none or it is not known.
        """
        if any(name not in self._rank for name in (node.output[0], *filter(None, node.input))):
            return []
        rank = self._rank[node.output[0]]
        ranks = [self._rank[name] if name else 0 for name in node.input]
        below = rank - axis
        reached = [(place, own - below) for place, own in enumerate(ranks) if own >= below]
        match node.op_type:
            case operator if operator in ELEMENTWISE:
                return reached
            case operator if operator in VECTOR_BY_VECTOR:
                last = [*_numbers(node, "axes"), *_numbers(node, "axis")] in ([-1], [rank - 1])
                return [(0, axis)] if last and below > 1 else []
            case "DequantizeLinear" | "DynamicQuantizeLinear":
                return [] if any(ranks[1:]) else [(0, axis)]
            case "MatMul" | "MatMulInteger":
                if below > 2:
                    return [(place, above) for place, above in reached if place in (0, 1)]
                return [(0, axis)] if below == 2 and ranks[0] == rank and not any(ranks[2:3]) else []
            case "Gather":
                return [(1, axis)] if not any(_numbers(node, "axis")) and axis < ranks[1] else []
            case "Transpose":
                return [(0, order[axis])] if (order := _numbers(node, "perm")) else []
            case "Reshape":
                shape = self._value(node.input[1])
                copied = shape is not None and not shape[: axis + 1].any() and not any(_numbers(node, "allowzero"))
                return [(0, axis)] if copied else []
            case _:
                return []

    def _slices(self, name: str, uses: Iterable[_Use]) -> list[NodeProto]:
        """Let these uses read the first element alone; return what takes it."""
        nodes: dict[int, NodeProto] = {}
        for node, place, axis in uses:
            first = f"{name}_first_of_{axis}"
            if axis not in nodes:
                bounds = (("from", 0), ("to", 1), ("axis", axis))
                inputs = [self._constant(f"{first}_{bound}", [value]) for bound, value in bounds]
                nodes[axis] = helper.make_node("Slice", [name, *inputs], [first], first)
            node.input[place] = first
        return list(nodes.values())

    def _keep(self, upwards: Iterable[NodeProto]) -> None:
        """Leave those of the nodes, last first, and those weights that the outputs need."""
        needed = set(self._outputs())
        kept = []
        for node in upwards:
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        weights = [tensor for tensor in self._graph.initializer if tensor.name in needed]
        for field in ("node", "initializer", "value_info"):
            self._graph.ClearField(field)
        self._graph.node.extend(reversed(kept))
        self._graph.initializer.extend(weights)

    def _outputs(self) -> list[str]:
        return [output.name for output in self._graph.output]

    def _is_zero(self, name: str) -> bool:
        value = self._value(name)
        return value is not None and value.ndim == 0 and value == 0

    def _value(self, name: str) -> NDArray[np.generic] | None:
        maker = self._makers.get(name)
        if maker is None:
            return numpy_helper.to_array(self._weights[name]) if name in self._weights else None
        tensors = [attribute.t for attribute in maker.attribute if attribute.name == "value"]
        return numpy_helper.to_array(tensors[0]) if maker.op_type == "Constant" and tensors else None

    def _constant(self, name: str, values: Iterable[int]) -> str:
        tensor = numpy_helper.from_array(np.array(list(values), dtype=np.int64), name)
        self._graph.initializer.append(tensor)
        self._weights[name] = tensor
        self._rank[name] = 1
        return name


def _numbers(node: NodeProto, name: str) -> list[int]:
    """Return the whole numbers of an attribute, one or several; none where it is not given."""
    found = [attribute for attribute in node.attribute if attribute.name == name]
    return [number for attribute in found for number in (attribute.ints or [attribute.i])]
