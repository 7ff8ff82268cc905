"""The time series on InfluxDB 2, in the specification's measurements, a bucket for each retention."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import influxdb_client
import orjson
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from pydantic import SecretStr

from sentimesh.errors import StorageRefusedError, StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import ViralSpike
from sentimesh.pb.social_sentiment_pb2 import ScoredPost, SentimentAggregate
from sentimesh.settings import InfluxDB
from sentimesh.symbols import SYMBOL_PATTERN, validate_symbol

_api: Any = influxdb_client  # it has no annotations
Item = TypeVar("Item")
TIMEOUT_SECONDS = 10.0
# Few enough that making their lines (some 50 µs a point) does not hold up the event loop.
POINTS_A_REQUEST = 1_000
# InfluxDB hands comparisons joined by `or` down to its index, but not `contains`, and parses only so many of them.
SYMBOLS_A_QUERY = 20
DAY_SECONDS = 86_400
NANOSECONDS = 1_000_000  # in a millisecond
EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
# What InfluxDB itself says of points, not of its own state: malformed, of another type than before, too many bytes.
REFUSALS = ("invalid", "unprocessable entity", "request too large")
_EXPIRED = re.compile(r"dropped (\d+) points outside retention policy")

# Bound parameters: bucket, start, stop, and symbol0, symbol1 … InfluxDB's ranges hold their start and not their stop.
_COUNTS = """
from(bucket: bucket)
  |> range(start: start, stop: stop)
  |> filter(fn: (r) => r._measurement == "sentiment_aggregate" and r._field == "post_count")
  |> filter(fn: (r) => {any_symbol})
  |> keep(columns: ["symbol", "_time", "_value"])
