"""Learns from the posts of the last days who their authors are: once a day, and on demand."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import redis.asyncio
import structlog
from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError
from nats.js.api import StreamState

from sentimesh.author_cache import AuthorCache, LearningState
from sentimesh.author_history import DAY_MS, AuthorRecord, HistoryRules, WeekOfAuthors
from sentimesh.build import HOUR_MS, now_ms
from sentimesh.bus import FILTERED, REJECTED, Bus, BusUnavailableError, Topic
from sentimesh.errors import SentimeshError, StorageUnavailableError
from sentimesh.known_bots import LOOK_SECONDS, RETRY_MS
from sentimesh.pb.pipeline_pb2 import FilteredPost, RejectedPost
from sentimesh.read_back import Batch
from sentimesh.settings import Settings
from sentimesh.storage.authors import AuthorStore
from sentimesh.storage.postgres import utc
from sentimesh.telemetry import Metrics

log = structlog.get_logger(__name__)

SOURCES: Mapping[Topic, type[FilteredPost | RejectedPost]] = {FILTERED: FilteredPost, REJECTED: RejectedPost}
# The lease is made longer while the streams are read.
RENEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What one run of the job did."""

    # Messages read; a post has one for each of its symbols.
    messages: int
    accounts: int
    bots: int
    new_bots: list[AuthorRecord]
    # No longer bots, because of what they do now or because nothing was heard of them.
    freed: list[str]
    # Accounts with a multiplier under 1.0.
    held_against: int
    forgotten: int
    seconds: float


class Learner:
    """Judges authors when that is due; replicas take turns, and one of them is enough."""

    def __init__(
        self,
        bus: Bus,
        store: AuthorStore,
        cache: AuthorCache,
        refresh_bots: Callable[[], Awaitable[object]],
        rules: HistoryRules | None = None,
        *,
        period_ms: int = DAY_MS,
        max_messages: int = 10_000_000,
        by_event_time: bool = False,
        now_ms: Callable[[], int] = now_ms,
        on_learned: Callable[[Learned], None] = lambda _learned: None,
        on_failure: Callable[[], None] = lambda: None,
        on_success_time: Callable[[int], None] = lambda _ms: None,
    ) -> None:
        """``refresh_bots`` makes what was learned take effect.

        ``max_messages``: of a busier week only the newest part is judged, about that many. ``by_event_time``: the days
        end with the newest post, whenever it came in, and all of the streams is read (replays). ``on_success_time``
        is told when somebody last learned, epoch milliseconds.
        """
        self._bus = bus
        self._store = store
        self._cache = cache
        self._refresh_bots = refresh_bots
        self._rules = rules or HistoryRules()
        self._period_ms = period_ms
        self._max_messages = max_messages
        self._by_event_time = by_event_time
        self._now_ms = now_ms
        self._on_learned = on_learned
        self._on_failure = on_failure
        self._on_success_time = on_success_time

    async def run(self, stop: asyncio.Event) -> None:
        """Learn whenever it is due; what was known stays while that does not work."""
        while not stop.is_set():
            try:
                await self.learn(when_due=True)
                if learned_ms := (await self._cache.state()).learned_ms:
                    self._on_success_time(learned_ms)
            except SentimeshError as error:
                self._on_failure()
                log.warning("authors.not_learned", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS * (0.5 + random.random()))  # noqa: S311

    async def learn(self, *, when_due: bool = False) -> Learned | None:
        """Judge the authors now; return what that changed, None when somebody else is at it or it is not due.

        Raises BusUnavailableError and StorageUnavailableError; nothing is written then, or all but the newest hash
        and list of bots, which the next run makes good.
        """
        if when_due and not self._is_due(await self._cache.state()):
            return None
        async with self._cache.lease() as token:
            # Another replica may have been faster.
            if token is None or (when_due and not self._is_due(await self._cache.state())):
                return None
            learned = await self._learn(token)
        self._on_learned(learned)
        log.info(
            "authors.learned",
            messages=learned.messages,
            accounts=learned.accounts,
            bots=learned.bots,
            new_bots=len(learned.new_bots),
            seconds=round(learned.seconds, 1),
        )
        return learned

    def _is_due(self, state: LearningState) -> bool:
        # An attempt after the last success is one that failed.
        failed = state.attempted_ms > state.learned_ms
        last_ms, wait_ms = (state.attempted_ms, RETRY_MS) if failed else (state.learned_ms, self._period_ms)
        return self._now_ms() - last_ms >= min(wait_ms, self._period_ms)

    async def _learn(self, token: str) -> Learned:
        begun, started_ms = time.monotonic(), self._now_ms()
        await self._cache.attempt(started_ms)
        await self._store.prepare()
        previous = await self._store.remembered()
        week = await self._read(token, started_ms)
        until_ms = (self._by_event_time and week.newest_ms) or started_ms
        records = await asyncio.to_thread(week.judge, until_ms, previous)
        judged = [record for record in records if record.learned_ms == until_ms]
        await self._cache.renew(token)
        forgotten = await self._store.write(judged, forget_ms=until_ms - self._rules.forget_days * DAY_MS)
        held_against = await self._store.held_against()
        kept_ms = self._rules.days * DAY_MS
        if not await self._cache.swap(token, held_against, now_ms=started_ms, ttl_ms=kept_ms):
            raise StorageUnavailableError("learning took longer than its lease: another one may have begun; try again")
        for author in await self._store.cleared_since(started_ms):
            await self._cache.forget(author)
        await self._refresh_bots()
        were = {author for author, record in previous.items() if record.is_known_bot}
        bots = [record for record in records if record.is_known_bot]
        return Learned(
            messages=len(week),
            accounts=len(judged),
            bots=len(bots),
            new_bots=[record for record in bots if record.author not in were],
            freed=sorted(were.difference(record.author for record in bots)),
            held_against=len(held_against),
            forgotten=forgotten,
            seconds=time.monotonic() - begun,
        )

    async def _read(self, token: str, started_ms: int) -> WeekOfAuthors:
        """Return what the streams have of the last days; of a replay, which comes at any speed, all of it."""
        week = WeekOfAuthors(self._rules)
        states = {topic: await self._state(topic) for topic in SOURCES}
        since = None
        if not self._by_event_time:
            part = min(1.0, self._max_messages / max(1, sum(state.messages for state in states.values())))
            if part < 1.0:
                log.warning("authors.part_of_the_days", part=round(part, 3), max_messages=self._max_messages)
            since = utc(started_ms - round(part * self._rules.days * DAY_MS))
        renewed, unreadable = time.monotonic(), 0
        for topic, kind in SOURCES.items():
            async with contextlib.aclosing(self._bus.read_back(topic, since, states[topic].last_seq)) as batches:
                async for batch in batches:
                    # Another thread, so that the filter beside it goes on meanwhile.
                    unreadable += await asyncio.to_thread(_take, week, kind, batch)
                    if time.monotonic() - renewed > RENEW_SECONDS:
                        await self._cache.renew(token)
                        renewed = time.monotonic()
        if unreadable:
            log.warning("authors.unreadable", messages=unreadable)
        return week

    async def _state(self, topic: Topic) -> StreamState:
        try:
            return (await self._bus.jetstream.stream_info(topic.stream)).state
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnavailableError(
                f"{topic.stream} cannot be read ({type(error).__name__}): check the server of nats.url"
            ) from error


