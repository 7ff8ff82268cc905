"""The table ``social_author_credibility``: what was learned of authors, and what somebody said of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from itertools import islice
from typing import Any

import asyncpg
import orjson

from sentimesh.author_history import AuthorRecord, Evidence
from sentimesh.storage.postgres import available, migrate, milliseconds, utc

ROWS_AT_ONCE = 10_000

_COLUMNS = (
    *("author_id", "platform", "credibility_score", "is_known_bot", "last_updated", "multiplier", "rule", "evidence"),
    *("last_seen", "known_bot_since", "cleared_at", "texts"),
)
_NAMES = ", ".join(_COLUMNS)
_SELECT = f"SELECT {_NAMES} FROM social_author_credibility"  # noqa: S608 (our columns)
_NEW_TABLE = "CREATE TEMP TABLE learned_authors (LIKE social_author_credibility) ON COMMIT DROP"

# Who was cleared while this was learned stays as he was left.
_UPSERT = f"""
INSERT INTO social_author_credibility AS known ({_NAMES}) SELECT {_NAMES} FROM learned_authors
ON CONFLICT (author_id) DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in _COLUMNS[1:])}
WHERE known.cleared_at IS NOT DISTINCT FROM EXCLUDED.cleared_at
"""  # noqa: S608 (our columns)

# Rows that others wrote are theirs.
_FORGET = """
DELETE FROM social_author_credibility
WHERE last_seen <= $1 AND (cleared_at IS NULL OR cleared_at <= $1) AND evidence IS NOT NULL
"""

_REMEMBERED = f"{_SELECT} WHERE is_known_bot OR multiplier < 1.0 OR cleared_at IS NOT NULL OR texts IS NOT NULL"

_CLEAR = """
UPDATE social_author_credibility SET
    is_known_bot = FALSE, multiplier = 1.0, rule = '', known_bot_since = NULL, texts = NULL, cleared_at = $2,
    credibility_score = COALESCE((evidence ->> 'population_credibility')::float, credibility_score)
WHERE author_id = $1
"""


class AuthorStore:
    """Every method raises StorageUnavailableError; a write that fails has changed nothing."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    @property
    def pool(self) -> asyncpg.Pool[Any]:
        """The pool it was given."""
        return self._pool

    async def prepare(self) -> None:
        """Bring the table up to date."""
        async with available():
            await migrate(self._pool)

    async def remembered(self) -> dict[str, AuthorRecord]:
        """Return those whose next record depends on what is known of them."""
        found: dict[str, AuthorRecord] = {}
        async with available(), self._pool.acquire() as connection, connection.transaction():
            async for row in connection.cursor(_REMEMBERED, prefetch=ROWS_AT_ONCE):
                found[row["author_id"]] = _record(row)
        return found

    async def write(self, records: Sequence[AuthorRecord], *, forget_ms: int) -> int:
        """Write what was learned in one transaction; return how many are forgotten.

        ``forget_ms``: who was last seen then or before is, if a record of this job is all there is of him.
        """
        rows = iter(records)
        async with available(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_NEW_TABLE)
            while part := [_row(record) for record in islice(rows, ROWS_AT_ONCE)]:
                await connection.copy_records_to_table("learned_authors", records=part, columns=_COLUMNS)
                await connection.execute(_UPSERT)
                await connection.execute("TRUNCATE learned_authors")
            forgotten = await connection.execute(_FORGET, utc(forget_ms))
        return int(forgotten.rpartition(" ")[2])

    async def held_against(self) -> dict[str, float]:
        """Return the multipliers under 1.0 by author."""
        async with available():
            rows = await self._pool.fetch(
                "SELECT author_id, multiplier FROM social_author_credibility WHERE multiplier < 1.0"
            )
        return {row["author_id"]: row["multiplier"] for row in rows}

    async def get(self, author: str) -> AuthorRecord | None:
        """Return what is known of an author, None where that is nothing."""
        async with available():
            row = await self._pool.fetchrow(f"{_SELECT} WHERE author_id = $1", author)
        return None if row is None else _record(row)

    async def least_credible(self, limit: int, *, bots_only: bool = False) -> list[AuthorRecord]:
        """Return known bots, then the others from the least credible on."""
        async with available():
            rows = await self._pool.fetch(
                f"{_SELECT} WHERE is_known_bot OR NOT $1 "
                "ORDER BY is_known_bot DESC, credibility_score, author_id LIMIT $2",
                bots_only,
                limit,
            )
        return [_record(row) for row in rows]

    async def clear(self, author: str, now_ms: int) -> bool:
        """Note that an author is no bot and that its posts until now do not count; return whether it is known."""
        async with available():
            changed: str = await self._pool.execute(_CLEAR, author, utc(now_ms))
        return changed != "UPDATE 0"

    async def cleared_since(self, since_ms: int) -> list[str]:
        """Return the authors that were cleared then or later."""
        async with available():
            rows = await self._pool.fetch(
                "SELECT author_id FROM social_author_credibility WHERE cleared_at >= $1", utc(since_ms)
            )
        return [row["author_id"] for row in rows]


def _row(record: AuthorRecord) -> tuple[Any, ...]:
    evidence = record.evidence
    return (
        record.author,
        record.platform,
        record.credibility,
        record.is_known_bot,
        utc(record.learned_ms),
        record.multiplier,
        record.rule,
        None if evidence is None else orjson.dumps(_shown(evidence)).decode(),
        _time(record.last_seen_ms),
        _time(record.bot_since_ms),
        _time(record.cleared_ms),
        record.texts or None,
    )


def _shown(evidence: Evidence) -> dict[str, Any]:
    # 64 bits are more than a JSON number surely holds.
    return dataclasses.asdict(evidence) | {"fingerprint": f"{evidence.fingerprint:016x}"}


def _record(row: asyncpg.Record) -> AuthorRecord:
    return AuthorRecord(
        author=row["author_id"],
        credibility=row["credibility_score"],
        multiplier=row["multiplier"],
        is_known_bot=row["is_known_bot"],
        rule=row["rule"],
        evidence=evidence_of(row["evidence"]),
        last_seen_ms=milliseconds(row["last_seen"]),
        learned_ms=milliseconds(row["last_updated"]),
        bot_since_ms=milliseconds(row["known_bot_since"]),
        cleared_ms=milliseconds(row["cleared_at"]),
        texts=row["texts"] or b"",
    )


def evidence_of(column: str | None) -> Evidence | None:
    """Return the evidence that a row keeps."""
    if column is None:
        return None
    values = orjson.loads(column)
    return Evidence(**(values | {"fingerprint": int(values["fingerprint"], 16)}))


def _time(milliseconds: int) -> dt.datetime | None:
    return utc(milliseconds) if milliseconds else None
