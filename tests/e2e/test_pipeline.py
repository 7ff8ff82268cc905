"""Posts through the whole system, seen from outside: NATS in, gRPC out."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sentimesh.build import now_ms
from sentimesh.bus import DEAD_LETTERS, REASON_HEADER
from sentimesh.pb import gateway_pb2, gateway_pb2_grpc, pipeline_pb2, pipeline_pb2_grpc
from sentimesh.pb.pipeline_pb2 import DeadLetter, RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.settings import Settings
from sentimesh.source import SourcePost
from sentimesh.stack import Stack
from tests.e2e.conftest import System

PACKAGE = "com.verlumen.tradestream.social"
SERVICES = {
    "ingest": "IngestService",
    "filter": "FilterService",
    "scorer": "ScorerService",
    "aggregator": "AggregatorService",
    "gateway": "SentimentGatewayService",
}


def tweet(number: int, text: str, at_ms: int, author: int | None = None) -> RawPost:
    when = dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC).isoformat().replace("+00:00", "Z")
    author_id = str(1000 + (number if author is None else author))
    payload = {
        "data": {
            "id": str(number),
            "text": text,
            "created_at": when,
            "lang": "en",
            "author_id": author_id,
            "public_metrics": {"retweet_count": 1, "reply_count": 0, "like_count": 5, "quote_count": 0},
        },
        "includes": {
            "users": [
                {
                    "id": author_id,
                    "username": f"user{author_id}",
                    "created_at": "2015-01-01T00:00:00.000Z",
                    "verified": False,
                    "public_metrics": {"followers_count": 900, "following_count": 300, "tweet_count": 4000},
                }
            ]
        },
    }
    return RawPost(platform="twitter", payload=json.dumps(payload).encode(), received_at_ms=now_ms(), source="test")


class ListSource:
    """A source of given posts."""

    name = "list"

    def __init__(self, posts: Sequence[RawPost]) -> None:
        self._posts = posts

    async def posts(self) -> AsyncIterator[SourcePost]:
        for raw in self._posts:
            yield SourcePost(raw, hashlib.sha256(raw.payload).hexdigest(), raw.received_at_ms)


BULLISH = (
    "Bitcoin breaking out, new highs coming, super bullish here",
    "just bought more $BTC, this rally has legs and the chart looks great",
    "#BTC institutions keep buying, price going to the moon soon",
    "BTC up 8% today, strong momentum and great news all around",
)


async def test_a_handful_of_posts_becomes_a_score_that_the_gateway_serves(system: System) -> None:
    at_ms = now_ms() - 60_000
    posts = [tweet(n, text, at_ms + n * 1000) for n, text in enumerate(BULLISH)]
    posts.append(tweet(50, "lovely weather in the mountains today", at_ms + 9000))
    await system.stack.run_source(ListSource(posts))
    await system.stack.finish()

    assert system.ledger.received == 5
    assert system.ledger.scored == 4
    assert dict(system.ledger.dropped) == {("ingest", "no_symbol"): 1}
    assert system.ledger.accounted == 5
    assert len(system.ledger.latencies_ms) == 4

    async with grpc.aio.insecure_channel(system.stack.addresses["gateway"]) as channel:
        stub = gateway_pb2_grpc.SentimentGatewayServiceStub(channel)
        answer = (
            await stub.GetSocialSentiment(gateway_pb2.GetSocialSentimentRequest(symbol="btc"), timeout=60)
        ).sentiment
        assert answer.data_available
        assert answer.source == gateway_pb2.SENTIMENT_SOURCE_REDIS
        assert answer.aggregate.post_count == 4
        assert answer.aggregate.unique_authors == 4
        assert dict(answer.aggregate.platform_breakdown) == {"twitter": 4}
        assert answer.aggregate.polarity > 0.3
        assert answer.directional_score > 0.6

        nothing = (
            await stub.GetSocialSentiment(gateway_pb2.GetSocialSentimentRequest(symbol="XMR"), timeout=60)
        ).sentiment
        assert nothing.social_sentiment_score == 0.5

        listed = await stub.ListSymbols(gateway_pb2.ListSymbolsRequest(), timeout=60)
        assert [s.symbol for s in listed.symbols] == sorted(system.settings.symbols)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetSocialSentiment(gateway_pb2.GetSocialSentimentRequest(symbol="NOTTRACKED"), timeout=60)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("subject", "stage"),
    [
        ("social.raw.twitter", "ingest"),
        ("social.normalized.BTC", "filter"),
        ("social.filtered.BTC", "scorer"),
        ("social.scored.BTC", "aggregator"),
    ],
)
async def test_a_malformed_message_on_any_stream_is_a_dead_letter_and_the_stage_goes_on(
    system: System, subject: str, stage: str
) -> None:
    await system.bus.jetstream.publish(subject, b"\xff\xff\xff")
    at_ms = now_ms() - 60_000
    await system.stack.run_source(ListSource([tweet(n, text, at_ms) for n, text in enumerate(BULLISH)]))
    await system.stack.finish()

    message = await system.bus.jetstream.get_last_msg(DEAD_LETTERS.stream, f"social.dlq.{stage}")
    assert message.headers is not None
    assert message.headers[REASON_HEADER].startswith(f"not a {PACKAGE}.")
    letter = DeadLetter.FromString(message.data or b"")
    assert (letter.stage, letter.subject, letter.payload) == (stage, subject, b"\xff\xff\xff")
    assert system.ledger.scored == 4
    assert system.ledger.dead_letters == {stage: 1}


async def test_every_stage_answers_reflection_and_health(system: System) -> None:
    for stage, service in SERVICES.items():
        async with grpc.aio.insecure_channel(system.stack.addresses[stage]) as channel:
            full_name = f"{PACKAGE}.{service}"
            reflect = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=full_name),
            ]
            listed, described = [a async for a in reflect.ServerReflectionInfo(iter(asked), timeout=60)]
            names = {s.name for s in listed.list_services_response.service}
            assert {full_name, "grpc.health.v1.Health"} <= names
            assert described.file_descriptor_response.file_descriptor_proto

            health = health_pb2_grpc.HealthStub(channel)
            async for answer in health.Watch(health_pb2.HealthCheckRequest(service=full_name), timeout=60):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            else:
                pytest.fail(f"{stage} was never SERVING")


async def test_a_stage_called_by_grpc_answers_in_order_and_touches_no_stored_score(system: System) -> None:
    at_ms = now_ms() - 60_000
    requests = [
        pipeline_pb2.IngestRequest(raw_post=tweet(1, "ETH and BTC both look weak", at_ms)),
        pipeline_pb2.IngestRequest(raw_post=tweet(2, "nothing to see", at_ms)),
        pipeline_pb2.IngestRequest(raw_post=RawPost(platform="twitter", payload=b"{", received_at_ms=at_ms)),
    ]
    async with grpc.aio.insecure_channel(system.stack.addresses["ingest"]) as channel:
        stub = pipeline_pb2_grpc.IngestServiceStub(channel)
        answers = [answer async for answer in stub.Ingest(iter(requests), timeout=60)]
    assert [[post.symbol for post in answer.posts] for answer in answers] == [["ETH", "BTC"], [], []]
    assert answers[1].dropped.reason == "no_symbol"
    assert answers[2].rejected_reason
    await system.stack.drained()
    assert system.ledger.received == 0


async def test_a_watcher_gets_the_state_and_then_each_live_score(system: System) -> None:
    async with grpc.aio.insecure_channel(system.stack.addresses["gateway"]) as channel:
        stub = gateway_pb2_grpc.SentimentGatewayServiceStub(channel)
        request = gateway_pb2.WatchSocialSentimentRequest(symbols=["BTC"])
        seen: list[gateway_pb2.SocialSentiment] = []
        async for answer in stub.WatchSocialSentiment(request, timeout=60):
            if not seen:
                at_ms = now_ms() - 60_000
                posts = [tweet(n, text, at_ms + n) for n, text in enumerate(BULLISH)]
                await system.stack.run_source(ListSource(posts))
            seen.append(answer.sentiment)
            is_live = answer.sentiment.source == gateway_pb2.SENTIMENT_SOURCE_LIVE
            if is_live and answer.sentiment.aggregate.post_count == len(BULLISH):
                break
        assert {sentiment.symbol for sentiment in seen} == {"BTC"}
        assert seen[0].source != gateway_pb2.SENTIMENT_SOURCE_LIVE
        assert seen[-1].source == gateway_pb2.SENTIMENT_SOURCE_LIVE
        assert seen[-1].directional_score > 0.6


async def test_a_restarted_system_goes_on_where_it_stopped(settings: Settings, clean: None) -> None:
    """Half of the posts before a restart, half after: the same window as without one."""
    settings.aggregation.clock = "system"
    at_ms = now_ms() - 4000
    posts = [tweet(100 + n, text, at_ms + n) for n, text in enumerate(BULLISH)]
    counts: list[int] = []
    for part in (posts[:2], posts[2:]):
        async with Stack(settings, free_ports=True, allow_embedded=False) as stack:
            await stack.run_source(ListSource(part))
            await stack.drained()
            async with grpc.aio.insecure_channel(stack.addresses["gateway"]) as channel:
                stub = gateway_pb2_grpc.SentimentGatewayServiceStub(channel)
                async for answer in stub.WatchSocialSentiment(
                    gateway_pb2.WatchSocialSentimentRequest(symbols=["BTC"]), timeout=60
                ):
                    if answer.sentiment.aggregate.post_count == len(part) + sum(counts):
                        counts.append(len(part))
                        break
    assert counts == [2, 2]


async def test_the_four_stage_services_hand_a_post_on_from_one_to_the_next(system: System) -> None:
    at_ms = now_ms() - 900_000
    raw = [tweet(n, text, at_ms + n * 200_000) for n, text in enumerate(BULLISH)]
    channels = {
        stage: grpc.aio.insecure_channel(address)
        for stage, address in system.stack.addresses.items()
        if stage != "gateway"
    }
    ingest = pipeline_pb2_grpc.IngestServiceStub(channels["ingest"])
    filtering = pipeline_pb2_grpc.FilterServiceStub(channels["filter"])
    scorer = pipeline_pb2_grpc.ScorerServiceStub(channels["scorer"])
    aggregator = pipeline_pb2_grpc.AggregatorServiceStub(channels["aggregator"])
    ingested = [a async for a in ingest.Ingest(iter(pipeline_pb2.IngestRequest(raw_post=r) for r in raw), timeout=60)]
    posts = [post for answer in ingested for post in answer.posts]
    copy = SocialPost()
    copy.CopyFrom(posts[-1])
    copy.post_id = "twitter:copy"
    copy.ClearField("author")
    posts.append(copy)
    asked = iter(pipeline_pb2.FilterRequest(post=post) for post in posts)
    filtered = [answer async for answer in filtering.Filter(asked, timeout=60)]
    assert all(answer.HasField("post") for answer in filtered)
    assert filtered[-1].post.factors.originality == 0
    assert filtered[0].post.factors.originality == 0.25
    scores = iter(pipeline_pb2.ScoreRequest(post=answer.post) for answer in filtered)
    scored = [answer async for answer in scorer.Score(scores, timeout=60)]
    assert all(answer.post.polarity > 0 for answer in scored)
    windows = iter(pipeline_pb2.AggregateRequest(post=answer.post) for answer in [*scored, scored[0]])
    aggregated = [answer async for answer in aggregator.Aggregate(windows, timeout=60)]
    closed = [a for answer in aggregated for a in answer.aggregates if a.symbol == "BTC"]
    assert closed
    assert sum(a.post_count for a in closed) < len(posts)
    assert aggregated[-1].dropped.reason == "duplicate"
    for channel in channels.values():
        await channel.close()
    await system.stack.drained()
    assert system.ledger.received == 0
