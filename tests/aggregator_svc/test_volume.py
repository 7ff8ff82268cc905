"""The volume baseline against a plain recomputation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_svc.volume import VolumeBaseline

WINDOW = 300_000
DAY = 86_400_000


@given(
    corrections=st.lists(st.integers(0, 3), min_size=60, max_size=60),
    counts=st.lists(st.integers(0, 500), min_size=1, max_size=60),
    gaps=st.lists(st.integers(1, 400), min_size=60, max_size=60),
    minimum=st.integers(1, 15),
)
def test_each_window_is_measured_against_those_of_the_days_before_it(
    corrections: list[int], counts: list[int], gaps: list[int], minimum: int
) -> None:
    baseline = VolumeBaseline(days=1, min_windows=minimum)
    closed: list[tuple[int, int]] = []
    end_ms = 0
    for count, gap, correction in zip(counts, gaps, corrections, strict=False):
        end_ms += gap * WINDOW
        before = [c for e, c in closed if end_ms - DAY < e < end_ms]
        volume = baseline.close("BTC", end_ms, count)
        assert volume.ready == (len(before) >= minimum)
        if volume.ready:
            mean = sum(before) / len(before)
            assert volume.ratio == pytest.approx(count / mean if mean > 0 else count)
        else:
            assert volume.ratio == 1.0
        closed.append((end_ms, count))
        # Late posts come to one of the last windows: its count is another one from now on.
        if 0 < correction <= len(closed) and closed[-correction][0] > end_ms - DAY:
            corrected_end, old_count = closed[-correction]
            closed[-correction] = (corrected_end, old_count + 3)
            baseline.close("BTC", corrected_end, old_count + 3)


def test_a_correction_replaces_its_count_and_keeps_its_own_baseline() -> None:
    baseline = VolumeBaseline(min_windows=1)
    baseline.close("BTC", WINDOW, 10)
    assert baseline.close("BTC", 2 * WINDOW, 20).ratio == 2.0
    assert baseline.close("BTC", 2 * WINDOW, 40).ratio == 4.0
    assert baseline.mean("BTC") == 25.0
    assert baseline.close("BTC", 3 * WINDOW, 25).ratio == 1.0


def test_silence_counts_and_a_symbol_nobody_ever_mentioned_divides_by_one() -> None:
    baseline = VolumeBaseline(min_windows=2)
    baseline.close("BTC", WINDOW, 0)
    baseline.close("BTC", 2 * WINDOW, 6)
    assert baseline.live("BTC", 6).ratio == 2.0
    baseline.close("XMR", WINDOW, 0)
    baseline.close("XMR", 2 * WINDOW, 0)
    assert baseline.live("XMR", 5).ratio == 5.0


def test_stored_windows_count_as_known() -> None:
    baseline = VolumeBaseline(min_windows=2)
    baseline.load("BTC", WINDOW, 4)
    baseline.load("BTC", 2 * WINDOW, 8)
    volume = baseline.close("BTC", 3 * WINDOW, 12)
    assert (volume.ready, volume.mean, volume.ratio) == (True, 6.0, 2.0)
