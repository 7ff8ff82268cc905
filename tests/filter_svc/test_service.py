from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from filter_svc.author_history import MemoryAuthorHistory
from filter_svc.known_bots import MemoryKnownBots
from filter_svc.service import FilterStage
from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.pipeline_pb2 import FilteredPost, RejectedPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOW_MS = 1_571_500_000_000
TEXT = "Bitcoin broke out of its range today and the funding rate is still negative, I am buying more"
OTHER = "Anyone else waiting for the weekly close before touching this market again? Feels heavy to me"


def make_post(
    post_id: str,
    text: str = TEXT,
    *,
    symbol: str = "BTC",
    author_id: str = "a",
    timestamp_ms: int = NOW_MS,
    age_days: int = 30,
) -> SocialPost:
    # As new as is not suspect, followed by nobody: 0.375 when original, 0.125 when a copy.
    return SocialPost(
        post_id=post_id,
        platform="twitter",
        symbol=symbol,
        text=text,
        author_id=author_id,
        timestamp_ms=timestamp_ms,
        author=SocialPost.AuthorMetrics(
            followers=0, following=900, account_created_ms=timestamp_ms - age_days * DAY_MS
        ),
    )


async def run(stage: FilterStage, posts: Sequence[SocialPost], first: int = 1) -> list[Outcome]:
    outcomes = await stage.process([Delivery(post, sequence) for sequence, post in enumerate(posts, first)])
    assert all(len(of_one) == 1 for of_one in outcomes)
    return [bare(of_one[0]) for of_one in outcomes]


def bare(outcome: Outcome) -> Outcome:
    """Return a drop without what is kept of it."""
    return replace(outcome, record=None) if isinstance(outcome, Drop) else outcome


def score(outcome: Outcome) -> float | None:
    if isinstance(outcome, Forward):
        assert isinstance(outcome.message, FilteredPost)
        return round(outcome.message.credibility_score, 4)
    assert isinstance(outcome, Drop)
    return outcome.credibility_score


async def test_an_original_passes_with_its_factors() -> None:
    post = make_post("twitter:1")
    [outcome] = await run(FilterStage(MemoryKnownBots()), [post])
    assert isinstance(outcome, Forward)
    assert (outcome.symbol, outcome.identity) == ("BTC", "twitter:1")
    assert isinstance(outcome.message, FilteredPost)
    assert outcome.message.post == post
    assert outcome.message.credibility_score == pytest.approx(0.375)
    assert outcome.message.factors.originality == 0.25


async def test_a_copy_by_another_post_is_dropped_in_the_same_batch_and_in_a_later_one() -> None:
    stage = FilterStage(MemoryKnownBots())
    first, copy = await run(stage, [make_post("twitter:1"), make_post("twitter:2", timestamp_ms=NOW_MS + 1)])
    [later] = await run(stage, [make_post("reddit:3", TEXT.upper() + " https://x.example/1", timestamp_ms=NOW_MS + 2)])
    assert isinstance(first, Forward)
    assert copy == Drop("twitter:2", "BTC", "duplicate", 0.125)
    assert later == Drop("reddit:3", "BTC", "duplicate", 0.125)


async def test_a_copy_from_a_credible_account_passes_without_its_originality() -> None:
    stage = FilterStage(MemoryKnownBots())
    outcomes = await run(stage, [make_post("twitter:1"), make_post("twitter:2", age_days=4000)])
    assert [score(outcome) for outcome in outcomes] == [0.375, 0.375]
    assert isinstance(outcomes[1], Forward)
    assert isinstance(outcomes[1].message, FilteredPost)
    assert outcomes[1].message.factors.originality == 0.0


async def test_a_post_is_no_copy_of_itself_for_another_symbol_or_when_redelivered() -> None:
    stage = FilterStage(MemoryKnownBots())
    posts = [make_post("twitter:1"), make_post("twitter:1", symbol="ETH")]
    first = await run(stage, posts)
    again = await run(stage, posts)
    assert [score(outcome) for outcome in first] == [0.375, 0.375]
    assert again == first


async def test_a_copy_keeps_its_verdict_when_redelivered() -> None:
    stage = FilterStage(MemoryKnownBots())
    posts = [make_post("twitter:1"), make_post("twitter:2"), make_post("twitter:2", symbol="ETH")]
    first = await run(stage, posts)
    assert [score(outcome) for outcome in first] == [0.375, 0.125, 0.125]
    assert await run(stage, posts[::-1]) == first[::-1]


