"""The daily job on real servers: what it reads, what it writes, who does it, and what stays when it cannot."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from pydantic import SecretStr

from sentimesh.author_cache import AuthorCache
from sentimesh.author_history import DAY_MS, FLOODING, HistoryRules
from sentimesh.bot_store import BotStore
from sentimesh.build import now_ms
from sentimesh.bus import FILTERED, REJECTED, Bus, BusUnavailableError, Publication
from sentimesh.errors import StorageUnavailableError
from sentimesh.known_bots import RETRY_MS, Refresher, learned_bots
from sentimesh.learning import Learned, Learner, history_rules
from sentimesh.pb.gateway_pb2 import AuthorEvidence
from sentimesh.pb.pipeline_pb2 import RejectedPost
from sentimesh.settings import Settings
from sentimesh.storage import AggregateStore
from sentimesh.storage.authors import AuthorStore
from tests.sentimesh.test_author_history import Post

HOUR = 3_600_000


@dataclass
class Job:
    """A learner and all that it works on, of this test alone."""

    bus: Bus
    pool: asyncpg.Pool[Any]
    client: redis.asyncio.Redis
    key: str
    now_ms: int
    learned: list[Learned] = field(default_factory=list)
    successes: list[int] = field(default_factory=list)
    failures: int = 0

    @property
    def store(self) -> AuthorStore:
        return AuthorStore(self.pool)

    @property
    def cache(self) -> AuthorCache:
        return AuthorCache(self.client, self.key)

    @property
    def bots(self) -> BotStore:
        return BotStore(self.client, f"{self.key}:bots")

    def refresher(self, sources: Sequence[str] = ()) -> Refresher:
        return Refresher(self.bots, sources, learned=lambda: learned_bots(self.pool), now_ms=lambda: self.now_ms)

    def learner(self, pool: asyncpg.Pool[Any] | None = None, **options: Any) -> Learner:
        def failed() -> None:
            self.failures += 1

        return Learner(
            self.bus,
            AuthorStore(pool or self.pool),
            self.cache,
            self.refresher().refresh_learned,
            HistoryRules(),
            now_ms=lambda: self.now_ms,
            on_learned=self.learned.append,
            on_failure=failed,
            on_success_time=self.successes.append,
            **options,
        )

    async def publish(self, posts: Collection[Post], **options: Any) -> None:
        sent: list[Publication] = []
        for post in posts:
            message = post.message(**options)
            topic = REJECTED if isinstance(message, RejectedPost) else FILTERED
            sent.append((f"{topic.prefix}.{post.symbol}", message, uuid.uuid4().hex, {}))
        await self.bus.publish_confirmed(sent)

    async def multipliers(self) -> dict[str, float]:
        stored = await self.client.hgetall(self.key)
        return {_text(author): float(value) for author, value in stored.items()}

    async def known(self) -> set[str]:
        return set(await self.bots.origins())

    async def table(self) -> list[dict[str, Any]]:
        rows = await self.pool.fetch("SELECT * FROM social_author_credibility ORDER BY author_id")
        return [dict(row) for row in rows]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


@pytest.fixture
async def job(nats_url: str, redis_url: str, pool: asyncpg.Pool[Any]) -> AsyncIterator[Job]:
    async with Bus(SecretStr(nats_url)) as bus, redis.asyncio.Redis.from_url(redis_url) as client:
        for topic in (FILTERED, REJECTED):
            await bus.jetstream.purge_stream(topic.stream)
        yield Job(bus, pool, client, f"test:authors:{uuid.uuid4().hex}", now_ms())


def flood(now: int, author: str = "twitter:flood", count: int = 12, first_id: int = 0) -> list[Post]:
    return [Post(first_id + n, author, now - n * HOUR, fingerprint=77) for n in range(count)]


def low(now: int, author: str = "twitter:low", count: int = 12) -> list[Post]:
    return [Post(1000 + n, author, now - n * 6 * HOUR, fingerprint=1000 + n, credibility=0.125) for n in range(count)]


def people(now: int, count: int = 20) -> list[Post]:
    return [
        Post(5000 + 10 * who + n, f"twitter:p{who}", now - n * HOUR, 5000 + 10 * who + n, credibility=0.625)
        for who in range(count)
        for n in range(3)
    ]


async def test_what_was_posted_makes_bots_and_multipliers(job: Job) -> None:
    await job.publish(people(job.now_ms))
    await job.publish(flood(job.now_ms))
    await job.publish(low(job.now_ms), is_rejected=True)
    # Of another symbol, and delivered twice.
    await job.publish([Post(0, "twitter:flood", job.now_ms, 77, symbol="ETH")] * 2)
    learned = await job.learner().learn()
    assert learned is not None
    assert (learned.messages, learned.accounts, learned.bots, learned.held_against) == (86, 22, 2, 1)
    assert {record.author: record.rule for record in learned.new_bots} == {
        "twitter:flood": FLOODING,
        "twitter:low": "persistently_low",
    }
    assert await job.known() == {"twitter:flood", "twitter:low"}
    # (12 x 0.125 + 10 x 0.4) / 22, over 0.4
    assert await job.multipliers() == {"twitter:low": 0.625}
    assert 6 * DAY_MS < await job.client.pttl(job.key) <= 7 * DAY_MS
    [flooding] = await AggregateStore(job.pool).authors(["twitter:flood"])
    assert flooding is not None
    assert (flooding.is_known_bot, flooding.rule, flooding.known_bot_since_ms) == (True, FLOODING, job.now_ms)
    assert (flooding.last_seen_ms, flooding.last_updated_ms, flooding.cleared_ms) == (job.now_ms, job.now_ms, 0)
    repeated = AuthorEvidence(repeat_share=11 / 12).repeat_share
    assert (flooding.evidence.posts, flooding.evidence.repeat_share) == (12, repeated)
    assert (flooding.evidence.fingerprint, flooding.evidence.fingerprint_posts) == (77, 12)
    [person] = await AggregateStore(job.pool).authors(["twitter:p3"])
    assert person is not None
    assert (person.is_known_bot, person.multiplier, person.evidence.posts) == (False, 1.0, 3)


async def test_learning_twice_changes_nothing(job: Job) -> None:
    await job.publish([*people(job.now_ms), *flood(job.now_ms), *low(job.now_ms)])
    await job.learner().learn()
    before = (await job.table(), await job.multipliers(), await job.known())
    again = await job.learner().learn()
    assert again is not None
    assert (again.new_bots, again.freed, again.forgotten) == ([], [], 0)
    assert (await job.table(), await job.multipliers(), await job.known()) == before


async def test_one_of_two_replicas_does_it_and_not_before_it_is_due(job: Job) -> None:
    await job.publish(flood(job.now_ms))
    replicas = [job.learner(), job.learner()]
    assert sorted(
        learned is not None for learned in await asyncio.gather(*(each.learn(when_due=True) for each in replicas))
    ) == [False, True]
    job.now_ms += DAY_MS - 1
    assert await replicas[1].learn(when_due=True) is None
    job.now_ms += 1
    assert await replicas[1].learn(when_due=True) is not None
    # On demand it is due, but not while another one is at it.
    async with job.cache.lease() as token:
        assert token is not None
        assert await replicas[0].learn() is None
    assert await replicas[0].learn() is not None


async def test_it_runs_by_itself_and_stops(job: Job) -> None:
    await job.publish(flood(job.now_ms))
    stop = asyncio.Event()
    running = [asyncio.create_task(job.learner().run(stop)) for _ in range(2)]
    while len(job.successes) < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*running)
    assert [learned.bots for learned in job.learned] == [1]
    assert set(job.successes) == {job.now_ms}


async def test_a_failure_keeps_what_was_and_is_tried_again_sooner(job: Job) -> None:
    await job.publish([*people(job.now_ms), *flood(job.now_ms), *low(job.now_ms)])
    await job.learner().learn()
    before = (await job.multipliers(), await job.known())
    job.now_ms += DAY_MS
    unused = await asyncpg.create_pool("postgresql://postgres@127.0.0.1:9/nothing", min_size=0)
    stop = asyncio.Event()
    async with unused:
        running = asyncio.create_task(job.learner(unused).run(stop))
        while not job.failures:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
        await running
    assert (await job.multipliers(), await job.known()) == before
    assert await job.learner().learn(when_due=True) is None
    job.now_ms += RETRY_MS
    assert await job.learner().learn(when_due=True) is not None


async def test_who_was_cleared_stays_so_until_new_posts_say_otherwise(job: Job) -> None:
    await job.publish([*people(job.now_ms), *flood(job.now_ms), *low(job.now_ms)])
    await job.learner().learn()
    for author in ("twitter:flood", "twitter:low"):
        assert await job.store.clear(author, job.now_ms)
        await job.cache.forget(author)
        assert not await job.bots.unlist("learned", author)
    assert (await job.known(), await job.multipliers()) == (set(), {})
    assert await learned_bots(job.pool) == frozenset()
    for _ in range(2):
        job.now_ms += HOUR
        learned = await job.learner().learn()
        assert learned is not None
        assert (learned.new_bots, await job.known(), await job.multipliers()) == ([], set(), {})
    record = await job.store.get("twitter:flood")
    assert record is not None
    # What it was taken for a bot by is still to be seen.
    assert record.evidence is not None
    assert record.evidence.repeat_share == 11 / 12
    job.now_ms += DAY_MS
    await job.publish(flood(job.now_ms, first_id=100))
    learned = await job.learner().learn()
    assert learned is not None
    assert [new.author for new in learned.new_bots] == ["twitter:flood"]
    assert await job.known() == {"twitter:flood"}


async def test_clearing_wins_over_a_job_that_is_on_its_way(job: Job) -> None:
    """It is cleared after the job wrote it and before it swaps; another one before the known bots are swapped."""
    await job.publish([*people(job.now_ms), *low(job.now_ms)])

    class ClearsMeanwhile(AuthorStore):
        async def held_against(self) -> dict[str, float]:
            found = await super().held_against()
            assert await job.store.clear("twitter:low", job.now_ms)
            await job.cache.forget("twitter:low")
            return found

    await Learner(
        job.bus,
        ClearsMeanwhile(job.pool),
        job.cache,
        job.refresher().refresh_learned,
        now_ms=lambda: job.now_ms,
    ).learn()
    assert (await job.multipliers(), await job.known()) == ({}, set())

    answers = [frozenset({"twitter:low", "twitter:x"}), frozenset({"twitter:x"})]

    async def learned() -> Collection[str]:
        return answers.pop(0)

    assert await Refresher(job.bots, [], learned=learned, now_ms=lambda: job.now_ms).refresh_now() == 2
    assert await job.known() == {"twitter:x"}


async def test_a_row_cleared_while_it_was_judged_is_left_alone(job: Job) -> None:
    await job.publish([*people(job.now_ms), *low(job.now_ms)])
    await job.learner().learn()
    record = await job.store.get("twitter:low")
    assert record is not None
    assert record.is_known_bot
    await job.store.clear("twitter:low", job.now_ms)
    await job.store.write([record], forget_ms=0)
    left = await job.store.get("twitter:low")
    assert left is not None
    assert (left.is_known_bot, left.cleared_ms, left.multiplier) == (False, job.now_ms, 1.0)
    # Neutral is what the accounts of its platform are.
    assert left.evidence is not None
    assert left.credibility == pytest.approx(left.evidence.population_credibility)


async def test_a_bot_freed_and_one_forgotten(job: Job) -> None:
    job.now_ms -= 31 * DAY_MS
    await job.pool.execute(
        "INSERT INTO social_author_credibility VALUES ('twitter:theirs', 'twitter', 0.0, TRUE, to_timestamp(1.5))"
    )
    await job.publish([*flood(job.now_ms), *flood(job.now_ms, "twitter:gone", first_id=100)])
    await job.learner().learn()
    assert await job.known() == {"twitter:flood", "twitter:gone", "twitter:theirs"}
    job.now_ms += 30 * DAY_MS
    await job.publish([Post(500 + n, "twitter:flood", job.now_ms - n * HOUR, 500 + n, 0.75) for n in range(12)])
    learned = await job.learner().learn()
    assert learned is not None
    assert (learned.freed, learned.forgotten) == (["twitter:flood", "twitter:gone"], 1)
    # What others wrote into the table is theirs to take out.
    assert await job.known() == {"twitter:theirs"}
    assert [row["author_id"] for row in await job.table()] == ["twitter:flood", "twitter:theirs"]


async def test_the_days_of_a_replay_end_with_its_newest_post(job: Job) -> None:
    years_ago = job.now_ms - 1000 * DAY_MS
    await job.publish(flood(years_ago))
    live = await job.learner().learn()
    assert live is not None
    assert (live.messages, live.accounts) == (12, 0)
    replayed = await job.learner(by_event_time=True).learn()
    assert replayed is not None
    assert [record.author for record in replayed.new_bots] == ["twitter:flood"]


async def test_of_a_busy_week_the_newest_part_is_read(job: Job) -> None:
    await job.publish(flood(job.now_ms))
    # The posts came in just now: at the end of these days by this clock, in their second quarter by that one.
    later = job.now_ms + 4 * DAY_MS
    for max_messages, read in ((12, 12), (6, 0)):
        job.now_ms = later
        learned = await job.learner(max_messages=max_messages).learn()
        assert learned is not None
        assert learned.messages == read


async def test_what_cannot_be_read_is_left_out(job: Job) -> None:
    await job.bus.jetstream.publish(f"{REJECTED.prefix}.BTC", b"\xff\xff")
    await job.publish(flood(job.now_ms))
    learned = await job.learner().learn()
    assert learned is not None
    assert (learned.messages, learned.bots) == (12, 1)


async def test_who_lost_the_lease_swaps_nothing(job: Job) -> None:
    async with job.cache.lease() as token:
        assert token is not None
        assert await job.cache.swap(token, {"twitter:1": 0.5}, now_ms=1, ttl_ms=DAY_MS)
        await job.client.set(f"{job.key}:lease", "another")
        assert not await job.cache.swap(token, {"twitter:2": 0.5}, now_ms=2, ttl_ms=DAY_MS)
        await job.cache.renew(token)
        assert await job.client.pttl(f"{job.key}:lease") == -1
    assert await job.multipliers() == {"twitter:1": 0.5}
    assert (await job.cache.state()).learned_ms == 1


async def test_a_swap_leaves_nothing_behind(job: Job) -> None:
    async with job.cache.lease() as token:
        assert token is not None
        many = {f"twitter:{number}": 0.25 for number in range(2_500)}
        assert await job.cache.swap(token, many, now_ms=1, ttl_ms=DAY_MS)
        assert await job.multipliers() == many
        assert await job.cache.swap(token, {}, now_ms=2, ttl_ms=DAY_MS)
    assert {_text(name) async for name in job.client.scan_iter(f"{job.key}*")} == {f"{job.key}:state"}


async def test_without_a_server_there_is_one_sentence(job: Job) -> None:
    await job.bus.jetstream.delete_stream(REJECTED.stream)
    with pytest.raises(BusUnavailableError, match=r"SOCIAL_REJECTED cannot be read .* check the server of nats.url"):
        await job.learner().learn()
    await job.bus.ensure_streams()
    async with redis.asyncio.Redis.from_url("redis://:geheim@127.0.0.1:9") as nobody:
        with pytest.raises(StorageUnavailableError, match=r"^Redis does not keep what was learned of authors"):
            await AuthorCache(nobody).state()


async def test_only_the_learned_list_is_read_anew(job: Job) -> None:
    read: list[str] = []

    async def reads(source: str) -> Collection[str]:
        read.append(source)
        return ["9"]

    refresher = Refresher(
        job.bots, ["a.txt"], learned=lambda: learned_bots(job.pool), now_ms=lambda: job.now_ms, read=reads
    )
    await job.publish(flood(job.now_ms))
    await job.learner().learn()
    # The lists were never read: that is still to be done.
    assert await refresher.refresh_learned() == 1
    assert await refresher.refresh() == 2
    assert read == ["a.txt"]
    job.now_ms += 1
    assert await refresher.refresh_learned() == 2
    assert read == ["a.txt"]
    state = await job.bots.state()
    assert (state.refreshed_ms, state.attempted_ms) == (job.now_ms - 1, job.now_ms - 1)


async def test_unlisting_respects_what_else_lists_an_account(job: Job) -> None:
    async def reads(source: str) -> Collection[str]:
        return {"a.txt": ["1"], "b.txt": ["twitter:2"]}[source]

    for author in ("twitter:1", "twitter:2", "twitter:3", "twitter:4"):
        await job.pool.execute(
            "INSERT INTO social_author_credibility VALUES ($1, 'twitter', 0.0, TRUE, to_timestamp(1.5))", author
        )
    await job.bots.add(["twitter:3"])
    refresher = Refresher(
        job.bots, ["a.txt", "b.txt"], learned=lambda: learned_bots(job.pool), now_ms=lambda: job.now_ms, read=reads
    )
    await refresher.refresh_now()
    unlisted = {author: await job.bots.unlist("learned", f"twitter:{author}") for author in range(1, 5)}
    assert unlisted == {1: True, 2: True, 3: True, 4: False}
    assert await job.known() == {"1", "twitter:1", "twitter:2", "twitter:3"}


def test_the_rules_are_the_settings() -> None:
    assert history_rules(Settings()) == HistoryRules()
    settings = Settings()
    settings.spam_filter.min_credibility_threshold = 0.5
    settings.spam_filter.author_history.flooding_share = 0.75
    assert history_rules(settings) == HistoryRules(min_credibility=0.5, flooding_share=0.75)
