from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter_svc.credibility import Credibility
from filter_svc.judgement import Judgement
from filter_svc.multipliers import (
    MultiplierOptions,
    Multipliers,
    flooding,
    frequency,
    multipliers,
    new_account,
)
from filter_svc.sightings import Sighted
from sentimesh.pb.pipeline_pb2 import FilteredPost, RejectedPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Drop, Forward

DAY_MS = 86_400_000
NOW_MS = 1_571_500_000_000
LONG = "Bitcoin broke out of its range today and I am buying more of it"
OPTIONS = MultiplierOptions()
SHARES = st.floats(0, 1)


def make_post(
    text: str = LONG,
    *,
    age_days: float | None = 400,
    followers: int = 100,
    following: int = 100,
    total_posts: int = 0,
    author_id: str = "a",
) -> SocialPost:
    author = SocialPost.AuthorMetrics(followers=followers, following=following, total_posts=total_posts)
    if age_days is not None:
        author.account_created_ms = NOW_MS - round(age_days * DAY_MS)
    return SocialPost(
        post_id="twitter:1",
        platform="twitter",
        symbol="BTC",
        text=text,
        author_id=author_id,
        timestamp_ms=NOW_MS,
        author=author,
    )


@pytest.mark.parametrize(
    ("text", "copies", "own", "value"),
    [
        (LONG, 0, 0, 1.0),
        (LONG, 1, 1, 1.0),
        (LONG, 2, 0, 1 / 3),
        (LONG, 3, 0, 1 / 4),
        (LONG, 9, 1, 1 / 10),
        # Said by many without knowing of each other, unless one account does it.
        ("$BTC!!! 🚀🚀🚀 @someone https://t.co/abcdefghijklmnop", 9, 0, 1.0),
        ("$BTC!!! 🚀🚀🚀 @someone https://t.co/abcdefghijklmnop", 10, 0, 1 / 11),
        ("buy bitcoin", 9, 2, 1.0),
        ("buy bitcoin", 9, 3, 1 / 10),
        ("x" * 19, 3, 0, 1.0),
        ("x" * 20, 3, 0, 1 / 4),
    ],
)
def test_copies_share_one_voice(text: str, copies: int, own: int, value: float) -> None:
    assert flooding(text, Sighted(copies=copies, own_copies=own), OPTIONS) == value


@pytest.mark.parametrize(
    ("posts", "age_days", "total_posts", "population", "value"),
    [
        # Eight an hour are never too many.
        (8, 400, 1, 1.0, 1.0),
        # Twice the floor by both measures; by the crowd's alone where the lifetime is unknown.
        (16, 400, 400, 1.0, 0.25),
        (16, None, 400, 1.0, 0.5),
        (16, 400, 0, 1.0, 0.5),
        # 240 a day are 10 an hour, and three times that is usual for it: only the crowd stays.
        (30, 10, 2400, 1.0, 8 / 30),
        # A crowd of busy people.
        (16, 400, 400, 3.0, 0.5),
        (24, None, 0, 3.0, 1.0),
        (24, None, 0, 0.0, 8 / 24),
    ],
)
def test_posts_of_an_hour_against_the_account_and_the_crowd(
    posts: int, age_days: float | None, total_posts: int, population: float, value: float
) -> None:
    post = make_post(age_days=age_days, total_posts=total_posts)
    sighted = Sighted(author_posts=posts - 1, population=population)
    assert frequency(post, sighted, OPTIONS) == pytest.approx(value)


@pytest.mark.parametrize(
    ("age_days", "followers", "following", "total_posts", "value"),
    [
        (30, 0, 5000, 0, 1.0),
        (None, 0, 5000, 0, 1.0),
        (0, 0, 5000, 0, 0.3),
        (15, 0, 5000, 0, 1 - 0.7 * 0.75),
        (15, 25, 100, 0, 1 - 0.7 * 0.75 * 0.5),
        # Half as many follow it as it follows, or nobody knows.
        (15, 50, 100, 0, 1.0),
        (15, 0, 0, 0, 1.0),
        # 108 posts a day are half way from suspicious to highly suspicious, 72 and fewer are a person's.
        (15, 100, 100, 15 * 108, 1 - 0.7 * 0.75 * 0.5),
        (15, 100, 100, 15 * 72, 1.0),
        (15, 100, 100, 15 * 1000, 1 - 0.7 * 0.75),
        # Created after the post: a clock that is off.
        (-1, 0, 5000, 0, 0.3),
    ],
)
def test_new_accounts(age_days: float | None, followers: int, following: int, total_posts: int, value: float) -> None:
    post = make_post(age_days=age_days, followers=followers, following=following, total_posts=total_posts)
    assert new_account(post, OPTIONS) == pytest.approx(value)


