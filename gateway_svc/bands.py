"""The specification's five bands of a score."""

from __future__ import annotations

from sentimesh.pb.gateway_pb2 import SentimentBand

# Lower bound of each band, highest first (specification, "Scoring Output"). It prints bounds of two decimals
# (0.60 to 0.79, then 0.80) for scores of four; here a band reaches up to the next one, so 0.795 is bullish.
_BANDS = (
    (0.8, SentimentBand.SENTIMENT_BAND_EXTREME_BULLISH),
    (0.6, SentimentBand.SENTIMENT_BAND_BULLISH),
    (0.4, SentimentBand.SENTIMENT_BAND_NEUTRAL),
    (0.2, SentimentBand.SENTIMENT_BAND_BEARISH),
)


def band_of(score: float) -> SentimentBand.ValueType:
    """Return the band of a score from 0.0 to 1.0, compared at four decimals whatever a float32 made of it."""
    for lower, band in _BANDS:
        if round(score, 4) >= lower:
            return band
    return SentimentBand.SENTIMENT_BAND_EXTREME_BEARISH


def band_name(score: float) -> str:
    """Return the band of a score from 0.0 to 1.0 in words, for example ``extreme bullish``."""
    return SentimentBand.Name(band_of(score)).removeprefix("SENTIMENT_BAND_").replace("_", " ").lower()
