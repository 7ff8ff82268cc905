from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from filter_svc.known_bots import KnownBots, MemoryKnownBots, RedisKnownBots
from filter_svc.multipliers import MultiplierOptions
from filter_svc.service import FilterStage
from sentimesh.errors import MalformedMessageError
from sentimesh.pb.pipeline_pb2 import ExplainCredibilityRequest, ExplainCredibilityResponse, FilteredPost, FilterRequest
from sentimesh.pb.pipeline_pb2_grpc import FilterServiceStub
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.rpc import RpcServer, add_stage
from sentimesh.stage import Delivery, Drop, Forward

if TYPE_CHECKING:
    from sentimesh.pb.pipeline_pb2_grpc import FilterServiceAsyncStub

DAY_MS = 86_400_000
NOW_MS = 1_571_500_000_000
TEXT = "Bitcoin broke out of its range today and the funding rate is still negative, I am buying more"
COUNTS = st.one_of(st.integers(0, 20), st.integers(0, 2**31 - 1))


def make_post(
    post_id: str = "twitter:1",
    *,
    text: str = TEXT,
    author_id: str = "a",
    age_days: float | None = 400,
    followers: int = 1500,
    following: int = 1000,
    verified: bool = False,
) -> SocialPost:
    author = SocialPost.AuthorMetrics(followers=followers, following=following, verified=verified)
    if age_days is not None:
        author.account_created_ms = NOW_MS - round(age_days * DAY_MS)
    return SocialPost(
        post_id=post_id,
        platform="twitter",
        symbol="BTC",
        text=text,
        author_id=author_id,
        timestamp_ms=NOW_MS,
        author=author,
    )


def values(explained: ExplainCredibilityResponse) -> dict[str, float]:
    return {factor.name: factor.value for factor in explained.factors}


def inputs(explained: ExplainCredibilityResponse) -> dict[str, str]:
    return {factor.name: factor.input for factor in explained.factors}


async def test_each_factor_says_what_it_was_made_of() -> None:
    explained = await FilterStage(MemoryKnownBots()).explain(make_post())
    assert values(explained) == {
        "account_age": 0.25,
        "follower_ratio": 0.1875,
        "originality": 0.25,
        "verification": 0.125,
    }
    assert inputs(explained) == {
        "account_age": "account 400 days old: full from 365 days",
        "follower_ratio": "1,500 followers, follows 1,000, ratio 1.50: 2 would be full",
        "originality": "no copy of a post seen before it: full",
        "verification": "not verified: half",
    }
    assert not any(factor.unknown for factor in explained.factors)
    assert (explained.post_id, explained.symbol) == ("twitter:1", "BTC")
    assert (explained.sum, explained.credibility_score, explained.credibility_score_as_copy) == (0.8125, 0.8125, 0.5625)
    assert (explained.min_credibility, explained.passes, explained.drop_reason) == (0.3, True, "")
    assert not explained.near_duplicate
    assert not explained.known_bot


@pytest.mark.parametrize(
    ("age_days", "words"),
    [
        (None, "account age unknown: half"),
        (-3, "account 0 days old: nothing up to 30 days"),
        (29.99, "account 29 days old: nothing up to 30 days"),
        (30, "account 30 days old: nothing up to 30 days"),
        (197.5, "account 197 days old: rises from 30 to 365 days"),
        (365, "account 365 days old: full from 365 days"),
        (4000, "account 4,000 days old: full from 365 days"),
    ],
)
async def test_the_age_in_words(age_days: float | None, words: str) -> None:
    explained = await FilterStage(MemoryKnownBots()).explain(make_post(age_days=age_days))
    assert inputs(explained)["account_age"] == words
    assert explained.factors[0].unknown == (age_days is None)


async def test_another_least_age_moves_the_words_with_the_value() -> None:
    explained = await FilterStage(MemoryKnownBots(), options=MultiplierOptions(min_account_age_days=65)).explain(
        make_post(age_days=400)
    )
    assert inputs(explained)["account_age"] == "account 400 days old: full from 400 days"
    assert values(explained)["account_age"] == 0.25


@pytest.mark.parametrize(
    ("followers", "following", "value", "words"),
    [
        (0, 0, 0.125, "followers unknown: half"),
        (500, 0, 0.125, "500 followers, follows nobody or unknown: half"),
        (0, 5000, 0.0, "0 followers, follows 5,000, ratio 0.00: 2 would be full"),
        (20, 10, 0.25, "20 followers, follows 10, ratio 2.00: full from 2"),
    ],
)
async def test_the_ratio_in_words(followers: int, following: int, value: float, words: str) -> None:
    explained = await FilterStage(MemoryKnownBots()).explain(make_post(followers=followers, following=following))
    assert (values(explained)["follower_ratio"], inputs(explained)["follower_ratio"]) == (value, words)
    assert explained.factors[1].unknown == (following == 0)


async def test_a_session_sees_the_copies_among_the_posts_it_explained() -> None:
    session = FilterStage(MemoryKnownBots()).session()
    await session.explain(make_post("twitter:1"))
    copy = await session.explain(make_post("twitter:2", age_days=30, followers=0))
    assert (copy.near_duplicate, copy.credibility_score, copy.passes, copy.drop_reason) == (
        True,
        0.125,
        False,
        "duplicate",
    )
    assert inputs(copy)["originality"] == "copy of another post: nothing"
    assert copy.credibility_score_as_copy == copy.credibility_score


