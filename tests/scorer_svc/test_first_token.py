"""What is spared of a graph changes no answer, and is all that can be spared."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from scorer_svc.first_token import first_token_only
from scorer_svc.graph import session_options
from scorer_svc.model_files import find_model
from tests.scorer_svc.bert import bert_graph

BATCH, TOKENS, VOCABULARY = 2, 9, 50


def answer(model: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options())
    logits: NDArray[np.float32] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return logits


def spared(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert first_token_only(copy)
    onnx.checker.check_model(copy)
    return copy


def rows(model: onnx.ModelProto) -> list[int]:
    """Of each product of a text's tokens with a matrix of weights, in order, how many tokens of nine it takes."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in {"MatMul", "MatMulInteger"}]
    names = [node.input[0] for node in products if node.input[1] in weights]
    kinds = {"MatMul": onnx.TensorProto.FLOAT, "MatMulInteger": onnx.TensorProto.UINT8}
    for name in dict.fromkeys(names):
        watched.graph.output.append(helper.make_tensor_value_info(name, kinds[products[0].op_type], None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), session_options())
    ids = np.full((BATCH, TOKENS), 7)
    taken = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return [value.shape[1] for value in taken if value.ndim == 3]


@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_a_graph_of_floats_answers_as_before(layers: int, heads: int, lengths: list[int], seed: int) -> None:
    graph = bert_graph(layers=layers, hidden=32, heads=heads, vocabulary=VOCABULARY, seed=seed)
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    np.testing.assert_allclose(answer(spared(graph), ids, mask), answer(graph, ids, mask), atol=1e-5)


def test_of_the_last_layer_only_keys_and_values_take_every_token() -> None:
    """Query, key, value, attention's output, and the two of the feed-forward part."""
    graph = bert_graph(layers=2, hidden=32, heads=2, vocabulary=VOCABULARY)
    assert rows(graph) == [TOKENS] * 12
    whole, last = rows(spared(graph))[:6], rows(spared(graph))[6:]
    assert whole == [TOKENS] * 6
    assert sorted(last) == [1, 1, 1, 1, TOKENS, TOKENS]


@pytest.mark.parametrize(("name", "layers"), [("sentimesh-base", 6), ("sentimesh-mini", 3)])
def test_the_shipped_models_are_spared_as_much(name: str, layers: int) -> None:
    """Their shapes are computed as torch exports them; their activations are quantised."""
    model = onnx.load(find_model(name).folder / "model.onnx")
    less = spared(model)
    assert not [node for node in less.graph.node if node.op_type == "Concat" and "/encoder/" in node.output[0]]
    taken = rows(less)
    assert sorted(taken[-6:]) == [1, 1, 1, 1, TOKENS, TOKENS]
    assert taken[:-6] == [TOKENS] * 6 * (layers - 1)
    rng = np.random.default_rng(5)
    for length in (3, 20):
        ids = rng.integers(1000, 20_000, (1, length))
        np.testing.assert_allclose(
            answer(less, ids, np.ones_like(ids)), answer(model, ids, np.ones_like(ids)), atol=0.05
        )


def test_what_else_is_read_is_computed() -> None:
    """A graph that gives its last hidden state as well, and one that takes a mean of all tokens."""
    graph = bert_graph(layers=1, hidden=32, heads=2, vocabulary=VOCABULARY)
    [first] = [node for node in graph.graph.node if node.op_type == "Gather" and node.attribute and node.attribute[0].i]
    hidden = first.input[0]
    both = onnx.ModelProto()
    both.CopyFrom(graph)
    both.graph.output.append(helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, None))
    assert not first_token_only(both)
    mean = helper.make_node("ReduceMean", [hidden], [first.output[0]], axes=[1], keepdims=0)
    place = list(graph.graph.node).index(first)
    graph.graph.node.remove(first)
    graph.graph.node.insert(place, mean)
    assert not first_token_only(graph)


def test_a_second_token_is_none_of_ours() -> None:
    graph = bert_graph(layers=1, hidden=32, heads=2, vocabulary=VOCABULARY)
    [first] = [node for node in graph.graph.node if node.op_type == "Gather" and node.attribute and node.attribute[0].i]
    [index] = [tensor for tensor in graph.graph.initializer if tensor.name == first.input[1]]
    index.CopyFrom(onnx.numpy_helper.from_array(np.array(1), index.name))
    assert not first_token_only(graph)
