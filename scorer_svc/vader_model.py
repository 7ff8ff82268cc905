"""VADER, a lexicon of everyday words: what is left when no neural model answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import version

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from scorer_svc.sentiment import Sentiment
from scorer_svc.vocabulary import Entry, load_vocabulary

# From here on a compound score is positive, from its negative on negative (VADER's documentation).
LABEL_THRESHOLD = 0.05
# VADER's valences go from -4 to 4, the vocabulary's polarities from -1 to 1.
VALENCE_PER_POLARITY = 4.0


class VaderModel:
    """Scores texts by the words VADER knows: polarity is its compound score, confidence 1 minus its neutral share."""

    def __init__(self, vocabulary: Sequence[Entry] | None = None) -> None:
        """Read the lexicon and put the vocabulary's polarities over it: None is the shipped one, () is VADER alone.

        A polarity of 0 takes a word out of the lexicon; entries without polarity change nothing. Raises ModelError.
        """
        entries = load_vocabulary() if vocabulary is None else vocabulary
        known = [entry for entry in entries if entry.polarity is not None]
        valences = {entry.token: VALENCE_PER_POLARITY * (entry.polarity or 0.0) for entry in known}
        self.model_version = f"vader-{version('vaderSentiment')}" + (_version(valences) if valences else "")
        self._analyzer = SentimentIntensityAnalyzer()
        for token, valence in valences.items():
            # A valence of 0 would not do: VADER takes from it when the word is in capitals.
            self._analyzer.lexicon.pop(token, None)
            if valence:
                self._analyzer.lexicon[_joined(token)] = valence
        # VADER reads an emoji as the words that describe it; ours are words of their own, apart from their neighbours.
        self._analyzer.emojis.update({entry.token: f"{entry.token} " for entry in known if entry.group == "emoji"})
        self._phrases = _pattern([entry.token for entry in known if entry.group == "phrases"])

    def score(self, texts: Sequence[str]) -> list[Sentiment]:
        """Return the sentiment of each text, in order; zeros for a text without words."""
        return [self._score(text) for text in texts]

    def close(self) -> None:
        """Do nothing: there are no threads."""

    def _score(self, text: str) -> Sentiment:
        # VADER looks up what stands between spaces.
        shares = self._analyzer.polarity_scores(self._phrases.sub(lambda match: _joined(match.group()), text))
        polarity = float(shares["compound"])
        # Without a word the three shares are all zero.
        confidence = 1.0 - float(shares["neu"]) if shares["pos"] or shares["neg"] else 0.0
        if abs(polarity) < LABEL_THRESHOLD:
            return Sentiment(polarity, confidence, "neutral")
        return Sentiment(polarity, confidence, "positive" if polarity > 0 else "negative")


def _joined(phrase: str) -> str:
    return "_".join(re.split(r"[\s-]+", phrase))


def _pattern(phrases: Sequence[str]) -> re.Pattern[str]:
    """Return what finds any of the phrases, the longest first; nothing where there are none."""
    longest_first = sorted(phrases, key=len, reverse=True)
    alternatives = "|".join(r"[\s-]+".join(phrase.split()) for phrase in longest_first) or r"(?!)"
    return re.compile(rf"\b(?:{alternatives})\b", re.IGNORECASE)


def _version(valences: dict[str, float]) -> str:
    """Name a lexicon by what is in it, so that a score never names one that did not give it."""
    content = "\n".join(f"{token}\t{valence}" for token, valence in sorted(valences.items()))
    return f"-crypto-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
