"""Milliseconds a post of the shipped sentiment models at batch 32, by token length and threads.

Two ways: ``single`` is what the scorer does (OnnxModel: each text alone and unpadded, texts side by side on
the threads, nothing cached, tokenizing included); ``padded`` is one run of one padded batch on as many threads
inside the graph (tokenizing left out). The last length is a mix as posts on X have it: 34 tokens in the median,
72 at the ninetieth percentile.

    python bench/inference.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from scorer_svc.model_files import GRAPH, TOKENIZER, ModelFiles, find_model
from scorer_svc.onnx_model import OnnxModel

MODELS = ("sentimesh-base", "sentimesh-mini")
BATCH = 32
LENGTHS = (16, 32, 64, 128)
THREADS = (1, 2)
# A log-normal distribution with the median and the ninetieth percentile of posts on X.
MIX_MEDIAN, MIX_P90, P90_SIGMAS = 34, 72, 1.2816
SPECIAL_TOKENS = 2


def machine() -> str:
    """Return the processor's name and whether it multiplies int8 in one instruction (VNNI)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    vnni = ", ".join(sorted(flags & {"avx512_vnni", "avx_vnni"})) or "no VNNI"
    return f"{fields.get('model name', 'unknown processor')}, {os.cpu_count()} CPUs, {vnni}"


def words(tokenizer: Tokenizer) -> list[str]:
    """Return words that are one token each, sorted."""
    candidates = [word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 3]
    return sorted(word for word in candidates if len(tokenizer.encode(word).ids) == 1 + SPECIAL_TOKENS)


def mixed_lengths(rng: random.Random) -> list[int]:
    """Return a batch of lengths as posts on X have them, 8 to 128 tokens."""
    sigma = math.log(MIX_P90 / MIX_MEDIAN) / P90_SIGMAS
    return [min(128, max(8, round(rng.lognormvariate(math.log(MIX_MEDIAN), sigma)))) for _ in range(BATCH)]


def best_ms(run: Callable[[], object], rounds: int) -> float:
    """Return the milliseconds a post of the fastest round, after one that warms up."""
    run()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds) * 1000 / BATCH


def padded_run(model: ModelFiles, texts: list[str], threads: int) -> Callable[[], object]:
    """Return one run of the whole batch, padded to its longest text."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.folder / GRAPH, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(model.folder / TOKENIZER))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": np.array([encoding.ids for encoding in encoded], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encoded], dtype=np.int64),
    }
    return lambda: session.run(None, inputs)


def single_runs(model: ModelFiles, texts: list[str], threads: int) -> Callable[[], object]:
    """Return the batch as the scorer runs it."""
    scorer = OnnxModel(model, threads=threads, cache_size=0)
    return lambda: scorer.score(texts)


def rows(rounds: int) -> Iterator[tuple[str, int, str, float, float]]:
    """Yield model, threads, length, ms a post single, ms a post padded."""
    for name in MODELS:
        model = find_model(name)
        vocabulary = words(Tokenizer.from_file(str(model.folder / TOKENIZER)))
        rng = random.Random(7)  # noqa: S311 - the same texts every time, nothing secret
        batches = {str(length): [length] * BATCH for length in LENGTHS} | {"X mix": mixed_lengths(rng)}
        for threads in THREADS:
            for label, lengths in batches.items():
                texts = [" ".join(rng.choices(vocabulary, k=length - SPECIAL_TOKENS)) for length in lengths]
                single = best_ms(single_runs(model, texts, threads), rounds)
                padded = best_ms(padded_run(model, texts, threads), rounds)
                yield name, threads, label, single, padded


def main() -> None:
    """Print the table as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many counts")
    rounds = parser.parse_args().rounds
    print(f"{machine()}; ONNX Runtime {onnxruntime.__version__}; batch {BATCH}, fastest of {rounds}")
    if hasattr(os, "getloadavg"):
        print(f"load average at the start {os.getloadavg()[0]:.1f}")
    print(f"{'model':<15} {'threads':>7} {'tokens':>7} {'single ms/post':>15} {'padded ms/post':>15}")
    for name, threads, label, single, padded in rows(rounds):
        print(f"{name:<15} {threads:>7} {label:>7} {single:>15.2f} {padded:>15.2f}", flush=True)


if __name__ == "__main__":
    main()
