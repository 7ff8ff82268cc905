from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import islice, pairwise

import orjson
import pytest

from ingest_svc.normalize import normalize
from ingest_svc.sources.simulator import (
    Campaign,
    SimulatedPost,
    SimulatorSource,
    Spike,
    listed_bots,
    persistent_bots,
    simulate,
)
from ingest_svc.text import copy_hash, own_words
from sentimesh.errors import InvalidSymbolError
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.settings import DEFAULT_SYMBOLS
from sentimesh.symbols import TrackedExtractor, load_assets

START_MS = 1_760_000_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
WORDS = re.compile(r"[^\W_]+")
SYMBOLS = ["BTC", "ETH", "SOL", "NEAR", "LINK", "ZZZ9"]


def normalized(post: SimulatedPost) -> SocialPost:
    raw = RawPost(platform=post.platform, payload=orjson.dumps(post.payload))
    return normalize(raw, START_MS + 10 * DAY_MS)[0]


@pytest.fixture(scope="module")
def half_an_hour() -> list[SimulatedPost]:
    return list(
        simulate(
            11,
            START_MS,
            SYMBOLS,
            posts_per_minute=100,
            duration_ms=30 * MINUTE_MS,
            spikes=[Spike("SOL", START_MS + 20 * MINUTE_MS)],
            campaigns=[Campaign("ETH", START_MS + 5 * MINUTE_MS)],
        )
    )


@pytest.fixture(scope="module")
def six_hours() -> list[SimulatedPost]:
    return list(simulate(3, START_MS, DEFAULT_SYMBOLS, posts_per_minute=120, duration_ms=6 * HOUR_MS))


def test_the_same_seed_gives_the_same_posts_and_another_others() -> None:
    def first(seed: int) -> list[SimulatedPost]:
        return list(islice(simulate(seed, START_MS, SYMBOLS), 3000))

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_ingest_finds_the_ids_and_times_it_was_told(half_an_hour: list[SimulatedPost]) -> None:
    assert {post.platform for post in half_an_hour} == {"twitter", "reddit", "telegram", "discord"}
    assert len({post.post_id for post in half_an_hour}) == len(half_an_hour)
    for post in half_an_hour:
        found = normalized(post)
        assert (found.post_id, found.timestamp_ms) == (post.post_id, post.event_time_ms)
        assert START_MS - 1000 <= post.event_time_ms < START_MS + 30 * MINUTE_MS


def test_the_rate_is_the_one_asked_for(half_an_hour: list[SimulatedPost]) -> None:
    usual = [post for post in half_an_hour if post.label in ("human", "bot")]
    # A Poisson count of mean 3000: five standard deviations are 274.
    assert abs(len(usual) - 3000) < 274


def test_people_reply_repost_quote_and_hardly_repeat_themselves(half_an_hour: list[SimulatedPost]) -> None:
    kinds: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for post in half_an_hour:
        if post.label == "human":
            found = normalized(post)
            kinds["repost"] += bool(found.repost_of)
            kinds["quote"] += bool(found.quote_of)
            kinds["empty"] += not found.text
            kinds["foreign"] += found.language == "es"
            if not found.repost_of and found.text:
                texts[found.text] += 1
            for reference in post.payload.get("data", {}).get("referenced_tweets", []):
                kinds[reference["type"]] += 1
    assert all(kinds[kind] > 5 for kind in ("repost", "quote", "replied_to", "retweeted", "foreign"))
    assert len(texts) > 0.93 * texts.total()


