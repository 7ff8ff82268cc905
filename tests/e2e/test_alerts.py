"""A surge from the scored posts to everybody who is told of it."""

from __future__ import annotations

import asyncpg
import grpc
import orjson
import redis.asyncio
from pydantic import SecretStr

from sentimesh.build import now_ms
from sentimesh.bus import VIRAL_ALERTS, Bus
from sentimesh.pb import gateway_pb2, gateway_pb2_grpc
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.settings import Settings
from sentimesh.stack import Stack
from tests.e2e.test_replicas import START, hour, send
from tests.sentimesh.test_webhook import Endpoint, endpoint

__all__ = ["endpoint"]


async def test_a_surge_reaches_stream_tables_webhook_and_gateway(
    settings: Settings, clean: None, redis_url: str, postgres_dsn: str, endpoint: Endpoint
) -> None:
    settings.symbols = ["BTC", "ETH", "SOL", "XRP"]
    settings.viral_detection.webhook_url = endpoint.url
    async with (
        Bus(settings.nats.url or SecretStr("")) as bus,
        Stack(settings, stages=["aggregator", "gateway"], free_ports=True, allow_embedded=False) as stack,
    ):
        # The surges of an hour that began fifty minutes ago: 35, 25, 15 and 5 minutes ago.
        began_ms = now_ms() - 50 * 60_000
        posts = hour(0)
        for post in posts:
            post.post.timestamp_ms += began_ms - START
        await send(bus, [post for post in posts if post.post.timestamp_ms <= now_ms()])
        await stack.finish()
        state = (await bus.jetstream.stream_info(VIRAL_ALERTS.stream)).state
        sent = [
            ViralSpike.FromString((await bus.jetstream.get_msg(VIRAL_ALERTS.stream, number)).data or b"")
            for number in range(state.first_seq, state.last_seq + 1)
        ]
        async with grpc.aio.insecure_channel(stack.addresses["gateway"]) as channel:
            request = gateway_pb2.ListViralSpikesRequest(start_ms=began_ms)
            listed = await gateway_pb2_grpc.SentimentGatewayServiceStub(channel).ListViralSpikes(request)
    begun = {spike.symbol: spike for spike in sent if not spike.resolved_at_ms}
    over = {spike.symbol: spike for spike in sent if spike.resolved_at_ms}
    # The last one may not have been over for a whole cooldown when the last window closes.
    assert set(begun) == set(settings.symbols)
    assert set(over) >= {"BTC", "ETH", "SOL"}
    for symbol, spike in begun.items():
        if symbol in over:
            assert over[symbol].detected_at_ms == spike.detected_at_ms < over[symbol].resolved_at_ms
        assert len(spike.sample_posts) == 5
        weights = [post.engagement_weight for post in spike.sample_posts]
        assert weights == sorted(weights, reverse=True)
    assert {(s.symbol, s.detected_at_ms, s.resolved_at_ms, len(s.sample_posts)) for s in listed.spikes} == {
        (symbol, spike.detected_at_ms, over[symbol].resolved_at_ms if symbol in over else 0, 5)
        for symbol, spike in begun.items()
    }

    connection = await asyncpg.connect(postgres_dsn)
    try:
        rows = await connection.fetch("SELECT symbol, dominant_platform, resolved_at FROM social_viral_spikes")
    finally:
        await connection.close()
    assert {(row["symbol"], row["dominant_platform"]) for row in rows} == {(s, "twitter") for s in settings.symbols}
    assert {row["symbol"] for row in rows if row["resolved_at"]} == set(over)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        claimed = await client.get("social:viral_cooldown:BTC")
        assert claimed == str(begun["BTC"].detected_at_ms).encode()
    # The others are no news any more.
    [body] = endpoint.bodies
    assert orjson.loads(body)["symbol"] == "XRP"
