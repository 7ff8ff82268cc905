"""Viral spikes: sudden volume against the hour before (specification, "Viral Spike Detection")."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

from sentimesh.native import SlideCount
from sentimesh.pb.pipeline_pb2 import ViralSpike

# Ended spikes are known for as long as the native store corrects windows (its span by default).
KEPT_MS = 7_200_000


@dataclass(slots=True)
class _Span:
    from_ms: int
    until_ms: int
    ratio: float


class ViralSpikeDetector:
    """Turns sliding windows into alerts: one a symbol and cooldown.

    A spike counts as going on from the start of the window that showed it until ``cooldown`` after the last
    window over the threshold; aggregates of that time carry the flag and the largest ratio.
    """

    def __init__(
        self,
        *,
        spike_threshold: float = 5.0,
        min_mentions: int = 10,
        cooldown_ms: int = 300_000,
        window_ms: int = 60_000,
    ) -> None:
        """``spike_threshold``: times the baseline; ``min_mentions``: posts in a window; the specification's values."""
        self._threshold = spike_threshold
        self._min_mentions = min_mentions
        self._cooldown_ms = cooldown_ms
        self._window_ms = window_ms
        self._alerted_ms: dict[str, int] = {}
        self._spans: defaultdict[str, deque[_Span]] = defaultdict(deque)

    def detect(self, slide: SlideCount) -> ViralSpike | None:
        """Return an alert for a sliding window that is one; windows come in order of time."""
        if slide.mention_count < self._min_mentions:
            return None
        # A symbol that nobody mentioned: one a window, as the specification has it.
        baseline = slide.baseline_rate if slide.baseline_rate > 0 else 1.0
        ratio = slide.mention_count / baseline
        if ratio < self._threshold:
            return None
        spans = self._spans[slide.symbol]
        until_ms = slide.end_ms + self._cooldown_ms
        if spans and slide.end_ms < spans[-1].until_ms:
            spans[-1].until_ms = until_ms
            spans[-1].ratio = max(spans[-1].ratio, ratio)
        else:
            spans.append(_Span(slide.end_ms - self._window_ms, until_ms, ratio))
        while spans[0].until_ms < slide.end_ms - KEPT_MS:
            spans.popleft()
        alerted_ms = self._alerted_ms.get(slide.symbol)
        if alerted_ms is not None and slide.end_ms < alerted_ms + self._cooldown_ms:
            return None
        self._alerted_ms[slide.symbol] = slide.end_ms
        counts = slide.platform_counts
        return ViralSpike(
            symbol=slide.symbol,
            spike_ratio=ratio,
            mention_count=slide.mention_count,
            baseline_rate=baseline,
            detected_at_ms=slide.end_ms,
            dominant_platform=min(counts, key=lambda platform: (-counts[platform], platform)) if counts else "",
            platform_breakdown=counts,
        )

    def ratio_during(self, symbol: str, start_ms: int, end_ms: int) -> float:
        """Return the largest ratio of the spikes that were on in [start, end), 0.0 if none was."""
        spans = self._spans.get(symbol, ())
        return max((s.ratio for s in spans if s.from_ms < end_ms and s.until_ms > start_ms), default=0.0)
