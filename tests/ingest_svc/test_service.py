from __future__ import annotations

import orjson
import pytest

from ingest_svc.claims import MemoryClaims
from ingest_svc.service import IngestStage
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.stage import Delivery, Drop, Forward, Outcome, Reject
from sentimesh.symbols import TrackedExtractor, load_assets

NOW_MS = 1_760_000_100_000
LONG = "Everybody I know is buying BTC because the supply shock is finally here"


@pytest.fixture
def stage() -> IngestStage:
    extractor = TrackedExtractor(load_assets(["BTC", "ETH", "NEAR"]))
    return IngestStage(extractor, MemoryClaims(), ["en"], lambda: NOW_MS)


def tweet(native_id: int, text: str, *, lang: str = "en", **references: int) -> RawPost:
    data = {
        "id": str(native_id),
        "text": text,
        "lang": lang,
        "author_id": "7",
        "created_at": "2025-10-09T08:53:20.000Z",
        "referenced_tweets": [{"type": kind, "id": str(other)} for kind, other in references.items()],
    }
    return RawPost(platform="twitter", payload=orjson.dumps({"data": data}), received_at_ms=NOW_MS - 5)


def comment(native_id: str, text: str, at: float = 1_760_000_000.0) -> RawPost:
    data = {"id": native_id, "author": "x", "created_utc": at, "body": text}
    return RawPost(platform="reddit", payload=orjson.dumps({"kind": "t1", "data": data}), received_at_ms=NOW_MS - 5)


async def run(stage: IngestStage, *posts: RawPost, first: int = 1) -> list[list[Outcome]]:
    return await stage.process([Delivery(post, first + index) for index, post in enumerate(posts)])


def reasons(outcomes: list[list[Outcome]]) -> list[str]:
    """Return each input's reason for being dropped, or the symbols it goes on with."""
    words = []
    for of_one in outcomes:
        match of_one:
            case [Drop(reason=reason)]:
                words.append(reason)
            case _:
                assert all(isinstance(outcome, Forward) for outcome in of_one)
                words.append("+".join(outcome.symbol for outcome in of_one if isinstance(outcome, Forward)))
    return words


async def test_a_post_goes_on_once_for_each_symbol(stage: IngestStage) -> None:
    [outcomes] = await run(stage, tweet(1, "selling ETH for bitcoin, then more eth"))
    assert [type(outcome) for outcome in outcomes] == [Forward, Forward]
    for outcome, symbol in zip(outcomes, ["ETH", "BTC"], strict=True):
        assert isinstance(outcome, Forward)
        assert isinstance(outcome.message, SocialPost)
        assert (outcome.symbol, outcome.message.symbol, outcome.identity) == (symbol, symbol, "twitter:1")
        assert (outcome.message.received_at_ms, outcome.message.ingested_at_ms) == (NOW_MS - 5, NOW_MS)


async def test_what_is_dropped_and_why(stage: IngestStage) -> None:
    outcomes = await run(
        stage,
        tweet(1, "gm"),
        tweet(2, "BTC sube", lang="es"),
        tweet(3, "BTC ⬆️", lang="und"),
        tweet(4, "   "),
        comment("5", "[removed]"),
        tweet(6, "https://t.co/x", quoted=1),
        tweet(7, "near the end of BTC"),
    )
    assert reasons(outcomes) == ["no_symbol", "language", "BTC", "empty", "empty", "no_symbol", "BTC"]
    assert outcomes[1] == [Drop("twitter:2", "", "language")]


async def test_all_languages_pass_when_none_is_named() -> None:
    stage = IngestStage(TrackedExtractor(load_assets(["BTC"])), MemoryClaims(), [], lambda: NOW_MS)
    assert reasons(await run(stage, tweet(1, "BTC sube", lang="es"))) == ["BTC"]


