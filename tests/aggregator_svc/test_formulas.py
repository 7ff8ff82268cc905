"""The score formulas against the specification's own text and scenarios."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_svc.formulas import directional_score, social_sentiment_score, volume_multiplier

polarities = st.floats(-1, 1)
ratios = st.floats(0, 1000)
shares = st.floats(0, 1)


def literal(polarity: float, volume_ratio: float, credibility: float) -> float:
    """The specification's code, step by step."""
    normalized = (polarity + 1) / 2
    multiplier = min(1.0 + (volume_ratio - 1.0) * 0.25, 1.5)
    multiplier = max(multiplier, 0.5)
    raw = (0.60 * normalized + 0.25 * min(volume_ratio / 3.0, 1.0) + 0.15 * credibility) * multiplier
    return round(max(0.0, min(1.0, raw)), 4)


@given(polarities, ratios, shares)
def test_the_score_is_the_specifications_code_bit_for_bit(polarity: float, ratio: float, credibility: float) -> None:
    assert social_sentiment_score(polarity, ratio, credibility) == literal(polarity, ratio, credibility)


# SPEC-NOTES 2: what the code gives for the five scenarios, and what the directional score says of them.
@pytest.mark.parametrize(
    ("polarity", "ratio", "credibility", "score", "directional"),
    [
        (0.7, 4.2, 0.85, 1.00, 0.95),
        (0.4, 1.1, 0.90, 0.66, 0.68),
        (0.05, 0.3, 0.80, 0.38, 0.52),
        (-0.6, 2.5, 0.75, 0.61, 0.19),
        (0.2, 3.0, 0.20, 0.96, 0.53),
    ],
)
def test_scenarios(polarity: float, ratio: float, credibility: float, score: float, directional: float) -> None:
    assert directional_score(polarity, ratio, credibility) == pytest.approx(directional, abs=0.005)
    assert social_sentiment_score(polarity, ratio, credibility) == pytest.approx(score, abs=0.005)


@given(polarities, ratios, shares)
def test_the_directional_score_keeps_the_sign_and_mirrors(polarity: float, ratio: float, credibility: float) -> None:
    score = directional_score(polarity, ratio, credibility)
    assert 0 <= score <= 1
    assert (score - 0.5) * polarity >= 0
    assert score + directional_score(-polarity, ratio, credibility) == pytest.approx(1, abs=1e-4)


@given(ratios)
def test_the_multiplier_is_one_at_average_and_bounded(ratio: float) -> None:
    assert 0.5 <= volume_multiplier(ratio) <= 1.5
    assert volume_multiplier(1.0) == 1.0
    assert volume_multiplier(3.0) == volume_multiplier(300.0) == 1.5
