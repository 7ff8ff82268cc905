"""Milliseconds a post of the shipped models and of a FinBERT-shaped one, then of the whole scorer on recorded posts.

    python bench/inference.py [--rounds 3] [--posts 10000] [--models sentimesh-base,bert-base] [--tables 1,2,3]

bert-base is made here: 12 layers of 768, random weights, the shipped tokenizer, quantised as `sentimesh models pull`
does it; bert-base-float is the same before that. The tables:

1. by tokens a text, texts a batch and threads, tokenizing included, nothing cached;
2. 128 texts with lengths as posts on X have them: each text alone, in padded batches of 32 as they come, in buckets of
   like length (under a tenth padding), whatever of these the scorer does with that graph;
3. the scorer stage on the X recording as it comes out of ingest and filter, 128 at once as its worker takes them from a
   full queue, cache on and off. A post that names two symbols comes twice, as two mentions.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import onnxruntime
import psutil
from tokenizers import Tokenizer

from bench.vocabulary import recorded_raw_posts
from filter_svc.known_bots import MemoryKnownBots
from filter_svc.service import FilterStage
from ingest_svc.claims import MemoryClaims
from ingest_svc.service import IngestStage
from scorer_svc.buckets import buckets, filled_length
from scorer_svc.graph import open_graph
from scorer_svc.ladder import ModelLadder
from scorer_svc.model_files import CONFIG, GRAPH, TOKENIZER, ModelFiles, find_model
from scorer_svc.onnx_model import OnnxModel
from scorer_svc.service import ScorerStage
from sentimesh.model_store.quantize import quantize
from sentimesh.pb.pipeline_pb2 import FilteredPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.stack import LIKE_LENGTHS_OUT_OF
from sentimesh.stage import Delivery, Forward, Outcome
from sentimesh.symbols import TrackedExtractor, load_assets
from tests.scorer_svc.bert import bert_graph

SHIPPED = ("sentimesh-base", "sentimesh-mini")
RECORDING = Path(__file__).resolve().parents[2] / "shared" / "data" / "posts" / "twitter-btc-2019-10-15_19.jsonl.gz"
BERT, BERT_FLOAT = "bert-base", "bert-base-float"
BATCH = 32
BATCHES = (1, 8, BATCH)
AT_ONCE = LIKE_LENGTHS_OUT_OF * BATCH
LENGTHS = (16, 32, 64, 128)
THREADS = (1, 2)
# A log-normal distribution with the median and the ninetieth percentile of posts on X.
MIX_MEDIAN, MIX_P90, P90_SIGMAS = 34, 72, 1.2816
SPECIAL_TOKENS = 2
POSTS_A_MINUTE = 10_000
LIMIT_MS = 5.0
RECORDED_MS = 1_571_097_600_000
M = TypeVar("M", SocialPost, FilteredPost)


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
    """Return lengths as posts on X have them, 8 to 128 tokens."""
    sigma = math.log(MIX_P90 / MIX_MEDIAN) / P90_SIGMAS
    return [min(128, max(8, round(rng.lognormvariate(math.log(MIX_MEDIAN), sigma)))) for _ in range(AT_ONCE)]


def make_bert(folder: Path) -> tuple[ModelFiles, ModelFiles]:
    """Write the FinBERT-shaped model, int8 and float."""
    shipped = find_model(SHIPPED[0]).folder
    for name in (BERT, BERT_FLOAT):
        (folder / name).mkdir()
        for file in (TOKENIZER, CONFIG):
            shutil.copy(shipped / file, folder / name / file)
    vocabulary = Tokenizer.from_file(str(shipped / TOKENIZER)).get_vocab_size()
    graph = bert_graph(layers=12, hidden=768, heads=12, vocabulary=vocabulary)
    (folder / BERT_FLOAT / GRAPH).write_bytes(graph.SerializeToString())
    del graph
    quantize(folder / BERT_FLOAT / GRAPH, folder / BERT / GRAPH)
    return find_model(str(folder / BERT)), find_model(str(folder / BERT_FLOAT))


def best_ms(run: Callable[[], object], posts: int, rounds: int) -> float:
    """Return the milliseconds a post of the fastest round."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds) * 1000 / posts


