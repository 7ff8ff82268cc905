"""The time series: PostgreSQL for real, InfluxDB by its documented HTTP API."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from pydantic import SecretStr

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate, SocialPost
from sentimesh.storage import PostgresTimeSeries, connect
from sentimesh.storage.influx import InfluxTimeSeries, scored_point, spike_point, window_point

DAY = 86_400_000
HOUR = 3_600_000
START = 1_700_000_400_000


def scored(number: int, at_ms: int = START, symbol: str = "BTC", polarity: float = 0.5) -> ScoredPost:
    post = SocialPost(
        post_id=f"twitter:{number}", platform="twitter", symbol=symbol, text="to the moon", timestamp_ms=at_ms
    )
    return ScoredPost(
        post=post,
        polarity=polarity,
        confidence=0.75,
        credibility_score=0.625,
        engagement_weight=2.0,
        model_version="sentimesh-base-2",
    )


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now_ms: int) -> None:
        self.now = now_ms

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    pool = await connect(SecretStr(postgres_dsn.rsplit("/", 1)[0] + f"/{name}"))
    yield pool
    await pool.close()
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def test_a_scored_post_is_one_row_without_its_text(pool: asyncpg.Pool[Any]) -> None:
    series = PostgresTimeSeries(pool, now_ms=lambda: START + HOUR)
    await series.write_scored([scored(1), scored(1, symbol="ETH"), scored(2)])
    await series.write_scored([scored(1, polarity=-0.25)])
    rows = await pool.fetch("SELECT * FROM social_scored_posts ORDER BY symbol, post_id")
    assert [(row["symbol"], row["post_id"], row["polarity"]) for row in rows] == [
        ("BTC", "twitter:1", -0.25),
        ("BTC", "twitter:2", 0.5),
        ("ETH", "twitter:1", 0.5),
    ]
    assert (rows[0]["platform"], rows[0]["model_version"]) == ("twitter", "sentimesh-base-2")
    assert (rows[0]["confidence"], rows[0]["credibility_score"], rows[0]["engagement_weight"]) == (0.75, 0.625, 2.0)
    assert round(rows[0]["posted_at"].timestamp() * 1000) == START
    assert "to the moon" not in str([dict(row) for row in rows])


async def test_posts_are_gone_after_seven_days(pool: asyncpg.Pool[Any]) -> None:
    clock = Clock(START + HOUR)
    series = PostgresTimeSeries(pool, now_ms=clock)
    await series.write_scored([scored(1, START), scored(2, START + 2 * DAY)])
    clock.now = START + 7 * DAY
    await series.write_scored([])
    assert await pool.fetchval("SELECT count(*) FROM social_scored_posts") == 2
    clock.now += HOUR
    await series.write_scored([])
    assert [row["post_id"] for row in await pool.fetch("SELECT post_id FROM social_scored_posts")] == ["twitter:2"]


async def test_a_database_that_is_away_and_a_row_that_cannot_be(pool: asyncpg.Pool[Any]) -> None:
    series = PostgresTimeSeries(pool, now_ms=lambda: START)
    with pytest.raises(StorageRefusedError, match="refuses a row"):
        await series.write_scored([scored(1), scored(2, symbol="B" * 21)])
    assert await pool.fetchval("SELECT count(*) FROM social_scored_posts") == 0
    await pool.close()
    with pytest.raises(StorageUnavailableError, match="PostgreSQL"):
        await series.write_scored([scored(1)])


def test_points_are_the_specifications_measurements() -> None:
    point = scored_point(scored(1))
    assert point["measurement"] == "scored_posts"
    assert point["tags"] == {"symbol": "BTC", "platform": "twitter", "model_version": "sentimesh-base-2"}
    assert point["fields"] == {
        "polarity": 0.5,
        "confidence": 0.75,
        "credibility_score": 0.625,
        "engagement_weight": 2.0,
    }
    assert point["time"] // 1_000_000_000 == START // 1000
    assert scored_point(scored(1, START + 7))["time"] // 1_000_000 == START + 7

    window = SentimentAggregate(
        symbol="BTC", window_end_ms=START, polarity=-0.5, volume_ratio=1.5, post_count=7, unique_authors=5
    )
    assert window_point(window) == {
        "measurement": "sentiment_aggregate",
        "tags": {"symbol": "BTC"},
        "fields": {
            "polarity": -0.5,
            "volume_ratio": 1.5,
            "credibility": 0.0,
            "social_sentiment_score": 0.0,
            "directional_score": 0.0,
            "post_count": 7,
            "unique_authors": 5,
            "viral_spike": False,
        },
        "time": START * 1_000_000,
    }
    spike = ViralSpike(symbol="BTC", spike_ratio=6.5, mention_count=40, baseline_rate=5.5, detected_at_ms=START)
    assert spike_point(spike) == {
        "measurement": "viral_spikes",
        "tags": {"symbol": "BTC"},
        "fields": {"spike_ratio": 6.5, "mention_count": 40, "baseline_rate": 5.5},
        "time": START * 1_000_000,
    }


def test_posts_of_the_same_second_are_points_of_their_own_and_the_same_again_when_repeated() -> None:
    times = [scored_point(scored(n))["time"] for n in range(500)]
    assert len(set(times)) == 500
    assert times == [scored_point(scored(n))["time"] for n in range(500)]


async def test_an_influxdb_that_is_away_is_one_clear_error() -> None:
    async with InfluxDBClientAsync("http://127.0.0.1:1", token="none", org="none") as client:  # noqa: S106
        series = InfluxTimeSeries(client, org="none")
        with pytest.raises(StorageUnavailableError, match=r"storage\.influxdb"):
            await series.ensure_buckets()
        with pytest.raises(StorageUnavailableError, match=r"storage\.influxdb"):
            await series.write_scored([scored(1)])
        await series.write_spikes([])


class FakeInflux:
    """The four addresses of InfluxDB's HTTP API that are used, by its documentation; no InfluxDB."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Any]] = {}
        self.lines: list[tuple[str, str]] = []
        self.write_status = 204

    async def orgs(self, request: web.Request) -> web.Response:
        return web.json_response({"orgs": [{"id": "0a1b", "name": request.query["org"]}]})

    async def listed(self, _request: web.Request) -> web.Response:
        return web.json_response({"buckets": list(self.buckets.values())})

    async def made(self, request: web.Request) -> web.Response:
        bucket = {"id": f"id-{len(self.buckets)}", **await request.json()}
        self.buckets[bucket["name"]] = bucket
        return web.json_response(bucket, status=201)

    async def changed(self, request: web.Request) -> web.Response:
        [bucket] = [b for b in self.buckets.values() if b["id"] == request.match_info["id"]]
        bucket["retentionRules"] = (await request.json())["retentionRules"]
        return web.json_response(bucket)

    async def write(self, request: web.Request) -> web.Response:
        if self.write_status != 204:
            return web.json_response({"message": "no"}, status=self.write_status)
        self.lines += [(request.query["bucket"], line) for line in (await request.text()).split("\n")]
        return web.Response(status=204)

    def retention_days(self) -> dict[str, float]:
        return {name: b["retentionRules"][0]["everySeconds"] / 86_400 for name, b in self.buckets.items()}