async def test_after_the_time_to_live_a_text_is_new_again() -> None:
    stage = FilterStage(MemoryKnownBots(), simhash_ttl_ms=HOUR_MS)
    times = [NOW_MS, NOW_MS + HOUR_MS - 1, NOW_MS + 3 * HOUR_MS]
    outcomes = [(await run(stage, [make_post(f"twitter:{time}", timestamp_ms=time)]))[0] for time in times]
    assert [score(outcome) for outcome in outcomes] == [0.375, 0.125, 0.375]


async def test_texts_of_links_alone_are_not_copies_of_each_other() -> None:
    posts = [make_post("twitter:1", "https://a.example/1"), make_post("twitter:2", "https://b.example/2")]
    assert [score(outcome) for outcome in await run(FilterStage(MemoryKnownBots()), posts)] == [0.375, 0.375]


async def test_known_bots_are_dropped_whatever_they_write_and_whatever_the_threshold() -> None:
    bots = MemoryKnownBots(["bot"])
    post = make_post("twitter:1", author_id="bot", age_days=4000)
    for threshold in (0.3, 0.0):
        outcomes = await run(FilterStage(bots, min_credibility=threshold), [post, make_post("twitter:2", OTHER)])
        assert outcomes[0] == Drop("twitter:1", "BTC", "known_bot", 0.0)
        assert isinstance(outcomes[1], Forward)


async def test_a_post_under_the_threshold_that_is_no_copy_has_low_credibility() -> None:
    [outcome] = await run(FilterStage(MemoryKnownBots(), min_credibility=0.3751), [make_post("twitter:1")])
    assert outcome == Drop("twitter:1", "BTC", "low_credibility", 0.375)


async def test_a_post_at_the_threshold_passes() -> None:
    [outcome] = await run(FilterStage(MemoryKnownBots(), min_credibility=0.375), [make_post("twitter:1")])
    assert isinstance(outcome, Forward)


@pytest.mark.parametrize(
    ("post_id", "symbol", "fault"),
    [
        ("", "BTC", "no post_id"),
        ("twitter:9", "", "symbol ''"),
        ("twitter:9", "btc", "symbol 'btc'"),
        ("twitter:9", "BTC\n", "symbol 'BTC"),
        ("twitter:9", "A" * 21, "symbol"),
    ],
)
async def test_what_cannot_be_filtered_is_rejected_and_not_remembered(post_id: str, symbol: str, fault: str) -> None:
    stage = FilterStage(MemoryKnownBots())
    outcomes = await run(stage, [make_post(post_id, symbol=symbol), make_post("twitter:1")])
    assert isinstance(outcomes[0], Reject)
    assert fault in outcomes[0].reason
    assert score(outcomes[1]) == 0.375


async def test_a_session_has_seen_nothing_and_knows_the_bots() -> None:
    stage = FilterStage(MemoryKnownBots(["bot"]), min_credibility=0.2)
    await run(stage, [make_post("twitter:1")])
    outcomes = await run(stage.session(), [make_post("twitter:2"), make_post("twitter:3", OTHER, author_id="bot")])
    assert score(outcomes[0]) == 0.375
    assert outcomes[1] == Drop("twitter:3", "BTC", "known_bot", 0.0)
    [copy] = await run(stage, [make_post("twitter:4")])
    assert copy == Drop("twitter:4", "BTC", "duplicate", 0.125)


async def test_an_outage_in_between_changes_no_answer() -> None:
    class Flaky(MemoryKnownBots):
        away = True

        async def contains(self, author_ids: Sequence[str]) -> list[bool]:
            if self.away:
                raise StorageUnavailableError("Redis is away")
            return await super().contains(author_ids)

    bots = Flaky()
    stage = FilterStage(bots)
    posts = [make_post("twitter:1"), make_post("twitter:2")]
    with pytest.raises(StorageUnavailableError):
        await run(stage, posts)
    bots.away = False
    assert [score(outcome) for outcome in await run(stage, posts)] == [0.375, 0.125]


async def test_nothing_is_due_by_the_clock_and_an_empty_batch_is_one() -> None:
    stage = FilterStage(MemoryKnownBots())
    assert await stage.tick() == ()
    assert await run(stage, []) == []


def words(chance: random.Random) -> str:
    """Return a text like no other."""
    return " ".join("".join(chance.choices("aeinorstuvwxyz", k=6)) for _ in range(12))


def crowd(number: int, text: str = TEXT, **fields: Any) -> SocialPost:
    return make_post(f"twitter:{number}", text, author_id=f"author{number}", age_days=4000, **fields)


