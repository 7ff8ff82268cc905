"""What Redis holds for readers: ``social:sentiment:{symbol}`` and its companions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson
import redis.asyncio
import redis.exceptions
from google.protobuf import json_format

from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate

# KEYS[1]: the cooldown key; ARGV: time of the alert, cooldown in milliseconds. By the alerts' own times, so that a
# replay at any speed alerts the same; the key's time to live only bounds memory.
_CLAIM_ALERT = """
local last = tonumber(redis.call('GET', KEYS[1]))
local this, cooldown = tonumber(ARGV[1]), tonumber(ARGV[2])
if last and last ~= this and math.abs(this - last) < cooldown then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', cooldown)
return 1
"""


class SentimentCache:
    """Aggregates as proto3 JSON with the original field names.

    Keys: ``social:sentiment:{symbol}`` the live score, ``social:window:{symbol}`` the last closed window,
    ``social:volume_baseline:{symbol}`` the mean of posts a window, ``social:viral_cooldown:{symbol}`` the time of the
    last alert. Every method raises StorageUnavailableError.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        key_prefix: str = "social:",
        score_ttl_seconds: int = 600,
        baseline_ttl_seconds: int = 691_200,
        cooldown_seconds: int = 300,
    ) -> None:
        """The times to live are the specification's: ten minutes for scores, eight days for baselines, five minutes
        between alerts.
        """
        self._client = client
        self._prefix = key_prefix
        self._score_ttl = score_ttl_seconds
        self._baseline_ttl = baseline_ttl_seconds
        self._cooldown_ms = cooldown_seconds * 1000
        self._claim_alert = client.register_script(_CLAIM_ALERT)

    async def put_live(self, aggregates: Iterable[SentimentAggregate]) -> None:
        """Store live scores in one round trip."""
        await self._put("sentiment", {a.symbol: _json(a) for a in aggregates}, self._score_ttl)

    async def put_windows(self, aggregates: Iterable[SentimentAggregate]) -> None:
        """Store closed windows, the newest of each symbol, in one round trip."""
        await self._put("window", {a.symbol: _json(a) for a in aggregates}, self._score_ttl)

    async def put_baselines(self, means: Mapping[str, float]) -> None:
        """Store each symbol's mean of posts a window."""
        values = {symbol: orjson.dumps({"avg_5min_count": mean}) for symbol, mean in means.items()}
        await self._put("volume_baseline", values, self._baseline_ttl)

    async def claim_alert(self, symbol: str, detected_at_ms: int) -> bool:
        """Say whether nobody has alerted the symbol within the cooldown; who is told yes has.

        Asking again with the same time gives yes again.
        """
        if not self._cooldown_ms:
            return True
        key = f"{self._prefix}viral_cooldown:{symbol}"
        try:
            return bool(await self._claim_alert(keys=[key], args=[detected_at_ms, self._cooldown_ms]))
        except (redis.exceptions.RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def get(self, symbols: Sequence[str]) -> list[SentimentAggregate | None]:
        """Return the live score of each symbol, None where there is none."""
        if not symbols:
            return []
        try:
            values = await self._client.mget([f"{self._prefix}sentiment:{symbol}" for symbol in symbols])
        except (redis.exceptions.RedisError, OSError) as error:
            raise _unavailable(error) from error
        return [self._parse(symbol, value) for symbol, value in zip(symbols, values, strict=True)]

    async def _put(self, kind: str, values: Mapping[str, bytes], ttl_seconds: int) -> None:
        if not values:
            return
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for symbol, value in values.items():
                    pipeline.set(f"{self._prefix}{kind}:{symbol}", value, ex=ttl_seconds)
                await pipeline.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            raise _unavailable(error) from error

    def _parse(self, symbol: str, value: bytes | str | None) -> SentimentAggregate | None:
        if value is None:
            return None
        reason: object = "it is of another symbol"
        try:
            aggregate = json_format.Parse(value, SentimentAggregate(), ignore_unknown_fields=True)
            if aggregate.symbol == symbol:
                return aggregate
        except (json_format.ParseError, UnicodeDecodeError) as error:
            reason = error
        raise StorageUnavailableError(
            f"the cached sentiment of {symbol} in Redis is not readable ({reason}): "
            f"delete the keys {self._prefix}sentiment:*"
        )


def _json(aggregate: SentimentAggregate) -> bytes:
    return json_format.MessageToJson(
        aggregate, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    ).encode()


def _unavailable(error: Exception) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"Redis does not answer ({type(error).__name__}): check that the server of storage.redis.url runs"
    )