def by_length(model: ModelFiles, rounds: int) -> Iterator[tuple[int, int, list[float]]]:
    """Yield threads, tokens, and for each size of batch the milliseconds a post."""
    vocabulary = words(Tokenizer.from_file(str(model.folder / TOKENIZER)))
    rng = random.Random(7)  # noqa: S311 - the same texts every time, nothing secret
    for threads in THREADS:
        scorer = OnnxModel(model, threads=threads, cache_size=0)
        for length in LENGTHS:
            texts = [" ".join(rng.choices(vocabulary, k=length - SPECIAL_TOKENS)) for _ in range(BATCH)]
            scorer.score(texts[:2])
            yield threads, length, [best_ms(partial(scorer.score, texts[:n]), n, rounds) for n in BATCHES]
        scorer.close()


def grouped_runs(
    model: ModelFiles, groups: Sequence[Sequence[int]], texts: Sequence[str], length: Callable[[int], int]
) -> Callable[[], object]:
    """Return what runs the texts in these groups on one thread, tokenizing left out.

    ``length``: to how many tokens a group is padded, by those of its longest text.
    """
    session = open_graph(model.folder / GRAPH, ranges=model.ranges).session
    tokenizer = Tokenizer.from_file(str(model.folder / TOKENIZER))
    encoded = []
    for group in groups:
        tokenizer.no_padding()
        plain = tokenizer.encode_batch([texts[position] for position in group])
        tokenizer.enable_padding(length=length(max(len(encoding.ids) for encoding in plain)))
        encoded.append(tokenizer.encode_batch([texts[position] for position in group]))
    inputs = [
        {
            "input_ids": np.array([encoding.ids for encoding in group], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in group], dtype=np.int64),
        }
        for group in encoded
    ]
    return lambda: [session.run(None, each) for each in inputs]


def by_grouping(model: ModelFiles, rounds: int) -> list[float]:
    """Return milliseconds a post with each text alone, in padded batches, in buckets."""
    tokenizer = Tokenizer.from_file(str(model.folder / TOKENIZER))
    rng = random.Random(7)  # noqa: S311 - the same texts every time, nothing secret
    lengths = mixed_lengths(rng)
    vocabulary = words(tokenizer)
    texts = [" ".join(rng.choices(vocabulary, k=length - SPECIAL_TOKENS)) for length in lengths]
    padded = [range(first, first + BATCH) for first in range(0, AT_ONCE, BATCH)]
    ways: list[tuple[Sequence[Sequence[int]], Callable[[int], int]]] = [
        ([[n] for n in range(AT_ONCE)], int),
        (padded, int),
        (buckets(lengths, max_texts=BATCH), filled_length),
    ]
    return [best_ms(grouped_runs(model, groups, texts, length), AT_ONCE, rounds) for groups, length in ways]


class Passage(NamedTuple):
    """What came of mentions that went through the scorer stage: how many, of how many posts, texts run, memory."""

    seconds: float
    mentions: int
    posts: int
    ran: int
    mebibytes: float


def through_scorer(model: ModelFiles, wanted: int, threads: int, cache_size: int) -> Passage:
    """Score recorded mentions as the stage does; in a process of its own, for the memory's sake."""
    mentions = asyncio.run(filtered(wanted))
    ran = 0

    def count(_hits: int, misses: int) -> None:
        nonlocal ran
        ran += misses

    async def run() -> tuple[float, float]:
        nonlocal ran
        ladder = ModelLadder(
            [(model.version, lambda: OnnxModel(model, threads=threads, cache_size=cache_size, on_scored=count))],
            deadline_seconds=600,
        )
        stage = ScorerStage(ladder)
        await stage.start()
        ran = 0
        began = time.perf_counter()
        for at in range(0, len(mentions), AT_ONCE):
            await stage.process([Delivery(mention, at + n) for n, mention in enumerate(mentions[at : at + AT_ONCE])])
        seconds = time.perf_counter() - began
        resident = psutil.Process().memory_info().rss / 2**20
        await stage.close()
        return seconds, resident

    seconds, resident = asyncio.run(run())
    posts = len({mention.post.post_id for mention in mentions})
    return Passage(seconds, len(mentions), posts, ran, resident)


async def filtered(wanted: int) -> list[FilteredPost]:
    """Return the first mentions of the X recording that leave the filter."""
    ingest = IngestStage(TrackedExtractor(load_assets(DEFAULT_SYMBOLS)), MemoryClaims(), ["en"], lambda: RECORDED_MS)
    filters = FilterStage(MemoryKnownBots(()))
    found: list[FilteredPost] = []
    recording = enumerate(recorded_raw_posts(RECORDING))
    while len(found) < wanted and (batch := [Delivery(raw, at) for at, raw in islice(recording, BATCH)]):
        posts = messages(await ingest.process(batch), SocialPost)
        outcomes = await filters.process([Delivery(post, at) for at, post in enumerate(posts)])
        found += messages(outcomes, FilteredPost)
    return found[:wanted]


