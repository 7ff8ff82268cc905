"""Gives a BERT model the tokens of the crypto vocabulary: rows of its embedding table, and added tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper
from tokenizers import AddedToken, Tokenizer

from scorer_svc.activation_ranges import ACTIVATION_RANGES
from scorer_svc.model_files import CONFIG, FILES, GRAPH, TOKENIZER, files_of
from scorer_svc.sentiment import ModelError
from scorer_svc.vocabulary import Entry

# Passed on unchanged between the input and the table's Gather in some exports.
_PASSED_ON = ("Cast", "Identity")


@dataclass(frozen=True, slots=True)
class Extension:
    """What became of the entries: ``added`` in the order of their ids, ``kept`` were the model's already."""

    added: tuple[str, ...]
    kept: tuple[str, ...]


def extend_model(source: Path, target: Path, entries: Iterable[Entry]) -> Extension:
    """Write the model of one folder to another (or over itself) with the entries as tokens; phrases are left out.

    The embedding of a new token is the mean of those of its gloss's word pieces, for a float table as for an int8 one
    with one scale: the mean of the quantised rows is the mean, quantised. A text without a new token keeps its token
    ids and so its score. Raises ModelError for a model this cannot be done to.
    """
    single = [entry for entry in entries if entry.group != "phrases"]
    tokenizer, model, config = _read(source)
    before = tokenizer.get_vocab_size()
    new = [entry for entry in single if tokenizer.token_to_id(entry.token) is None]
    pieces = [_pieces(tokenizer, entry, source) for entry in new]
    _append_rows(model.graph, before, pieces, source / GRAPH)
    tokenizer.add_tokens(added_tokens(tokenizer, new))
    if sorted(tokenizer.get_vocab().values()) != list(range(before + len(new))):
        raise ModelError(f"{source / TOKENIZER} does not number its tokens from 0 on without a gap: export it again")
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / GRAPH)
    tokenizer.save(str(target / TOKENIZER))
    (target / CONFIG).write_text(json.dumps(config | {"vocab_size": before + len(new)}, indent=1), "utf-8")
    if ACTIVATION_RANGES in files_of(source):
        (target / ACTIVATION_RANGES).write_bytes((source / ACTIVATION_RANGES).read_bytes())
    kept = tuple(entry.token for entry in single if entry not in new)
    return Extension(tuple(entry.token for entry in new), kept)


def added_tokens(tokenizer: Tokenizer, entries: Iterable[Entry]) -> list[AddedToken]:
    """Return those of the entries that are new to a tokenizer, in order; phrases never are.

    A word counts only between what is no letter, digit or underscore, an emoji anywhere.
    """
    new = [entry for entry in entries if entry.group != "phrases" and tokenizer.token_to_id(entry.token) is None]
    return [AddedToken(entry.token, single_word=entry.group != "emoji") for entry in new]


def _read(folder: Path) -> tuple[Tokenizer, ModelProto, dict[str, object]]:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        return tokenizer, onnx.load(folder / GRAPH), dict(json.loads((folder / CONFIG).read_bytes()))
    except Exception as error:
        # Neither library has a base class of its own for what it raises.
        raise ModelError(
            f"{folder} holds no model that can be extended ({error}): it needs {', '.join(FILES)}"
        ) from error


def _pieces(tokenizer: Tokenizer, entry: Entry, source: Path) -> list[int]:
    unknown = tokenizer.token_to_id("[UNK]")
    encoding = tokenizer.encode(entry.gloss, add_special_tokens=False)
    ids = [i for i, is_text in zip(encoding.ids, encoding.attention_mask, strict=True) if is_text and i != unknown]
    if not ids:
        raise ModelError(f"{source / TOKENIZER} knows no word of the gloss of {entry.token!r}: reword {entry.gloss!r}")
    return ids


def _append_rows(graph: GraphProto, rows: int, pieces: list[list[int]], path: Path) -> None:
    """Put a mean row for each list of row numbers after the first ``rows`` rows of the embedding table."""
    tensor, names = _table(graph, path)
    table = numpy_helper.to_array(tensor)
    if table.ndim != 2 or len(table) < rows:
        shape = " x ".join(map(str, table.shape))
        raise ModelError(f"{path} has {shape} word embeddings for {rows} tokens: export graph and tokenizer together")
    # Rows past the tokenizer's last token are padding of the export.
    means = [_mean(table[ids]) for ids in pieces]
    tensor.CopyFrom(numpy_helper.from_array(np.vstack([table[:rows], *means]), tensor.name))
    # Only what is noted down of the table itself: without the other shapes ONNX Runtime fuses a graph differently,
    # which moves every score a little.
    for value in [*graph.input, *graph.value_info]:
        if value.name in names:
            value.type.tensor_type.shape.dim[0].dim_value = rows + len(means)


def _mean(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    mean = rows.astype(np.float64).mean(axis=0)
    rounded: NDArray[np.generic] = (np.rint(mean) if np.issubdtype(rows.dtype, np.integer) else mean).astype(rows.dtype)
    return rounded


def _table(graph: GraphProto, path: Path) -> tuple[TensorProto, list[str]]:
    """Return the tensor whose rows the token ids pick, and the names it goes by."""
    ids = {"input_ids"}
    for node in graph.node:
        if node.op_type in _PASSED_ON and node.input[0] in ids:
            ids.add(node.output[0])
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[1] in ids}
    if len(tables) != 1:
        raise ModelError(f"{path} has {len(tables)} tables that input_ids pick rows of, not one: export it unfused")
    [name] = names = list(tables)
    if name in makers and makers[name].op_type == "DequantizeLinear":
        name, scale = makers[name].input[:2]
        names.append(name)
        if scale not in tensors or tensors[scale].dims not in ([], [1]):
            raise ModelError(f"{path} has more than one scale for its word embeddings: quantise them with one")
    if name not in tensors:
        raise ModelError(f"{path} does not hold its word embeddings as an initializer: export it again")
    return tensors[name], names
