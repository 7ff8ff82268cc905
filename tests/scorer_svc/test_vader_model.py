from __future__ import annotations

from importlib.metadata import version

from hypothesis import given
from hypothesis import strategies as st

from scorer_svc.model_store import load_model
from scorer_svc.sentiment import Sentiment
from scorer_svc.vader_model import VaderModel

VADER = VaderModel()


def test_it_names_itself_with_the_version_of_its_package() -> None:
    assert load_model("vader").model_version == f"vader-{version('vaderSentiment')}"


def test_everyday_words_count_and_market_words_do_not() -> None:
    good, bad, market = VADER.score(["what a great day, I love it", "this is terrible, I hate it", "btc moon soon"])
    assert good.polarity > 0.7
    assert good.label == "positive"
    assert bad.polarity < -0.7
    assert bad.label == "negative"
    assert market == Sentiment(0.0, 0.0, "neutral")


def test_a_text_without_words_is_neutral_without_confidence() -> None:
    assert VADER.score(["", "   "]) == [Sentiment(0.0, 0.0, "neutral")] * 2


@given(st.lists(st.one_of(st.text(max_size=40), st.sampled_from(["good", "BAD!!!", "not good :)"])), max_size=4))
def test_any_text_has_a_score_in_range_that_is_its_own(texts: list[str]) -> None:
    scored = VADER.score(texts)
    assert scored == [VADER.score([text])[0] for text in texts]
    for sentiment in scored:
        assert -1.0 <= sentiment.polarity <= 1.0
        assert 0.0 <= sentiment.confidence <= 1.0
