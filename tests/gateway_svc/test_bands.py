import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.bands import band_name, band_of
from sentimesh.pb.gateway_pb2 import SentimentBand
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (0.0, "EXTREME_BEARISH"),
        (0.1999, "EXTREME_BEARISH"),
        (0.2, "BEARISH"),
        (0.3999, "BEARISH"),
        (0.4, "NEUTRAL"),
        (0.5999, "NEUTRAL"),
        (0.6, "BULLISH"),
        (0.795, "BULLISH"),
        (0.8, "EXTREME_BULLISH"),
        (1.0, "EXTREME_BULLISH"),
    ],
)
def test_each_bound_belongs_to_the_band_above_it(score: float, band: str) -> None:
    assert SentimentBand.Name(band_of(score)) == f"SENTIMENT_BAND_{band}"
    assert band_name(score) == band.replace("_", " ").lower()


@given(st.integers(0, 10_000))
def test_a_score_has_the_same_band_as_its_float32(ten_thousandths: int) -> None:
    score = ten_thousandths / 10_000
    on_the_wire = SentimentAggregate(social_sentiment_score=score).social_sentiment_score
    assert band_of(on_the_wire) == band_of(score) == min(5, 1 + ten_thousandths // 2000)
