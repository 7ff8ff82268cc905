"""The known bots in Redis: what the filter asks, what it is made of, and how one takes another's place."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import orjson
import redis.asyncio

from filter_svc.known_bots import KNOWN_BOTS_KEY
from sentimesh.bot_lists import PLATFORMS
from sentimesh.lease import LEASE_MS, answering, lease

KEPT = "the known bots"
MEMBERS_AT_ONCE = 1_000
# What a swap is: with all parts read, with all tried, with some left as they were.
REFRESHED, ATTEMPTED, UNTRIED = "refreshed", "attempted", "untried"

# Takes accounts out of a set. One listed by its id alone is a bot on every platform: cleared on one of them it stays
# listed on the others. Returns how many were there.
_CLEAR = f"""
local PLATFORMS = {{{", ".join(f"'{platform}'" for platform in PLATFORMS)}}}
local function clear(set, names)
  local found = 0
  for _, name in ipairs(names) do
    local platform, id = string.match(name, '^(%l+):(.+)$')
    local hits = redis.call('SREM', set, name)
    if not platform then
      for _, each in ipairs(PLATFORMS) do
        hits = hits + redis.call('SREM', set, each .. ':' .. name)
      end
    elseif redis.call('SREM', set, id) == 1 then
      hits = hits + 1
      for _, each in ipairs(PLATFORMS) do
        if each ~= platform then
          redis.call('SADD', set, each .. ':' .. id)
        end
      end
    end
    if hits > 0 then
      found = found + 1
    end
  end
  return found
end
local base = KEYS[1]
local manual, removed = base .. ':manual', base .. ':removed'
"""

# KEYS: the set, the accounts given. ARGV: whether those removed by hand before are left out.
_ADD = f"""{_CLEAR}
local given = KEYS[2]
if ARGV[1] == '1' then
  clear(given, redis.call('SMEMBERS', removed))
else
  redis.call('SDIFFSTORE', removed, removed, given)
end
local before = redis.call('SCARD', base)
redis.call('SUNIONSTORE', manual, manual, given)
local now = redis.call('SUNIONSTORE', base, base, given)
redis.call('UNLINK', given)
return {{now - before, now}}
"""

# KEYS: the set, the accounts given.
_REMOVE = f"""{_CLEAR}
local names = redis.call('SMEMBERS', KEYS[2])
redis.call('SUNIONSTORE', removed, removed, KEYS[2])
redis.call('UNLINK', KEYS[2])
clear(manual, names)
return {{clear(base, names), redis.call('SCARD', base)}}
"""

# KEYS: the set. ARGV: the lease's token, now, REFRESHED, ATTEMPTED or UNTRIED, then for each part its name, whether
# it was read, and what is to be said of it. Nobody sees a state in between. What was read is in the new set already:
# a union of a million accounts here would hold up everybody for seconds.
_SWAP = f"""{_CLEAR}
local token, now_ms = ARGV[1], ARGV[2]
local state, new = base .. ':state', base .. ':new:' .. token
if redis.call('GET', base .. ':lease') ~= token then
  return -1
end
if redis.call('EXISTS', state) == 0 then
  -- The first refresh finds what somebody wrote into the set himself.
  redis.call('SUNIONSTORE', manual, manual, base)
end
local names, wanted, unread = {{}}, {{}}, {{}}
for index = 4, #ARGV, 3 do
  local name = ARGV[index]
  local part, read = base .. ':part:' .. name, new .. ':' .. name
  if ARGV[index + 1] == '1' then
    redis.call('UNLINK', part)
    if redis.call('EXISTS', read) == 1 then
      redis.call('RENAME', read, part)
      redis.call('PERSIST', part)
    end
    redis.call('HSET', state, 'part:' .. name, ARGV[index + 2])
  else
    table.insert(unread, part)
  end
  wanted[name] = true
  -- One that nobody has tried yet is still to be refreshed.
  if ARGV[3] ~= '{UNTRIED}' or redis.call('HEXISTS', state, 'part:' .. name) == 1 then
    table.insert(names, name)
  end
