"""Activations quantised by ranges from a file, beside the same graph that finds them out itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scorer_svc.activation_ranges import fix_ranges, quantised_activations
from scorer_svc.graph import open_graph, session_options
from scorer_svc.model_files import find_model, shipped_models
from scorer_svc.sentiment import ModelError
from sentimesh.model_store.quantize import quantize
from tests.scorer_svc.bert import bert_graph

VOCABULARY = 50


def answer(model: onnx.ModelProto, ids: NDArray[np.int64], names: list[str] | None = None) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options())
    values: list[NDArray[np.float32]] = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return values


def fixed(model: onnx.ModelProto, path: Path, ranges: object) -> onnx.ModelProto:
    path.write_text(json.dumps(ranges))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fix_ranges(copy, path)
    onnx.checker.check_model(copy)
    return copy


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    folder = tmp_path_factory.mktemp("int8")
    graph = bert_graph(layers=2, hidden=32, heads=2, vocabulary=VOCABULARY)
    (folder / "float.onnx").write_bytes(graph.SerializeToString())
    quantize(folder / "float.onnx", folder / "int8.onnx")
    return onnx.load(folder / "int8.onnx")


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_by_the_ranges_that_a_text_has_it_is_scored_as_by_those_found_out(
    int8: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory, seed: int, tokens: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (1, tokens))
    watched = onnx.ModelProto()
    watched.CopyFrom(int8)
    names = quantised_activations(int8)
    assert len(names) == 10
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    seen = zip(names, answer(watched, ids, names), strict=True)
    own = {name: [float(value.min()), float(value.max())] for name, value in seen}
    model = fixed(int8, tmp_path_factory.mktemp("own") / "ranges.json", own)
    # A rounding of the scale may put a value that lies between two steps on the other.
    np.testing.assert_allclose(answer(model, ids)[0], answer(int8, ids)[0], atol=2e-3)
    assert not quantised_activations(model)


def small_graph() -> onnx.ModelProto:
    """x, quantised and back."""
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("ends", "ought"),
    [
        ([-1.0, 1.55], [-1.0, -0.5, 0.0, 1.0, 1.55]),
        # Zero is always a step of its own: padding is zero.
        ([0.5, 2.55], [0.0, 0.0, 0.0, 1.0, 2.55]),
        ([-2.55, -0.5], [-2.55, -0.5, 0.0, 0.0, 0.0]),
    ],
)
def test_what_is_outside_of_a_range_becomes_its_end(tmp_path: Path, ends: list[float], ought: list[float]) -> None:
    model = fixed(small_graph(), tmp_path / "ranges.json", {"x": ends})
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options())
    assert [node.name for node in session.get_inputs()] == ["x"]
    [values] = session.run(None, {"x": np.array([-9.0, -0.5, 0.0, 1.0, 9.0], dtype=np.float32)})
    assert values == pytest.approx(ought, abs=0.006)


@pytest.mark.parametrize("name", shipped_models())
def test_the_shipped_models_quantise_by_fixed_ranges(name: str) -> None:
    model = find_model(name)
    assert model.ranges is not None
    assert not open_graph(model.folder / "model.onnx", ranges=model.ranges).neighbours_matter
    assert open_graph(model.folder / "model.onnx").neighbours_matter


@pytest.mark.parametrize(
    ("ranges", "says"),
    [
        ({}, "is for another graph (see x)"),
        ({"x": [-1, 1], "z": [-1, 1]}, "is for another graph (see z)"),
        ({"x": [1, 1]}, "gives x the range 1.0 to 1.0, which is empty"),
        ({"x": [1, -1]}, "gives x the range 1.0 to -1.0, which is empty"),
        ({"x": [1]}, "holds no ranges (x.1: "),
        ({"x": [0, "wide"]}, "holds no ranges (x.1: "),
        ({"x": [0, float("inf")]}, "holds no ranges (x.1: "),
        ({"x": [float("nan"), 1]}, "holds no ranges (x.0: "),
        ([], "holds no ranges (the whole: "),
    ],
    ids=str,
)
def test_ranges_that_cannot_be_used_are_refused(tmp_path: Path, ranges: object, says: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / 'ranges.json'} {says}")):
        fixed(small_graph(), tmp_path / "ranges.json", ranges)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        fix_ranges(small_graph(), tmp_path / "ranges.json")
