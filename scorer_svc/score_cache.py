"""Scores that are remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock

from scorer_svc.sentiment import Sentiment


class ScoreCache:
    """The scores of up to ``size`` token sequences, those used last; safe between threads."""

    def __init__(self, size: int) -> None:
        """``size``: 0.6 kB each; 0 remembers nothing."""
        self._size = size
        self._scores: OrderedDict[bytes, Sentiment] = OrderedDict()
        self._lock = Lock()

    def known(self, keys: Iterable[bytes]) -> dict[bytes, Sentiment]:
        """Return the scores of those keys that are remembered."""
        found: dict[bytes, Sentiment] = {}
        with self._lock:
            for key in keys:
                if key in self._scores:
                    self._scores.move_to_end(key)
                    found[key] = self._scores[key]
        return found

    def remember(self, scores: Mapping[bytes, Sentiment]) -> None:
        """Take these in, and forget those that were not used for the longest time where there are too many."""
        with self._lock:
            self._scores.update(scores)
            while len(self._scores) > self._size:
                self._scores.popitem(last=False)
