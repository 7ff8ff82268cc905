"""What every sentiment model gives back, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sentimesh.errors import SentimeshError

Label = Literal["negative", "neutral", "positive"]


@dataclass(frozen=True, slots=True)
class Sentiment:
    """Polarity -1.0 (bearish) to +1.0 (bullish), confidence 0.0 to 1.0 (1 minus neutral), the likeliest label."""

    polarity: float
    confidence: float
    label: Label


class ModelError(SentimeshError):
    """A model cannot be loaded or used; ``error_type`` is one word: load, inference, shape or non_finite."""

    def __init__(self, message: str, error_type: str = "load") -> None:
        super().__init__(message)
        self.error_type = error_type


class SentimentModel(Protocol):
    """Something that scores texts."""

    @property
    def model_version(self) -> str:
        """Name and version, for example ``sentimesh-base-2``."""
        ...

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return the sentiment of each text, in order, never NaN; blocks. Raises ModelError. Safe between threads."""
        ...
