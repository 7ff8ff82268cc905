"""The books of a run: what became of every post, and the export files of a replay."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from google.protobuf import json_format
from google.protobuf.message import Message

from sentimesh.errors import SentimeshError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate
from sentimesh.rpc import dropped_post
from sentimesh.stage import Drop, Forward, Outcome, Reject


class ExportError(SentimeshError):
    """An export file cannot be written."""


def json_line(message: Message) -> str:
    """Return a message as one line of proto3 JSON with original field names, defaults included.

    Maps have no order of their own; here they are sorted, so that equal messages are equal lines.
    """
    tree = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if "platform_breakdown" in tree:
        tree["platform_breakdown"] = dict(sorted(tree["platform_breakdown"].items()))
    return json.dumps(tree, ensure_ascii=False) + "\n"


class Ledger:
    """Counts posts (not mentions): each one received ends as scored, dropped, without symbol or dead letter.

    A post that names several symbols is one post; it is scored when at least one of its mentions is.
    """

    def __init__(self) -> None:
        self.received = 0
        self.dead_letters: Counter[str] = Counter()
        self.mentions_scored = 0
        # Scored mentions that no window took: late, duplicate, low_credibility or untracked.
        self.mentions_not_counted: Counter[str] = Counter()
        self.windows: set[tuple[str, int]] = set()
        self.spikes: list[ViralSpike] = []
        self.latencies_ms: list[int] = []
        self._forwarded: set[str] = set()
        self._scored: set[str] = set()
        self._dropped: dict[str, tuple[str, str]] = {}
        self._dropped_unnamed: Counter[tuple[str, str]] = Counter()

    def on_outcomes(self, stage: str, message: Message | None, outcomes: Sequence[Outcome]) -> None:
        """Note what became of one input (see :class:`sentimesh.host.Observer`)."""
        if stage == "ingest":
            self.received += 1
        if stage == "aggregator" and isinstance(message, ScoredPost):
            self.mentions_scored += 1
            self._scored.add(message.post.post_id)
        for outcome in outcomes:
            match outcome:
                case Drop(post_id=post_id, reason=reason):
                    if stage == "aggregator":
                        self.mentions_not_counted[reason] += 1
                    if stage == "ingest":
                        # One input, one post: ids may repeat here (that is what `duplicate` says).
                        self._dropped_unnamed[stage, reason] += 1
                    else:
                        self._dropped.setdefault(post_id, (stage, reason))
                case Reject():
                    self.dead_letters[stage] += 1
                case Forward(message=SentimentAggregate() as aggregate):
                    self.windows.add((aggregate.symbol, aggregate.window_start_ms))
                case Forward(message=ViralSpike() as spike):
                    self._spike(spike)
                case Forward():
                    pass

    def _spike(self, spike: ViralSpike) -> None:
        """Note a spike, or when one that is known was over."""
        for known in self.spikes:
            if (known.symbol, known.detected_at_ms) == (spike.symbol, spike.detected_at_ms):
                known.resolved_at_ms = max(known.resolved_at_ms, spike.resolved_at_ms)
                return
        self.spikes.append(spike)

    def on_visible(self, latencies_ms: Iterable[int]) -> None:
        """Note how long posts took from received to score readable in Redis, milliseconds."""
        self.latencies_ms.extend(latencies_ms)

    @property
    def scored(self) -> int:
        """Posts with at least one scored mention."""
        return len(self._scored)

    def reason(self, post_id: str) -> str | None:
        """Return why a post was dropped after ingest, None if it was not."""
        where = self._dropped.get(post_id)
        return None if where is None or post_id in self._scored else where[1]

    @property
    def dropped(self) -> Counter[tuple[str, str]]:
        """Posts that went no further, by (stage, reason)."""
        late = Counter(where for post_id, where in self._dropped.items() if post_id not in self._scored)
        return self._dropped_unnamed + late

    @property
    def accounted(self) -> int:
        """Posts whose end is known: equal to :attr:`received` once the pipeline is empty."""
        return self.scored + self.dropped.total() + self.dead_letters.total()

    def percentile_ms(self, share: float) -> int | None:
        """Return the latency that this share (0 to 1) of the posts stays within; None without any."""
        if not self.latencies_ms:
            return None
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Exporter:
    """Writes scored.jsonl and dropped.jsonl as it happens, aggregates.jsonl and spikes.jsonl at the end."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._windows: dict[tuple[int, str], SentimentAggregate] = {}
        self._files = contextlib.ExitStack()
        self._scored: IO[str]
        self._dropped: IO[str]

    def __enter__(self) -> Exporter:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._scored = self._files.enter_context((self._folder / "scored.jsonl").open("w", encoding="utf-8"))
            self._dropped = self._files.enter_context((self._folder / "dropped.jsonl").open("w", encoding="utf-8"))
        except OSError as error:
            self._files.close()
            raise ExportError(
                f"cannot export to {self._folder}: {error.strerror}; name a folder you may write"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        if kind is None:
            self._write("aggregates.jsonl", (self._windows[key] for key in sorted(self._windows)))
            spikes: list[ViralSpike] = sorted(
                self._ledger.spikes, key=lambda spike: (spike.detected_at_ms, spike.symbol)
            )
            self._write("spikes.jsonl", spikes)

    def on_outcomes(self, stage: str, message: Message | None, outcomes: Sequence[Outcome]) -> None:
        """Write what ends here (see :class:`sentimesh.host.Observer`)."""
        if stage == "aggregator" and isinstance(message, ScoredPost):
            self._scored.write(json_line(message))
        for outcome in outcomes:
            match outcome:
                case Drop():
                    self._dropped.write(json_line(dropped_post(stage, outcome)))
                case Forward(message=SentimentAggregate() as aggregate):
                    # Revisions come in order: the last one stays.
                    self._windows[aggregate.window_start_ms, aggregate.symbol] = aggregate
                case _:
                    pass

    def _write(self, name: str, messages: Iterable[Message]) -> None:
        with (self._folder / name).open("w", encoding="utf-8") as file:
            file.writelines(json_line(message) for message in messages)
