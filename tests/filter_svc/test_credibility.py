from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter_svc.credibility import compute_credibility
from filter_svc.judgement import Judgement
from filter_svc.multipliers import Multipliers
from ingest_svc.normalize import normalize
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost

DAY_MS = 86_400_000
NOW_MS = 1_571_500_000_000
COUNTS = st.one_of(st.integers(0, 20), st.integers(0, 2**31 - 1))


def make_post(
    *, age_days: float, followers: int = 100, following: int = 100, verified: bool = False, now_ms: int = NOW_MS
) -> SocialPost:
    author = SocialPost.AuthorMetrics(
        followers=followers,
        following=following,
        account_created_ms=now_ms - round(age_days * DAY_MS),
        verified=verified,
    )
    return SocialPost(post_id="twitter:1", symbol="BTC", timestamp_ms=now_ms, author=author)


class SpecifiedFilter:
    """The specification's code, line by line, but for its clock, which is the post's, and what it looks up."""

    def __init__(self, min_account_age_days: float, *, is_duplicate: bool, is_known_bot: bool) -> None:
        self.min_account_age_days = min_account_age_days
        self.is_duplicate = is_duplicate
        self.is_known_bot = is_known_bot

    def compute_credibility(self, post: SocialPost) -> float:
        scores = []

        # Account age: 0 if < 30 days, ramps to 1.0 at 365 days
        account_age_days = (post.timestamp_ms - post.author.account_created_ms) / (86400 * 1000)
        age_score = min(
            max(0, (account_age_days - self.min_account_age_days) / 335),
            1.0,
        )
        scores.append(0.25 * age_score)

        # Follower ratio: penalize accounts with high following/low followers
        if post.author.following > 0:
            ratio = post.author.followers / post.author.following
            ratio_score = min(ratio / 2.0, 1.0)  # 2:1 ratio = full score
        else:
            ratio_score = 0.5  # Unknown
        scores.append(0.25 * ratio_score)

        originality_score = 0.0 if self.is_duplicate else 1.0
        scores.append(0.25 * originality_score)

        verification_score = 1.0 if post.author.verified else 0.5
        scores.append(0.25 * verification_score)

        credibility = sum(scores)
        if self.is_known_bot:
            credibility = 0.0
        return round(credibility, 4)


@given(
    now_ms=st.integers(1, 2**42),
    created_ms=st.integers(1, 2**42),
    followers=COUNTS,
    following=COUNTS,
    verified=st.booleans(),
    is_duplicate=st.booleans(),
    is_known_bot=st.booleans(),
    min_age=st.one_of(st.just(30.0), st.floats(0, 400)),
)
def test_the_score_is_the_specifications(
    now_ms: int,
    created_ms: int,
    followers: int,
    following: int,
    verified: bool,
    is_duplicate: bool,
    is_known_bot: bool,
    min_age: float,
) -> None:
    post = SocialPost(
        timestamp_ms=now_ms,
        author=SocialPost.AuthorMetrics(
            followers=followers, following=following, account_created_ms=created_ms, verified=verified
        ),
    )
    credibility = compute_credibility(post, is_duplicate=is_duplicate, min_account_age_days=min_age)
    specified = SpecifiedFilter(min_age, is_duplicate=is_duplicate, is_known_bot=is_known_bot)
    multipliers = Multipliers(known_bot=0.0 if is_known_bot else 1.0)
    assert Judgement(credibility, multipliers, 1).score == specified.compute_credibility(post)
    factors = (
        credibility.account_age,
        credibility.follower_ratio,
        credibility.originality,
        credibility.verification,
    )
    assert all(0.0 <= factor <= 0.25 for factor in factors)
    assert credibility.score == round(sum(factors), 4)


@given(
    followers=COUNTS,
    following=COUNTS,
    verified=st.booleans(),
    is_duplicate=st.booleans(),
    min_age=st.one_of(st.just(30.0), st.floats(0, 400)),
)
def test_an_unknown_age_is_that_of_half_the_way_and_changes_nothing_else(
    followers: int, following: int, verified: bool, is_duplicate: bool, min_age: float
) -> None:
    author = SocialPost.AuthorMetrics(followers=followers, following=following, verified=verified)
    unknown = SocialPost(timestamp_ms=NOW_MS, author=author)
    halfway = SocialPost(timestamp_ms=NOW_MS, author=author)
    halfway.author.account_created_ms = NOW_MS - round((min_age + 335 / 2) * DAY_MS)
    credibility = compute_credibility(unknown, is_duplicate=is_duplicate, min_account_age_days=min_age)
    specified = SpecifiedFilter(min_age, is_duplicate=is_duplicate, is_known_bot=False)
    assert credibility.account_age == 0.125
    # To the millisecond that an age is rounded to, and the fourth digit of the score.
    assert credibility.score == pytest.approx(specified.compute_credibility(halfway), abs=1.01e-4)


@pytest.mark.parametrize(
    ("age_days", "factor"), [(-5, 0.0), (0, 0.0), (30, 0.0), (197.5, 0.125), (365, 0.25), (4000, 0.25)]
)
def test_age_counts_from_30_to_365_days(age_days: float, factor: float) -> None:
    credibility = compute_credibility(make_post(age_days=age_days), is_duplicate=False)
    assert credibility.account_age == factor