def test_followers_are_heavy_tailed(half_an_hour: list[SimulatedPost]) -> None:
    followers: dict[str, int] = {}
    for post in half_an_hour:
        if post.platform == "twitter" and post.label == "human":
            found = normalized(post)
            followers[found.author_id] = found.author.followers
    ranked = sorted(followers.values())
    assert ranked[-1] > 20 * ranked[len(ranked) // 2]


@pytest.mark.parametrize("posts_per_minute", [15, 120, 1000])
def test_nearly_everybody_writes_once_in_an_hour(posts_per_minute: float) -> None:
    minutes = 360 if posts_per_minute < 1000 else 60
    posts = simulate(3, START_MS, DEFAULT_SYMBOLS, posts_per_minute, minutes * MINUTE_MS, spikes=(), campaigns=())
    written = Counter(
        (post.payload["data"]["author_id"], (post.event_time_ms - START_MS) // HOUR_MS)
        for post in posts
        if post.label == "human" and post.platform == "twitter"
    )
    hours = Counter(written.values())
    share = {count: hours[count] / hours.total() for count in (1, 2, 3, 4)}
    # On a recording of X these are 88, 7.6, 2 and 1 %, 0.5 % are over nine, and nobody is over 40.
    assert 0.83 < share[1] < 0.92
    assert 0.05 < share[2] < 0.11
    assert 0.01 < share[3] < 0.035
    assert 0.004 < share[4] < 0.02
    assert 0.001 < sum(hours[count] for count in range(10, 100)) / hours.total() < 0.015
    assert max(hours) <= 45


def test_people_do_not_say_what_three_before_them_said(six_hours: list[SimulatedPost]) -> None:
    seen: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    for post in six_hours:
        found = normalized(post)
        if post.label in ("human", "spike") and found.text and not found.repost_of:
            words = " ".join(WORDS.findall(own_words(found.text).casefold()))
            repeated[words] += seen[words] >= 3
            seen[words] += 1
    longer = sum(count for words, count in repeated.items() if len(words.split()) > 3)
    assert longer < 0.001 * seen.total()
    assert repeated.total() < 0.01 * seen.total()


def test_nearly_all_that_people_say_about_coins_is_found(half_an_hour: list[SimulatedPost]) -> None:
    texts = [normalized(post).text for post in half_an_hour if post.label in ("spike", "campaign", "bot")]
    found = TrackedExtractor(load_assets(SYMBOLS)).extract(texts)
    assert [text for text, symbols in zip(texts, found, strict=True) if not symbols] == []


def test_a_spike_is_eight_times_the_usual_volume_for_two_minutes(half_an_hour: list[SimulatedPost]) -> None:
    extractor = TrackedExtractor(load_assets(SYMBOLS))
    named = extractor.extract([normalized(post).text for post in half_an_hour])
    minutes: Counter[int] = Counter()
    for post, symbols in zip(half_an_hour, named, strict=True):
        if "SOL" in symbols:
            minutes[(post.event_time_ms - START_MS) // MINUTE_MS] += 1
    usual = sum(minutes[minute] for minute in range(20)) / 20
    assert minutes[20] + minutes[21] >= 8 * 2 * usual
    spike_times = [post.event_time_ms - START_MS for post in half_an_hour if post.label == "spike"]
    assert 20 * MINUTE_MS - 1000 <= min(spike_times) <= max(spike_times) < 22 * MINUTE_MS


def test_a_quiet_symbol_spikes_too() -> None:
    posts = simulate(
        1, START_MS, SYMBOLS, posts_per_minute=5, duration_ms=3 * MINUTE_MS, spikes=[Spike("ZZZ9", START_MS)]
    )
    assert sum(post.label == "spike" for post in posts) >= 20


def test_a_campaign_is_many_accounts_with_nearly_one_text(half_an_hour: list[SimulatedPost]) -> None:
    copies = [normalized(post) for post in half_an_hour if post.label == "campaign"]
    assert len(copies) == 40
    assert len({copy.author_id for copy in copies}) >= 20
    texts = {copy.text for copy in copies}
    assert 5 < len(texts) < 40
    assert Counter(copy_hash(copy.text) for copy in copies).most_common(1)[0][1] >= 15


def by_account(posts: list[SimulatedPost], kind: str) -> dict[str, list[SocialPost]]:
    """Return what each account of a kind of bot wrote."""
    written: defaultdict[str, list[SocialPost]] = defaultdict(list)
    for post in posts:
        if post.kind == kind:
            assert post.label in ("bot", "campaign")
            found = normalized(post)
            written[f"{found.platform}:{found.author_id}"].append(found)
    return written


def account_days(post: SocialPost) -> float:
    """Return how old a post's account was, in days."""
    return (post.timestamp_ms - post.author.account_created_ms) / DAY_MS


def test_people_have_no_kind_and_bots_do(six_hours: list[SimulatedPost]) -> None:
    kinds = Counter((post.label, post.kind) for post in six_hours)
    assert set(kinds) == {
        ("human", ""),
        ("spike", ""),
        *(("bot", kind) for kind in ("throwaway", "flood", "shill_channel", "listed", "persistent")),
        *(("campaign", kind) for kind in ("young_campaign", "aged_campaign", "slow_campaign")),
    }
    assert min(kinds.values()) >= 30
    bots = sum(count for (label, _), count in kinds.items() if label == "bot")
    assert 0.045 < bots / (bots + kinds["human", ""]) < 0.055


def test_throwaways_are_new_and_follow_many_and_some_hardly_write(six_hours: list[SimulatedPost]) -> None:
    written = by_account(six_hours, "throwaway")
    for posts in written.values():
        author = posts[0].author
        assert account_days(posts[-1]) < 26
        assert author.followers <= 30 < 1500 <= author.following
    assert sum(len(posts) <= 3 for posts in written.values()) > 100
    assert max(map(len, written.values())) > 30


def test_floods_come_from_aged_accounts_that_used_to_write_little(six_hours: list[SimulatedPost]) -> None:
    written = by_account(six_hours, "flood")
    # The simulation stops in the middle of one.
    long = [posts for posts in written.values() if len(posts) >= 60]
    assert len(long) >= 2
    for posts in long:
        gaps = [(b.timestamp_ms - a.timestamp_ms) / 1000 for a, b in pairwise(posts)]
        assert all(18 < gap < 62 for gap in gaps)
        if posts[0].platform == "twitter":
            assert account_days(posts[0]) > 365
            hours = (posts[-1].timestamp_ms - posts[0].timestamp_ms) / 3_600_000
            assert len(posts) / hours > 10 * posts[0].author.total_posts / account_days(posts[0]) / 24


def test_channels_say_the_same_again_and_again(six_hours: list[SimulatedPost]) -> None:
    written = by_account(six_hours, "shill_channel")
    assert {account.partition(":")[0] for account in written} == {"telegram", "discord"}
    for account, posts in written.items():
        assert account.startswith(("telegram:-100", "discord:"))
        assert len({post.text for post in posts}) <= 4 < 10 < len(posts)


def test_listed_accounts_are_the_same_whatever_the_seed(six_hours: list[SimulatedPost]) -> None:
    other = list(simulate(4, START_MS + 9 * DAY_MS, ["ETH"], posts_per_minute=300, duration_ms=HOUR_MS))
    for posts in (six_hours, other):
        written = by_account(posts, "listed")
        assert len(written) > 10
        assert set(written) <= set(listed_bots())
        others = {(post.platform, normalized(post).author_id) for post in posts if post.kind != "listed"}
        assert not {f"{platform}:{author}" for platform, author in others} & set(listed_bots())
    assert len(set(listed_bots())) == len(listed_bots())


def test_persistent_accounts_write_a_few_posts_every_hour(six_hours: list[SimulatedPost]) -> None:
    written = by_account(six_hours, "persistent")
    assert set(written) == set(persistent_bots(posts_per_minute=120))
    for posts in written.values():
        assert 2 <= len(posts) / 6 <= 8
        assert posts[0].author.followers < 0.1 * posts[0].author.following
    repeated = [1 - len({post.text for post in posts}) / len(posts) for posts in written.values()]
    assert min(repeated) < 0.2 < 0.35 < max(repeated)


@pytest.mark.parametrize(("kind", "oldest", "youngest"), [("young_campaign", 121, 1), ("aged_campaign", 3501, 400)])
def test_campaigns_have_young_accounts_or_aged_ones(
    six_hours: list[SimulatedPost], kind: str, oldest: int, youngest: int
) -> None:
    written = by_account(six_hours, kind)
    assert all(youngest <= account_days(posts[0]) <= oldest for posts in written.values())
    assert len(written) == 24 * 6


def test_a_slow_campaign_says_one_thing_for_hours_from_many_accounts() -> None:
    campaign = Campaign("ETH", START_MS, 8 * HOUR_MS, accounts=60, kind="slow_campaign")
    day = simulate(2, START_MS, ["ETH"], posts_per_minute=1, duration_ms=DAY_MS, spikes=(), campaigns=[campaign])
    posts = [post for post in day if post.kind == "slow_campaign"]
    gaps = [(b.event_time_ms - a.event_time_ms) / MINUTE_MS for a, b in pairwise(posts)]
    assert all(19 < gap < 91 for gap in gaps)
    assert 6 * HOUR_MS < posts[-1].event_time_ms - posts[0].event_time_ms < 8 * HOUR_MS
    copies = [normalized(post) for post in posts]
    assert len({copy.author_id for copy in copies}) == len(copies) >= 6
    young = [account_days(copy) < 121 for copy in copies]
    assert 0 < sum(young) < len(young)
    assert len({copy_hash(copy.text) for copy in copies}) < len(copies)


def test_without_given_ones_spikes_and_campaigns_come_again_for_ever() -> None:
    labels: Counter[str] = Counter()
    for post in simulate(5, START_MS, SYMBOLS, posts_per_minute=10):
        minute = (post.event_time_ms - START_MS) // MINUTE_MS
        labels[f"{post.label}{minute // 30}"] += 1
        if minute >= 60:
            break
    assert min(labels["spike0"], labels["spike1"], labels["campaign0"], labels["campaign1"]) >= 20


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ValueError, match="needs symbols"):
        simulate(1, START_MS, [])
    with pytest.raises(ValueError, match="positive number of posts"):
        simulate(1, START_MS, ["BTC"], posts_per_minute=0)
    with pytest.raises(InvalidSymbolError):
        simulate(1, START_MS, ["B T C"])
    with pytest.raises(ValueError, match="ETH is not among the simulated symbols BTC"):
        list(simulate(1, START_MS, ["BTC"], duration_ms=1, spikes=[Spike("ETH", START_MS)]))


async def test_the_source_hands_over_what_is_simulated() -> None:
    source = SimulatorSource(9, ["BTC"], start_ms=START_MS, duration_ms=MINUTE_MS, speed=None, now_ms=lambda: 5)
    posts = [post async for post in source.posts()]
    expected = list(simulate(9, START_MS, ["BTC"], duration_ms=MINUTE_MS))
    assert [post.identity for post in posts] == [f"simulator:{post.post_id}" for post in expected]
    assert [orjson.loads(post.raw.payload) for post in posts] == [post.payload for post in expected]
    assert {(post.raw.received_at_ms, post.raw.source) for post in posts} == {(5, "simulator")}
