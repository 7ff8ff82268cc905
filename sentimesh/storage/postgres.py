"""The PostgreSQL tables: migrations, upserts of windows and spikes, and what the gateway and the baseline read."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import asyncpg
import orjson
from google.protobuf import json_format
from pydantic import SecretStr

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.gateway_pb2 import AuthorCredibility, AuthorEvidence
from sentimesh.pb.pipeline_pb2 import SamplePost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate

MIGRATION_LOCK = 0x5E471  # an arbitrary number of ours for pg_advisory_lock
TIMEOUT_SECONDS = 30.0

_UPSERT_WINDOW = """
INSERT INTO social_sentiment_scores AS known
    (symbol, window_start, window_end, polarity, volume_ratio, credibility, social_sentiment_score,
     directional_score, post_count, unique_authors, platform_breakdown, viral_spike, spike_ratio,
     baseline_ready, insufficient_data, revision, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (symbol, window_start) DO UPDATE SET
    window_end = EXCLUDED.window_end, polarity = EXCLUDED.polarity,
    volume_ratio = EXCLUDED.volume_ratio, credibility = EXCLUDED.credibility,
    social_sentiment_score = EXCLUDED.social_sentiment_score, directional_score = EXCLUDED.directional_score,
    post_count = EXCLUDED.post_count, unique_authors = EXCLUDED.unique_authors,
    platform_breakdown = EXCLUDED.platform_breakdown, viral_spike = EXCLUDED.viral_spike,
    spike_ratio = EXCLUDED.spike_ratio, baseline_ready = EXCLUDED.baseline_ready,
    insufficient_data = EXCLUDED.insufficient_data, revision = EXCLUDED.revision, updated_at = EXCLUDED.updated_at
WHERE (known.revision <= EXCLUDED.revision OR known.post_count < EXCLUDED.post_count)
    -- The same again (a retry, a restart) leaves the row and its time of writing as they are.
    AND (known.window_end, known.polarity, known.volume_ratio, known.credibility, known.social_sentiment_score,
         known.directional_score, known.post_count, known.unique_authors, known.platform_breakdown,
         known.viral_spike, known.spike_ratio, known.baseline_ready, known.insufficient_data, known.revision)
    IS DISTINCT FROM
        (EXCLUDED.window_end, EXCLUDED.polarity, EXCLUDED.volume_ratio, EXCLUDED.credibility,
         EXCLUDED.social_sentiment_score, EXCLUDED.directional_score, EXCLUDED.post_count, EXCLUDED.unique_authors,
         EXCLUDED.platform_breakdown, EXCLUDED.viral_spike, EXCLUDED.spike_ratio, EXCLUDED.baseline_ready,
         EXCLUDED.insufficient_data, EXCLUDED.revision)
"""

_SPIKE_COLUMNS = """
INSERT INTO social_viral_spikes AS known
    (symbol, detected_at, spike_ratio, mention_count, baseline_rate, dominant_platform, platform_breakdown,
     sample_posts, resolved_at, detection_written)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""

# The first detection stays: later ones would bring text back that has been purged.
_UPSERT_DETECTION = f"""{_SPIKE_COLUMNS}
ON CONFLICT (symbol, detected_at) DO UPDATE SET
    spike_ratio = EXCLUDED.spike_ratio, mention_count = EXCLUDED.mention_count,
    baseline_rate = EXCLUDED.baseline_rate, dominant_platform = EXCLUDED.dominant_platform,
    platform_breakdown = EXCLUDED.platform_breakdown, sample_posts = EXCLUDED.sample_posts, detection_written = TRUE
WHERE NOT known.detection_written
"""

# The last end stays: late posts prolong a spike and never shorten it.
_UPSERT_END = f"""{_SPIKE_COLUMNS}
ON CONFLICT (symbol, detected_at) DO UPDATE SET resolved_at = EXCLUDED.resolved_at
WHERE known.resolved_at IS NULL OR known.resolved_at < EXCLUDED.resolved_at
"""

_LATEST = """
SELECT newest.* FROM unnest($1::text[]) AS wanted (symbol) CROSS JOIN LATERAL (
    SELECT * FROM social_sentiment_scores AS known
    WHERE known.symbol = wanted.symbol ORDER BY known.window_end DESC LIMIT 1
) AS newest
"""

_COUNTS = """
SELECT symbol, window_end, post_count FROM social_sentiment_scores
WHERE symbol = ANY($1::text[]) AND window_end > $2 AND window_end <= $3 ORDER BY window_end, symbol
"""

_HISTORY = """
SELECT * FROM social_sentiment_scores
WHERE symbol = $1 AND window_end <= $2 AND (window_end, window_start) > ($3, $4)
ORDER BY window_end, window_start LIMIT $5
"""

_SPIKES = """
SELECT * FROM social_viral_spikes
WHERE symbol = ANY($1::text[]) AND detected_at >= $2 AND (detected_at, symbol) < ($3, $4::text)
ORDER BY detected_at DESC, symbol DESC LIMIT $5
"""

_AUTHORS = """
SELECT author_id, credibility_score, is_known_bot, last_updated, multiplier, rule, evidence, last_seen,
    known_bot_since, cleared_at
FROM social_author_credibility WHERE author_id = ANY($1::text[])
"""


async def open_pool(dsn: SecretStr) -> asyncpg.Pool[Any]:
    """Return a pool that connects when it is first used; where that fails, its user gets StorageUnavailableError."""
    return await asyncpg.create_pool(
        dsn.get_secret_value(),
        min_size=0,
        max_size=8,
        timeout=10,
        command_timeout=TIMEOUT_SECONDS,
        connect=_new_connection,
    )


async def _new_connection(*arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(*arguments, **options)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        # From None: such an error may quote the dsn.
        raise StorageUnavailableError(
            f"PostgreSQL cannot be used ({type(error).__name__}): check storage.postgresql.dsn and that the server runs"
        ) from None
    return connection


async def connect(dsn: SecretStr) -> asyncpg.Pool[Any]:
    """Return a pool on a database whose schema is up to date. Raises StorageUnavailableError."""
    pool = await open_pool(dsn)
    try:
        await migrate(pool)
    except BaseException:
        await pool.close()
        raise
    return pool


async def migrate(pool: asyncpg.Pool[Any]) -> list[str]:
    """Apply the migrations that this database lacks, each once, in order; return their names."""
    folder = resources.files("sentimesh.storage") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda file: file.name)
    applied = []
    async with available(), pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS social_schema_migrations "
            "(name TEXT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW())"
        )
        known = {row["name"] for row in await connection.fetch("SELECT name FROM social_schema_migrations")}
        for file in files:
            if file.name not in known:
                await connection.execute(file.read_text(encoding="utf-8"))
                await connection.execute("INSERT INTO social_schema_migrations (name) VALUES ($1)", file.name)
                applied.append(file.name)
    return applied