end
for name in string.gmatch(redis.call('HGET', state, 'parts') or '', '%S+') do
  if not wanted[name] then
    redis.call('UNLINK', base .. ':part:' .. name)
    redis.call('HDEL', state, 'part:' .. name)
  end
end
if #unread > 0 then
  redis.call('SUNIONSTORE', new, new, unpack(unread))
end
clear(new, redis.call('SMEMBERS', removed))
local by_hand = redis.call('SMEMBERS', manual)
for first = 1, #by_hand, 1000 do
  redis.call('SADD', new, unpack(by_hand, first, math.min(first + 999, #by_hand)))
end
local count = redis.call('SCARD', new)
redis.call('UNLINK', base)
if count > 0 then
  redis.call('RENAME', new, base)
  redis.call('PERSIST', base)
end
redis.call('HSET', state, 'parts', table.concat(names, ' '))
if ARGV[3] ~= '{UNTRIED}' then
  redis.call('HSET', state, 'attempted_ms', now_ms)
end
if ARGV[3] == '{REFRESHED}' then
  redis.call('HSET', state, 'refreshed_ms', now_ms)
end
return count
"""

# KEYS: the set. ARGV: the part that no longer lists it, the account. Returns whether it is still a known bot, because
# another part lists it, by its id alone perhaps, or because it was added by hand.
_UNLIST = """
local base, name = KEYS[1], ARGV[2]
local id = string.match(name, '^%l+:(.+)$') or name
redis.call('SREM', base .. ':part:' .. ARGV[1], name)
local others = {base .. ':manual'}
for part in string.gmatch(redis.call('HGET', base .. ':state', 'parts') or '', '%S+') do
  table.insert(others, base .. ':part:' .. part)
end
for _, other in ipairs(others) do
  if redis.call('SISMEMBER', other, name) == 1 or redis.call('SISMEMBER', other, id) == 1 then
    return redis.call('SISMEMBER', base, name) + redis.call('SISMEMBER', base, id)
  end
end
redis.call('SREM', base, name)
return 0
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What one source listed when it was last read."""

    name: str
    source: str
    count: int
    read_ms: int


@dataclass(frozen=True, slots=True)
class State:
    """Where the refreshing stands; times are epoch milliseconds, 0 for never."""

    refreshed_ms: int = 0
    attempted_ms: int = 0
    names: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()


class BotStore:
    """The set ``social:known_bots`` = (parts less removed) and manual, and the keys beside it.

    ``:part:{name}`` is what a source listed when it was last readable, ``:manual`` what was added by hand,
    ``:removed`` what was taken off by hand, ``:state`` a hash of times and sources, ``:lease`` who refreshes.
    Every method raises StorageUnavailableError.
    """

    def __init__(self, client: redis.asyncio.Redis, key: str = KNOWN_BOTS_KEY) -> None:
        self._client = client
        self._key = key
        self._add = client.register_script(_ADD)
        self._remove = client.register_script(_REMOVE)
        self._swap = client.register_script(_SWAP)
        self._unlist = client.register_script(_UNLIST)

    async def count(self) -> int:
        """Return how many accounts are known bots."""
        async with answering(KEPT):
            return int(await self._client.scard(self._key))

    async def add(self, members: Collection[str], *, respect_removed: bool = False) -> tuple[int, int]:
        """Add accounts by hand; return how many are new and how many there are now.

        ``respect_removed``: leave out those that were removed by hand, instead of taking that back.
        """
        async with answering(KEPT):
            given = await self._upload(members, uuid.uuid4().hex)
            new, total = await self._add(keys=[self._key, given], args=[int(respect_removed)])
        return int(new), int(total)

    async def remove(self, members: Collection[str]) -> tuple[int, int]:
        """Take accounts off for good, whoever lists them; return how many were on and how many are left."""
        async with answering(KEPT):
            given = await self._upload(members, uuid.uuid4().hex)
            found, total = await self._remove(keys=[self._key, given])
        return int(found), int(total)

    async def state(self) -> State:
        """Return where the refreshing stands."""
        async with answering(KEPT):
            stored = await self._client.hgetall(f"{self._key}:state")
        fields = {_text(key): _text(value) for key, value in stored.items()}
        parts = (
            Part(key.removeprefix("part:"), **orjson.loads(value))
            for key, value in sorted(fields.items())
            if key.startswith("part:")
        )
        return State(
            refreshed_ms=int(fields.get("refreshed_ms", 0)),
            attempted_ms=int(fields.get("attempted_ms", 0)),
            names=frozenset(fields.get("parts", "").split()),
            parts=tuple(parts),
        )

    async def unlist(self, part: str, account: str) -> bool:
        """Take an account ``{platform}:{author_id}`` out of a part; return whether it is a known bot all the same."""
        async with answering(KEPT):
            return bool(await self._unlist(keys=[self._key], args=[part, account]))

    def lease(self) -> AbstractAsyncContextManager[str | None]:
        """Be the one who refreshes: yield a token for :meth:`swap`, or None when another one is at it."""
        return lease(self._client, f"{self._key}:lease", KEPT)

    async def swap(
        self,
        token: str,
        read: Mapping[str, tuple[str, Collection[str]] | None],
        *,
        now_ms: int,
        is_refresh: bool = True,
    ) -> int | None:
        """Put a new set in the place of the old one, at one moment for everybody; return its size.

        ``read``: of each part its source as it may be shown and its accounts; None for one that could not be read,
        which stays as it was. Parts that are not named are dropped. ``is_refresh``: all parts were tried. Returns
        None, and does nothing, when the lease has run out.
        """
        tried = REFRESHED if None not in read.values() else ATTEMPTED
        arguments: list[str | bytes | int] = [token, now_ms, tried if is_refresh else UNTRIED]
        async with answering(KEPT):
            for name, part in read.items():
                arguments += [name, int(part is not None)]
                if part is None:
                    arguments.append(b"")
                    continue
                source, members = part
                await self._upload(members, f"{token}:{name}", token)
                arguments.append(orjson.dumps({"source": source, "count": len(members), "read_ms": now_ms}))
            count = int(await self._swap(keys=[self._key], args=arguments))
        return None if count < 0 else count

    async def origins(self) -> dict[str, set[str]]:
        """Return every known bot with where it is from: ``manual`` and names of parts."""
        state = await self.state()
        async with answering(KEPT):
            found: dict[str, set[str]] = {member: set() async for member in self._members(self._key)}
            for name in ("manual", *(f"part:{part.name}" for part in state.parts)):
                async for member in self._members(f"{self._key}:{name}"):
                    # One listed by its id alone may have been cleared on a platform.
                    for known in (member, *(f"{platform}:{member}" for platform in PLATFORMS)):
                        if known in found:
                            found[known].add(name.removeprefix("part:"))
        return found

    async def removed(self) -> list[str]:
        """Return the accounts that were taken off by hand."""
        async with answering(KEPT):
            return sorted([member async for member in self._members(f"{self._key}:removed")])

    async def _members(self, key: str) -> AsyncIterator[str]:
        async for member in self._client.sscan_iter(key, count=MEMBERS_AT_ONCE):
            yield _text(member)

    async def _upload(self, members: Iterable[str], *names: str) -> str:
        """Add accounts to keys that go away by themselves, should nobody use them; return the first."""
        keys = [f"{self._key}:new:{name}" for name in names]
        waiting = list(members)
        for first in range(0, len(waiting), MEMBERS_AT_ONCE):
            async with self._client.pipeline(transaction=True) as pipeline:
                for key in keys:
                    pipeline.sadd(key, *waiting[first : first + MEMBERS_AT_ONCE])
                    pipeline.pexpire(key, 2 * LEASE_MS)
                await pipeline.execute()
        return keys[0]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
