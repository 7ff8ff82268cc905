"""VADER, a lexicon of everyday words: what is left when no neural model answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from scorer_svc.sentiment import Sentiment

# From here on a compound score is positive, from its negative on negative (VADER's documentation).
LABEL_THRESHOLD = 0.05


class VaderModel:
    """Scores texts by the words VADER knows: polarity is its compound score, confidence 1 minus its neutral share."""

    def __init__(self) -> None:
        """Read the lexicon."""
        self.model_version = f"vader-{version('vaderSentiment')}"
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return the sentiment of each text, in order; zeros for a text without words."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Sentiment:
        shares = self._analyzer.polarity_scores(text)
        polarity = float(shares["compound"])
        # Without a word the three shares are all zero.
        confidence = 1.0 - float(shares["neu"]) if shares["pos"] or shares["neg"] else 0.0
        if abs(polarity) < LABEL_THRESHOLD:
            return Sentiment(polarity, confidence, "neutral")
        return Sentiment(polarity, confidence, "positive" if polarity > 0 else "negative")