async def test_bots_that_the_platform_names_are_dropped(stage: IngestStage) -> None:
    message = {
        "id": "1",
        "channel_id": "2",
        "timestamp": "2025-10-09T08:53:20+00:00",
        "content": "BTC price: 1",
        "author": {"id": "3", "bot": True},
    }
    raw = RawPost(platform="discord", payload=orjson.dumps(message), received_at_ms=NOW_MS)
    assert reasons(await run(stage, raw)) == ["bot_account"]


async def test_an_unreadable_payload_is_rejected_and_the_rest_goes_on(stage: IngestStage) -> None:
    outcomes = await run(stage, RawPost(platform="twitter", payload=b"{"), tweet(1, "BTC"))
    [rejected] = outcomes[0]
    assert isinstance(rejected, Reject)
    assert "not JSON" in rejected.reason
    assert reasons(outcomes[1:]) == ["BTC"]


async def test_reposts_of_a_post_seen_are_dropped(stage: IngestStage) -> None:
    outcomes = await run(
        stage, tweet(1, "BTC up"), tweet(2, "RT @a: BTC up", retweeted=1), tweet(3, "RT @a: BTC up", retweeted=1)
    )
    assert reasons(outcomes) == ["BTC", "repost", "repost"]
    assert outcomes[1] == [Drop("twitter:2", "BTC", "repost")]


async def test_the_first_repost_stands_for_an_unseen_original(stage: IngestStage) -> None:
    outcomes = await run(
        stage, tweet(2, "RT @a: BTC up", retweeted=1), tweet(3, "RT @a: BTC up", retweeted=1), tweet(1, "BTC up")
    )
    assert reasons(outcomes) == ["BTC", "repost", "duplicate"]
    [forward] = outcomes[0]
    assert isinstance(forward, Forward)
    assert isinstance(forward.message, SocialPost)
    assert (forward.message.post_id, forward.message.repost_of) == ("twitter:2", "twitter:1")


async def test_a_quote_with_words_of_its_own_is_a_post(stage: IngestStage) -> None:
    outcomes = await run(stage, tweet(1, "BTC up"), tweet(2, "BTC up? no https://t.co/a", quoted=1))
    assert reasons(outcomes) == ["BTC", "BTC"]


async def test_a_post_without_symbol_claims_nothing(stage: IngestStage) -> None:
    outcomes = await run(stage, tweet(2, "RT @a: very soon…", retweeted=1), tweet(1, "soon: BTC"))
    assert reasons(outcomes) == ["no_symbol", "BTC"]


async def test_the_same_id_again_is_a_duplicate_but_a_redelivery_is_not(stage: IngestStage) -> None:
    assert reasons(await run(stage, tweet(1, "BTC"), first=10)) == ["BTC"]
    assert reasons(await run(stage, tweet(1, "BTC"), first=10)) == ["BTC"]
    assert reasons(await run(stage, tweet(1, "BTC"), first=11)) == ["duplicate"]


async def test_a_copy_on_another_platform_is_dropped_one_on_the_same_is_the_filters_business(
    stage: IngestStage,
) -> None:
    outcomes = await run(
        stage,
        tweet(1, LONG),
        tweet(2, LONG),
        comment("a", LONG.upper() + "!!"),
        comment("b", "BTC up"),
        tweet(3, "BTC up"),
        comment("c", LONG, at=1_760_000_000.0 - 4000),
    )
    assert reasons(outcomes) == ["BTC", "BTC", "cross_platform_copy", "BTC", "BTC", "BTC"]


async def test_a_session_starts_empty_and_leaves_no_trace(stage: IngestStage) -> None:
    session = stage.session()
    assert reasons(await run(session, tweet(1, "BTC"), first=1)) == ["BTC"]
    assert reasons(await run(stage, tweet(1, "BTC"), first=2)) == ["BTC"]
    assert reasons(await run(stage.session(), tweet(1, "BTC"), first=3)) == ["BTC"]


async def test_nothing_is_due_by_the_clock(stage: IngestStage) -> None:
    assert list(await stage.tick()) == []
    assert await stage.process([]) == []
