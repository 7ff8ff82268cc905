"""Volume ratio: posts of a window over the mean of the windows before it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Volume:
    """``ratio`` is 1.0 while not ``ready`` (SPEC-NOTES 6); ``mean``: posts a window, 0 or more."""

    ratio: float
    mean: float
    ready: bool


@dataclass(slots=True)
class _History:
    windows: deque[tuple[int, int]] = field(default_factory=deque)
    total: int = 0
    # What was known when a window closed: its corrections are measured against the same.
    closed: dict[int, tuple[float, bool]] = field(default_factory=dict)


class VolumeBaseline:
    """Counts of closed windows by symbol, those of the last ``days``. Windows without posts count as zeros."""

    def __init__(self, *, days: int = 7, min_windows: int = 12) -> None:
        """Not ready before ``min_windows`` windows are known."""
        self._span_ms = days * 86_400_000
        self._min_windows = min_windows
        self._symbols: dict[str, _History] = {}

    def load(self, symbol: str, end_ms: int, post_count: int) -> None:
        """Take a closed window that was stored earlier; oldest first."""
        self._append(self._symbols.setdefault(symbol, _History()), end_ms, post_count)

    def close(self, symbol: str, end_ms: int, post_count: int) -> Volume:
        """Return the volume of a closing window against those before it, and take it into the baseline.

        A window closed before (a correction) replaces its own count.
        """
        history = self._symbols.setdefault(symbol, _History())
        if end_ms in history.closed:
            for index, (known_end, known_count) in enumerate(history.windows):
                if known_end == end_ms:
                    history.windows[index] = (end_ms, post_count)
                    history.total += post_count - known_count
            mean, ready = history.closed[end_ms]
            return _volume(post_count, mean, ready)
        self._evict(history, end_ms)
        mean, ready = self._mean(history)
        history.closed[end_ms] = mean, ready
        self._append(history, end_ms, post_count)
        return _volume(post_count, mean, ready)

    def live(self, symbol: str, post_count: int) -> Volume:
        """Return the volume of a trailing window against all closed ones."""
        mean, ready = self._mean(self._symbols.get(symbol) or _History())
        return _volume(post_count, mean, ready)

    def mean(self, symbol: str) -> float:
        """Return the mean of posts a closed window, 0.0 without any."""
        return self._mean(self._symbols.get(symbol) or _History())[0]

    def _mean(self, history: _History) -> tuple[float, bool]:
        known = len(history.windows)
        return (history.total / known if known else 0.0), known >= self._min_windows

    def _append(self, history: _History, end_ms: int, post_count: int) -> None:
        history.windows.append((end_ms, post_count))
        history.total += post_count
        self._evict(history, end_ms)

    def _evict(self, history: _History, end_ms: int) -> None:
        while history.windows and history.windows[0][0] <= end_ms - self._span_ms:
            old_end, old_count = history.windows.popleft()
            history.total -= old_count
            history.closed.pop(old_end, None)


def _volume(post_count: int, mean: float, ready: bool) -> Volume:
    if not ready:
        return Volume(1.0, mean, ready=False)
    # The specification divides by 1.0 where the mean is not positive.
    return Volume(post_count / (mean if mean > 0 else 1.0), mean, ready=True)