def test_a_replay_years_later_scores_the_age_at_the_time_of_the_post() -> None:
    posts = [make_post(age_days=100, now_ms=now_ms) for now_ms in (NOW_MS, NOW_MS + 3650 * DAY_MS)]
    scores = {compute_credibility(post, is_duplicate=False).score for post in posts}
    assert len(scores) == 1


@pytest.mark.parametrize(
    ("followers", "following", "factor"),
    [(200, 100, 0.25), (100, 100, 0.125), (0, 100, 0.0), (500, 0, 0.125), (0, 0, 0.125), (-7, 100, 0.0)],
)
def test_the_ratio_is_full_at_two_to_one_and_half_when_unknown(followers: int, following: int, factor: float) -> None:
    post = make_post(age_days=365, followers=followers, following=following)
    assert compute_credibility(post, is_duplicate=False).follower_ratio == factor


def test_an_author_of_whom_nothing_is_known_is_neutral() -> None:
    post = SocialPost(post_id="telegram:1", symbol="BTC", timestamp_ms=NOW_MS)
    credibility = compute_credibility(post, is_duplicate=False)
    assert credibility.score == 0.625
    assert (credibility.account_age, credibility.follower_ratio, credibility.verification) == (0.125, 0.125, 0.125)
    assert compute_credibility(post, is_duplicate=True).score == 0.375


def test_the_worst_original_post_still_scores_0_375_and_a_known_bot_nothing() -> None:
    worst = make_post(age_days=1, followers=0, following=5000)
    assert compute_credibility(worst, is_duplicate=False).score == 0.375
    assert compute_credibility(worst, is_duplicate=True).score == 0.125
    best = make_post(age_days=3000, followers=9000, verified=True)
    credibility = compute_credibility(best, is_duplicate=False)
    assert credibility.score == 1.0
    assert Judgement(credibility, Multipliers(known_bot=0.0), 1).score == 0.0


def test_the_message_carries_the_factors() -> None:
    factors = compute_credibility(make_post(age_days=197.5, followers=50, verified=True), is_duplicate=True).factors()
    assert (factors.account_age, factors.follower_ratio) == (0.125, 0.0625)
    assert (factors.originality, factors.verification) == (0.0, 0.25)


PAYLOADS: dict[str, dict[str, object]] = {
    "telegram": {
        "_": "Message",
        "id": 7,
        "peer_id": {"_": "PeerChannel", "channel_id": 12},
        "date": "2019-10-19T15:46:40+00:00",
        "message": "BTC",
    },
    "reddit": {
        "kind": "t1",
        "data": {"id": "x", "author": "a", "author_fullname": "t2_a", "created_utc": 1_571_500_000, "body": "BTC"},
    },
    "discord": {
        "id": "9",
        "type": 0,
        "channel_id": "1",
        "timestamp": "2019-10-19T15:46:40+00:00",
        "content": "BTC",
        # Its upper bits are 400 days before the message.
        "author": {"id": str((NOW_MS - 400 * DAY_MS - 1_420_070_400_000) << 22), "username": "a"},
    },
}


def read(platform: str, payload: dict[str, object]) -> SocialPost:
    post, _ = normalize(RawPost(platform=platform, payload=orjson.dumps(payload)), NOW_MS)
    return post


def tweet(user: dict[str, object] | None) -> dict[str, object]:
    data = {"id": "1", "text": "BTC", "author_id": "5", "created_at": "2019-10-19T15:46:40.000Z", "lang": "en"}
    return {"data": data, "includes": {"users": [] if user is None else [{"id": "5", "username": "a", **user}]}}


@pytest.mark.parametrize(
    ("platform", "age", "ratio"), [("telegram", 0.125, 0.125), ("reddit", 0.125, 0.125), ("discord", 0.25, 0.125)]
)
def test_what_a_platform_does_not_tell_is_neutral(platform: str, age: float, ratio: float) -> None:
    credibility = compute_credibility(read(platform, PAYLOADS[platform]), is_duplicate=False)
    assert (credibility.account_age, credibility.follower_ratio, credibility.verification) == (age, ratio, 0.125)


@pytest.mark.parametrize(
    ("user", "age", "ratio"),
    [
        (None, 0.125, 0.125),
        ({}, 0.125, 0.125),
        ({"created_at": "2019-10-18T00:00:00.000Z"}, 0.0, 0.125),
        ({"public_metrics": {"followers_count": 0, "following_count": 900}}, 0.125, 0.0),
        ({"public_metrics": {"followers_count": 900, "following_count": 0}}, 0.125, 0.125),
        # Half of what makes a ratio is no ratio.
        ({"public_metrics": {"followers_count": 900}}, 0.125, 0.125),
        ({"public_metrics": {"following_count": 900}}, 0.125, 0.125),
        ({"public_metrics": {"followers_count": None, "following_count": 900}}, 0.125, 0.125),
    ],
)
def test_what_x_leaves_out_is_neutral_and_a_zero_it_tells_is_a_zero(
    user: dict[str, object] | None, age: float, ratio: float
) -> None:
    credibility = compute_credibility(read("twitter", tweet(user)), is_duplicate=False)
    assert (credibility.account_age, credibility.follower_ratio) == (age, ratio)