class AggregateStore:
    """Windows and spikes. Every write may be repeated.

    Every method raises StorageUnavailableError, and a write StorageRefusedError when a row can never be stored;
    nothing of that call is stored then.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def write_windows(self, aggregates: Iterable[SentimentAggregate]) -> None:
        """Write closed windows, one row a (symbol, window_start); an older revision never replaces a newer one."""
        await self._write(_UPSERT_WINDOW, [_window_row(aggregate) for aggregate in aggregates])

    async def write_spikes(self, spikes: Iterable[ViralSpike]) -> None:
        """Write spikes as detected (``resolved_at_ms`` 0) and as over, one row a (symbol, detected_at).

        The order does not matter: the row says what the first detection said and ends with the last end.
        """
        detections: list[tuple[Any, ...]] = []
        ends: list[tuple[Any, ...]] = []
        for spike in spikes:
            (ends if spike.resolved_at_ms else detections).append(_spike_row(spike))
        if detections or ends:
            async with available(), self._pool.acquire() as connection, connection.transaction():
                await connection.executemany(_UPSERT_DETECTION, detections)
                await connection.executemany(_UPSERT_END, ends)

    async def latest(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        """Return the newest closed window of each symbol, None where there is none."""
        async with available():
            rows = await self._pool.fetch(_LATEST, list(symbols))
        found = {row["symbol"]: _aggregate(row) for row in rows}
        return [found.get(symbol) for symbol in symbols]

    async def window_counts(self, symbols: Sequence[str], since_ms: int, until_ms: int) -> list[tuple[str, int, int]]:
        """Return (symbol, window_end_ms, post_count) of windows that end after ``since_ms``, up to ``until_ms``."""
        async with available():
            rows = await self._pool.fetch(_COUNTS, list(symbols), utc(since_ms), utc(until_ms))
        return [(row["symbol"], milliseconds(row["window_end"]), row["post_count"]) for row in rows]

    async def history(
        self, symbol: str, start_ms: int, end_ms: int, limit: int, after: tuple[int, int] | None = None
    ) -> list[SentimentAggregate]:
        """Return the first ``limit`` closed windows that end after ``start_ms``, up to ``end_ms``, oldest first.

        ``after``: end and start of the last window of the page before, epoch milliseconds.
        """
        last_end, last_start = after or (start_ms, start_ms)
        async with available():
            rows = await self._pool.fetch(_HISTORY, symbol, utc(end_ms), utc(last_end), utc(last_start), limit)
        return [_aggregate(row) for row in rows]

    async def spikes(
        self, symbols: Sequence[str], start_ms: int, end_ms: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[ViralSpike]:
        """Return the newest ``limit`` spikes detected from ``start_ms`` to before ``end_ms``, newest first.

        ``after``: time of detection and symbol of the last spike of the page before.
        """
        # No symbol comes before the empty one.
        last_ms, last_symbol = after or (end_ms, "")
        async with available():
            rows = await self._pool.fetch(_SPIKES, list(symbols), utc(start_ms), utc(last_ms), last_symbol, limit)
        return [_spike(row) for row in rows]

    async def authors(self, names: Sequence[str]) -> list[AuthorCredibility | None]:
        """Return what is known of each author ``{platform}:{author_id}``, None where that is nothing."""
        async with available():
            rows = await self._pool.fetch(_AUTHORS, list(names))
        found = {row["author_id"]: _author(row) for row in rows}
        return [found.get(name) for name in names]

    async def count_windows(self) -> int:
        """Return how many windows are stored."""
        async with available():
            count: int = await self._pool.fetchval("SELECT count(*) FROM social_sentiment_scores")
        return count

    async def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            async with available():
                await self._pool.executemany(statement, rows)


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Turn errors of asyncpg into StorageUnavailableError or StorageRefusedError."""
    try:
        yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise StorageRefusedError(
            f"PostgreSQL refuses a row ({type(error).__name__}): the message it comes from does not keep its contract"
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StorageUnavailableError(
            f"PostgreSQL does not do its work ({type(error).__name__}): check the server of storage.postgresql.dsn"
        ) from error


def utc(milliseconds: int) -> dt.datetime:
    """Return epoch milliseconds as PostgreSQL wants them."""
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)


