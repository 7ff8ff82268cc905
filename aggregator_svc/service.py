"""The aggregator stage: windows from the native store, scores, spikes, and what is stored of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal, Protocol

from aggregator_svc.formulas import directional_score, social_sentiment_score
from aggregator_svc.samples import EngagedPosts
from aggregator_svc.spikes import ViralSpikeDetector
from aggregator_svc.volume import Volume, VolumeBaseline
from sentimesh.native import SlideCount, WindowStats, WindowStore
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject, Stage

NEUTRAL = 0.5
# Without a post for so long there is nothing to catch up with.
CATCH_UP_PAUSE_MS = 10_000
# Posts before a restart that a spike after it may show: more than two minutes of the 10,000 a minute we are built for.
RESTORED_SAMPLES = 20_000
EVENTS_A_TURN = 1000


class Sink(Protocol):
    """What readers see at once, and what replicas share; calls return at once and never fail."""

    def put_live(self, aggregates: Sequence[SentimentAggregate], received_at_ms: Sequence[int]) -> None:
        """Show live scores; ``received_at_ms``: when the posts that they show for the first time came in."""

    def put_windows(self, aggregates: Sequence[SentimentAggregate], baselines: Mapping[str, float]) -> None:
        """Show closed windows, and each symbol's mean of posts a window."""

    async def claim_alert(self, symbol: str, detected_at_ms: int) -> bool:
        """Say whether no replica has alerted the symbol within the cooldown; who is told yes has."""
        ...


class NoSink:
    """Shows nothing: for the stage of one gRPC stream."""

    def put_live(self, aggregates: Sequence[SentimentAggregate], received_at_ms: Sequence[int]) -> None:
        """Do nothing."""

    def put_windows(self, aggregates: Sequence[SentimentAggregate], baselines: Mapping[str, float]) -> None:
        """Do nothing."""

    async def claim_alert(self, symbol: str, detected_at_ms: int) -> bool:
        """Say yes."""
        return True


@dataclass(frozen=True, slots=True)
class AggregatorOptions:
    """The specification's ``aggregation`` and ``viral_detection`` keys, times in milliseconds.

    ``span_ms``: how long posts are held, and so how late one may come; ``live_refresh_ms``: the shortest time
    between two live scores of a symbol, by the wall clock.
    """

    window_ms: int = 300_000
    span_ms: int = 7_200_000
    allowed_lateness_ms: int = 5_000
    min_posts_per_window: int = 3
    min_credibility: float = 0.3
    baseline_days: int = 7
    baseline_min_windows: int = 12
    spike_window_ms: int = 60_000
    slide_ms: int = 10_000
    spike_threshold: float = 5.0
    spike_min_mentions: int = 10
    cooldown_ms: int = 300_000
    refresh_on_spike: bool = True
    live_refresh_ms: int = 1_000


