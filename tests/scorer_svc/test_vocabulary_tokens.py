"""Small graphs made here, fp32 and int8, and the shipped model: what a BERT model is after it got new tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import BertWordPieceTokenizer, Tokenizer

from scorer_svc.model_files import find_model
from scorer_svc.onnx_model import OnnxModel
from scorer_svc.sentiment import ModelError
from scorer_svc.vocabulary import Entry, load_vocabulary
from scorer_svc.vocabulary_tokens import extend_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hold", "for", "long", "price", "rise", "##s", "moon", "up", "b", "##tc"]
WIDTH = 8
HODL = Entry("words", "hodl", "hold for long", 0.5)
ROCKET = Entry("emoji", "🚀", "price rises", 1.0)
MOON = Entry("words", "moon", "rise", 0.5)
PHRASE = Entry("phrases", "hold up", "rise", 0.5)
BTC = Entry("tickers", "btc", "price")
ENTRIES = [HODL, ROCKET, MOON, PHRASE, BTC]


def make_model(folder: Path, rows: int = len(WORDS), *, ids: str = "input_ids") -> Path:
    """Write a classifier that adds up its word embeddings; the graph has ``rows`` of them."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    table = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    head = rng.normal(size=(WIDTH, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["cast"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", ids], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    constants = [numpy_helper.from_array(a, n) for n, a in (("table", table), ("head", head), ("axes", np.array([1])))]
    graph = helper.make_graph(nodes, "classifier", inputs, [output], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    tokenizer = BertWordPieceTokenizer({word: index for index, word in enumerate(WORDS)})
    tokenizer.save(str(folder / "tokenizer.json"))
    labels = {"0": "negative", "1": "neutral", "2": "positive"}
    (folder / "config.json").write_text(json.dumps({"id2label": labels, "vocab_size": rows, "hidden_size": WIDTH}))
    return folder


@pytest.fixture(params=["fp32", "int8", "int8 before the Gather", "through a Cast", "padded rows"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    match request.param:
        case "fp32":
            return make_model(folder)
        case "through a Cast":
            return make_model(folder, ids="cast")
        case "padded rows":
            return make_model(folder, len(WORDS) + 2)
        case "int8":
            make_model(folder)
            quantize_dynamic(
                folder / "model.onnx", folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8
            )
        case _:
            make_model(folder)
            dequantize_before_gather(folder / "model.onnx", np.array(0.02, dtype=np.float32))
    return folder


def dequantize_before_gather(path: Path, scale: NDArray[np.float32]) -> None:
    """Hold the table as int8 that is dequantised as a whole, as static quantisation does it."""
    graph = onnx.load(path)
    [table] = [tensor for tensor in graph.graph.initializer if tensor.name == "table"]
    values = numpy_helper.to_array(table)
    columns = scale.reshape(-1, 1) if scale.ndim else scale
    table.CopyFrom(numpy_helper.from_array(np.clip(np.rint(values / columns), -127, 127).astype(np.int8), "quantised"))
    graph.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    graph.graph.node.insert(0, helper.make_node("DequantizeLinear", ["quantised", "scale"], ["table"], axis=0))
    onnx.save(onnx.shape_inference.infer_shapes(graph), path)


def embeddings(folder: Path, ids: list[int]) -> NDArray[np.float32]:
    """Return the rows as the graph itself hands them on: logits of one token are its row times the head."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.vstack([session.run(None, {"input_ids": np.array([[i]])})[0] for i in ids])


def token_ids(folder: Path, text: str) -> list[int]:
    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids)


def test_new_tokens_follow_the_old_and_the_models_own_stay(model: Path, tmp_path: Path) -> None:
    extension = extend_model(model, tmp_path / "extended", ENTRIES)
    assert extension.added == ("hodl", "🚀", "btc")
    assert extension.kept == ("moon",)
    new = len(WORDS)
    assert token_ids(tmp_path / "extended", "HODL moon🚀🚀 #btc hodlbtc hold up") == [
        *(new, WORDS.index("moon"), new + 1, new + 1),
        *(WORDS.index("[UNK]"), new + 2, WORDS.index("[UNK]"), WORDS.index("hold"), WORDS.index("up")),
    ]
    assert json.loads((tmp_path / "extended" / "config.json").read_text())["vocab_size"] == new + 3
    assert find_model(str(tmp_path / "extended")).version != find_model(str(model)).version


def test_a_new_row_is_the_mean_of_its_glosss_pieces(model: Path, tmp_path: Path) -> None:
    extend_model(model, tmp_path / "extended", ENTRIES)
    old = embeddings(model, list(range(len(WORDS))))
    new = embeddings(tmp_path / "extended", list(range(len(WORDS) + 3)))
    assert np.array_equal(new[: len(WORDS)], old)
    for row, gloss in zip(new[len(WORDS) :], (HODL.gloss, ROCKET.gloss, BTC.gloss), strict=True):
        # A quantised row is off by half a step at most, in each of the columns that the head adds up, and the int8
        # matrix multiplication rounds its input once more.
        assert row == pytest.approx(old[token_ids(model, gloss)].mean(axis=0), abs=0.2)


def test_the_mean_of_a_float_table_is_exact(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    extend_model(model, tmp_path / "extended", [HODL])
    mean = embeddings(model, token_ids(model, HODL.gloss)).mean(axis=0)
    assert embeddings(tmp_path / "extended", [len(WORDS)])[0] == pytest.approx(mean, abs=1e-5)


def test_extending_again_changes_nothing_and_may_be_done_in_place(model: Path) -> None:
    extend_model(model, model, ENTRIES)
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    assert extend_model(model, model, ENTRIES).added == ()
    assert {path.name: path.read_bytes() for path in model.iterdir()} == files


def test_the_shipped_model_keeps_its_own_tokens_and_scores_the_same_without_new_ones(tmp_path: Path) -> None:
    shipped = find_model("sentimesh-mini")
    entries = load_vocabulary()
    extension = extend_model(shipped.folder, tmp_path / "extended", entries)
    assert {"hodl", "rekt", "🚀", "moon", "btc"} <= set(extension.kept)
    assert {"solana", "nuked", "🐀"} <= set(extension.added)
    assert len(extension.added) + len(extension.kept) == sum(entry.group != "phrases" for entry in entries)
    before, after = OnnxModel(shipped), OnnxModel(find_model(str(tmp_path / "extended")))
    old, new = ["hodl your btc, it will moon 🚀", "nothing to see here", ""], ["it got nuked today"]
    assert after.score(old) == before.score(old)
    assert after.score(new) != before.score(new)
    assert after.model_version.startswith("extended-")


def test_a_gloss_without_a_known_word_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    with pytest.raises(ModelError, match="knows no word of the gloss of 'hodl': reword 'zzz'"):
        extend_model(model, tmp_path / "extended", [Entry("words", "hodl", "zzz")])
    assert not (tmp_path / "extended").exists()


def test_a_graph_with_fewer_rows_than_tokens_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", len(WORDS) - 1)
    with pytest.raises(ModelError, match="has 13 x 8 word embeddings for 14 tokens"):
        extend_model(model, tmp_path / "extended", ENTRIES)


def test_a_scale_for_each_row_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    dequantize_before_gather(model / "model.onnx", np.full(len(WORDS), 0.02, dtype=np.float32))
    with pytest.raises(ModelError, match="more than one scale for its word embeddings: quantise them with one"):
        extend_model(model, tmp_path / "extended", ENTRIES)


def test_a_graph_without_a_table_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    graph = onnx.load(model / "model.onnx")
    graph.graph.node[1].op_type = "GatherND"
    onnx.save(graph, model / "model.onnx")
    with pytest.raises(ModelError, match="0 tables that input_ids pick rows of, not one"):
        extend_model(model, tmp_path / "extended", ENTRIES)


def test_token_numbers_with_a_gap_are_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", 40)
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"]["vocab"]["far"] = 30
    (model / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="does not number its tokens from 0 on without a gap"):
        extend_model(model, tmp_path / "extended", ENTRIES)
    assert not (tmp_path / "extended").exists()


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "model")
    for break_it in ((model / name).unlink, lambda: (model / name).write_bytes(b"\x01{")):
        break_it()
        with pytest.raises(ModelError, match=r"holds no model that can be extended .*: it needs model\.onnx"):
            extend_model(model, tmp_path / "extended", ENTRIES)