def milliseconds(time: dt.datetime | None) -> int:
    """Return a time of PostgreSQL as epoch milliseconds, 0 for none."""
    return round(time.timestamp() * 1000) if time is not None else 0


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _window_row(a: SentimentAggregate) -> tuple[Any, ...]:
    return (
        a.symbol,
        utc(a.window_start_ms),
        utc(a.window_end_ms),
        a.polarity,
        a.volume_ratio,
        a.credibility,
        a.social_sentiment_score,
        a.directional_score,
        a.post_count,
        a.unique_authors,
        _json(dict(a.platform_breakdown)),
        a.viral_spike,
        a.spike_ratio if a.viral_spike else None,
        a.baseline_ready,
        a.insufficient_data,
        a.revision,
        utc(a.updated_at_ms),
    )


def _aggregate(row: asyncpg.Record) -> SentimentAggregate:
    same = (
        *("symbol", "polarity", "volume_ratio", "credibility", "social_sentiment_score", "directional_score"),
        *("post_count", "unique_authors", "viral_spike", "baseline_ready", "insufficient_data", "revision"),
    )
    return SentimentAggregate(
        **{name: row[name] for name in same},
        window_start_ms=milliseconds(row["window_start"]),
        window_end_ms=milliseconds(row["window_end"]),
        platform_breakdown=orjson.loads(row["platform_breakdown"]),
        spike_ratio=row["spike_ratio"] or 0.0,
        updated_at_ms=milliseconds(row["updated_at"]),
    )


def _spike_row(s: ViralSpike) -> tuple[Any, ...]:
    return (
        s.symbol,
        utc(s.detected_at_ms),
        s.spike_ratio,
        s.mention_count,
        s.baseline_rate,
        s.dominant_platform,
        _json(dict(s.platform_breakdown)),
        _json([_sample(post) for post in s.sample_posts]),
        utc(s.resolved_at_ms) if s.resolved_at_ms else None,
        not s.resolved_at_ms,
    )


def _sample(post: SamplePost) -> dict[str, Any]:
    # Not proto3 JSON: times are numbers there to whoever asks the table.
    counts = ("likes", "reposts", "replies", "views")
    return {
        "post_id": post.post_id,
        "platform": post.platform,
        "text": post.text,
        "source_url": post.source_url,
        "engagement": {name: getattr(post.engagement, name) for name in counts},
        "engagement_weight": post.engagement_weight,
        "polarity": post.polarity,
        "timestamp_ms": post.timestamp_ms,
    }


def _spike(row: asyncpg.Record) -> ViralSpike:
    posts = orjson.loads(row["sample_posts"] or b"[]")
    return ViralSpike(
        symbol=row["symbol"],
        spike_ratio=row["spike_ratio"],
        mention_count=row["mention_count"],
        baseline_rate=row["baseline_rate"],
        detected_at_ms=milliseconds(row["detected_at"]),
        dominant_platform=row["dominant_platform"] or "",
        platform_breakdown=orjson.loads(row["platform_breakdown"]),
        sample_posts=[json_format.ParseDict(post, SamplePost(), ignore_unknown_fields=True) for post in posts],
        resolved_at_ms=milliseconds(row["resolved_at"]),
    )


def _author(row: asyncpg.Record) -> AuthorCredibility:
    same = ("credibility_score", "is_known_bot", "multiplier", "rule")
    evidence = orjson.loads(row["evidence"]) if row["evidence"] is not None else None
    return AuthorCredibility(
        **{name: row[name] for name in same},
        author=row["author_id"],
        last_updated_ms=milliseconds(row["last_updated"]),
        last_seen_ms=milliseconds(row["last_seen"]),
        known_bot_since_ms=milliseconds(row["known_bot_since"]),
        cleared_ms=milliseconds(row["cleared_at"]),
        evidence=evidence and AuthorEvidence(**(evidence | {"fingerprint": int(evidence["fingerprint"], 16)})),
    )
