"""Compares what the oracle expects with what was found, field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from tests.aggregator_svc.oracle import Oracle, Post


@dataclass
class Comparison:
    """Differences between what was expected and what was found, and the largest one between numbers that agree."""

    tolerance: float = 1e-6
    compared: int = 0
    largest: float = 0.0
    differences: list[str] = field(default_factory=list)

    def all(self, expected: Mapping[Any, Any], found: Mapping[Any, Any], *, ignoring: Iterable[str] = ()) -> None:
        """Compare by key, each of them with each; one that is missing is a difference, and so is one too many."""
        for key in expected.keys() ^ found.keys():
            self.differences.append(f"{key} is {'missing' if key in expected else 'not expected'}")
        for key in sorted(expected.keys() & found.keys()):
            self.one(key, expected[key], found[key], ignoring=ignoring)

    def one(self, key: Hashable, expected: Any, found: Any, *, ignoring: Iterable[str] = ()) -> None:
        """Compare the fields of a dataclass of this module with those of a message."""
        self.compared += 1
        for name in (f.name for f in dataclasses.fields(expected) if f.name not in ignoring):
            self._value(f"{key} {name}", getattr(expected, name), getattr(found, name))

    def _value(self, where: str, expected: Any, found: Any) -> None:
        if isinstance(expected, float):
            off = abs(expected - found) / max(1.0, abs(expected))
            if off <= self.tolerance:
                self.largest = max(self.largest, off)
                return
        elif isinstance(expected, list):
            if len(expected) == len(found):
                for number, pair in enumerate(zip(expected, found, strict=True)):
                    for f in dataclasses.fields(pair[0]):
                        self._value(f"{where}[{number}] {f.name}", *(getattr(one, f.name) for one in pair))
                return
        elif expected == (dict(found) if isinstance(expected, dict) else found):
            return
        self.differences.append(f"{where}: expected {expected!r}, found {found!r}")


@dataclass
class Export:
    """What ``sentimesh replay --export`` wrote, recomputed from its scored.jsonl and compared.

    A recording does not say where batches ended, so that the number of a window's revision is left out.
    """

    oracle: Oracle
    posts: list[Post]
    windows: Comparison
    spikes: Comparison

    @classmethod
    def compare(cls, folder: Path, symbols: Iterable[str], batch: int = 200) -> Export:
        """Recompute and compare all of it."""
        with (folder / "scored.jsonl").open(encoding="utf-8") as lines:
            posts = [Post.read(line) for line in lines]
        oracle = Oracle(symbols)
        stream = iter(posts)
        while [oracle.take(post) for post in islice(stream, batch)]:
            oracle.flush()
        oracle.finish()
        found = cls(oracle, posts, Comparison(), Comparison())
        with (folder / "aggregates.jsonl").open(encoding="utf-8") as lines:
            windows = [json_format.Parse(line, SentimentAggregate()) for line in lines]
        found.windows.all(oracle.windows, {(w.window_start_ms, w.symbol): w for w in windows}, ignoring=["revision"])
        with (folder / "spikes.jsonl").open(encoding="utf-8") as lines:
            spikes = [json_format.Parse(line, ViralSpike()) for line in lines]
        expected = {(spike.detected_at_ms, spike.symbol): spike for spike in oracle.spikes}
        found.spikes.all(expected, {(s.detected_at_ms, s.symbol): s for s in spikes})
        return found