def messages(outcomes: Iterable[Iterable[Outcome]], kind: type[M]) -> list[M]:
    """Return what goes on to the next stage."""
    forwarded = [each.message for some in outcomes for each in some if isinstance(each, Forward)]
    return [message for message in forwarded if isinstance(message, kind)]


def print_by_length(models: Sequence[tuple[str, ModelFiles, int]]) -> None:
    """Print the first table."""
    print(
        f"\n{'model':<16} {'threads':>7} {'tokens':>7}" + "".join(f"{f'batch {n}':>11}" for n in BATCHES) + "  ms/post"
    )
    for name, model, rounds in models:
        for threads, length, found in by_length(model, rounds):
            print(f"{name:<16} {threads:>7} {length:>7}" + "".join(f"{ms:>11.2f}" for ms in found), flush=True)


def print_by_grouping(models: Sequence[tuple[str, ModelFiles, int]]) -> None:
    """Print the second table."""
    print(f"\n{'X lengths, 128 texts, one thread':<32} {'alone':>8} {'padded':>8} {'buckets':>8}  ms/post")
    for name, model, rounds in models:
        alone, padded, in_buckets = by_grouping(model, rounds)
        print(f"{name:<32} {alone:>8.2f} {padded:>8.2f} {in_buckets:>8.2f}", flush=True)


def print_through_scorer(models: Sequence[tuple[str, ModelFiles, int]], wanted: int) -> None:
    """Print the third table; cores as they would be with this processor's."""
    print(
        f"\n{'scorer stage, X':<16} {'threads':>7} {'cache':>6} {'mentions':>8} {'posts':>6} {'ran':>6} {'ms':>6}"
        f" {'mentions/min':>12} {'posts/min':>10} {'cores for 5 ms':>15} {'for 10,000/min':>15} {'MiB':>6}"
    )
    context = multiprocessing.get_context("spawn")
    for name, model, rounds in models:
        for threads in THREADS:
            for cache in (0, 50_000):
                with ProcessPoolExecutor(1, mp_context=context) as process:
                    found = process.submit(
                        through_scorer, model, wanted if rounds > 1 else wanted // 10, threads, cache
                    ).result()
                ms = found.seconds * 1000 / found.mentions
                cores = threads * ms / LIMIT_MS, threads * ms * POSTS_A_MINUTE / 60_000
                rates = 60_000 / ms, found.posts / found.seconds * 60
                print(
                    f"{name:<16} {threads:>7} {'on' if cache else 'off':>6} {found.mentions:>8} {found.posts:>6}"
                    f" {found.ran:>6} {ms:>6.2f} {rates[0]:>12,.0f} {rates[1]:>10,.0f} {cores[0]:>15.1f}"
                    f" {cores[1]:>15.1f} {found.mebibytes:>6.0f}",
                    flush=True,
                )


def main() -> None:
    """Print the tables as they are measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many counts (bert-base: one)")
    parser.add_argument("--posts", type=int, default=10_000, help="mentions for the scorer (bert-base: a tenth)")
    parser.add_argument("--models", default=",".join((*SHIPPED, BERT, BERT_FLOAT)))
    parser.add_argument("--tables", default="1,2,3")
    arguments = parser.parse_args()
    tables = arguments.tables.split(",")
    print(f"{machine()}; ONNX Runtime {onnxruntime.__version__}; fastest of {arguments.rounds}")
    if hasattr(os, "getloadavg"):
        print(f"load average at the start {os.getloadavg()[0]:.1f}")
    names = arguments.models.split(",")
    with tempfile.TemporaryDirectory(prefix="sentimesh-bench-") as folder:
        models = [(name, find_model(name), arguments.rounds) for name in names if name in SHIPPED]
        if set(names) & {BERT, BERT_FLOAT}:
            made = zip((BERT, BERT_FLOAT), make_bert(Path(folder)), strict=True)
            models += [(name, model, 1) for name, model in made if name in names]
        quantised = [each for each in models if each[0] != BERT_FLOAT]
        if "1" in tables:
            print_by_length(quantised)
        if "2" in tables:
            print_by_grouping(models)
        if "3" in tables:
            print_through_scorer(quantised, arguments.posts)


if __name__ == "__main__":
    main()