async def test_a_known_bot_scores_nothing_and_its_factors_stay() -> None:
    explained = await FilterStage(MemoryKnownBots(["twitter:bot"])).explain(make_post(author_id="bot", verified=True))
    assert (explained.known_bot, explained.sum, explained.credibility_score) == (True, 0.9375, 0.0)
    assert (explained.credibility_score_as_copy, explained.passes, explained.drop_reason) == (0.0, False, "known_bot")
    assert inputs(explained)["verification"] == "verified: full"


@given(
    age_days=st.one_of(st.none(), st.floats(0, 4000)),
    followers=COUNTS,
    following=COUNTS,
    verified=st.booleans(),
    author_id=st.sampled_from(["a", "bot", ""]),
    copied=st.booleans(),
    least=st.sampled_from([0.0, 0.3, 0.5, 0.75]),
)
async def test_an_explanation_is_what_the_filter_does(
    age_days: float | None,
    followers: int,
    following: int,
    verified: bool,
    author_id: str,
    copied: bool,
    least: float,
) -> None:
    post = make_post(
        age_days=age_days, followers=followers, following=following, verified=verified, author_id=author_id
    )
    stages = [FilterStage(MemoryKnownBots(["twitter:bot"]), min_credibility=least) for _ in range(2)]
    if copied:
        for stage in stages:
            await stage.process([Delivery(make_post("reddit:9"), 1)])
    explained = await stages[0].explain(post)
    [[outcome]] = await stages[1].process([Delivery(post, 2)])
    if isinstance(outcome, Drop):
        assert (explained.passes, explained.drop_reason) == (False, outcome.reason)
        assert explained.credibility_score == outcome.credibility_score
    else:
        assert isinstance(outcome, Forward)
        assert isinstance(outcome.message, FilteredPost)
        assert (explained.passes, explained.drop_reason) == (True, "")
        assert explained.credibility_score == pytest.approx(outcome.message.credibility_score, abs=1e-7)
        factors = outcome.message.factors
        assert values(explained) == pytest.approx({name: getattr(factors, name) for name in values(explained)})


async def test_what_cannot_be_filtered_cannot_be_explained() -> None:
    with pytest.raises(MalformedMessageError, match="no post_id: give a post as ingest makes it"):
        await FilterStage(MemoryKnownBots()).explain(SocialPost(symbol="BTC"))


@asynccontextmanager
async def served(known_bots: KnownBots) -> AsyncIterator[tuple[FilterStage, FilterServiceAsyncStub]]:
    stage = FilterStage(known_bots)
    server = RpcServer("127.0.0.1", 0)
    await server.start([add_stage(server.server, "filter", stage)])
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield stage, FilterServiceStub(channel)
    finally:
        await server.stop()


async def test_over_grpc_it_reads_the_known_bots_and_leaves_nothing_behind(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.sadd("test:explain:bots", "twitter:bot")
        async with served(RedisKnownBots(client, key="test:explain:bots")) as (stage, stub):
            first = await stub.ExplainCredibility(ExplainCredibilityRequest(post=make_post("twitter:1")))
            bot = await stub.ExplainCredibility(ExplainCredibilityRequest(post=make_post("twitter:2", author_id="bot")))
            responses = [answer async for answer in stub.Filter(iter([FilterRequest(post=make_post("twitter:3"))]))]
            outcomes = await stage.process([Delivery(make_post("twitter:4"), 1)])
    assert (first.near_duplicate, first.passes, first.credibility_score) == (False, True, 0.8125)
    assert (bot.near_duplicate, bot.known_bot, bot.drop_reason) == (False, True, "known_bot")
    assert responses[0].post.factors.originality == 0.25
    [[passed]] = outcomes
    assert isinstance(passed, Forward)
    assert isinstance(passed.message, FilteredPost)
    assert passed.message.factors.originality == 0.25


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (ExplainCredibilityRequest(), "the request has no post: set it"),
        (ExplainCredibilityRequest(post=SocialPost(symbol="BTC")), "the post has no post_id: give a post as"),
        (ExplainCredibilityRequest(post=SocialPost(post_id="x:1", symbol="btc")), "x:1 has the symbol 'btc'"),
    ],
)
async def test_over_grpc_what_cannot_be_filtered_is_an_invalid_argument(
    request_: ExplainCredibilityRequest, details: str
) -> None:
    async with served(MemoryKnownBots()) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ExplainCredibility(request_)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details in (error.value.details() or "")


async def test_over_grpc_redis_away_is_unavailable() -> None:
    # Nothing listens on the discard port.
    async with (
        redis.asyncio.Redis(host="127.0.0.1", port=9, socket_connect_timeout=1) as client,
        served(RedisKnownBots(client)) as (_, stub),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ExplainCredibility(ExplainCredibilityRequest(post=make_post()))
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "Redis does not answer (ConnectionError)" in (error.value.details() or "")
