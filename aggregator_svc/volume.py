"""Volume ratio: posts of a window over the mean of the windows before it."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Volume:
    """``ratio`` is 1.0 while not ``ready`` (SPEC-NOTES 6); ``mean``: posts a window, 0 or more."""

    ratio: float
    mean: float
    ready: bool


@dataclass(frozen=True, slots=True)
class _Mean:
    posts: float
    ready: bool

    def volume(self, post_count: int) -> Volume:
        # The specification divides by 1.0 where the mean is not positive.
        ratio = post_count / (self.posts if self.posts > 0 else 1.0) if self.ready else 1.0
        return Volume(ratio, self.posts, self.ready)


@dataclass(slots=True)
class _History:
    # By end: posts, and what was known when the window closed (its corrections are measured against the same).
    windows: OrderedDict[int, tuple[int, _Mean]] = field(default_factory=OrderedDict)
    total: int = 0


class VolumeBaseline:
    """Counts of closed windows by symbol, those of the last ``days``. Windows without posts count as zeros."""

    def __init__(self, *, days: int = 7, min_windows: int = 12) -> None:
        """Not ready before ``min_windows`` windows are known."""
        self._span_ms = days * 86_400_000
        self._min_windows = min_windows
        self._symbols: defaultdict[str, _History] = defaultdict(_History)

    def load(self, symbol: str, end_ms: int, post_count: int) -> None:
        """Take a closed window that was stored earlier; oldest first."""
        self.close(symbol, end_ms, post_count)

    def close(self, symbol: str, end_ms: int, post_count: int) -> Volume:
        """Return the volume of a closing window against those before it, and take it into the baseline.

        A window closed before (a correction) replaces its own count. Constant time, amortised.
        """
        history = self._symbols[symbol]
        windows = history.windows
        while windows and next(iter(windows)) <= end_ms - self._span_ms:
            history.total -= windows.popitem(last=False)[1][0]
        known_count, mean = windows.get(end_ms) or (0, self._mean(symbol))
        windows[end_ms] = post_count, mean
        history.total += post_count - known_count
        return mean.volume(post_count)

    def live(self, symbol: str, post_count: int) -> Volume:
        """Return the volume of a trailing window against all closed ones."""
        return self._mean(symbol).volume(post_count)

    def mean(self, symbol: str) -> float:
        """Return the mean of posts a closed window, 0.0 without any."""
        return self._mean(symbol).posts

    def _mean(self, symbol: str) -> _Mean:
        history = self._symbols[symbol]
        known = len(history.windows)
        return _Mean(history.total / known if known else 0.0, known >= self._min_windows)
