from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice

import orjson
import pytest

from ingest_svc.normalize import normalize
from ingest_svc.sources.simulator import Campaign, SimulatedPost, SimulatorSource, Spike, simulate
from ingest_svc.text import copy_hash
from sentimesh.errors import InvalidSymbolError
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.symbols import TrackedExtractor, load_assets

START_MS = 1_760_000_000_000
MINUTE_MS = 60_000
SYMBOLS = ["BTC", "ETH", "SOL", "NEAR", "LINK", "ZZZ9"]


def normalized(post: SimulatedPost) -> SocialPost:
    raw = RawPost(platform=post.platform, payload=orjson.dumps(post.payload))
    return normalize(raw, START_MS + 100 * MINUTE_MS)[0]


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


def test_the_same_seed_gives_the_same_posts_and_another_others() -> None:
    def first(seed: int) -> list[SimulatedPost]:
        return list(islice(simulate(seed, START_MS, SYMBOLS), 300))

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


def test_activity_and_followers_are_heavy_tailed(half_an_hour: list[SimulatedPost]) -> None:
    followers: dict[str, int] = {}
    activity: Counter[str] = Counter()
    for post in half_an_hour:
        if post.platform == "twitter" and post.label == "human":
            found = normalized(post)
            followers[found.author_id] = found.author.followers
            activity[found.author_id] += 1
    ranked = sorted(followers.values())
    assert ranked[-1] > 20 * ranked[len(ranked) // 2]
    busiest = sum(count for _, count in activity.most_common(len(activity) // 10))
    assert busiest > 0.3 * activity.total()


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


def test_bots_are_new_follow_many_and_write_often(half_an_hour: list[SimulatedPost]) -> None:
    times: defaultdict[str, list[int]] = defaultdict(list)
    for post in half_an_hour:
        if post.label == "bot":
            found = normalized(post)
            assert found.timestamp_ms - found.author.account_created_ms < 26 * 86_400_000
            assert found.author.followers <= 30 < 1500 <= found.author.following
            times[found.author_id].append(found.timestamp_ms)
    busiest = max(times.values(), key=len)
    assert len(busiest) > 30


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