class AggregatorStage(Stage[ScoredPost]):
    """Drops posts as ``duplicate``, ``late``, ``low_credibility`` or ``untracked``; takes the others into windows.

    With clock "event" windows close by the largest post time seen, with "system" by ``now_ms``.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        options: AggregatorOptions,
        sink: Sink,
        *,
        clock: Literal["system", "event"],
        now_ms: Callable[[], int],
        start_ms: int | None = None,
        history_start_ms: int | None = None,
        behind: int = 0,
    ) -> None:
        """Windows before ``start_ms`` are not closed again (a restart has read back only a part of them).

        ``history_start_ms``: from when on silence in what is restored is silence; the first post by default.
        ``behind``: posts that wait already. Until they are through the posts' own times are the clock, or windows
        would close before posts that came in time are in them.
        """
        self._behind = behind
        self._processed_ms = now_ms()
        self._symbols = tuple(symbols)
        self._options = options
        self._sink = sink
        self._clock = clock
        self._now_ms = now_ms
        self._store = WindowStore(
            symbols,
            window_ms=options.window_ms,
            span_ms=options.span_ms,
            allowed_lateness_ms=options.allowed_lateness_ms,
            slide_ms=options.slide_ms,
            spike_window_ms=options.spike_window_ms,
            spike_min_mentions=options.spike_min_mentions,
            min_credibility=options.min_credibility,
            start_ms=start_ms,
            history_start_ms=history_start_ms,
        )
        self._detector = ViralSpikeDetector(
            spike_threshold=options.spike_threshold,
            min_mentions=options.spike_min_mentions,
            cooldown_ms=options.cooldown_ms,
            window_ms=options.spike_window_ms,
            slide_ms=options.slide_ms,
            kept_ms=options.span_ms + options.window_ms,
        )
        self._engaged = EngagedPosts(options.slide_ms)
        self.baseline = VolumeBaseline(days=options.baseline_days, min_windows=options.baseline_min_windows)
        self._touched: dict[str, list[int]] = {}
        self._refreshed_ms = 0
        self._swept_ms = 0

    async def process(self, batch: Sequence[Delivery[ScoredPost]]) -> Sequence[Sequence[Outcome]]:
        """Take a batch; windows and spikes come with the post whose time brought them about."""
        if not batch:
            return []
        clock_ms = None if self._clock == "event" or self._behind > 0 else self._now_ms()
        self._behind -= len(batch)
        self._processed_ms = self._now_ms()
        result = self._store.add_batch([delivery.message.SerializeToString() for delivery in batch], clock_ms)
        events = groupby(result.events, key=itemgetter(0))
        next_index, caused = next(events, (None, iter(())))
        outcomes: list[list[Outcome]] = []
        for index, (delivery, status) in enumerate(zip(batch, result.statuses, strict=True)):
            outcomes.append(self._outcomes(delivery.message, status, result.errors.get(index, "")))
            if index == next_index:
                outcomes[-1] += await self._take([event for _, event in caused])
                next_index, caused = next(events, (None, iter(())))
        outcomes[-1] += self._resolve()
        self._refresh()
        return outcomes

    def _outcomes(self, scored: ScoredPost, status: str, error: str) -> list[Outcome]:
        match status:
            case "accepted":
                self._touched.setdefault(scored.post.symbol, []).append(scored.post.received_at_ms)
                self._engaged.add(scored)
                return []
            case "malformed":
                return [Reject(error)]
            case reason:
                return [Drop(scored.post.post_id, scored.post.symbol, reason, scored.credibility_score)]

    async def tick(self) -> Sequence[Outcome]:
        """Close what is due by the system clock and refresh live scores."""
        if self._clock == "event" or self._is_catching_up():
            self._refresh()
            return []
        outcomes = await self._take(self._store.advance(self._now_ms()))
        outcomes += self._resolve()
        if self._now_ms() >= self._swept_ms + self._options.slide_ms:
            # Every symbol, also without new posts: the trailing window moves on and old posts leave it.
            self._swept_ms = self._now_ms()
            for symbol in self._symbols:
                self._touched.setdefault(symbol, [])
        self._refresh()
        return outcomes

    def _is_catching_up(self) -> bool:
        if self._behind > 0 and self._now_ms() > self._processed_ms + CATCH_UP_PAUSE_MS:
            # What was waiting for us has gone another way.
            self._behind = 0
        return self._behind > 0

    def session(self) -> AggregatorStage:
        """Return a stage with windows of its own, on the event clock, that stores nothing."""
        return AggregatorStage(self._symbols, self._options, NoSink(), clock="event", now_ms=self._now_ms)

    async def restore(self, batches: AsyncIterator[Sequence[bytes]]) -> Sequence[Outcome]:
        """Take posts of before a restart, oldest first, and return their windows again.

        Storing them again changes nothing. Spikes are not alerted again; their cooldown goes on, and so does what
        ends them.
        """
        outcomes: list[Outcome] = []
        latest: deque[bytes] = deque(maxlen=RESTORED_SAMPLES)
        async for messages in batches:
            result = self._store.add_batch(messages, None)
            outcomes += await self._take([event for _, event in result.events], alert=False)
            latest += [m for m, status in zip(messages, result.statuses, strict=True) if status == "accepted"]
        for message in latest:
            self._engaged.add(ScoredPost.FromString(message))
        return outcomes

    async def finish(self) -> Sequence[Outcome]:
        """Close the windows that hold the last posts (the end of a replay) and refresh what is left."""
        if self._store.clock_ms is None:
            return []
        self._refresh(now=True)
        end_ms = (self._store.clock_ms // self._options.window_ms + 1) * self._options.window_ms
        outcomes = await self._take(self._store.advance(end_ms + self._options.allowed_lateness_ms))
        return outcomes + self._resolve()

    async def _take(self, events: Sequence[WindowStats | SlideCount], *, alert: bool = True) -> list[Outcome]:
        outcomes: list[Outcome] = []
        windows: list[SentimentAggregate] = []
        for number, event in enumerate(events):
            if number % EVENTS_A_TURN == EVENTS_A_TURN - 1:
                # A post months after the last one closes ten thousands of windows: let others have a turn.
                await asyncio.sleep(0)
            if isinstance(event, SlideCount):
                # In the order of the windows, so that each is marked with the spikes known when it closed.
                spike = self._detector.detect(event)
                if spike is not None and alert:
                    outcomes += await self._alert(spike)
            else:
                volume = self.baseline.close(event.symbol, event.end_ms, event.post_count)
                closed_ms = event.end_ms + self._options.allowed_lateness_ms
                aggregate = self._aggregate(event, volume, closed_ms if self._clock == "event" else self._now_ms())
                windows.append(aggregate)
                identity = f"{event.start_ms}:{event.revision}:{event.post_count}"
                outcomes.append(Forward(aggregate, aggregate.symbol, identity))
        if windows:
            self._sink.put_windows(windows, {w.symbol: self.baseline.mean(w.symbol) for w in windows})
        alerted = any(isinstance(o, Forward) and isinstance(o.message, ViralSpike) for o in outcomes)
        if alerted and self._options.refresh_on_spike:
            self._refresh(now=True)
        return outcomes

    async def _alert(self, spike: ViralSpike) -> list[Outcome]:
        if not await self._sink.claim_alert(spike.symbol, spike.detected_at_ms):
            self._detector.retract(spike)
            return []
        self._touched.setdefault(spike.symbol, [])
        message = ViralSpike()
        message.CopyFrom(spike)
        start_ms = spike.detected_at_ms - self._options.spike_window_ms
        message.sample_posts.extend(self._engaged.top(spike.symbol, start_ms, spike.detected_at_ms))
        return [Forward(message, spike.symbol, str(spike.detected_at_ms))]

    def _resolve(self) -> list[Outcome]:
        if self._store.clock_ms is None:
            return []
        return [
            Forward(over, over.symbol, f"{over.detected_at_ms}:{over.resolved_at_ms}")
            for over in self._detector.resolve(self._store.clock_ms)
        ]

    def _refresh(self, *, now: bool = False) -> None:
        wall_ms = self._now_ms()
        clock_ms = self._store.clock_ms if self._clock == "event" else wall_ms
        due = now or wall_ms >= self._refreshed_ms + self._options.live_refresh_ms
        if not self._touched or clock_ms is None or not due:
            return
        self._refreshed_ms = wall_ms
        touched, self._touched = self._touched, {}
        aggregates = [
            self._aggregate(stats, self.baseline.live(stats.symbol, stats.post_count), clock_ms, live=True)
            # The end is exclusive, and a post of this very millisecond belongs in.
            for stats in self._store.live(list(touched), clock_ms + 1)
        ]
        self._sink.put_live(aggregates, [received for posts in touched.values() for received in posts])

    def _aggregate(
        self, stats: WindowStats, volume: Volume, updated_at_ms: int, *, live: bool = False
    ) -> SentimentAggregate:
        enough = stats.post_count >= self._options.min_posts_per_window
        parts = (stats.polarity, volume.ratio, stats.credibility)
        # A closed window says whether a spike was on in it, a live score whether one is on now.
        spike_from_ms = updated_at_ms if live else stats.start_ms
        spike_ratio = self._detector.ratio_during(stats.symbol, spike_from_ms, stats.end_ms)
        return SentimentAggregate(
            symbol=stats.symbol,
            window_start_ms=stats.start_ms,
            window_end_ms=stats.end_ms,
            polarity=stats.polarity,
            volume_ratio=volume.ratio,
            credibility=stats.credibility,
            social_sentiment_score=social_sentiment_score(*parts) if enough else NEUTRAL,
            directional_score=directional_score(*parts) if enough else NEUTRAL,
            post_count=stats.post_count,
            unique_authors=stats.unique_authors,
            platform_breakdown=stats.platform_counts,
            viral_spike=spike_ratio > 0,
            spike_ratio=spike_ratio,
            baseline_ready=volume.ready,
            insufficient_data=not enough,
            revision=stats.revision,
            live=live,
            updated_at_ms=updated_at_ms,
        )
