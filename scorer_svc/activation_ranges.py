"""Activations made int8 by ranges known beforehand, so that a text comes out the same whatever runs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from scorer_svc.sentiment import ModelError

ACTIVATION_RANGES = "activation_ranges.json"
STEPS = 255

Ranges = Mapping[str, tuple[float, float]]
_FILE: TypeAdapter[Ranges] = TypeAdapter(Mapping[str, tuple[FiniteFloat, FiniteFloat]])


def read_ranges(path: Path) -> Ranges:
    """Return the least and the greatest value by tensor. Raises ModelError for a file that does not say them."""
    try:
        ranges = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
        raise ModelError(f"{path} holds no ranges ({where}: {error.errors()[0]['msg']}): make it anew") from error
    for name, (least, greatest) in ranges.items():
        if not least < greatest:
            raise ModelError(f"{path} gives {name} the range {least} to {greatest}, which is empty: make it anew")
    return ranges


def quantised_activations(model: onnx.ModelProto) -> list[str]:
    """Return the tensors that a graph quantises by the range they turn out to have, in order."""
    return [node.input[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]


def fix_ranges(model: onnx.ModelProto, path: Path) -> None:
    """Let a graph quantise its activations by the ranges of a file; what is outside of one becomes its end.

    Scale and zero point are DynamicQuantizeLinear's formula (ONNX operator specification) for that range. Raises
    ModelError when these are not the ranges of this graph's activations.
    """
    ranges = read_ranges(path)
    names = set(quantised_activations(model))
    if names != set(ranges):
        odd = sorted(names.symmetric_difference(ranges))[0]
        raise ModelError(f"{path} is for another graph (see {odd}): make it anew, or remove it")
    for node in model.graph.node:
        if node.op_type != "DynamicQuantizeLinear":
            continue
        least, greatest = (bound(0.0, end) for bound, end in zip((min, max), ranges[node.input[0]], strict=True))
        scale = np.float32((greatest - least) / STEPS)
        zero_point = np.rint(-least / scale).clip(0, STEPS).astype(np.uint8)
        _, *parameters = node.output
        for name, value, kind in zip(
            parameters, (scale, zero_point), (TensorProto.FLOAT, TensorProto.UINT8), strict=True
        ):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
            # As an input with a default it is no constant to ONNX Runtime, which else would fold it into the weights'
            # scales and then not find the pattern that it has one kernel for: a tenth slower.
            model.graph.input.append(helper.make_tensor_value_info(name, kind, []))
        node.op_type = "QuantizeLinear"
        del node.output[1:]
        node.input.extend(parameters)
