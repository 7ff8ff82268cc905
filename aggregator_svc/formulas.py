"""The two scores of an aggregate."""

from __future__ import annotations


def volume_multiplier(volume_ratio: float) -> float:
    """Return 1.0 at average volume, up to 1.5 for spikes, down to 0.5 in silence (specification, "Scoring Output").

    ``volume_ratio``: posts over the 7-day mean, 0 or more.
    """
    return max(min(1.0 + (volume_ratio - 1.0) * 0.25, 1.5), 0.5)


def social_sentiment_score(polarity: float, volume_ratio: float, credibility: float) -> float:
    """Return the specification's score, 0.0 to 1.0, four decimals, bit for bit its code.

    ``polarity``: -1.0 to +1.0; ``volume_ratio``: 0 or more; ``credibility``: 0.0 to 1.0. Volume and credibility
    only ever push it up (SPEC-NOTES 2): see :func:`directional_score`.
    """
    polarity_normalized = (polarity + 1) / 2
    raw_score = (
        0.60 * polarity_normalized + 0.25 * min(volume_ratio / 3.0, 1.0) + 0.15 * credibility
    ) * volume_multiplier(volume_ratio)
    return round(max(0.0, min(1.0, raw_score)), 4)


def directional_score(polarity: float, volume_ratio: float, credibility: float) -> float:
    """Return a score that keeps the sign of the crowd's opinion: under 0.5 bearish, over 0.5 bullish.

    SPEC-NOTES 2: (clip(polarity * multiplier(volume_ratio) * credibility, -1, 1) + 1) / 2, 0.0 to 1.0, four
    decimals; arguments as for :func:`social_sentiment_score`.
    """
    damped = polarity * volume_multiplier(volume_ratio) * credibility
    return round((max(-1.0, min(1.0, damped)) + 1) / 2, 4)
