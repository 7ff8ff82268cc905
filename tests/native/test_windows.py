"""WindowStore against a version that keeps the list of posts and reads everything from it."""

import math
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentimesh.native import SlideCount, WindowStats, WindowStore
from sentimesh.pb.social_sentiment_pb2 import ScoredPost
from tests.native.windows_oracle import MINUTE, START, Recomputed, as_tuple, message

SPAN = 30 * MINUTE
steps = (
    st.integers(-2 * MINUTE, 3 * MINUTE)
    | st.integers(-5_000, 15_000)
    | st.integers(0, 9).map(lambda n: n * 10_000)
    | st.sampled_from([-SPAN - 1, -SPAN, -7 * MINUTE, 5 * MINUTE, SPAN, SPAN + 1, SPAN + 8 * MINUTE, 3 * SPAN])
)
scored = st.fixed_dictionaries(
    {
        "post_id": st.integers(0, 60).map(str),
        "symbol": st.sampled_from(["BTC", "BTC", "ETH", "DOGE"]),
        "platform": st.sampled_from(["twitter", "reddit"]),
        "author_id": st.sampled_from(["", "a", "b", "c"]),
        "polarity": st.floats(-1, 1, width=32),
        "credibility_score": st.just(0.0) | st.floats(0.25, 1, width=32),
        "engagement_weight": st.floats(0.125, 10, width=32),
    }
)
configs = st.fixed_dictionaries(
    {
        "window_ms": st.sampled_from([MINUTE, 5 * MINUTE, 70_000]),
        "allowed_lateness_ms": st.sampled_from([0, 30_000, 45_001]),
        "slide_ms": st.sampled_from([10_000, 30_000]),
        "baseline_ms": st.sampled_from([5 * MINUTE, 20 * MINUTE]),
        "start_ms": st.none() | st.integers(-2 * SPAN, 10 * MINUTE).map(lambda offset: START + offset),
        "history_start_ms": st.none() | st.integers(-2 * SPAN, 10 * MINUTE).map(lambda offset: START + offset),
    }
)


def pair(config: dict[str, Any]) -> tuple[WindowStore, Recomputed]:
    store = WindowStore(["ETH", "BTC"], span_ms=SPAN, spike_min_mentions=2, min_credibility=0.25, **config)
    return store, Recomputed(["BTC", "ETH"], span_ms=SPAN, min_mentions=2, **config)


def warm_up(store: WindowStore, recomputed: Recomputed, minutes: int) -> None:
    """A quiet post a minute, so that slides have a history."""
    quiet = [message(f"q{number}", START + (number - minutes) * MINUTE) for number in range(minutes)]
    result = store.add_batch(quiet)
    statuses, events = recomputed.add_batch(quiet, None)
    assert result.statuses == statuses
    assert [(index, as_tuple(event)) for index, event in result.events] == events


