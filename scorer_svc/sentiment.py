"""What every sentiment model gives back, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sentimesh.errors import SentimeshError

Label = Literal["negative", "neutral", "positive"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Sentiment:
    """Polarity -1.0 (bearish) to +1.0 (bullish), confidence 0.0 to 1.0 (1 minus neutral), the likeliest label."""

    polarity: float
    confidence: float
    label: Label


class ModelError(SentimeshError):
    """A model cannot be loaded or used.

    ``error_type`` is one word: load, inference (of the graph), shape or non_finite (of an output), exception (any
    other), deadline (of a batch) or slow (in the mean).
    """

    def __init__(self, message: str, error_type: str = "load") -> None:
        super().__init__(message)
        self.error_type = error_type


class SentimentModel(Protocol):
    """Something that scores texts."""

    @property
    def model_version(self) -> str:
        """Name and version, for example ``sentimesh-base-2.1``."""
        ...

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return the sentiment of each text, in order, never NaN; blocks. Raises ModelError. Safe between threads."""
        ...

    def close(self) -> None:
        """Give back threads and memory; the model cannot score after this."""
        ...


def refuse_unusable(sentiments: Sequence[Sentiment], texts: Sequence[str]) -> None:
    """Raise ModelError when these are not the sentiments of these texts, or not numbers in their range."""
    if len(sentiments) != len(texts):
        raise ModelError(f"{len(sentiments)} sentiments for {len(texts)} texts", "shape")
    for sentiment in sentiments:
        numbers = (sentiment.polarity, sentiment.confidence)
        # Written so that NaN fails.
        if not (-1.0 <= numbers[0] <= 1.0 and 0.0 <= numbers[1] <= 1.0):
            raise ModelError(f"polarity and confidence are {numbers}", "non_finite")
