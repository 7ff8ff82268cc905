"""Keeps the set of known bots up to date, from lists of others and from what was learned of authors."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import asyncpg
import redis.asyncio
import stamina
import structlog

from sentimesh.bot_lists import is_url, read_list, shown
from sentimesh.bot_store import BotStore, State
from sentimesh.build import HOUR_MS, now_ms
from sentimesh.errors import SentimeshError, StorageUnavailableError
from sentimesh.lease import LEASE_MS
from sentimesh.settings import Settings
from sentimesh.storage.postgres import available
from sentimesh.telemetry import Metrics

log = structlog.get_logger(__name__)

# How often it is looked at whether a refresh is due, half to one and a half times that: replicas spread by themselves.
LOOK_SECONDS = 60.0
# A refresh that failed in part is tried again after that.
RETRY_MS = 900_000
LEARNED = "learned"
# How often it is looked at whether another one's refresh is over.
BUSY_SECONDS = 0.2

_LEARNED = "SELECT author_id FROM social_author_credibility WHERE is_known_bot"
Read = Callable[[str], Awaitable[Collection[str]]]


class Refresher:
    """Makes a new set out of all sources when it is due; replicas take turns, and one of them is enough."""

    def __init__(
        self,
        store: BotStore,
        sources: Sequence[str],
        *,
        learned: Callable[[], Awaitable[Collection[str]]] | None = None,
        period_ms: int = 24 * HOUR_MS,
        now_ms: Callable[[], int] = now_ms,
        read: Read = read_list,
        on_failure: Callable[[str], None] = lambda _kind: None,
        on_unread: Callable[[str], None] = lambda _sentence: None,
        on_count: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """``sources``: files and URLs; ``learned`` returns the accounts learned to be bots.

        ``on_failure`` is told ``file``, ``url``, ``learned`` or ``redis`` for each thing that did not work,
        ``on_unread`` what did not in a sentence, ``on_count`` how many bots are known.
        """
        self._store = store
        self._sources = {_name(source): source for source in sources}
        self._learned = learned
        self._period_ms = period_ms
        self._now_ms = now_ms
        self._read = read
        self._on_failure = on_failure
        self._on_unread = on_unread
        self._on_count = on_count

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh at once when that is due or the sources are others than last time, then whenever it is due."""
        is_start = True
        while not stop.is_set():
            try:
                await self.refresh(when_changed=is_start)
                self._on_count(await self._store.count())
                is_start = False
            except StorageUnavailableError as error:
                self._failed("redis", "the set in Redis", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS * (0.5 + random.random()))  # noqa: S311

    async def refresh(self, *, when_changed: bool = True) -> int | None:
        """Refresh the set if that is due; return its size, None when it was not or somebody else is at it.

        ``when_changed``: it is due also when the sources are not those of the last time. What a source listed when
        it was last readable stays while it is not. Raises StorageUnavailableError when Redis fails.
        """
        if not self._is_due(await self._store.state(), when_changed):
            return None
        async with self._store.lease() as token:
            # Another replica may have been faster.
            if token is None or not self._is_due(await self._store.state(), when_changed):
                return None
            return await self._swap(token, self._names)

    async def refresh_now(self) -> int:
        """Refresh the set, due or not, once nobody else is at it; return its size.

        Raises StorageUnavailableError when Redis fails, and when somebody is at it for longer than a lease lasts.
        """
        return await self._in_turn(self._names)

    async def refresh_learned(self) -> int:
        """As :meth:`refresh_now`, from what was learned and what the other sources listed when they were last read."""
        return await self._in_turn([LEARNED])

    async def _in_turn(self, names: Sequence[str]) -> int:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEASE_MS / 1000):
                while True:
                    async with self._store.lease() as token:
                        if token is not None and (count := await self._swap(token, names)) is not None:
                            return count
                    await asyncio.sleep(BUSY_SECONDS)
        raise StorageUnavailableError(
            f"others have refreshed the known bots for {LEASE_MS // 60_000} minutes: try again later"
        )

    async def _swap(self, token: str, names: Sequence[str]) -> int | None:
        """Read these sources and put the new set in place; return its size, None when the lease has run out."""
        started_ms = self._now_ms()
        read = await asyncio.gather(*(self._part(name) for name in names))
        parts = dict.fromkeys(self._names) | dict(zip(names, read, strict=True))
        count = await self._store.swap(token, parts, now_ms=started_ms, is_refresh=len(names) == len(self._names))
        if count is None:
            return None
        learned = parts.get(LEARNED)
        if learned is not None:
            await self._unlist_cleared(learned[1])
        log.info("known_bots.refreshed", bots=count, unreadable=read.count(None))
        return count

    async def _unlist_cleared(self, listed: Collection[str]) -> None:
        """Take off again who was cleared between reading and swapping."""
        now = await self._part(LEARNED)
        if now is not None:
            for account in set(listed).difference(now[1]):
                await self._store.unlist(LEARNED, account)

    @property
    def _names(self) -> list[str]:
        return [*self._sources, *([LEARNED] if self._learned is not None else [])]

    def _is_due(self, state: State, when_changed: bool) -> bool:
        names = frozenset(self._names)
        if not names and not state.names:
            # The set is somebody else's business.
            return False
        if when_changed and names != state.names:
            return True
        # An attempt after the last success is one that failed.
        failed = state.attempted_ms > state.refreshed_ms
        last_ms, wait_ms = (state.attempted_ms, RETRY_MS) if failed else (state.refreshed_ms, self._period_ms)
        return self._now_ms() - last_ms >= min(wait_ms, self._period_ms)

    async def _part(self, name: str) -> tuple[str, Collection[str]] | None:
        """Return a source as it may be shown and what it lists; None, told and counted, when it cannot be read."""
        source = self._sources.get(name, LEARNED)
        try:
            if name == LEARNED and self._learned is not None:
                return source, await self._learned()
            return shown(source), await self._read(source)
        except SentimeshError as error:
            kind = LEARNED if name == LEARNED else "url" if is_url(source) else "file"
            self._failed(kind, shown(source), error)
            return None

    def _failed(self, kind: str, source: str, error: SentimeshError) -> None:
        self._on_failure(kind)
        self._on_unread(f"{source}: {error}")
        log.warning("known_bots.not_refreshed", source=source, error=str(error))


def _name(source: str) -> str:
    """Return a name for keys, which does not give away what a URL holds."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


async def learned_bots(pool: asyncpg.Pool[Any]) -> frozenset[str]:
    """Return the authors ``{platform}:{author_id}`` learned to be bots. Raises StorageUnavailableError."""
    rows: Sequence[asyncpg.Record] = ()
    async for attempt in stamina.retry_context(on=StorageUnavailableError, attempts=4, timeout=None, wait_initial=1.0):
        with attempt:
            async with available():
                rows = await pool.fetch(_LEARNED)
    return frozenset(row["author_id"] for row in rows)


def configured(
    settings: Settings,
    metrics: Metrics,
    client: redis.asyncio.Redis,
    pool: asyncpg.Pool[Any] | None,
    on_unread: Callable[[str], None] = lambda _sentence: None,
) -> Refresher:
    """Return the refresher of the configured sources; without a pool there is no learned list."""
    options = settings.spam_filter
    return Refresher(
        BotStore(client),
        options.known_bot_sources,
        learned=None if pool is None else lambda: learned_bots(pool),
        period_ms=options.known_bot_refresh_hours * HOUR_MS,
        on_failure=lambda kind: metrics.known_bot_failures.labels(kind).inc(),
        on_unread=on_unread,
        on_count=metrics.known_bots.set,
    )
