"""Write the ranges of an int8 model's activations beside it, as seen on texts.

    python tools/activation_ranges.py scorer_svc/models/sentimesh-base TEXTS [TEXTS …]

TEXTS: JSON lines with the key "text", .gz or not; never texts that the model is measured on. Each text runs alone, with
activations quantised as they come. Of the least value of a tensor in each text the 5th percentile is written, of the
greatest the 95th: what one text in twenty goes beyond is cut there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from tokenizers import Tokenizer

from scorer_svc.activation_ranges import ACTIVATION_RANGES, Ranges, quantised_activations
from scorer_svc.first_token import first_token_only
from scorer_svc.graph import session_options
from scorer_svc.model_files import GRAPH, TOKENIZER

PERCENTILE = 5.0
DIGITS = 4


def read_texts(path: Path) -> list[str]:
    """Return the texts of a file of JSON lines."""
    lines = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line)["text"] for line in lines.decode().splitlines()]


def observed(folder: Path, texts: Sequence[str], max_length: int) -> Ranges:
    """Return the ranges of a model's activations on these texts."""
    model = onnx.load(folder / GRAPH)
    first_token_only(model)
    names = quantised_activations(model)
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options())
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    ends = np.empty((len(texts), len(names), 2))
    for row, text in enumerate(texts):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        values = session.run(names, {node.name: inputs[node.name] for node in session.get_inputs()})
        ends[row] = [(value.min(), value.max()) for value in values]
    least = np.percentile(ends[:, :, 0], PERCENTILE, axis=0)
    greatest = np.percentile(ends[:, :, 1], 100 - PERCENTILE, axis=0)
    return {
        name: (float(f"{low:.{DIGITS}g}"), float(f"{high:.{DIGITS}g}"))
        for name, low, high in zip(names, least.tolist(), greatest.tolist(), strict=True)
    }


def main() -> int:
    """Write the file and say of how many texts it was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the model's")
    parser.add_argument("texts", type=Path, nargs="+", help="JSON lines with the key text")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text that count")
    arguments = parser.parse_args()
    texts = [text for path in arguments.texts for text in read_texts(path)]
    ranges = observed(arguments.folder, texts, arguments.max_length)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(ends)}" for name, ends in ranges.items())
    (arguments.folder / ACTIVATION_RANGES).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{arguments.folder / ACTIVATION_RANGES}: {len(ranges)} ranges, of {len(texts)} texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