@given(
    age_days=st.one_of(st.none(), st.floats(-10, 4000)),
    followers=st.integers(0, 10_000),
    following=st.integers(0, 10_000),
    total_posts=st.integers(0, 1_000_000),
    sighted=st.builds(
        Sighted,
        copies=st.integers(0, 40),
        copy_authors=st.integers(0, 40),
        own_copies=st.integers(0, 40),
        author_posts=st.integers(0, 200),
        population=st.floats(0, 50),
    ),
    history=SHARES,
    is_known_bot=st.booleans(),
)
def test_every_multiplier_is_a_share_and_more_of_the_same_never_helps(
    age_days: float | None,
    followers: int,
    following: int,
    total_posts: int,
    sighted: Sighted,
    history: float,
    is_known_bot: bool,
) -> None:
    post = make_post(age_days=age_days, followers=followers, following=following, total_posts=total_posts)
    found = multipliers(post, sighted, history, OPTIONS, is_known_bot=is_known_bot)
    values = [found.known_bot, found.copy_paste_flooding, found.post_frequency, found.new_account, found.author_history]
    assert all(0.0 <= value <= 1.0 for value in values)
    assert found.product == pytest.approx(math.prod(values))
    assert found.lowest() == "" if found == Multipliers() else found.value(found.lowest()) == min(values)
    more = Sighted(sighted.copies + 1, sighted.copy_authors, sighted.own_copies, sighted.author_posts + 1)
    fewer = Sighted(sighted.copies, sighted.copy_authors, sighted.own_copies, sighted.author_posts)
    for worse, better in ((more, fewer),):
        again = [multipliers(post, seen, history, OPTIONS, is_known_bot=is_known_bot) for seen in (worse, better)]
        assert again[0].product <= again[1].product


@given(
    factors=st.tuples(*[st.floats(0, 0.25)] * 4),
    values=st.tuples(st.sampled_from([0.0, 1.0]), *[st.one_of(st.just(1.0), SHARES)] * 4),
    least=SHARES,
)
def test_the_reason_is_what_made_the_difference(
    factors: tuple[float, float, float, float], values: tuple[float, float, float, float, float], least: float
) -> None:
    credibility, found = Credibility(*factors), Multipliers(*values)
    judgement = Judgement(credibility, found, 7)
    assert judgement.score == round(math.fsum(factors) * math.prod(values), 4) or math.isclose(
        judgement.score, math.fsum(factors) * math.prod(values), abs_tol=1e-4
    )
    reason = judgement.reason(least)
    if found.known_bot == 0.0:
        assert reason == "known_bot"
    elif judgement.score >= least:
        assert reason is None
    elif credibility.score < least:
        assert reason == ("duplicate" if credibility.originality == 0.0 else "low_credibility")
    else:
        names = dict(zip(("flooding", "post_frequency", "new_account", "author_history"), values[1:], strict=True))
        assert reason is not None
        assert names[reason] == min(names.values())
    post = make_post("words that must not be kept")
    outcome = judgement.outcome(post, least)
    if isinstance(outcome, Forward):
        assert isinstance(outcome.message, FilteredPost)
        assert (outcome.message.post, outcome.message.fingerprint) == (post, 7)
        assert outcome.message.multipliers == found.message()
    else:
        assert isinstance(outcome, Drop)
        assert isinstance(outcome.record, RejectedPost)
        assert (outcome.reason, outcome.credibility_score) == (reason, judgement.score)
        assert (outcome.record.reason, outcome.record.fingerprint) == (reason, 7)
        assert outcome.record.multipliers == found.message()
        assert b"must not be kept" not in outcome.record.SerializeToString()
