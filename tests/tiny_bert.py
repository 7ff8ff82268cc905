"""A BERT-type classifier of random weights: embeddings, a layer of self-attention, feed-forward, three outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import BertWordPieceTokenizer

# ProsusAI/finbert's own order.
FINBERT_LABELS = ("positive", "negative", "neutral")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bitcoin", "to", "the", "moon", "it", "is", "over", "sell"]
# So that every English word has its pieces.
LETTERS = [f"{prefix}{letter}" for prefix in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz"]
POSITIONS = 128


def make_tiny_bert(
    folder: Path,
    *,
    seed: int = 0,
    labels: tuple[str, ...] = FINBERT_LABELS,
    rows: int = 200,
    hidden: int = 32,
    graph: str = "model.onnx",
) -> Path:
    """Write graph, tokenizer and configuration; 4 bytes for each of ``rows * hidden`` are most of the graph."""
    (folder / graph).parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)

    def weights(*shape: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float64] = random.standard_normal(shape) / shape[0] ** 0.5
        return drawn.astype(np.float32)

    constants: dict[str, NDArray[np.generic]] = {
        "words": random.standard_normal((rows, hidden)).astype(np.float32),
        "types": random.standard_normal((2, hidden)).astype(np.float32),
        **{name: weights(hidden, hidden) for name in ("query", "key", "value", "inner", "outer")},
        "classifier": weights(hidden, 3) * 4,
        **{name: np.ones(hidden, np.float32) for name in ("scale1", "scale2")},
        "zero": np.array(0, np.int64),
        "root": np.array(np.sqrt(hidden), np.float32),
        "one": np.array(1.0, np.float32),
        "much": np.array(-1e4, np.float32),
        "axis": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["w"]),
        node("Gather", ["types", "token_type_ids"], ["t"]),
        node("Add", ["w", "t"], ["sum"]),
        node("LayerNormalization", ["sum", "scale1"], ["x"]),
        *(node("MatMul", ["x", name], [name[0]]) for name in ("query", "key", "value")),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["products"]),
        node("Div", ["products", "root"], ["scaled"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "axis"], ["mask3"]),
        node("Sub", ["one", "mask3"], ["hidden"]),
        node("Mul", ["hidden", "much"], ["penalty"]),
        node("Add", ["scaled", "penalty"], ["masked"]),
        node("Softmax", ["masked"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v"], ["context"]),
        node("Add", ["x", "context"], ["residual"]),
        node("LayerNormalization", ["residual", "scale2"], ["y"]),
        node("MatMul", ["y", "inner"], ["i"]),
        node("Tanh", ["i"], ["activated"]),
        node("MatMul", ["activated", "outer"], ["o"]),
        node("Gather", ["o", "zero"], ["first"], axis=1),
        node("MatMul", ["first", "classifier"], ["logits"]),
    ]
    shape = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny-bert", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    onnx.save(model, folder / graph)
    BertWordPieceTokenizer({word: index for index, word in enumerate(WORDS + LETTERS)}).save(
        str(folder / "tokenizer.json")
    )
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "max_position_embeddings": POSITIONS,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
