"""A post that comes after the end of sliding windows that hold it: they come again, at once and for its symbol only."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sentimesh.native import SlideCount, WindowStats, WindowStore
from tests.native.windows_oracle import MINUTE, START, as_tuple, message

SPAN = 30 * MINUTE


def quiet(minutes: int) -> list[bytes]:
    """A post a minute of BTC and of ETH, from START on."""
    symbols = ("BTC", "ETH")
    return [message(f"{s}{number}", START + number * MINUTE, symbol=s) for number in range(minutes) for s in symbols]


def late_slides(events: list[tuple[int, WindowStats | SlideCount]]) -> list[tuple[int, str, int, int]]:
    slides = [(index, event) for index, event in events if isinstance(event, SlideCount)]
    assert all(slide.late for _, slide in slides)
    return [(index, slide.symbol, (slide.end_ms - START) // 1_000, slide.mention_count) for index, slide in slides]


def test_a_surge_that_comes_after_an_outage_is_seen_post_by_post() -> None:
    store = WindowStore(["BTC", "ETH"], spike_min_mentions=3)
    store.add_batch(quiet(20))
    store.advance(START + 20 * MINUTE)
    surge = [message(f"s{number}", START + 15 * MINUTE + 1_000 + number) for number in range(3)]
    result = store.add_batch(surge, START + 20 * MINUTE)
    # The post of 15:00 is in these windows too: the second of the surge is the third mention.
    ends = [15 * 60 + 10 * number for number in range(1, 7)]
    assert late_slides([event for event in result.events if event[0] == 1]) == [(1, "BTC", end, 3) for end in ends]
    windows = [event for _, event in result.events if isinstance(event, WindowStats)]
    slides = [event for _, event in result.events if isinstance(event, SlideCount)]
    assert [slide.mention_count for slide in slides] == [3] * 6 + [4] * 6
    assert [slide.baseline_rate for slide in slides[:6]] == [15 * 60 / (end - 60) for end in ends]
    assert [(window.start_ms - START, window.revision) for window in windows] == [(15 * MINUTE, 1)]


def test_only_ended_windows_come_again() -> None:
    store = WindowStore(["BTC"], spike_min_mentions=1)
    store.add_batch([message("first", START)], START + 20 * MINUTE + 25_000)
    result = store.add_batch([message("late", START + 20 * MINUTE)], START + 20 * MINUTE + 25_000)
    assert late_slides(result.events) == []  # the clock started a moment ago: no history
    store.add_batch([], START + 31 * MINUTE + 25_000)
    result = store.add_batch(
        [
            message("1", START + 31 * MINUTE + 19_999),
            message("2", START + 31 * MINUTE + 20_000),
            message("3", START + 31 * MINUTE + 40_000),
        ],
        START + 31 * MINUTE + 25_000,
    )
    assert late_slides(result.events) == [(0, "BTC", 31 * 60 + 20, 1)]


def test_a_duplicate_brings_nothing_about() -> None:
    store = WindowStore(["BTC", "ETH"], spike_min_mentions=1)
    store.add_batch(quiet(20))
    store.advance(START + 20 * MINUTE)
    late = message("late", START + 15 * MINUTE)
    assert len(late_slides(store.add_batch([late], START + 20 * MINUTE).events)) == 6
    assert store.add_batch([late, message("x", START + 15 * MINUTE, symbol="DOGE")], START + 20 * MINUTE).events == []


def test_a_late_window_whose_hour_is_forgotten_has_no_history() -> None:
    store = WindowStore(["BTC", "ETH"], spike_min_mentions=2, span_ms=2 * 60 * MINUTE)
    store.add_batch(quiet(180))
    clock = START + 180 * MINUTE
    rates = {}
    for age in (118, 112, 105, 80):
        posts = [message(f"{age}:{number}", clock - age * MINUTE) for number in range(2)]
        result = store.add_batch(posts, clock)
        assert result.statuses == ["accepted", "accepted"]
        rates[age] = [event.baseline_rate for _, event in result.events if isinstance(event, SlideCount)]
    assert rates[118] == rates[112] == []
    # A post a minute all the time, and the late ones: what the ring has forgotten must not count as silence.
    assert len(rates[105]) == len(rates[80]) == 12
    assert all(0.95 < rate < 1.35 for age in (105, 80) for rate in rates[age])


# How long after it was written a post arrives, in seconds; the sources' own seconds, an outage, a late backfill.
latencies = st.integers(0, 5) | st.integers(0, 5) | st.integers(0, 120) | st.integers(0, 20 * 60)
arrivals = st.lists(
    st.tuples(
        st.integers(0, 40) | st.just(0),
        latencies,
        st.sampled_from(["BTC", "BTC", "ETH"]),
        st.sampled_from(["twitter", "reddit"]),
    ),
    min_size=40,
    max_size=90,
)


def stream(steps: list[tuple[int, int, str, str]], from_ms: int) -> list[tuple[int, bytes]]:
    """When each post arrives, and the post."""
    posts = []
    for number, (step, latency, symbol, platform) in enumerate(steps):
        from_ms += step * 1_000
        posts.append((from_ms, message(f"p{number}", from_ms - latency * 1_000, symbol=symbol, platform=platform)))
    return posts


def slides_of(
    store: WindowStore, posts: list[tuple[int, bytes]], cuts: set[int], *, system: bool
) -> list[tuple[int, Any]]:
    """The slides that posts bring about in batches cut there; on the system clock also where the clock moves."""
    found: list[tuple[int, Any]] = []
    start = 0
    for number in range(1, len(posts) + 1):
        if number == len(posts) or number in cuts or (system and posts[number][0] > posts[start][0]):
            batch = [data for _, data in posts[start:number]]
            events = store.add_batch(batch, posts[start][0] if system else None).events
            slides = [(start + index, event) for index, event in events if isinstance(event, SlideCount)]
            found += [(index, as_tuple(slide)) for index, slide in slides]
            start = number
    return found


def history(minutes: int) -> list[tuple[int, bytes]]:
    """Two posts that arrive two seconds late every hundred and seventy seconds, up to START."""
    times = [time_ms + more for time_ms in range(START - minutes * MINUTE, START, 170_000) for more in (0, 1_000)]
    return [(time_ms, message(f"h{time_ms}", time_ms - 2_000)) for time_ms in times]


@settings(deadline=None, max_examples=60)
@given(arrivals, st.sets(st.integers(1, 89)), st.booleans())
def test_slides_do_not_depend_on_the_cut_of_batches(
    steps: list[tuple[int, int, str, str]], cuts: set[int], system: bool
) -> None:
    posts = history(25) + stream(steps, START)
    known = len(history(25))
    whole, cut = (
        slides_of(
            WindowStore(["BTC", "ETH"], span_ms=SPAN, baseline_ms=20 * MINUTE, spike_min_mentions=2),
            posts,
            where,
            system=system,
        )
        for where in (set(), {known + number for number in cuts})
    )
    assert whole == cut


@settings(deadline=None, max_examples=60)
@given(arrivals, st.integers(0, 89), st.booleans())
def test_a_restored_store_gives_the_same_slides_as_one_that_never_stopped(
    steps: list[tuple[int, int, str, str]], stop: int, system: bool
) -> None:
    options: dict[str, Any] = {"span_ms": SPAN, "baseline_ms": 20 * MINUTE, "spike_min_mentions": 2}
    posts = history(80) + stream(steps, START)
    stop = min(len(history(80)) + stop, len(posts))
    before, after = posts[:stop], posts[stop:]
    lasting = WindowStore(["BTC", "ETH"], **options)
    slides_of(lasting, before, set(), system=system)
    clock = lasting.clock_ms
    assert clock is not None
    # What arrived since the start of the oldest window that the ring holds: nothing older was written after it.
    since = (clock - SPAN) // (5 * MINUTE) * (5 * MINUTE)
    restored = WindowStore(["BTC", "ETH"], start_ms=since, history_start_ms=since, **options)
    restored.add_batch([data for arrived, data in before if arrived >= since])
    restored.advance(clock)
    assert slides_of(restored, after, set(), system=system) == slides_of(lasting, after, set(), system=system)


def test_a_store_restored_from_a_silent_log_is_told_that_it_was_silent() -> None:
    posts = [message(str(number), START + 60 * MINUTE + number * 1_000) for number in range(10)]
    new = WindowStore(["BTC"]).add_batch(posts, START + 61 * MINUTE)
    restored = WindowStore(["BTC"], history_start_ms=START).add_batch(posts, START + 61 * MINUTE)
    assert not any(isinstance(event, SlideCount) for _, event in new.events)
    slides = [event for _, event in restored.events if isinstance(event, SlideCount)]
    assert [(slide.mention_count, slide.baseline_rate) for slide in slides] == [(10, 0.0)] * 6
