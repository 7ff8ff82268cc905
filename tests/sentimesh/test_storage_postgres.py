"""The tables on a real PostgreSQL, each test in a database of its own."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.gateway_pb2 import AuthorCredibility
from sentimesh.pb.pipeline_pb2 import SamplePost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate, SocialPost
from sentimesh.storage import AggregateStore, connect
from sentimesh.storage.postgres import migrate

WINDOW = 300_000
START = 1_700_000_400_000 // WINDOW * WINDOW


def window(
    index: int = 0, symbol: str = "BTC", count: int = 5, revision: int = 0, score: float = 0.75
) -> SentimentAggregate:
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=START + index * WINDOW,
        window_end_ms=START + (index + 1) * WINDOW,
        polarity=-0.5,
        volume_ratio=1.5,
        credibility=0.625,
        social_sentiment_score=score,
        directional_score=0.25,
        post_count=count,
        unique_authors=3,
        platform_breakdown={"reddit": 2, "twitter": 3},
        viral_spike=True,
        spike_ratio=6.5,
        baseline_ready=True,
        revision=revision,
        updated_at_ms=START + (index + 1) * WINDOW + 5000,
    )


async def test_a_window_comes_back_as_it_was_written(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_windows([window(0), window(1), window(0, "ETH")])
    assert await store.latest(["ETH", "XMR", "BTC"]) == [window(0, "ETH"), None, window(1)]
    assert await store.count_windows() == 3


async def test_writing_again_changes_nothing_and_a_revision_replaces(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    for _ in range(2):
        await store.write_windows([window()])
    await store.write_windows([window(count=6, revision=1)])
    await store.write_windows([window(count=5, revision=0)])
    assert await store.latest(["BTC"]) == [window(count=6, revision=1)]
    assert await store.count_windows() == 1


async def test_the_same_window_again_leaves_the_row_untouched(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_windows([window(), window(1)])
    versions = await pool.fetch("SELECT xmin::text, updated_at FROM social_sentiment_scores ORDER BY window_start")
    later = window()
    later.updated_at_ms += 60_000
    await store.write_windows([later, window(1, score=0.5)])
    again = await pool.fetch("SELECT xmin::text, updated_at FROM social_sentiment_scores ORDER BY window_start")
    assert again[0] == versions[0]
    assert again[1]["xmin"] != versions[1]["xmin"]


async def test_a_restart_that_counts_revisions_from_zero_again_still_adds_posts(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_windows([window(count=6, revision=2)])
    await store.write_windows([window(count=7, revision=0)])
    assert await store.latest(["BTC"]) == [window(count=7, revision=0)]


async def test_a_window_without_a_spike_has_no_ratio(pool: asyncpg.Pool[Any]) -> None:
    quiet = window()
    quiet.viral_spike, quiet.spike_ratio = False, 0
    await AggregateStore(pool).write_windows([quiet])
    assert await pool.fetchval("SELECT spike_ratio FROM social_sentiment_scores") is None
    assert await AggregateStore(pool).latest(["BTC", "BTC"]) == [quiet, quiet]


async def test_counts_for_the_baseline_are_those_of_the_span(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_windows([window(n, count=n) for n in range(5)])
    counts = await store.window_counts(["BTC", "ETH"], START + WINDOW, START + 4 * WINDOW)
    assert counts == [("BTC", START + (n + 1) * WINDOW, n) for n in (1, 2, 3)]


def spike(
    index: int = 0, symbol: str = "SOL", *, over_ms: int = 0, text: str = "to the \u2028 moon \\u0000"
) -> ViralSpike:
    at = START + index * 60_000
    samples = [
        SamplePost(
            post_id=f"reddit:t1_{symbol}{index}{number}",
            platform="reddit",
            text=text,
            source_url="https://reddit.com/r/x",
            engagement=SocialPost.EngagementMetrics(likes=7, views=2_000_000_000),
            engagement_weight=0.1 * number,
            polarity=-0.3,
            timestamp_ms=at - 1000 * number,
        )
        for number in (3, 2)
    ]
    return ViralSpike(
        symbol=symbol,
        spike_ratio=8.1,
        mention_count=40,
        baseline_rate=4.9,
        detected_at_ms=at,
        dominant_platform="reddit",
        platform_breakdown={"reddit": 30, "twitter": 10},
        sample_posts=samples,
        resolved_at_ms=at + over_ms if over_ms else 0,
    )


async def all_spikes(store: AggregateStore) -> list[ViralSpike]:
    return await store.spikes(["SOL", "BTC"], START, START + 10**9, 100)


async def test_a_spike_comes_back_as_it_was_written(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_spikes([spike(), spike(1, over_ms=1234)])
    await store.write_spikes([])
    assert await all_spikes(store) == [spike(1, over_ms=1234), spike()]


ENDS_WITHOUT_SAMPLES = spike(over_ms=200_000)
ENDS_WITHOUT_SAMPLES.ClearField("sample_posts")
ENDS_WITHOUT_SAMPLES.mention_count = 99
PARTS = (spike(), spike(), ENDS_WITHOUT_SAMPLES, spike(over_ms=100_000, text="other"))


@pytest.mark.parametrize("one_call", [True, False])
async def test_a_spikes_beginning_and_ends_make_the_same_row_in_any_order(
    pool: asyncpg.Pool[Any], one_call: bool
) -> None:
    store = AggregateStore(pool)
    for order in set(itertools.permutations(range(len(PARTS)))):
        parts = [PARTS[number] for number in order]
        for part in [parts] if one_call else [[part] for part in parts]:
            await store.write_spikes(part)
        # What the detection said, and the last of the ends.
        assert await all_spikes(store) == [spike(over_ms=200_000)]
        await pool.execute("TRUNCATE social_viral_spikes")


async def test_a_later_detection_brings_no_text_back_and_no_end_away(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    await store.write_spikes([spike(text="")])
    await store.write_spikes([spike(over_ms=5000)])
    await store.write_spikes([spike()])
    assert await all_spikes(store) == [spike(over_ms=5000, text="")]


async def test_a_refused_spike_stores_nothing_of_its_call(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    bad = spike(over_ms=1)
    bad.dominant_platform = "x" * 21
    with pytest.raises(StorageRefusedError):
        await store.write_spikes([spike(), bad])
    assert await all_spikes(store) == []


async def test_samples_are_plain_json_to_whoever_asks_the_table(pool: asyncpg.Pool[Any]) -> None:
    await AggregateStore(pool).write_spikes([spike()])
    row = await pool.fetchrow(
        "SELECT jsonb_array_length(sample_posts) AS length, sample_posts->0->>'post_id' AS id, "
        "(sample_posts->0->'engagement'->>'views')::int AS views, "
        "jsonb_typeof(sample_posts->0->'timestamp_ms') AS time FROM social_viral_spikes"
    )
    assert tuple(row or ()) == (2, "reddit:t1_SOL03", 2_000_000_000, "number")


async def test_history_is_a_span_of_one_symbol_page_by_page(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    # The length of windows was changed once: two end at the same moment.
    longer = window(4)
    longer.window_start_ms -= WINDOW // 2
    await store.write_windows([*(window(n) for n in range(10)), longer, window(5, "ETH")])
    end = START + 8 * WINDOW
    expected = [window(1), window(2), window(3), longer, *(window(n) for n in range(4, 8))]
    assert await store.history("BTC", START + WINDOW, end, 100) == expected
    pages: list[SentimentAggregate] = []
    after = None
    while page := await store.history("BTC", START + WINDOW, end, 1, after):
        pages += page
        after = (page[-1].window_end_ms, page[-1].window_start_ms)
    assert pages == expected
    assert await store.history("XMR", START, end, 5) == []


async def test_spikes_are_listed_newest_first_page_by_page(pool: asyncpg.Pool[Any]) -> None:
    store = AggregateStore(pool)
    # Two symbols at the same moment.
    await store.write_spikes([spike(n, s) for n in range(4) for s in ("SOL", "BTC", "ADA")])
    expected = [spike(n, s) for n in (2, 1) for s in ("SOL", "BTC")]
    span = (START + 60_000, START + 180_000)
    assert await store.spikes(["BTC", "SOL"], *span, 100) == expected
    pages: list[ViralSpike] = []
    after = None
    while page := await store.spikes(["BTC", "SOL"], *span, 1, after):
        pages += page
        after = (page[-1].detected_at_ms, page[-1].symbol)
    assert pages == expected


async def test_authors_are_those_asked_for_in_their_order(pool: asyncpg.Pool[Any]) -> None:
    await pool.executemany(
        "INSERT INTO social_author_credibility VALUES ($1, 'twitter', $2, $3, to_timestamp(1.5))",
        [("twitter:1", 0.25, False), ("twitter:2", 0.0, True), ("twitter:'; --", 0.5, False)],
    )
    known = await AggregateStore(pool).authors(["twitter:2", "twitter:9", "twitter:'; --", "twitter:2"])
    bot = AuthorCredibility(author="twitter:2", is_known_bot=True, last_updated_ms=1500, multiplier=1.0)
    odd = AuthorCredibility(author="twitter:'; --", credibility_score=0.5, last_updated_ms=1500, multiplier=1.0)
    assert known == [bot, None, odd, bot]


async def test_migrations_run_once_also_when_replicas_race(postgres_dsn: str) -> None:
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    async with asyncpg.create_pool(postgres_dsn.rsplit("/", 1)[0] + f"/{name}", min_size=2, max_size=4) as pool:
        applied = await asyncio.gather(*(migrate(pool) for _ in range(4)))
        assert sorted(applied, key=len)[:-1] == [[], [], []]
        assert max(applied, key=len) == [
            "0001_scores_spikes_authors.sql",
            "0002_spikes_twice_and_text_purged.sql",
            "0003_author_history.sql",
        ]
        assert await migrate(pool) == []
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


# The password of the second one is not escaped, so that a part of it is taken for the port.
@pytest.mark.parametrize("dsn", ["postgresql://user:hunter2@127.0.0.1:1/db", "postgresql://user:hunter/2@127.0.0.1/db"])
async def test_a_server_that_is_away_is_one_clear_error_without_the_password(dsn: str) -> None:
    with pytest.raises(StorageUnavailableError, match=r"storage\.postgresql\.dsn") as refused:
        await connect(SecretStr(dsn))
    assert "hunter" not in str(refused.value)
    assert refused.value.__cause__ is None
