"""Tiny models that work, or go wrong in one way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import BertWordPieceTokenizer

# Any text begins with [CLS]; the texts that a model is tried with have no "down".
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "bitcoin", "up", "down", "gm"]

Way = Literal["well", "corrupt", "nan", "shape", "inference"]
# What is reported of each.
ERROR_TYPES: dict[Way, str] = {"corrupt": "load", "nan": "non_finite", "shape": "shape", "inference": "inference"}


def write_model(folder: Path, way: Way = "well", *, word: str = "[CLS]", positive: float = 4.0) -> Path:
    """Write a model to a folder, the graph last; it gives any text the logits 0, 0, ``positive``.

    ``word``: texts with it go wrong; those of a graph that is ``corrupt`` do not matter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    BertWordPieceTokenizer({word: index for index, word in enumerate(WORDS)}).save(str(folder / "tokenizer.json"))
    labels = {"0": "negative", "1": "neutral", "2": "positive"}
    (folder / "config.json").write_text(json.dumps({"id2label": labels, "max_position_embeddings": 128}))
    written = folder / "written"
    written.write_bytes(b"no graph" if way == "corrupt" else _graph(way, word, positive).SerializeToString())
    written.replace(folder / "model.onnx")
    return folder


def _graph(way: Way, word: str, positive: float) -> onnx.ModelProto:
    at = WORDS.index(word)
    rows = np.zeros((len(WORDS), 3), dtype=np.float32)
    rows[WORDS.index("[CLS]"), 2] = positive
    picks = np.arange(len(WORDS), dtype=np.int64)
    copies = np.ones(len(WORDS), dtype=np.int64)
    match way:
        case "nan":
            rows[at] = np.nan
        case "inference":
            # A row that is not there.
            picks[at] = len(WORDS)
        case "shape":
            copies[at] = 2
    node = helper.make_node
    nodes = [
        node("Gather", ["picks", "input_ids"], ["picked"]),
        node("Gather", ["rows", "picked"], ["embedded"]),
        node("ReduceSum", ["embedded", "second"], ["summed"], keepdims=0),
        # As many copies of the answer as the text's worst word asks for.
        node("Gather", ["copies", "input_ids"], ["wanted"]),
        node("ReduceMax", ["wanted"], ["most"], axes=[1], keepdims=0),
        node("Concat", ["most", "second"], ["repeats"], axis=0),
        node("Tile", ["summed", "repeats"], ["logits"]),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "picks": picks,
        "rows": rows,
        "copies": copies,
        "second": np.array([1], dtype=np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["copies", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
