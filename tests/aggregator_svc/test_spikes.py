"""The spike detector on sliding windows out of the real store."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_svc.spikes import ViralSpikeDetector
from sentimesh.native import SlideCount, WindowStore
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SocialPost

MINUTE = 60_000
START = 1_700_000_400_000 // 300_000 * 300_000


def scored(number: int, at_ms: int, platform: str = "twitter") -> bytes:
    post = SocialPost(
        post_id=f"{platform}:{number}", platform=platform, symbol="BTC", author_id=str(number), timestamp_ms=at_ms
    )
    return ScoredPost(post=post, polarity=0.5, credibility_score=0.8, engagement_weight=1).SerializeToString()


def slides(posts: list[bytes], end_ms: int) -> list[SlideCount]:
    store = WindowStore(["BTC"], spike_min_mentions=10)
    events = [event for _, event in store.add_batch(posts).events]
    return [event for event in [*events, *store.advance(end_ms)] if isinstance(event, SlideCount)]


def quiet_hour_then_surge() -> list[bytes]:
    quiet = [scored(n, START + n * MINUTE) for n in range(60)]
    surge = [scored(1000 + n, START + 60 * MINUTE + n * 2000, "reddit") for n in range(25)]
    return quiet + surge


def test_a_surge_is_alerted_once_within_a_minute_with_its_numbers() -> None:
    detector = ViralSpikeDetector()
    alerts = [alert for s in slides(quiet_hour_then_surge(), START + 65 * MINUTE) if (alert := detector.detect(s))]
    [alert] = alerts
    assert alert.symbol == "BTC"
    assert START + 60 * MINUTE < alert.detected_at_ms <= START + 61 * MINUTE
    assert alert.mention_count >= 10
    assert alert.spike_ratio == pytest.approx(alert.mention_count / alert.baseline_rate)
    assert alert.spike_ratio >= 5
    assert alert.dominant_platform == "reddit"


def test_after_the_cooldown_it_alerts_again() -> None:
    detector = ViralSpikeDetector(cooldown_ms=20_000)
    alerts = [alert for s in slides(quiet_hour_then_surge(), START + 65 * MINUTE) if (alert := detector.detect(s))]
    assert len(alerts) > 1
    gaps = [b.detected_at_ms - a.detected_at_ms for a, b in itertools.pairwise(alerts)]
    assert min(gaps) >= 20_000


def test_the_flag_is_on_from_the_window_that_showed_it_until_the_cooldown_ends() -> None:
    detector = ViralSpikeDetector()
    found = slides(quiet_hour_then_surge(), START + 65 * MINUTE)
    for slide in found:
        detector.detect(slide)
    assert detector.ratio_during("BTC", START + 60 * MINUTE, START + 65 * MINUTE) >= 5
    assert detector.ratio_during("BTC", START + 50 * MINUTE, START + 55 * MINUTE) == 0
    assert detector.ratio_during("BTC", START + 70 * MINUTE, START + 75 * MINUTE) == 0
    assert detector.ratio_during("ETH", START + 60 * MINUTE, START + 65 * MINUTE) == 0


def test_volume_that_was_always_high_is_no_spike() -> None:
    steady = [scored(n, START + n * 3000) for n in range(1600)]
    detector = ViralSpikeDetector()
    found = [s for s in slides(steady, START + 80 * MINUTE) if s.end_ms > START + 15 * MINUTE]
    assert len(found) > 300
    assert [alert for s in found if (alert := detector.detect(s))] == []


@dataclass(frozen=True)
class Slide:
    """Stands in for a SlideCount, which only the native store makes."""

    end_ms: int
    mention_count: int
    baseline_rate: float
    symbol: str = "BTC"

    @property
    def platform_counts(self) -> dict[str, int]:
        return {"twitter": self.mention_count}


def literal(window_60s_count: int, baseline_1h_rate: float) -> float | None:
    """The specification's detect(), step by step, with its threshold and minimum: the ratio, or None."""
    if window_60s_count < 10:
        return None
    if baseline_1h_rate <= 0:
        baseline_1h_rate = 1.0
    spike_ratio = window_60s_count / baseline_1h_rate
    if spike_ratio >= 5.0:
        return spike_ratio
    return None


rates = st.just(0.0) | st.floats(1 / 60, 12)


@given(st.lists(st.tuples(st.integers(0, 60), rates), min_size=1, max_size=80), st.sampled_from([0, 30, 300]))
def test_alerts_are_the_specifications_rule_and_a_cooldown(windows: list[tuple[int, float]], cooldown: int) -> None:
    detector = ViralSpikeDetector(cooldown_ms=cooldown * 1000)
    alerted_ms: int | None = None
    over: list[tuple[int, float]] = []
    for number, (count, rate) in enumerate(windows):
        end_ms = START + number * 10_000
        ratio = literal(count, rate)
        due = alerted_ms is None or end_ms - alerted_ms >= cooldown * 1000
        alert = detector.detect(cast("SlideCount", Slide(end_ms, count, rate)))
        assert (alert is not None) == (ratio is not None and due)
        if alert is not None:
            alerted_ms = end_ms
            assert (alert.detected_at_ms, alert.mention_count) == (end_ms, count)
            assert alert.spike_ratio == pytest.approx(ratio)
            assert alert.baseline_rate == pytest.approx(rate if rate > 0 else 1.0)
        if ratio is not None:
            over.append((end_ms, ratio))
        still_on = any(end_ms < end + cooldown * 1000 for end, _ in over)
        assert (detector.ratio_during("BTC", end_ms, end_ms + 1) > 0) == still_on


def test_an_earlier_spike_is_still_known_after_the_next_one() -> None:
    detector = ViralSpikeDetector(cooldown_ms=60_000)
    for end_ms, count in ((START, 50), (START + 30 * MINUTE, 20)):
        detector.detect(cast("SlideCount", Slide(end_ms, count, 2.0)))
    assert detector.ratio_during("BTC", START - MINUTE, START + 4 * MINUTE) == 25
    assert detector.ratio_during("BTC", START + 10 * MINUTE, START + 15 * MINUTE) == 0
    assert detector.ratio_during("BTC", START + 25 * MINUTE, START + 30 * MINUTE) == 10
