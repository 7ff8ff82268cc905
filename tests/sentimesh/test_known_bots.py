"""The set of known bots in a real Valkey: what makes it up, what survives, and who sees a refresh when."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from filter_svc.known_bots import RedisKnownBots
from filter_svc.service import FilterStage
from sentimesh.bot_store import BotStore
from sentimesh.build import HOUR_MS
from sentimesh.errors import StorageUnavailableError
from sentimesh.known_bots import RETRY_MS, Refresher, configured, learned_bots
from sentimesh.lease import LEASE_MS
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.settings import Settings
from sentimesh.stage import Delivery, Drop
from sentimesh.telemetry import Metrics

NOW = 1_700_000_000_000
DAY = 24 * HOUR_MS


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def key() -> str:
    return f"test:bots:{uuid.uuid4().hex}"


@pytest.fixture
def store(client: redis.asyncio.Redis, key: str) -> BotStore:
    return BotStore(client, key)


class Lists:
    """Sources and the clock of a refresher."""

    def __init__(self, store: BotStore, tmp_path: Path) -> None:
        self.store = store
        self.folder = tmp_path
        self.now_ms = NOW
        self.failures: list[str] = []
        self.learned: set[str] | None = None

    def write(self, name: str, *members: str) -> str:
        path = self.folder / name
        path.write_text("".join(f"{member}\n" for member in members))
        return str(path)

    def refresher(self, *sources: str, **options: Any) -> Refresher:
        async def learned() -> Collection[str]:
            assert self.learned is not None
            return self.learned

        return Refresher(
            self.store,
            sources,
            learned=None if self.learned is None else learned,
            period_ms=DAY,
            now_ms=lambda: self.now_ms,
            on_failure=self.failures.append,
            **options,
        )

    async def known(self) -> set[str]:
        return set(await self.store.origins())


@pytest.fixture
def lists(store: BotStore, tmp_path: Path) -> Lists:
    return Lists(store, tmp_path)


async def leftovers(client: redis.asyncio.Redis, key: str) -> set[str]:
    return {name.decode() async for name in client.scan_iter(f"{key}:*")} - {
        f"{key}:{name}" for name in ("state", "manual", "removed")
    }


async def test_a_set_is_all_sources_and_the_next_one_takes_its_place(
    lists: Lists, client: redis.asyncio.Redis, key: str
) -> None:
    lists.learned = {"reddit:t2_a"}
    first, second = lists.write("a.txt", "1", "2"), lists.write("b.txt", "2", "twitter:3")
    assert await lists.refresher(first, second).refresh() == 4
    assert await lists.known() == {"1", "2", "twitter:3", "reddit:t2_a"}
    lists.write("a.txt", "9")
    lists.learned = set()
    lists.now_ms += DAY
    assert await lists.refresher(first, second).refresh() == 3
    assert await lists.known() == {"9", "2", "twitter:3"}
    assert lists.failures == []
    # Nothing stays but one list a source.
    kept = await leftovers(client, key)
    assert len(kept) == 2
    for name in kept:
        assert name.startswith(f"{key}:part:")
        assert await client.ttl(name) == -1
    assert await client.ttl(key) == -1


async def test_it_is_due_after_its_hours_and_at_a_start_with_other_sources(lists: Lists) -> None:
    first, second = lists.write("a.txt", "1"), lists.write("b.txt", "2")
    refresher = lists.refresher(first)
    assert await refresher.refresh() == 1
    lists.write("a.txt", "1", "3")
    lists.now_ms += DAY - 1
    assert await refresher.refresh() is None
    # Replicas of two configurations do not chase each other.
    assert await lists.refresher(second).refresh(when_changed=False) is None
    assert await lists.refresher(second).refresh() == 1
    assert await lists.known() == {"2"}
    assert await lists.refresher().refresh() == 0
    assert await lists.known() == set()
    # Nothing is configured and nothing was: the set is somebody else's.
    assert await lists.refresher().refresh() is None


async def test_a_source_that_fails_keeps_its_last_good_list_and_is_tried_again_sooner(lists: Lists) -> None:
    lists.learned = {"reddit:t2_a"}
    first, second = lists.write("a.txt", "1", "2"), lists.write("b.txt", "3")
    refresher = lists.refresher(first, second)
    await refresher.refresh()
    lists.now_ms += DAY
    lists.write("a.txt", "<html>")
    lists.write("b.txt", "4")
    assert await refresher.refresh() == 4
    assert await lists.known() == {"1", "2", "4", "reddit:t2_a"}
    assert lists.failures == ["file"]
    # Emptied: a list that was cut off while it was written looks the same.
    lists.write("b.txt")
    lists.now_ms += RETRY_MS - 1
    assert await refresher.refresh() is None
    lists.now_ms += 1
    assert await refresher.refresh() == 4
    assert lists.failures == ["file", "file", "file"]
    lists.write("a.txt", "5")
    lists.write("b.txt", "6")
    lists.now_ms += RETRY_MS
    assert await refresher.refresh() == 3
    state = await lists.store.state()
    assert state.refreshed_ms == lists.now_ms
    assert await refresher.refresh() is None


async def test_a_refresh_that_fails_altogether_changes_nothing(lists: Lists) -> None:
    path = lists.write("a.txt", "1", "2")
    refresher = lists.refresher(path)
    await refresher.refresh()
    before = await lists.store.origins()
    lists.write("a.txt", "@nobody")
    lists.now_ms += DAY
    assert await refresher.refresh() == 2
    assert await lists.store.origins() == before
    assert lists.failures == ["file"]


async def test_what_was_changed_by_hand_outlives_refreshes(lists: Lists) -> None:
    path = lists.write("a.txt", "1", "2", "twitter:3")
    await lists.store.add(["reddit:7"])
    refresher = lists.refresher(path)
    await refresher.refresh()
    assert await lists.store.add(["1", "twitter:8"]) == (1, 5)
    assert await lists.store.remove(["2", "3", "discord:99"]) == (2, 3)
    for _ in range(2):
        assert await lists.known() == {"1", "twitter:8", "reddit:7"}
        lists.now_ms += DAY
        assert await refresher.refresh() == 3
    assert await lists.store.removed() == ["2", "3", "discord:99"]
    # An import leaves them out, somebody who adds one means it.
    assert await lists.store.add(["2", "twitter:3", "5"], respect_removed=True) == (1, 4)
    assert await lists.store.add(["2"]) == (1, 5)
    lists.now_ms += DAY
    assert await refresher.refresh() == 5
    assert await lists.known() == {"1", "2", "5", "twitter:8", "reddit:7"}


async def test_an_account_cleared_on_one_platform_stays_listed_on_the_others(lists: Lists) -> None:
    path = lists.write("a.txt", "1")
    refresher = lists.refresher(path)
    await refresher.refresh()
    await lists.store.add(["2"])
    assert await lists.store.remove(["twitter:1", "reddit:1", "twitter:2"]) == (3, 5)
    expected = {"telegram:1", "discord:1", "reddit:2", "telegram:2", "discord:2"}
    assert await lists.known() == expected
    lists.now_ms += DAY
    assert await refresher.refresh() == 5
    origins = await lists.store.origins()
    [part] = (await lists.store.state()).parts
    assert origins == {name: {part.name if name.endswith("1") else "manual"} for name in expected}


async def test_the_first_refresh_keeps_what_somebody_wrote_into_the_set(
    lists: Lists, client: redis.asyncio.Redis, key: str
) -> None:
    await client.sadd(key, "77")
    path = lists.write("a.txt", "1")
    for _ in range(2):
        assert await lists.refresher(path).refresh() == 2
        lists.now_ms += DAY
    assert await lists.known() == {"1", "77"}


async def test_one_replica_refreshes_and_its_lease_is_free_again(
    lists: Lists, client: redis.asyncio.Redis, key: str
) -> None:
    path = lists.write("a.txt", "1")
    reading, go_on = asyncio.Event(), asyncio.Event()
    reads = []

    async def read(source: str) -> Collection[str]:
        reads.append(source)
        reading.set()
        await go_on.wait()
        return ["1"]

    refresher, other = lists.refresher(path, read=read), lists.refresher(path, read=read)
    first = asyncio.create_task(refresher.refresh())
    await reading.wait()
    assert await other.refresh() is None
    assert 0 < await client.pttl(f"{key}:lease") <= LEASE_MS
    go_on.set()
    assert await first == 1
    assert await other.refresh() is None
    assert reads == [path]
    assert await client.exists(f"{key}:lease") == 0


async def test_who_has_lost_the_lease_swaps_nothing(store: BotStore, client: redis.asyncio.Redis, key: str) -> None:
    async with store.lease() as token:
        assert token is not None
        await client.set(f"{key}:lease", "another")
        assert await store.swap(token, {"a": ("a.txt", ["1"])}, now_ms=NOW) is None
    assert await store.count() == 0
    # It is not released either.
    assert await client.get(f"{key}:lease") == b"another"


async def test_a_cancelled_refresh_frees_its_lease_and_leaves_the_set(
    lists: Lists, client: redis.asyncio.Redis, key: str
) -> None:
    reading = asyncio.Event()

    async def read(_source: str) -> Collection[str]:
        reading.set()
        await asyncio.Event().wait()
        return []

    await lists.store.add(["5"])
    refreshing = asyncio.create_task(lists.refresher("a.txt", read=read).refresh())
    await reading.wait()
    refreshing.cancel()
    await asyncio.wait([refreshing])
    assert await lists.known() == {"5"}
    assert await client.exists(f"{key}:lease") == 0


def post(number: int, author_id: str) -> SocialPost:
    return SocialPost(
        post_id=f"twitter:{number}",
        platform="twitter",
        symbol="BTC",
        text=f"Bitcoin at number {number} " + uuid.uuid4().hex * 2,
        author_id=author_id,
        timestamp_ms=NOW + number,
    )


async def rejected(stage: FilterStage, authors: Collection[str]) -> set[str]:
    posts = [post(number, author) for number, author in enumerate(authors)]
    outcomes = await stage.process([Delivery(each, number) for number, each in enumerate(posts, 1)])
    by_author: dict[str, set[bool]] = {}
    for each, [outcome] in zip(posts, outcomes, strict=True):
        is_bot = isinstance(outcome, Drop) and (outcome.reason, outcome.credibility_score) == ("known_bot", 0.0)
        by_author.setdefault(each.author_id, set()).add(is_bot)
    assert all(len(verdicts) == 1 for verdicts in by_author.values())
    return {author for author, verdicts in by_author.items() if True in verdicts}


async def test_every_replica_rejects_every_post_of_the_listed_right_after_a_swap(
    lists: Lists, redis_url: str, key: str
) -> None:
    path = lists.write("a.txt", *(str(number) for number in range(0, 60, 2)), "telegram:1")
    old = {str(number) for number in range(0, 60, 2)}
    new = {str(number) for number in range(0, 60, 3)}
    everybody = [str(number) for number in range(60)] * 3
    refresher = lists.refresher(path)
    async with redis.asyncio.Redis.from_url(redis_url) as one, redis.asyncio.Redis.from_url(redis_url) as two:
        replicas = [FilterStage(RedisKnownBots(each, key=key)) for each in (one, two)]
        assert await rejected(replicas[0], everybody) == set()
        await refresher.refresh()
        for stage in replicas:
            assert await rejected(stage, everybody) == old
        lists.write("a.txt", *(f"twitter:{author}" for author in new), "reddit:1")
        lists.now_ms += DAY
        await refresher.refresh()
        for stage in replicas:
            assert await rejected(stage, everybody) == new


async def test_nobody_ever_sees_a_set_that_is_neither_the_old_one_nor_the_new_one(
    lists: Lists, client: redis.asyncio.Redis, key: str
) -> None:
    """Two generations with some members in common, swapped back and forth while a reader asks."""
    common = [str(number) for number in range(10_000)]
    paths = [lists.write("a.txt", *common, "old"), lists.write("b.txt", *common, "new")]
    await lists.refresher(paths[0]).refresh()
    bots = RedisKnownBots(client, key=key)
    stop = asyncio.Event()
    asked = [f"twitter:{number}" for number in (0, 1, 5_000, 9_999)] + ["twitter:old", "twitter:new"]

    async def look() -> set[tuple[bool, ...]]:
        seen = set()
        while not stop.is_set():
            seen.add(tuple(await bots.contains(asked)))
        return seen

    looking = asyncio.create_task(look())
    for number in range(1, 11):
        await lists.refresher(paths[number % 2]).refresh()
    stop.set()
    assert await looking <= {(True,) * 5 + (False,), (True,) * 4 + (False, True)}


async def test_what_was_learned_of_authors_is_read_from_postgresql(pool: asyncpg.Pool[Any]) -> None:
    assert await learned_bots(pool) == set()
    await pool.executemany(
        "INSERT INTO social_author_credibility (author_id, platform, credibility_score, is_known_bot) "
        "VALUES ($1, $2, 0.1, $3)",
        [("twitter:1", "twitter", True), ("twitter:2", "twitter", False), ("reddit:1", "reddit", True)],
    )
    assert await learned_bots(pool) == {"twitter:1", "reddit:1"}


async def test_running_refreshes_at_once_counts_what_fails_and_ends_when_told(tmp_path: Path, redis_url: str) -> None:
    path = tmp_path / "bots.txt"
    path.write_text("1\n2\n")
    settings = Settings.model_validate({"spam_filter": {"known_bot_sources": [str(path), str(tmp_path / "absent")]}})
    metrics = Metrics()
    stop = asyncio.Event()
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.delete(*[name async for name in client.scan_iter("social:known_bots*")], "social:known_bots")
        running = asyncio.create_task(configured(settings, metrics, client, None).run(stop))
        while metrics.registry.get_sample_value("social_known_bots_count") != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
        await running
        failures = "social_known_bot_refresh_failures_total"
        assert metrics.registry.get_sample_value(failures, {"source": "file"}) == 1
        assert await RedisKnownBots(client).contains(["twitter:1", "twitter:3"]) == [True, False]
        await client.delete(*[name async for name in client.scan_iter("social:known_bots*")])


async def test_redis_away_is_counted_and_waited_for() -> None:
    stop = asyncio.Event()
    failures: list[str] = []

    def failed(kind: str) -> None:
        failures.append(kind)
        stop.set()

    # Nothing listens on the discard port.
    async with redis.asyncio.Redis(host="127.0.0.1", port=9, socket_connect_timeout=1) as client:
        with pytest.raises(StorageUnavailableError, match=r"storage\.redis\.url"):
            await BotStore(client).count()
        await Refresher(BotStore(client), ["a.txt"], on_failure=failed).run(stop)
    assert failures == ["redis"]
