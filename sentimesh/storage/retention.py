"""Empties post texts in PostgreSQL before they are seven days old (specification: raw text at most seven days)."""

from __future__ import annotations

from typing import Any

import asyncpg

from sentimesh.storage.postgres import available, utc

TEXT_KEPT_MS = 7 * 86_400_000
# The purge runs hourly: what turns seven days old before the run after the next is due now, so that one run may fail.
PURGE_AHEAD_MS = 2 * 3_600_000
BATCH = 100

# Its condition on sample_posts is that of the index idx_viral_text. Ids, links and engagement stay.
_EMPTY_TEXTS = """
WITH due AS (
    SELECT id, jsonb_array_length(jsonb_path_query_array(sample_posts, '$[*] ? (@.text != "")')) AS texts
    FROM social_viral_spikes
    WHERE detected_at <= $1 AND jsonb_path_exists(sample_posts, '$[*] ? (@.text != "")')
    ORDER BY detected_at LIMIT $2
    -- What another process is at is its business.
    FOR UPDATE SKIP LOCKED
)
UPDATE social_viral_spikes AS spike SET sample_posts = (
    SELECT jsonb_agg(post || '{"text": ""}' ORDER BY number)
    FROM jsonb_array_elements(spike.sample_posts) WITH ORDINALITY AS posts (post, number)
)
FROM due WHERE spike.id = due.id RETURNING due.texts
"""


async def purge_expired(pool: asyncpg.Pool[Any], now_ms: int) -> int:
    """Empty the texts of ``sample_posts`` that are about to be seven days old; return how many.

    To be called hourly; safe to repeat and to run from several processes. ``now_ms``: epoch milliseconds.
    Raises StorageUnavailableError; what is left then is done next time.
    """
    due = utc(now_ms - TEXT_KEPT_MS + PURGE_AHEAD_MS)
    emptied = 0
    while True:
        # A transaction a batch: nobody waits long for a row.
        async with available():
            rows = await pool.fetch(_EMPTY_TEXTS, due, BATCH)
        if not rows:
            return emptied
        emptied += sum(row["texts"] for row in rows)