def check_live(store: WindowStore, recomputed: Recomputed, window_ms: int) -> None:
    clock = store.clock_ms
    assert clock == recomputed.clock
    assert clock is not None
    for read in store.live(["BTC", "ETH"], clock):
        end = -(-clock // 10_000) * 10_000
        assert as_tuple(read) == recomputed.window(read.symbol, end - window_ms, 0)


@settings(deadline=None)
@given(
    configs,
    st.sampled_from([0, 25, 25]),
    st.lists(st.lists(st.tuples(steps, scored), min_size=1, max_size=12), min_size=1, max_size=4),
)
def test_event_clock_equals_recomputing(
    config: dict[str, Any], minutes: int, batches: list[list[tuple[int, dict[str, Any]]]]
) -> None:
    store, recomputed = pair(config)
    warm_up(store, recomputed, minutes)
    time_ms = START + 3 * MINUTE
    for batch in batches:
        messages = []
        for step, fields in batch:
            time_ms += step
            messages.append(message(timestamp_ms=time_ms, **fields))
        result = store.add_batch(messages)
        statuses, events = recomputed.add_batch(messages, None)
        assert result.statuses == statuses
        assert [(index, as_tuple(event)) for index, event in result.events] == events
        check_live(store, recomputed, config["window_ms"])


clock_steps = st.integers(0, 2 * MINUTE) | st.sampled_from([-MINUTE, 0, 5 * MINUTE, SPAN + 10_000])


@settings(deadline=None)
@given(
    configs,
    st.sampled_from([0, 25, 25]),
    st.lists(st.tuples(clock_steps, st.lists(st.tuples(steps, scored), max_size=8)), max_size=6),
)
def test_system_clock_equals_recomputing(
    config: dict[str, Any], minutes: int, batches: list[tuple[int, list[tuple[int, dict[str, Any]]]]]
) -> None:
    store, recomputed = pair(config)
    warm_up(store, recomputed, minutes)
    clock = START + 3 * MINUTE
    for step, batch in batches:
        clock += step
        messages = [message(timestamp_ms=clock + offset, **fields) for offset, fields in batch]
        result = store.add_batch(messages, clock)
        statuses, events = recomputed.add_batch(messages, clock)
        assert result.statuses == statuses
        assert list(result.errors) == [index for index, status in enumerate(statuses) if status == "malformed"]
        assert [(index, as_tuple(event)) for index, event in result.events] == events
        check_live(store, recomputed, config["window_ms"])
    assert [as_tuple(event) for event in store.advance(clock + 40_000)] == recomputed.move(clock + 40_000)


@settings(deadline=None)
@given(st.permutations(range(25)), st.data())
def test_sums_do_not_depend_on_the_order(order: list[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.tuples(*[st.floats(0.125, 1, width=32)] * 3), min_size=25, max_size=25))
    messages = [
        message(str(number), START + number, polarity=polarity, credibility_score=credibility, engagement_weight=weight)
        for number, (polarity, credibility, weight) in enumerate(values)
    ]
    stores = [WindowStore(["BTC"]), WindowStore(["BTC"])]
    stores[0].add_batch(messages, START + 100)
    stores[1].add_batch([messages[number] for number in order], START + 100)
    first, second = (store.live(["BTC"], START + 100)[0] for store in stores)
    assert first.polarity == second.polarity
    assert first.credibility == second.credibility


def test_a_batch_as_a_whole_or_one_by_one() -> None:
    messages = [message(str(number), START + number * 7_000, polarity=-0.25) for number in range(200)]
    whole, single = WindowStore(["BTC"]), WindowStore(["BTC"])
    together = [as_tuple(event) for _, event in whole.add_batch(messages).events]
    apart = [as_tuple(event) for one in messages for _, event in single.add_batch([one]).events]
    assert together == apart
    assert len([event for event in together if event[0] == "window"]) == 4


def test_malformed_messages_say_why_and_the_rest_goes_on() -> None:
    store = WindowStore(["BTC"])
    result = store.add_batch(
        [
            b"\xff\xff\xff",
            ScoredPost(polarity=0.5).SerializeToString(),
            message("", START),
            message("1", START, symbol=""),
            message("1", START, platform=""),
            message("1", START, polarity=math.nan),
            message("1", START, polarity=1.5),
            message("1", START, credibility_score=math.inf),
            message("1", START, engagement_weight=0.0),
            message("1", -5),
            message("1", 4_000_000_000_000),
            message("1", START),
            message("2", START, symbol="DOGE"),
        ]
    )
    assert result.statuses == ["malformed"] * 11 + ["accepted", "untracked"]
    words = ["not a ScoredPost", "post is missing", "post_id", "symbol", "platform", "polarity", "polarity"]
    words += ["credibility_score", "engagement_weight", "timestamp_ms", "5 minutes ahead"]
    assert list(result.errors) == list(range(11))
    assert all(word in result.errors[index] for index, word in enumerate(words))


def test_a_baseline_is_what_came_before_ten_minutes_at_least() -> None:
    store = WindowStore(["BTC"], spike_min_mentions=3)
    early = [message(f"e{number}", START + 9 * MINUTE + number) for number in range(10)]
    quiet = [message(f"q{number}", START + number * MINUTE) for number in range(10, 20)]
    burst = [message(f"b{number}", START + 20 * MINUTE + number, platform="reddit") for number in range(5)]
    events = [event for _, event in store.add_batch([message("first", START), *early, *quiet, *burst]).events]
    assert not any(isinstance(event, SlideCount) for event in events)
    slides = [event for event in store.advance(START + 21 * MINUTE) if isinstance(event, SlideCount)]
    assert [slide.mention_count for slide in slides] == [5, 5, 5, 5, 5, 5]
    last = slides[-1]
    assert last.end_ms == START + 21 * MINUTE
    assert last.baseline_rate == pytest.approx(21 / 20)
    assert last.platform_counts == {"reddit": 5}


def test_there_are_no_slides_before_ten_minutes_of_history() -> None:
    store = WindowStore(["BTC"], spike_min_mentions=1)
    messages = [message(str(number), START + number * MINUTE) for number in range(13)]
    slides = [event for _, event in store.add_batch(messages).events if isinstance(event, SlideCount)]
    assert [slide.end_ms for slide in slides] == [START + 11 * MINUTE + 10_000 * number for number in range(7)]
    assert (slides[0].baseline_rate, slides[1].baseline_rate) == (1.0, 11 * 60 / 610)


def test_windows_before_start_ms_are_not_emitted_and_their_posts_count_in_the_baseline() -> None:
    store = WindowStore(["BTC"], start_ms=START + 10 * MINUTE, spike_min_mentions=1)
    messages = [message(str(number), START + number * MINUTE) for number in range(16)]
    events = [event for _, event in store.add_batch(messages).events]
    windows = [event for event in events if isinstance(event, WindowStats)]
    assert [(window.start_ms, window.post_count) for window in windows] == [(START + 10 * MINUTE, 5)]
    slides = [event for event in events if isinstance(event, SlideCount)]
    assert (slides[0].end_ms, slides[0].baseline_rate) == (START + 11 * MINUTE, 1.0)


def test_bad_arguments_are_refused() -> None:
    store = WindowStore(["BTC"])
    with pytest.raises(TypeError, match=r"messages\[1\] is str, not bytes"):
        store.add_batch([message("1", START), "x"])  # type: ignore[list-item]
    assert store.clock_ms is None
    with pytest.raises(ValueError, match=r'symbols\[1\] \("ETH"\) is not tracked'):
        store.live(["BTC", "ETH"], START)
    with pytest.raises(ValueError, match=r"symbols\[1\] .* given twice"):
        WindowStore(["BTC", "BTC"])
    with pytest.raises(ValueError, match="window_ms is 15000, not a multiple of slice_ms"):
        WindowStore(["BTC"], window_ms=15_000)
    with pytest.raises(ValueError, match="clock_ms is -1"):
        store.advance(-1)


def test_threads_take_turns() -> None:
    store = WindowStore(["BTC"])
    batches = [[message(f"{part}:{number}", START + number) for number in range(2_000)] for part in range(4)]
    threads = [threading.Thread(target=store.add_batch, args=(batch, START + 2_000)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.live(["BTC"], START + 2_000)[0].post_count == 8_000