def _take(week: WeekOfAuthors, kind: type[FilteredPost | RejectedPost], batch: Batch) -> int:
    """Give a batch to the week; return how many messages cannot be read."""
    unreadable = 0
    for _, _, data in batch:
        try:
            week.add(kind.FromString(data))
        except DecodeError:
            unreadable += 1
    return unreadable


def history_rules(settings: Settings) -> HistoryRules:
    """Return the configured thresholds."""
    options = settings.spam_filter.author_history
    values = options.model_dump(exclude={"enabled", "learn_hours", "max_messages"})
    return HistoryRules(min_credibility=settings.spam_filter.min_credibility_threshold, **values)


def configured(
    settings: Settings,
    metrics: Metrics,
    bus: Bus,
    store: AuthorStore,
    client: redis.asyncio.Redis,
    refresh_bots: Callable[[], Awaitable[object]],
) -> Learner:
    """Return the learner with the configured thresholds, which shows its work in the metrics."""

    def show(learned: Learned) -> None:
        metrics.authors_learned.set(learned.accounts)
        metrics.author_bots.set(learned.bots)
        metrics.authors_held_against.set(learned.held_against)
        metrics.author_learning_seconds.set(learned.seconds)

    return Learner(
        bus,
        store,
        AuthorCache(client),
        refresh_bots,
        history_rules(settings),
        period_ms=settings.spam_filter.author_history.learn_hours * HOUR_MS,
        max_messages=settings.spam_filter.author_history.max_messages,
        by_event_time=settings.aggregation.clock == "event",
        on_learned=show,
        on_failure=metrics.author_learning_failures.inc,
        on_success_time=lambda ms: metrics.author_learning_success.set(ms / 1000),
    )
