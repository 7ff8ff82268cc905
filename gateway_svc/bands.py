"""The specification's five bands of a score."""

from __future__ import annotations

from sentimesh.pb.gateway_pb2 import SentimentBand

# Lower bound of each band, highest first (specification, "Scoring Output").
_BANDS = (
    (0.8, SentimentBand.SENTIMENT_BAND_EXTREME_BULLISH),
    (0.6, SentimentBand.SENTIMENT_BAND_BULLISH),
    (0.4, SentimentBand.SENTIMENT_BAND_NEUTRAL),
    (0.2, SentimentBand.SENTIMENT_BAND_BEARISH),
)


def band_of(score: float) -> SentimentBand.ValueType:
    """Return the band of a score from 0.0 to 1.0.

    The specification prints bounds of two decimals (0.60 to 0.79, then 0.80) for scores of four; here a band
    reaches up to the next one's lower bound, so 0.795 is still bullish. Scores are compared at four decimals,
    the precision of the formula, whatever a float32 made of them.
    """
    rounded = round(score, 4)
    for lower, band in _BANDS:
        if rounded >= lower:
            return band
    return SentimentBand.SENTIMENT_BAND_EXTREME_BEARISH
