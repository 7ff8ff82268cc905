"""Viral spikes: sudden volume against the hour before (specification, "Viral Spike Detection")."""

from __future__ import annotations

from dataclasses import dataclass

from sentimesh.native import SlideCount
from sentimesh.pb.pipeline_pb2 import ViralSpike


@dataclass(slots=True)
class _Active:
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
        self._active: dict[str, _Active] = {}

    def detect(self, slide: SlideCount) -> ViralSpike | None:
        """Return an alert for a sliding window that is one; windows come in order of time."""
        if slide.mention_count < self._min_mentions:
            return None
        # A symbol that nobody mentioned: one a window, as the specification has it.
        baseline = slide.baseline_rate if slide.baseline_rate > 0 else 1.0
        ratio = slide.mention_count / baseline
        if ratio < self._threshold:
            return None
        active = self._active.get(slide.symbol)
        until_ms = slide.end_ms + self._cooldown_ms
        if active is not None and slide.end_ms < active.until_ms:
            active.until_ms = until_ms
            active.ratio = max(active.ratio, ratio)
        else:
            self._active[slide.symbol] = _Active(slide.end_ms - self._window_ms, until_ms, ratio)
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
        """Return the ratio of the spike that was on in [start, end), 0.0 if none was."""
        active = self._active.get(symbol)
        if active is None or active.from_ms >= end_ms or active.until_ms <= start_ms:
            return 0.0
        return active.ratio