@pytest.fixture
async def influx() -> AsyncIterator[tuple[FakeInflux, InfluxTimeSeries]]:
    fake = FakeInflux()
    app = web.Application()
    app.router.add_get("/api/v2/orgs", fake.orgs)
    app.router.add_get("/api/v2/buckets", fake.listed)
    app.router.add_post("/api/v2/buckets", fake.made)
    app.router.add_patch("/api/v2/buckets/{id}", fake.changed)
    app.router.add_post("/api/v2/write", fake.write)
    async with TestServer(app) as server, InfluxDBClientAsync(str(server.make_url("")), token="t", org="o") as client:  # noqa: S106
        yield fake, InfluxTimeSeries(client, org="o")


async def test_three_buckets_are_made_with_their_retention_and_kept_at_it(
    influx: tuple[FakeInflux, InfluxTimeSeries],
) -> None:
    fake, series = influx
    wanted = {"social_sentiment_posts": 7, "social_sentiment": 90, "social_sentiment_spikes": 365}
    await series.ensure_buckets()
    assert fake.retention_days() == wanted
    fake.buckets["social_sentiment"]["retentionRules"][0]["everySeconds"] = 3600
    await series.ensure_buckets()
    assert fake.retention_days() == wanted
    assert len(fake.buckets) == 3


async def test_each_kind_of_point_goes_to_its_bucket(influx: tuple[FakeInflux, InfluxTimeSeries]) -> None:
    fake, series = influx
    await series.write_scored([scored(1, START + 7), scored(2)])
    await series.write_windows([SentimentAggregate(symbol="BTC", window_end_ms=START, post_count=7)])
    await series.write_spikes([ViralSpike(symbol="BTC", spike_ratio=6.5, mention_count=40, detected_at_ms=START)])
    assert [bucket for bucket, _ in fake.lines] == [
        *["social_sentiment_posts"] * 2,
        "social_sentiment",
        "social_sentiment_spikes",
    ]
    head, fields, time = fake.lines[0][1].split(" ")
    assert head == "scored_posts,model_version=sentimesh-base-2,platform=twitter,symbol=BTC"
    assert "polarity=0.5" in fields.split(",")
    assert int(time) == scored_point(scored(1, START + 7))["time"]
    assert fake.lines[3][1] == (
        f"viral_spikes,symbol=BTC baseline_rate=0,mention_count=40i,spike_ratio=6.5 {START * 1_000_000}"
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, StorageUnavailableError),
        (503, StorageUnavailableError),
        (400, StorageRefusedError),
        (422, StorageRefusedError),
    ],
)
async def test_a_refused_point_is_told_from_a_server_that_cannot(
    influx: tuple[FakeInflux, InfluxTimeSeries], status: int, error: type[Exception]
) -> None:
    fake, series = influx
    fake.write_status = status
    with pytest.raises(error, match=str(status)):
        await series.write_scored([scored(1)])