"""


class _NoBucketError(StorageUnavailableError):
    """The server works, and has no bucket of that name."""


class InfluxStore:
    """Points in three buckets: ``{bucket}`` for windows, ``{bucket}_posts``, ``{bucket}_spikes`` (SPEC-NOTES 9).

    A point is known by its measurement, tags and time, so a write may be repeated. Points older than their bucket's
    retention are left out by InfluxDB: every write returns how many. Every method raises StorageUnavailableError, and
    a write StorageRefusedError when a point can never be stored; others of that call may be stored then.
    """

    def __init__(
        self,
        url: SecretStr,
        token: SecretStr,
        *,
        org: str = "sentimesh",
        bucket: str = "social_sentiment",
        scored_posts_retention_days: int = 7,
        aggregate_retention_days: int = 90,
        viral_spike_retention_days: int = 365,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Make it inside a running event loop; nothing is sent yet. ``timeout_seconds``: for a whole request."""
        self._client: Any = InfluxDBClientAsync(
            url.get_secret_value(),
            token=token.get_secret_value(),
            org=org,
            timeout=timeout_seconds * 1000,
            # A redirected write would become a read, and look as if it had been stored.
            allow_redirects=False,
        )
        self._org = org
        self._windows, self._posts, self._spikes = bucket, f"{bucket}_posts", f"{bucket}_spikes"
        self._retention_days = {
            self._windows: aggregate_retention_days,
            self._posts: scored_posts_retention_days,
            self._spikes: viral_spike_retention_days,
        }

    @classmethod
    def configured(cls, section: InfluxDB) -> InfluxStore | None:
        """Return the store of ``storage.influxdb``, None where no url is set."""
        if section.url is None or section.token is None:
            return None
        options = section.model_dump(exclude={"url", "token"})
        return cls(section.url, section.token, **options)

    async def ping(self) -> None:
        """Return if the server answers, knows the organisation and accepts the token."""
        await self._bucket(self._windows)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ensure_buckets(self) -> None:
        """Make the buckets that are missing and bring the retention of the others to what is configured."""
        buckets = _api.BucketsService(self._client.api_client)
        for name, days in self._retention_days.items():
            bucket = await self._bucket(name) or await self._make_bucket(name, days)
            if bucket is not None and [rule.every_seconds for rule in bucket.retention_rules] != [days * DAY_SECONDS]:
                async with _answers():
                    change = _api.PatchBucketRequest(retention_rules=_retention(days))
                    await buckets.patch_buckets_id_async(bucket.id, change)

    async def write_windows(self, aggregates: Sequence[SentimentAggregate]) -> int:
        """Write closed windows, the last of each as it stands; live scores are left out. Returns how many expired."""
        latest = {(a.symbol, a.window_end_ms): a for a in aggregates if not a.live}
        return await self._write(self._windows, window_line, list(latest.values()))

    async def write_scored(self, posts: Sequence[ScoredPost]) -> int:
        """Write scored posts; returns how many expired."""
        return await self._write(self._posts, scored_line, posts)

    async def write_spikes(self, spikes: Sequence[ViralSpike]) -> int:
        """Write spikes; returns how many expired."""
        return await self._write(self._spikes, spike_line, spikes)

    async def window_counts(self, symbols: Sequence[str], since_ms: int, until_ms: int) -> list[tuple[str, int, int]]:
        """Return (symbol, window_end_ms, post_count) of windows that end after ``since_ms``, up to ``until_ms``.

        By end, then symbol. Raises InvalidSymbolError.
        """
        wanted = list(dict.fromkeys(validate_symbol(symbol) for symbol in symbols))
        if since_ms >= until_ms:
            return []
        millisecond = dt.timedelta(milliseconds=1)
        span = {"start": EPOCH + millisecond * (since_ms + 1), "stop": EPOCH + millisecond * (until_ms + 1)}
        counts: list[tuple[str, int, int]] = []
        for first in range(0, len(wanted), SYMBOLS_A_QUERY):
            names = {f"symbol{index}": symbol for index, symbol in enumerate(wanted[first : first + SYMBOLS_A_QUERY])}
            query = _COUNTS.format(any_symbol=" or ".join(f"r.symbol == {name}" for name in names))
            async with _answers():
                text = await self._client.query_api().query_raw(
                    query, params={"bucket": self._windows, **span, **names}
                )
            counts += [(row["symbol"], _milliseconds(row["_time"]), int(row["_value"])) for row in _rows(text)]
        return sorted(counts, key=lambda count: (count[1], count[0]))

    async def _bucket(self, name: str) -> Any:
        buckets = _api.BucketsService(self._client.api_client)
        try:
            async with _answers():
                found = await buckets.get_buckets_async(org=self._org, name=name)
        except _NoBucketError:
            return None
        return next(iter(found.buckets), None)

    async def _make_bucket(self, name: str, days: int) -> Any:
        buckets = _api.BucketsService(self._client.api_client)
        async with _answers():
            found = await _api.OrganizationsService(self._client.api_client).get_orgs_async(org=self._org)
        if not found.orgs:
            raise StorageUnavailableError(
                f"InfluxDB has no bucket {name}, and the token of storage.influxdb may not make one in {self._org}: "
                "make the bucket, or give a token that may"
            )
        try:
            async with _answers(refusals=("conflict",)):
                request = _api.PostBucketRequest(org_id=found.orgs[0].id, name=name, retention_rules=_retention(days))
                return await buckets.post_buckets_async(request)
        except StorageRefusedError:
            # Another was faster.
            return await self._bucket(name)

    async def _write(self, bucket: str, line: Callable[[Item], str], items: Sequence[Item]) -> int:
        expired = 0
        for first in range(0, len(items), POINTS_A_REQUEST):
            lines = [line(item) for item in items[first : first + POINTS_A_REQUEST]]
            try:
                async with _answers(refusals=REFUSALS):
                    await self._client.write_api().write(bucket, record=lines)
            except StorageRefusedError as error:
                # InfluxDB says so after it has stored the others.
                found = _EXPIRED.search(str(error))
                if found is None:
                    raise
                expired += int(found.group(1))
        return expired


def window_line(aggregate: SentimentAggregate) -> str:
    """Return a closed window as a point at its end, a line of InfluxDB's protocol. Raises StorageRefusedError."""
    fields = {
        "polarity": aggregate.polarity,
        "volume_ratio": aggregate.volume_ratio,
        "credibility": aggregate.credibility,
        "social_sentiment_score": aggregate.social_sentiment_score,
        "directional_score": aggregate.directional_score,
        "post_count": aggregate.post_count,
        "unique_authors": aggregate.unique_authors,
        "viral_spike": aggregate.viral_spike,
        "baseline_ready": aggregate.baseline_ready,
        "insufficient_data": aggregate.insufficient_data,
        "revision": aggregate.revision,
        "window_start_ms": aggregate.window_start_ms,
    }
    return _line("sentiment_aggregate", {"symbol": aggregate.symbol}, fields, aggregate.window_end_ms * NANOSECONDS)


