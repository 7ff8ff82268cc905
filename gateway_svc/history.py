"""What was: closed windows, viral spikes and learned authors from PostgreSQL, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from gateway_svc import page_token
from gateway_svc.errors import RequestRefusedError
from gateway_svc.page_token import LAST_MS
from sentimesh.errors import StorageUnavailableError
from sentimesh.patience import Patience
from sentimesh.pb import gateway_pb2
from sentimesh.pb.gateway_pb2 import AuthorCredibility
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.storage.retention import TEXT_KEPT_MS
from sentimesh.symbols import SYMBOL_PATTERN

MS_PER_DAY = 86_400_000
MAX_AUTHORS = 100
# Clients take messages of at most 4 MiB unless told otherwise, and sample posts can be long.
PAGE_BYTES = 3 * 1024 * 1024
# As long as the column that holds it.
_AUTHOR = re.compile(r"(?=.{3,100}\Z)[a-z]+:[^\x00-\x1f\x7f]+")

T = TypeVar("T")
_Paged = gateway_pb2.GetSentimentHistoryRequest | gateway_pb2.ListViralSpikesRequest


class HistoryStore(Protocol):
    """The part of ``sentimesh.storage.AggregateStore`` that is used here; raises StorageUnavailableError."""

    async def history(  # noqa: D102
        self, symbol: str, start_ms: int, end_ms: int, limit: int, after: tuple[int, int] | None = None
    ) -> list[SentimentAggregate]: ...
    async def spikes(  # noqa: D102
        self, symbols: Sequence[str], start_ms: int, end_ms: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[ViralSpike]: ...
    async def authors(self, names: Sequence[str]) -> list[AuthorCredibility | None]: ...  # noqa: D102


class SentimentHistory:
    """Answers the requests about the past. Every method raises RequestRefusedError or StorageUnavailableError."""

    def __init__(self, store: HistoryStore, *, now_ms: Callable[[], int], timeout_seconds: float = 5.0) -> None:
        """``now_ms``: epoch milliseconds; PostgreSQL counts as down after ``timeout_seconds``."""
        self._store = store
        self._now_ms = now_ms
        self._patience = Patience(timeout_seconds)

    async def windows(
        self, symbol: str, request: gateway_pb2.GetSentimentHistoryRequest
    ) -> gateway_pb2.GetSentimentHistoryResponse:
        """Return closed windows of a valid symbol, oldest first."""
        size = _page_size(request.page_size, 1000, 10_000)
        call = ("history", symbol, request.start_ms, request.end_ms)
        start_ms, end_ms, after = self._place(request, call, (int, int))
        found = await self._read(self._store.history(symbol, start_ms, end_ms, size + 1, after))
        response = gateway_pb2.GetSentimentHistoryResponse(aggregates=found[:size])
        if len(found) > size:
            last_found = found[size - 1]
            position = (start_ms, end_ms, last_found.window_end_ms, last_found.window_start_ms)
            response.next_page_token = page_token.encode(call, position)
        return response

    async def spikes(
        self, symbols: Sequence[str], request: gateway_pb2.ListViralSpikesRequest
    ) -> gateway_pb2.ListViralSpikesResponse:
        """Return spikes of valid symbols, newest first."""
        size = _page_size(request.page_size, 100, 1000)
        wanted = sorted(set(symbols))
        call = ("spikes", wanted, request.start_ms, request.end_ms)
        start_ms, end_ms, after = self._place(request, call, (int, str))
        if after is not None and not SYMBOL_PATTERN.fullmatch(after[1]):
            raise page_token.malformed()
        found = await self._read(self._store.spikes(wanted, start_ms, end_ms, size + 1, after))
        self._leave_out_old_texts(found)
        shown = found[: _fitting(found[:size])]
        response = gateway_pb2.ListViralSpikesResponse(spikes=shown)
        if len(found) > len(shown):
            position = (start_ms, end_ms, shown[-1].detected_at_ms, shown[-1].symbol)
            response.next_page_token = page_token.encode(call, position)
        return response

    async def authors(
        self, request: gateway_pb2.GetAuthorCredibilityRequest
    ) -> gateway_pb2.GetAuthorCredibilityResponse:
        """Return the authors about whom something is known, in the order asked."""
        names = request.authors
        if not 1 <= len(names) <= MAX_AUTHORS:
            raise RequestRefusedError(f"{len(names)} authors asked for: ask for 1 to {MAX_AUTHORS} in one call")
        for name in names:
            if not _AUTHOR.fullmatch(name):
                raise RequestRefusedError(
                    f'{name[:40]!r} is not an author: write "{{platform}}:{{author_id}}", 100 characters at most, '
                    "for example twitter:44196397"
                )
        found = await self._read(self._store.authors(names))
        return gateway_pb2.GetAuthorCredibilityResponse(authors=[author for author in found if author is not None])

    def _place(
        self, request: _Paged, call: Sequence[object], types: Sequence[type[int] | type[str]]
    ) -> tuple[int, int, tuple[Any, Any] | None]:
        """Return the span asked for and the position (of these types) that the page before ended with."""
        if not request.page_token:
            return *self._span(request.start_ms, request.end_ms), None
        # The times stay those of the first page, "now" included.
        start_ms, end_ms, *last = page_token.decode(request.page_token, call, (int, int, *types))
        return start_ms, end_ms, (last[0], last[1])

    def _span(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        for name, value in (("start_ms", start_ms), ("end_ms", end_ms)):
            if not 0 <= value <= LAST_MS:
                raise RequestRefusedError(
                    f"{name} is {value}: give epoch milliseconds from 0 to {LAST_MS} (the end of the year 9999)"
                )
        end_ms = end_ms or self._now_ms()
        start_ms = start_ms or max(0, end_ms - MS_PER_DAY)
        if start_ms > end_ms:
            raise RequestRefusedError(
                f"start_ms {start_ms} is after end_ms {end_ms} (now, where none is given): give an earlier start"
            )
        return start_ms, end_ms

    async def _read(self, reading: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._patience.wait(reading)
        except TimeoutError as error:
            raise StorageUnavailableError(
                f"PostgreSQL gave no answer in {self._patience.seconds:g} s: check the server of storage.postgresql.dsn"
            ) from error

    def _leave_out_old_texts(self, spikes: Sequence[ViralSpike]) -> None:
        """Show no text that is too old, should the purge be behind."""
        oldest_ms = self._now_ms() - TEXT_KEPT_MS
        for spike in spikes:
            for post in spike.sample_posts:
                if post.timestamp_ms <= oldest_ms:
                    post.text = ""


def _page_size(asked: int, default: int, largest: int) -> int:
    if not 0 <= asked <= largest:
        raise RequestRefusedError(f"page_size is {asked}: give 1 to {largest}, or 0 for {default}")
    return asked or default


def _fitting(spikes: Sequence[ViralSpike]) -> int:
    """Return how many of the spikes fit into a page, at least one."""
    total = 0
    for number, spike in enumerate(spikes):
        total += spike.ByteSize()
        if total > PAGE_BYTES:
            return max(1, number)
    return len(spikes)
