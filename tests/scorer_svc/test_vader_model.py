from __future__ import annotations

from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from scorer_svc.model_store import load_model
from scorer_svc.sentiment import Sentiment
from scorer_svc.vader_model import VaderModel
from scorer_svc.vocabulary import Entry, load_vocabulary

PLAIN = VaderModel(())
VADER = VaderModel()


def polarity(text: str, *entries: Entry) -> float:
    return VaderModel(entries).score([text])[0].polarity


def test_it_names_itself_with_its_package_and_what_its_lexicon_says() -> None:
    assert PLAIN.model_version == f"vader-{version('vaderSentiment')}"
    assert VADER.model_version.startswith(f"{PLAIN.model_version}-crypto-")
    assert load_model("vader").model_version == VADER.model_version
    ape, fool = Entry("words", "ape", "bold", 0.5), Entry("words", "ape", "bold", -0.5)
    assert len({VaderModel([entry]).model_version for entry in (ape, fool)}) == 2


def test_alone_it_knows_everyday_words_and_no_market_words() -> None:
    good, bad, market = PLAIN.score(["what a great day, I love it", "this is terrible, I hate it", "btc moon soon"])
    assert good.polarity > 0.7
    assert good.label == "positive"
    assert bad.polarity < -0.7
    assert bad.label == "negative"
    assert market == Sentiment(0.0, 0.0, "neutral")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("btc moon soon", "positive"),
        ("we are so back, WAGMI", "positive"),
        ("another rug-pull, got rekt", "negative"),
        ("this one is not bullish", "negative"),
        ("eth 🚀🚀", "positive"),
        ("eth🚀", "positive"),
        ("📉📉", "negative"),
        ("To  the\nMOON", "positive"),
        ("block 7000 was mined, shares are traded", "neutral"),
        ("BLOCK 7000 was mined", "neutral"),
        ("gm", "neutral"),
    ],
)
def test_with_the_vocabulary_it_reads_market_talk(text: str, label: str) -> None:
    assert VADER.score([text])[0].label == label


def test_a_words_valence_is_four_times_its_polarity() -> None:
    """VADER's own normalisation of one valence v is v / sqrt(v² + 15)."""
    for share in (-1.0, -0.25, 0.5, 1.0):
        valence = 4 * share
        expected = valence / (valence**2 + 15) ** 0.5
        assert polarity("ape", Entry("words", "ape", "bold", share)) == pytest.approx(expected, abs=1e-4)


def test_a_polarity_goes_over_vaders_own_and_none_leaves_it() -> None:
    assert polarity("dump") < 0
    assert polarity("dump", Entry("words", "dump", "up", 0.5)) > 0
    assert polarity("DUMP it", Entry("words", "dump", "up", 0.0)) == 0.0
    assert polarity("dump", Entry("words", "dump", "up")) == polarity("dump")


def test_a_phrase_is_more_than_its_words_and_the_longest_counts() -> None:
    cat, bounce = Entry("phrases", "dead cat", "fall", -0.25), Entry("phrases", "dead cat bounce", "fall", -1.0)
    assert polarity("a dead cat", cat, bounce) == polarity("a ape", Entry("words", "ape", "fall", -0.25))
    assert polarity("a dead cat bounce", cat, bounce) == polarity("a ape", Entry("words", "ape", "fall", -1.0))
    assert polarity("undead cats", cat) == 0.0


def test_words_outside_the_vocabulary_keep_their_valence() -> None:
    valences = SentimentIntensityAnalyzer().lexicon
    tokens = {entry.token for entry in load_vocabulary()}
    words = [word for word in sorted(valences) if word.isalpha() and word not in tokens][::20]
    assert len(words) > 100
    assert VADER.score(words) == PLAIN.score(words)


def test_a_text_without_words_is_neutral_without_confidence() -> None:
    assert VADER.score(["", "   "]) == [Sentiment(0.0, 0.0, "neutral")] * 2


PARTS = ["good", "BAD!!!", "not good :)", "to the moon", "🚀", "❤\ufe0f", "rug pull"]


@given(st.lists(st.one_of(st.text(max_size=40), st.sampled_from(PARTS)), max_size=4))
def test_any_text_has_a_score_in_range_that_is_its_own(texts: list[str]) -> None:
    scored = VADER.score(texts)
    assert scored == [VADER.score([text])[0] for text in texts]
    for sentiment in scored:
        assert -1.0 <= sentiment.polarity <= 1.0
        assert 0.0 <= sentiment.confidence <= 1.0