def scored_line(scored: ScoredPost) -> str:
    """Return a scored post as a line of InfluxDB's protocol, no text or author in it. Raises StorageRefusedError.

    Posts of one symbol, platform and model that have the same time would be the same point, so what the platform does
    not say of the time (below a millisecond; below a second where it counts in seconds, as X, Reddit and Telegram do)
    is filled from the post's id: always the same for a post, and never past the next whole second.
    """
    post = scored.post
    unknown = NANOSECONDS if post.timestamp_ms % 1000 else 1000 * NANOSECONDS
    digest = hashlib.blake2b(post.post_id.encode(), digest_size=8).digest()
    tags = {"symbol": post.symbol, "platform": post.platform, "model_version": scored.model_version}
    fields = {
        "polarity": scored.polarity,
        "confidence": scored.confidence,
        "credibility_score": scored.credibility_score,
        "engagement_weight": scored.engagement_weight,
    }
    return _line("scored_posts", tags, fields, post.timestamp_ms * NANOSECONDS + int.from_bytes(digest) % unknown)


def spike_line(spike: ViralSpike) -> str:
    """Return a spike as a point at its detection, a line of InfluxDB's protocol. Raises StorageRefusedError."""
    fields = {
        "spike_ratio": spike.spike_ratio,
        "mention_count": spike.mention_count,
        "baseline_rate": spike.baseline_rate,
    }
    return _line("viral_spikes", {"symbol": spike.symbol}, fields, spike.detected_at_ms * NANOSECONDS)


def _line(measurement: str, tags: Mapping[str, str], fields: Mapping[str, float], time_ns: int) -> str:
    # The client leaves out what it cannot write: a point without a symbol, or without a field, is not the same point.
    if not SYMBOL_PATTERN.fullmatch(tags["symbol"]) or not all(math.isfinite(value) for value in fields.values()):
        raise StorageRefusedError(
            f"InfluxDB cannot hold a point of {measurement} whose symbol is none or whose numbers are not finite: "
            "the message it comes from does not keep its contract"
        )
    point = _api.Point(measurement).time(time_ns)
    for key, tag in tags.items():
        point.tag(key, tag)
    for key, value in fields.items():
        point.field(key, value)
    return str(point.to_line_protocol())


def _retention(days: int) -> Any:
    return [_api.BucketRetentionRules(type="expire", every_seconds=days * DAY_SECONDS)]


def _rows(text: str) -> Iterator[dict[str, str]]:
    """Return the rows of a query's answer: tables of CSV, blank lines and annotations between them."""
    header: list[str] | None = None
    for cells in csv.reader(text.splitlines()):
        if not cells or cells[0].startswith("#"):
            header = None
        elif header is None:
            header = cells
            if "error" in header and "reference" in header:
                raise StorageUnavailableError("InfluxDB gave up in the middle of a query: see its log, and try again")
        else:
            yield dict(zip(header, cells, strict=True))


def _milliseconds(time: str) -> int:
    return (dt.datetime.fromisoformat(time) - EPOCH) // dt.timedelta(milliseconds=1)


@asynccontextmanager
async def _answers(refusals: Sequence[str] = ()) -> AsyncIterator[None]:
    """Turn the client's errors into StorageUnavailableError, answers with one of these codes into StorageRefusedError.

    Without their causes: those quote the request, and the answer with all its headers.
    """
    try:
        yield
    except InfluxDBError as error:
        code, message = _said(getattr(error, "body", None))
        status = getattr(error, "status", None)
        answer = f"HTTP {status}" + (f", {message}" if message else "")
        if code in refusals:
            raise StorageRefusedError(f"InfluxDB refuses what it is sent ({answer})") from None
        kind = _NoBucketError if code == "not found" and message.startswith("bucket") else StorageUnavailableError
        raise kind(
            f"InfluxDB does not do its work ({answer}): check url, org and token of storage.influxdb, and the server"
        ) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise StorageUnavailableError(
            f"InfluxDB does not answer ({type(error).__name__}): check that the server of storage.influxdb.url runs"
        ) from None


def _said(body: bytes | None) -> tuple[str, str]:
    """Return code and message of InfluxDB's own answer; an answer of another server's has neither."""
    try:
        answer = orjson.loads(body or b"")
        return str(answer["code"]), " ".join(str(answer["message"]).split())[:300]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "", ""