async def test_posts_of_the_same_words_share_one_voice_whoever_writes_them_hours_later() -> None:
    stage = FilterStage(MemoryKnownBots())
    posts = [crowd(number, timestamp_ms=NOW_MS + number * 5 * HOUR_MS) for number in range(1, 5)]
    outcomes = await run(stage, posts)
    # Nobody follows them: 0.25 for the age, 0.25 for words that nobody used in the hour before, 0.125.
    assert [score(outcome) for outcome in outcomes] == [0.625, 0.625, 0.2083, 0.1562]
    assert outcomes[2] == Drop("twitter:3", "BTC", "flooding", 0.2083)


async def test_small_edits_are_the_same_flood() -> None:
    stage = FilterStage(MemoryKnownBots())
    posts = [crowd(number, f"{TEXT} {'!' * number} https://x.example/{number}") for number in range(1, 4)]
    edited = crowd(4, TEXT.replace("today", "todays"))
    outcomes = await run(stage, [*posts, edited])
    assert [score(outcome) for outcome in outcomes] == [0.625, 0.375, 0.125, 0.0938]


async def test_an_account_that_writes_on_and_on_is_dropped_for_its_frequency() -> None:
    stage = FilterStage(MemoryKnownBots())
    chance = random.Random(5)
    posts = [
        make_post(f"twitter:{number}", words(chance), age_days=4000, timestamp_ms=NOW_MS + number)
        for number in range(1, 41)
    ]
    outcomes = await run(stage, posts)
    assert all(isinstance(outcome, Forward) for outcome in outcomes[:8])
    assert isinstance(outcomes[39], Drop)
    assert outcomes[39].reason == "post_frequency"


async def test_a_new_account_that_nobody_follows_is_dropped_for_that() -> None:
    [outcome] = await run(FilterStage(MemoryKnownBots()), [make_post("twitter:1", age_days=2)])
    assert outcome == Drop("twitter:1", "BTC", "new_account", 0.1137)


async def test_what_was_learned_of_an_author_counts() -> None:
    stage = FilterStage(
        MemoryKnownBots(), history=MemoryAuthorHistory({"twitter:author1": 0.2, "twitter:author2": 0.9})
    )
    outcomes = await run(stage, [crowd(1), crowd(2, OTHER)])
    assert outcomes[0] == Drop("twitter:1", "BTC", "author_history", 0.125)
    assert score(outcomes[1]) == 0.5625


async def test_a_live_stages_session_explains_by_what_the_stage_has_seen_and_leaves_nothing_there() -> None:
    stage = FilterStage(MemoryKnownBots())
    await run(stage, [crowd(number) for number in range(1, 4)])
    session = stage.session()
    for _ in range(2):
        explained = await session.explain(crowd(9))
        assert [each.value for each in explained.multipliers] == [0.25, 1.0, 1.0, 1.0, 1.0]
        assert (
            explained.multipliers[0].input
            == "3 posts of these words by 3 accounts before it: 2 or more share one voice"
        )
        assert (explained.passes, explained.drop_reason) == (False, "flooding")
    [fourth] = await run(stage, [crowd(10, timestamp_ms=NOW_MS + 5 * HOUR_MS)], 4)
    assert score(fourth) == 0.1562


async def test_what_is_kept_of_a_dropped_post() -> None:
    [[outcome]] = await FilterStage(MemoryKnownBots(["twitter:a"])).process([Delivery(make_post("twitter:1"), 1)])
    assert isinstance(outcome, Drop)
    record = outcome.record
    assert isinstance(record, RejectedPost)
    assert (record.post_id, record.platform, record.symbol, record.author_id) == ("twitter:1", "twitter", "BTC", "a")
    assert (record.timestamp_ms, record.reason, record.credibility_score) == (NOW_MS, "known_bot", 0.0)
    assert (record.multipliers.known_bot, record.multipliers.author_history) == (0.0, 1.0)
    assert record.factors.originality == 0.25


async def test_a_channel_that_says_the_same_every_week_floods_and_a_person_does_not() -> None:
    week_ms = 7 * DAY_MS

    def weekly(author_id: str, platform: str) -> list[SocialPost]:
        posts = [make_post(f"{platform}:{n}", author_id=author_id, timestamp_ms=NOW_MS + n * week_ms) for n in range(5)]
        for post in posts:
            post.platform = platform
            # Telegram says nothing of a channel.
            post.ClearField("author")
        return posts

    of_channel = await run(FilterStage(MemoryKnownBots()), weekly("-1001234", "telegram"))
    assert [isinstance(outcome, Forward) for outcome in of_channel] == [True, True, False, False, False]
    assert of_channel[2] == Drop("telegram:2", "BTC", "flooding", 0.2083)
    of_person = await run(FilterStage(MemoryKnownBots()), weekly("1234", "telegram"))
    assert all(isinstance(outcome, Forward) for outcome in of_person)
