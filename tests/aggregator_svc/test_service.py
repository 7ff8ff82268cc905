"""The aggregator stage, without bus or servers: posts in, outcomes and sink calls out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from aggregator_svc.formulas import directional_score, social_sentiment_score
from aggregator_svc.service import AggregatorOptions, AggregatorStage
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.stage import Delivery, Drop, Forward, Reject

MINUTE = 60_000
WINDOW = 5 * MINUTE
START = 1_700_000_400_000 // WINDOW * WINDOW


class Shelf:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.live: list[SentimentAggregate] = []
        self.received: list[int] = []
        self.windows: list[SentimentAggregate] = []
        self.baselines: dict[str, float] = {}
        self.alerted_elsewhere = False

    def put_live(self, aggregates: Sequence[SentimentAggregate], received_at_ms: Sequence[int]) -> None:
        self.live += aggregates
        self.received += received_at_ms

    def put_windows(self, aggregates: Sequence[SentimentAggregate], baselines: Mapping[str, float]) -> None:
        self.windows += aggregates
        self.baselines.update(baselines)

    async def claim_alert(self, symbol: str, detected_at_ms: int) -> bool:
        return not self.alerted_elsewhere


class Clock:
    """A wall clock that stands until it is moved."""

    def __init__(self, now_ms: int) -> None:
        self.now = now_ms

    def __call__(self) -> int:
        return self.now


def post(
    number: int, at_ms: int, polarity: float = 0.5, symbol: str = "BTC", credibility: float = 0.8
) -> Delivery[ScoredPost]:
    inner = SocialPost(
        post_id=f"twitter:{number}",
        platform="twitter",
        symbol=symbol,
        author_id=f"author{number % 3}",
        timestamp_ms=at_ms,
        received_at_ms=at_ms + 5,
    )
    scored = ScoredPost(post=inner, polarity=polarity, credibility_score=credibility, engagement_weight=1.0)
    return Delivery(scored, number + 1)


def stage(shelf: Shelf, clock: Clock | None = None, **options: float) -> AggregatorStage:
    chosen = AggregatorOptions(**{"allowed_lateness_ms": 0, **options})  # type: ignore[arg-type]
    return AggregatorStage(
        ["BTC", "ETH"], chosen, shelf, clock="system" if clock else "event", now_ms=clock or Clock(START)
    )


def windows(outcomes: Sequence[Sequence[object]]) -> list[SentimentAggregate]:
    found = [o.message for each in outcomes for o in each if isinstance(o, Forward)]
    return [message for message in found if isinstance(message, SentimentAggregate)]


def spikes(outcomes: Sequence[object]) -> list[ViralSpike]:
    return [o.message for o in outcomes if isinstance(o, Forward) and isinstance(o.message, ViralSpike)]


async def batches(history: Sequence[Delivery[ScoredPost]], size: int = 7) -> AsyncIterator[Sequence[bytes]]:
    for first in range(0, len(history), size):
        yield [delivery.message.SerializeToString() for delivery in history[first : first + size]]


async def test_a_window_closes_when_a_later_post_comes_for_every_tracked_symbol() -> None:
    shelf = Shelf()
    subject = stage(shelf)
    first = [post(n, START + n * 1000, polarity=0.2 * n) for n in range(4)]
    outcomes = await subject.process([*first, post(9, START + WINDOW + 1)])
    assert [list(each) for each in outcomes[:4]] == [[], [], [], []]
    btc, eth = windows(outcomes)
    assert (btc.symbol, btc.window_start_ms, btc.window_end_ms) == ("BTC", START, START + WINDOW)
    assert (btc.post_count, btc.unique_authors, dict(btc.platform_breakdown)) == (4, 3, {"twitter": 4})
    assert btc.polarity == pytest.approx(0.3)
    assert (btc.volume_ratio, btc.baseline_ready, btc.insufficient_data) == (1.0, False, False)
    assert btc.social_sentiment_score == pytest.approx(social_sentiment_score(0.3, 1.0, 0.8))
    assert btc.directional_score == pytest.approx(directional_score(0.3, 1.0, 0.8))
    assert (eth.symbol, eth.post_count, eth.social_sentiment_score, eth.insufficient_data) == ("ETH", 0, 0.5, True)
    assert shelf.windows == [btc, eth]
    assert shelf.baselines == {"BTC": 4.0, "ETH": 0.0}


async def test_the_volume_ratio_follows_once_the_baseline_is_ready() -> None:
    shelf = Shelf()
    subject = stage(shelf, baseline_min_windows=2)
    batch = [post(w * 100 + n, START + w * WINDOW + n) for w, count in enumerate((4, 4, 8)) for n in range(count)]
    await subject.process(batch)
    await subject.finish()
    assert [w.volume_ratio for w in shelf.windows if w.symbol == "BTC"] == [1.0, 1.0, 2.0]
    assert [w.baseline_ready for w in shelf.windows if w.symbol == "BTC"] == [False, False, True]


async def test_reasons_for_dropping_and_rejecting() -> None:
    subject = stage(Shelf())
    outcomes = await subject.process(
        [
            post(1, START + WINDOW * 40),
            post(1, START + WINDOW * 40),
            post(2, START),
            post(3, START + WINDOW * 40, credibility=0.1),
            post(4, START + WINDOW * 40, symbol="XMR"),
            post(5, START + WINDOW * 40, polarity=7),
        ]
    )
    reasons = [o.reason for each in outcomes for o in each if isinstance(o, Drop)]
    assert reasons == ["duplicate", "late", "low_credibility", "untracked"]
    [rejected] = [o for o in outcomes[5] if isinstance(o, Reject)]
    assert "polarity" in rejected.reason


async def test_a_late_post_corrects_its_window_with_the_next_revision() -> None:
    shelf = Shelf()
    subject = stage(shelf)
    await subject.process([post(n, START + n) for n in range(3)])
    await subject.process([post(10, START + 2 * WINDOW)])
    [corrected] = windows(await subject.process([post(11, START + 10)]))
    assert (corrected.window_start_ms, corrected.revision, corrected.post_count) == (START, 1, 4)


async def test_live_scores_come_at_once_then_at_most_once_a_refresh() -> None:
    shelf, clock = Shelf(), Clock(START + MINUTE)
    subject = stage(shelf, clock)
    await subject.process([post(1, START + MINUTE - 10), post(2, START + MINUTE - 5)])
    assert [(a.symbol, a.post_count, a.live) for a in shelf.live] == [("BTC", 2, True)]
    assert shelf.received == [START + MINUTE - 5, START + MINUTE]
    clock.now += 500
    await subject.process([post(3, clock.now)])
    assert len(shelf.live) == 1
    clock.now += 500
    await subject.tick()
    assert {a.symbol: a.post_count for a in shelf.live[1:]} == {"BTC": 3, "ETH": 0}


async def test_windows_close_by_the_system_clock_on_a_silent_stream() -> None:
    shelf, clock = Shelf(), Clock(START + MINUTE)
    subject = stage(shelf, clock)
    await subject.process([post(n, START + MINUTE - n) for n in range(3)])
    clock.now = START + WINDOW
    outcomes = await subject.tick()
    assert [(a.symbol, a.post_count) for a in windows([outcomes])] == [("BTC", 3), ("ETH", 0)]


async def test_posts_that_waited_for_a_restart_are_in_their_windows_before_these_close() -> None:
    waiting = [post(w * 100 + n, START + w * WINDOW + n) for w in range(4) for n in range(5)]
    shelf, clock = Shelf(), Clock(START + 4 * WINDOW)
    options = AggregatorOptions(allowed_lateness_ms=0, baseline_min_windows=1)
    subject = AggregatorStage(["BTC"], options, shelf, clock="system", now_ms=clock, behind=len(waiting))
    assert await subject.tick() == []
    await subject.process(waiting[:9])
    assert await subject.tick() == []
    await subject.process(waiting[9:])
    await subject.tick()
    assert [(w.post_count, w.revision, w.volume_ratio) for w in shelf.windows] == [(5, 0, 1.0)] * 4


async def test_what_does_not_come_is_not_waited_for() -> None:
    shelf, clock = Shelf(), Clock(START)
    subject = AggregatorStage(["BTC"], AggregatorOptions(), shelf, clock="system", now_ms=clock, behind=1000)
    await subject.process([post(1, START)])
    clock.now = START + WINDOW + 10_000
    await subject.tick()
    assert [w.post_count for w in shelf.windows] == [1]


async def test_a_late_post_changes_its_window_and_nothing_else() -> None:
    quiet = [post(n, START + n * 20_000) for n in range(900)]
    surge = [post(10_000 + n, START + 170 * MINUTE + n * 400) for n in range(100)]
    history = sorted([*quiet, *surge], key=lambda delivery: delivery.message.post.timestamp_ms)
    # Fifty minutes late, in the midst of a surge.
    late = post(99_999, START + 120 * MINUTE + 7, polarity=-1.0)
    before = [d for d in history if d.message.post.timestamp_ms <= START + 170 * MINUTE + 25_000]
    shelf = Shelf()
    subject = stage(shelf)
    await subject.process(before)
    closed = {(w.symbol, w.window_start_ms): w for w in shelf.windows}
    outcomes = await subject.process([late])
    [corrected] = windows(outcomes)
    assert spikes([o for each in outcomes for o in each]) == []
    known = closed["BTC", START + 120 * MINUTE]
    assert (corrected.window_start_ms, corrected.revision) == (known.window_start_ms, 1)
    assert corrected.post_count == known.post_count + 1
    assert corrected.polarity < known.polarity
    # Against the same mean as before, and the mean of later windows has it in.
    assert corrected.volume_ratio == pytest.approx(known.volume_ratio * corrected.post_count / known.post_count)
    first_rest = len(shelf.windows)
    await subject.process(history[len(before) :])
    undisturbed = Shelf()
    await stage(undisturbed).process(history)
    same = ("symbol", "window_start_ms", "post_count", "unique_authors", "polarity", "credibility", "viral_spike")
    expected = {tuple(getattr(w, name) for name in same) for w in undisturbed.windows}
    assert {tuple(getattr(w, name) for name in same) for w in shelf.windows[first_rest:]} <= expected


async def test_a_restart_gives_the_same_windows() -> None:
    history = [post(n, START + n * 20_000, polarity=(-1) ** n * n / 60) for n in range(60)]
    undisturbed, restarted = Shelf(), Shelf()
    one = stage(undisturbed)
    await one.process(history)
    await one.finish()
    two = stage(restarted)
    await two.restore(batches(history[:40]))
    await two.process(history[40:])
    await two.finish()
    assert restarted.windows == undisturbed.windows


async def test_a_spike_is_forwarded_stored_and_refreshes_the_score_at_once() -> None:
    shelf, clock = Shelf(), Clock(START + 60 * MINUTE)
    subject = stage(shelf, clock)
    await subject.restore(batches([post(n, START + n * MINUTE) for n in range(60)]))
    # Ahead of our clock: no sliding window of theirs has ended yet.
    await subject.process([post(1000 + n, START + 60 * MINUTE + n * 1000) for n in range(30)])
    shown = len(shelf.live)
    clock.now = START + 60 * MINUTE + 40_000
    outcomes = await subject.tick()
    [alert] = spikes(outcomes)
    assert (alert.symbol, alert.resolved_at_ms) == ("BTC", 0)
    assert len(shelf.live) > shown
    assert shelf.live[-1].viral_spike or shelf.live[-2].viral_spike


async def test_a_spike_that_the_clock_alone_shows_refreshes_a_symbol_without_new_posts() -> None:
    shelf, clock = Shelf(), Clock(START + 60 * MINUTE)
    subject = stage(shelf, clock)
    await subject.restore(batches([post(n, START + n * MINUTE) for n in range(60)]))
    clock.now = START + 60 * MINUTE + 8_000
    await subject.process([post(1000 + n, START + 60 * MINUTE + n * 900) for n in range(30)])
    clock.now += 1000
    await subject.tick()
    shelf.live.clear()
    clock.now += 1000
    outcomes = await subject.tick()
    assert [type(o.message) for o in outcomes if isinstance(o, Forward)] == [ViralSpike]
    assert [(a.symbol, a.viral_spike) for a in shelf.live] == [("BTC", True)]


async def test_the_live_flag_goes_out_with_the_cooldown_and_the_window_of_the_spike_keeps_its_own() -> None:
    shelf, clock = Shelf(), Clock(START + 60 * MINUTE)
    subject = stage(shelf, clock, cooldown_ms=60_000)
    await subject.restore(batches([post(n, START + n * MINUTE) for n in range(60)]))
    await subject.process([post(1000 + n, START + 60 * MINUTE - n * 100) for n in range(50)])
    flags = {}
    for seconds in range(0, 420, 10):
        clock.now = START + 60 * MINUTE + seconds * 1000
        await subject.tick()
        flags[seconds] = next(a.viral_spike for a in reversed(shelf.live) if a.symbol == "BTC")
    # The slide that had ended when the posts came shows it, the last one over ends at 0:50, a minute before 1:50.
    assert [seconds for seconds, flag in flags.items() if flag] == list(range(0, 110, 10))
    closed = {w.window_start_ms: w.viral_spike for w in shelf.windows if w.symbol == "BTC"}
    # The posts correct the first of the two, which had closed before them.
    assert [closed[START + at * MINUTE] for at in (50, 55, 60)] == [False, True, True]


async def test_a_restart_marks_the_windows_of_every_spike_as_before() -> None:
    quiet = [post(n, START + n * MINUTE) for n in range(180)]
    surges = [post(at * 1000 + n, START + at * MINUTE + n * 500) for at in (65, 130) for n in range(60)]
    history = sorted([*quiet, *surges], key=lambda d: d.message.post.timestamp_ms)
    undisturbed, restarted = Shelf(), Shelf()
    outcomes = [o for each in await stage(undisturbed).process(history) for o in each]
    again = await stage(restarted).restore(batches(history))
    marked = [(w.window_start_ms - START) // MINUTE for w in undisturbed.windows if w.viral_spike]
    assert 65 in marked
    assert 130 in marked
    assert restarted.windows == undisturbed.windows
    assert spikes(again) == []
    assert len([spike for spike in spikes(outcomes) if not spike.resolved_at_ms]) == 2


async def test_a_restart_that_has_read_a_part_of_the_log_closes_its_windows_as_before() -> None:
    quiet = [post(n, START + n * MINUTE) for n in range(400) if not 170 < n < 260]
    surges = [post(at * 1000 + n, START + at * MINUTE + n * 500) for at in (65, 130, 290, 330) for n in range(60)]
    history = sorted([*quiet, *surges], key=lambda d: d.message.post.timestamp_ms)
    undisturbed, restarted = Shelf(), Shelf()
    await stage(undisturbed).process(history)
    # Two hours before the first window that is closed again, most of the first a silence.
    since_ms, start_ms = START + 180 * MINUTE, START + 300 * MINUTE
    subject = AggregatorStage(
        ["BTC", "ETH"],
        AggregatorOptions(allowed_lateness_ms=0),
        restarted,
        clock="event",
        now_ms=Clock(START),
        start_ms=start_ms,
        history_start_ms=since_ms,
    )
    for window in undisturbed.windows:
        if window.window_end_ms <= start_ms:
            subject.baseline.load(window.symbol, window.window_end_ms, window.post_count)
    await subject.restore(batches([d for d in history if d.message.post.timestamp_ms >= since_ms]))
    expected = [w for w in undisturbed.windows if w.window_start_ms >= start_ms]
    assert restarted.windows == expected
    assert {(w.window_start_ms - START) // MINUTE for w in expected if w.viral_spike} >= {330}


async def test_a_session_has_windows_of_its_own_and_stores_nothing() -> None:
    shelf = Shelf()
    subject = stage(shelf)
    session = subject.session()
    await session.process([post(1, START), post(1, START), post(2, START + WINDOW)])
    [[], *_] = await subject.process([post(1, START)])
    assert shelf.windows == []
