"""Viral spikes: sudden volume against the hour before (specification, "Viral Spike Detection")."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from sentimesh.native import SlideCount
from sentimesh.pb.pipeline_pb2 import ViralSpike


@dataclass(slots=True)
class _Surge:
    """A time over the threshold without a gap of a whole cooldown, and the alerts it gave."""

    first_ms: int
    last_ms: int
    ratio: float
    alerts: list[ViralSpike] = field(default_factory=list)
    resolved: bool = False


class ViralSpikeDetector:
    """Turns sliding windows into alerts: one a symbol and cooldown.

    A surge goes on from the start of the window that showed it until ``cooldown`` after the last window over the
    threshold; aggregates of that time carry the flag and the largest ratio. Windows come in order of time, but for
    those that late posts have changed: these can add an alert or prolong a surge, never take an alert back.
    """

    def __init__(
        self,
        *,
        spike_threshold: float = 5.0,
        min_mentions: int = 10,
        cooldown_ms: int = 300_000,
        window_ms: int = 60_000,
        slide_ms: int = 10_000,
        kept_ms: int = 7_500_000,
    ) -> None:
        """``spike_threshold``: times the baseline; ``min_mentions``: posts in a window; the specification's values.

        ``kept_ms``: how long after it was on a surge can matter: the store's span, and a window that begins before it.
        """
        self._threshold = spike_threshold
        self._min_mentions = min_mentions
        self._cooldown_ms = cooldown_ms
        self._window_ms = window_ms
        self._slide_ms = slide_ms
        self._kept_ms = kept_ms
        self._surges: defaultdict[str, list[_Surge]] = defaultdict(list)

    def detect(self, slide: SlideCount) -> ViralSpike | None:
        """Return an alert for a sliding window that is one."""
        if slide.mention_count < self._min_mentions:
            return None
        # A symbol that nobody mentioned: one a window, as the specification has it.
        baseline = slide.baseline_rate if slide.baseline_rate > 0 else 1.0
        ratio = slide.mention_count / baseline
        if ratio < self._threshold:
            return None
        surge = self._surge(slide.symbol, slide.end_ms, ratio)
        alerts = (a for s in self._surges[slide.symbol] for a in s.alerts)
        if any(abs(slide.end_ms - alert.detected_at_ms) < self._cooldown_ms for alert in alerts):
            return None
        counts = slide.platform_counts
        spike = ViralSpike(
            symbol=slide.symbol,
            spike_ratio=ratio,
            mention_count=slide.mention_count,
            baseline_rate=baseline,
            detected_at_ms=slide.end_ms,
            dominant_platform=min(counts, key=lambda platform: (-counts[platform], platform)) if counts else "",
            platform_breakdown=counts,
        )
        surge.alerts.append(spike)
        surge.resolved = False
        return spike

    def retract(self, spike: ViralSpike) -> None:
        """Forget an alert that is not to be given; the next window over the threshold is one again."""
        for surge in self._surges[spike.symbol]:
            surge.alerts = [alert for alert in surge.alerts if alert is not spike]

    def resolve(self, now_ms: int) -> list[ViralSpike]:
        """Return the alerts of surges that are over since the last call, each with when volume was back to normal.

        That is the first window under the threshold after which none was over it for a whole cooldown.
        """
        over = []
        for surges in self._surges.values():
            for surge in surges:
                if not surge.resolved and now_ms >= surge.last_ms + self._cooldown_ms:
                    surge.resolved = True
                    for alert in surge.alerts:
                        alert.resolved_at_ms = surge.last_ms + self._slide_ms
                        over.append(alert)
            while surges and surges[0].resolved and surges[0].last_ms + self._cooldown_ms < now_ms - self._kept_ms:
                del surges[0]
        return sorted(over, key=lambda alert: (alert.detected_at_ms, alert.symbol))

    def ratio_during(self, symbol: str, start_ms: int, end_ms: int) -> float:
        """Return the largest ratio of the surges that were on in [start, end), 0.0 if none was."""
        on = (
            surge.ratio
            for surge in self._surges.get(symbol, ())
            if surge.first_ms < end_ms and surge.last_ms + self._cooldown_ms > start_ms
        )
        return max(on, default=0.0)

    def _surge(self, symbol: str, end_ms: int, ratio: float) -> _Surge:
        """Return the surge that a window over the threshold belongs to; surges that it joins become one."""
        found = _Surge(end_ms - self._window_ms, end_ms, ratio)
        apart = []
        for known in self._surges[symbol]:
            first_end_ms = known.first_ms + self._window_ms
            if end_ms >= known.last_ms + self._cooldown_ms or first_end_ms >= end_ms + self._cooldown_ms:
                apart.append(known)
                continue
            found.first_ms = min(found.first_ms, known.first_ms)
            found.last_ms = max(found.last_ms, known.last_ms)
            found.ratio = max(found.ratio, known.ratio)
            found.alerts += known.alerts
        # An alert that was over is so no more if this window prolongs its surge or joins it to a later one.
        over_ms = found.last_ms + self._slide_ms
        found.resolved = all(alert.resolved_at_ms == over_ms for alert in found.alerts)
        self._surges[symbol] = sorted([*apart, found], key=lambda surge: surge.first_ms)
        return found
