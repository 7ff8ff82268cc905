"""Who came first: the post that stands for an original, and for a text across platforms."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import redis.asyncio as redis
from redis.exceptions import RedisError

from sentimesh.errors import StorageUnavailableError

DEFAULT_POST_AGE_MS = 7 * 86_400_000
DEFAULT_COPY_AGE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Owner:
    """The message that holds a claim: its number in the raw stream, its platform and its post's time."""

    sequence: int
    platform: str
    event_time_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """``claimant`` claims an original's id, and, if it gets it, a text (None: no text to claim)."""

    claimant: Owner
    post_id: str
    text_hash: str | None


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds what was claimed, the claimant where it was free; ``text`` is None where it was not claimed."""

    post: Owner
    text: Owner | None


class Claims(Protocol):
    """Atomic for one batch, in its order; asking again with the same claimant gives the same answer."""

    async def claim(self, requests: Sequence[Claim]) -> list[Holders]:
        """Return one answer a request. Raises StorageUnavailableError."""
        ...


class MemoryClaims:
    """Claims of one process, the ``limit`` newest of each kind."""

    def __init__(
        self,
        post_age_ms: int = DEFAULT_POST_AGE_MS,
        copy_age_ms: int = DEFAULT_COPY_AGE_MS,
        limit: int = 100_000,
    ) -> None:
        """A claim is free again for posts whose times are more than its age (event time) from the holder's."""
        self._posts: OrderedDict[str, Owner] = OrderedDict()
        self._texts: OrderedDict[str, Owner] = OrderedDict()
        self._post_age_ms = post_age_ms
        self._copy_age_ms = copy_age_ms
        self._limit = limit

    async def claim(self, requests: Sequence[Claim]) -> list[Holders]:
        """Return one answer a request."""
        answers = []
        for request in requests:
            mine, text = request.claimant, None
            post = self._take(self._posts, request.post_id, mine, self._post_age_ms)
            if post == mine and request.text_hash is not None:
                text = self._take(self._texts, request.text_hash, mine, self._copy_age_ms)
            answers.append(Holders(post, text))
        return answers

    def _take(self, held: OrderedDict[str, Owner], key: str, mine: Owner, age_ms: int) -> Owner:
        owner = held.get(key)
        if owner is None or abs(mine.event_time_ms - owner.event_time_ms) > age_ms:
            held[key] = owner = mine
            held.move_to_end(key)
            if len(held) > self._limit:
                held.popitem(last=False)
        return owner


# ARGV: for posts and for texts the age (event time) and the time to live, then five entries a request: number,
# platform, time, post id, text hash or "".
_SCRIPT = """
local function take(key, mine, time, age, ttl)
  local owner = redis.call('GET', key)
  if owner then
    local held = tonumber(string.match(owner, '(%d+)$'))
    if math.abs(tonumber(time) - held) <= tonumber(age) then return owner end
  end
  redis.call('SET', key, mine, 'PX', ttl)
  return mine
end
local out = {}
for i = 5, #ARGV, 5 do
  local mine = ARGV[i] .. '|' .. ARGV[i + 1] .. '|' .. ARGV[i + 2]
  local post = take('social:claim:post:' .. ARGV[i + 3], mine, ARGV[i + 2], ARGV[1], ARGV[2])
  local text = ''
  if post == mine and ARGV[i + 4] ~= '' then
    text = take('social:claim:text:' .. ARGV[i + 4], mine, ARGV[i + 2], ARGV[3], ARGV[4])
  end
  out[#out + 1] = post
  out[#out + 1] = text
end
return out
"""


class RedisClaims:
    """Claims that all replicas share: ``social:claim:post:{id}`` and ``social:claim:text:{hash}``.

    A claim's age is judged by event time; the keys' time to live by the server's clock only bounds memory. The
    script names its keys itself, so the server is one instance (or one shard), not a Redis Cluster.
    """

    def __init__(
        self,
        client: redis.Redis,
        post_age_ms: int = DEFAULT_POST_AGE_MS,
        copy_age_ms: int = DEFAULT_COPY_AGE_MS,
    ) -> None:
        self._script = client.register_script(_SCRIPT)
        self._settings = [post_age_ms, max(post_age_ms, 1), copy_age_ms, max(copy_age_ms, 1)]

    async def claim(self, requests: Sequence[Claim]) -> list[Holders]:
        """Return one answer a request, in one round trip. Raises StorageUnavailableError."""
        if not requests:
            return []
        arguments: list[str | int] = list(self._settings)
        for request in requests:
            mine = request.claimant
            arguments += [mine.sequence, mine.platform, mine.event_time_ms, request.post_id, request.text_hash or ""]
        try:
            values: list[bytes | str] = await self._script(args=arguments)
        except (RedisError, OSError) as error:
            message = f"Redis does not answer ({type(error).__name__}: {error}): see that it runs at the configured URL"
            raise StorageUnavailableError(message) from error
        answers = [value.decode() if isinstance(value, bytes) else value for value in values]
        return [
            Holders(_owner(post), _owner(text) if text else None)
            for post, text in zip(answers[::2], answers[1::2], strict=True)
        ]


def _owner(value: str) -> Owner:
    sequence, platform, time_ms = value.split("|")
    return Owner(int(sequence), platform, int(time_ms))
