"""The past, asked for by gRPC, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import orjson
import pytest

from gateway_svc.history import PAGE_BYTES, SentimentHistory
from gateway_svc.page_token import LAST_MS
from sentimesh.errors import StorageUnavailableError
from sentimesh.pb.gateway_pb2 import (
    AuthorCredibility,
    GetAuthorCredibilityRequest,
    GetSentimentHistoryRequest,
    ListViralSpikesRequest,
)
from sentimesh.pb.pipeline_pb2 import SamplePost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate, SocialPost
from tests.gateway_svc.conftest import NOW, Nothing, Past

if TYPE_CHECKING:
    from sentimesh.pb.gateway_pb2_grpc import SentimentGatewayServiceAsyncStub as Stub

WINDOW = 300_000
DAY = 86_400_000
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def window(ends_ago: int, symbol: str = "BTC") -> SentimentAggregate:
    end = NOW - ends_ago
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=end - WINDOW,
        window_end_ms=end,
        social_sentiment_score=0.75,
        post_count=12,
        updated_at_ms=end,
    )


def spike(ago: int, symbol: str = "BTC", text: str = "moon", samples: int = 1) -> ViralSpike:
    at = NOW - ago
    posts = [
        SamplePost(
            post_id=f"twitter:{ago}-{n}",
            platform="twitter",
            text=text,
            engagement=SocialPost.EngagementMetrics(likes=n),
            timestamp_ms=at - 1,
        )
        for n in range(samples)
    ]
    return ViralSpike(
        symbol=symbol, spike_ratio=6, mention_count=60, baseline_rate=10, detected_at_ms=at, sample_posts=posts
    )


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_history_is_the_last_day_unless_said_otherwise(past: Past, stub: Stub) -> None:
    ages = (DAY + WINDOW, DAY, DAY - WINDOW, WINDOW, 0, -WINDOW)
    await past.store.write_windows([*(window(ago) for ago in ages), window(WINDOW, "ETH")])
    answer = await stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="btc/usd"))
    # Windows that end after the start, up to and with the end; oldest first.
    assert list(answer.aggregates) == [window(DAY - WINDOW), window(WINDOW), window(0)]
    assert answer.next_page_token == ""
    answer = await stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", end_ms=NOW - WINDOW))
    assert list(answer.aggregates) == [window(ago) for ago in (DAY, DAY - WINDOW, WINDOW)]
    request = GetSentimentHistoryRequest(symbol="BTC", start_ms=1, end_ms=NOW + WINDOW)
    assert list((await stub.GetSentimentHistory(request)).aggregates) == [window(ago) for ago in ages]
    assert list((await stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="SOL"))).aggregates) == []


async def test_pages_of_history_join_up_and_keep_to_the_now_of_the_first(past: Past, stub: Stub) -> None:
    ages = [WINDOW * n for n in range(7, 0, -1)]
    await past.store.write_windows([window(ago) for ago in ages])
    request = GetSentimentHistoryRequest(symbol="BTC", page_size=3)
    pages: list[list[SentimentAggregate]] = []
    while not pages or request.page_token:
        answer = await stub.GetSentimentHistory(request)
        pages.append(list(answer.aggregates))
        request.page_token = answer.next_page_token
        # Time goes on, and windows that close meanwhile belong to another question.
        past.now_ms += DAY
        await past.store.write_windows([window(-WINDOW * len(pages))])
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [aggregate for page in pages for aggregate in page] == [window(ago) for ago in ages]


async def test_a_thousand_windows_are_a_page(past: Past, stub: Stub) -> None:
    await past.store.write_windows([window(WINDOW * n) for n in range(1001)])
    request = GetSentimentHistoryRequest(symbol="BTC", start_ms=1)
    answer = await stub.GetSentimentHistory(request)
    assert (len(answer.aggregates), answer.aggregates[0]) == (1000, window(WINDOW * 1000))
    request.page_token = answer.next_page_token
    assert list((await stub.GetSentimentHistory(request)).aggregates) == [window(0)]
    request = GetSentimentHistoryRequest(symbol="BTC", start_ms=1, page_size=10_000)
    assert len((await stub.GetSentimentHistory(request)).aggregates) == 1001


async def test_spikes_are_those_of_the_last_day_newest_first(past: Past, stub: Stub) -> None:
    inside = [spike(1), spike(500, "SOL"), spike(500, "BTC"), spike(DAY)]
    outside = [spike(0), spike(DAY + 1), spike(2, "XMR")]
    await past.store.write_spikes([*inside, *outside])
    answer = await stub.ListViralSpikes(ListViralSpikesRequest())
    # Of tracked symbols; detected at the start or after, before the end.
    assert (list(answer.spikes), answer.next_page_token) == (inside, "")
    answer = await stub.ListViralSpikes(ListViralSpikesRequest(symbols=["sol", "ETH", "SOL"], end_ms=NOW))
    assert list(answer.spikes) == [spike(500, "SOL")]
    request = ListViralSpikesRequest(symbols=["BTC"], start_ms=NOW - DAY - 1, end_ms=NOW + 1)
    assert len((await stub.ListViralSpikes(request)).spikes) == 5


async def test_pages_of_spikes_join_up(past: Past, stub: Stub) -> None:
    spikes = [spike(ago, symbol) for ago in range(1, 80) for symbol in ("SOL", "ETH", "BTC")]
    await past.store.write_spikes(spikes)
    request = ListViralSpikesRequest()
    pages: list[list[ViralSpike]] = []
    while not pages or request.page_token:
        answer = await stub.ListViralSpikes(request)
        pages.append(list(answer.spikes))
        request.page_token = answer.next_page_token
        past.now_ms += DAY
    assert [len(page) for page in pages] == [100, 100, 37]
    assert [spike for page in pages for spike in page] == spikes


async def test_long_posts_make_shorter_pages(past: Past, stub: Stub) -> None:
    # 1000 characters of four bytes, five posts a spike: a full page would be five times what clients take.
    spikes = [spike(ago, text="🚀" * 1000, samples=5) for ago in range(1, 1001)]
    await past.store.write_spikes(spikes)
    request = ListViralSpikesRequest(page_size=1000)
    found: list[ViralSpike] = []
    while not found or request.page_token:
        answer = await stub.ListViralSpikes(request)
        assert answer.spikes
        assert answer.ByteSize() <= PAGE_BYTES + 10_000
        found += answer.spikes
        request.page_token = answer.next_page_token
    assert found == spikes


async def test_a_text_too_old_is_not_shown_when_the_purge_is_behind(past: Past, stub: Stub) -> None:
    await past.store.write_spikes([spike(7 * DAY - 1000), spike(7 * DAY - 1)])
    answer = await stub.ListViralSpikes(ListViralSpikesRequest(start_ms=1))
    assert [post.text for shown in answer.spikes for post in shown.sample_posts] == ["moon", ""]
    assert answer.spikes[1].sample_posts[0].post_id == f"twitter:{7 * DAY - 1}-0"


async def test_known_authors_are_told_in_the_order_asked(past: Past, stub: Stub) -> None:
    await past.pool.executemany(
        "INSERT INTO social_author_credibility VALUES ($1, 'twitter', $2, $3, to_timestamp(1.5))",
        [("twitter:1", 0.25, False), ("reddit:t2_é", 0.0, True)],
    )
    names = ["reddit:t2_é", "telegram:nobody", "twitter:1"]
    answer = await stub.GetAuthorCredibility(GetAuthorCredibilityRequest(authors=names))
    assert list(answer.authors) == [
        AuthorCredibility(author="reddit:t2_é", is_known_bot=True, last_updated_ms=1500, multiplier=1.0),
        AuthorCredibility(author="twitter:1", credibility_score=0.25, last_updated_ms=1500, multiplier=1.0),
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"start_ms": -1}, "start_ms is -1: give epoch milliseconds from 0"),
        ({"end_ms": -5}, "end_ms is -5: "),
        ({"end_ms": LAST_MS + 1}, "the end of the year 9999"),
        ({"start_ms": 2**63 - 1}, "the end of the year 9999"),
        ({"start_ms": 2, "end_ms": 1}, "start_ms 2 is after end_ms 1"),
        ({"start_ms": NOW + 1}, f"is after end_ms {NOW} "),
        ({"page_size": -1}, "page_size is -1: give 1 to"),
        ({"page_size": 10_001}, "page_size is 10001: give 1 to"),
    ],
)
async def test_fields_that_cannot_be_are_refused(past: Past, stub: Stub, fields: dict[str, Any], sentence: str) -> None:
    for call in (
        stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", **fields)),
        stub.ListViralSpikes(ListViralSpikesRequest(**fields)),
    ):
        code, detail = await refused(call)
        assert code == INVALID
        assert sentence in detail


async def test_the_largest_pages_and_the_last_times_are_taken(past: Past, stub: Stub) -> None:
    ends: dict[str, Any] = {"start_ms": LAST_MS, "end_ms": LAST_MS}
    assert not (
        await stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", page_size=10_000, **ends))
    ).aggregates
    assert not (await stub.ListViralSpikes(ListViralSpikesRequest(page_size=1000, **ends))).spikes
    code, detail = await refused(stub.ListViralSpikes(ListViralSpikesRequest(page_size=1001)))
    assert (code, detail) == (INVALID, "page_size is 1001: give 1 to 1000, or 0 for 100")


@pytest.mark.parametrize(
    ("symbol", "code"),
    [("NOPE", grpc.StatusCode.NOT_FOUND), ("", INVALID), ("BTC'; --", INVALID), ("B" * 21, INVALID)],
)
async def test_symbols_are_refused_as_elsewhere(past: Past, stub: Stub, symbol: str, code: grpc.StatusCode) -> None:
    assert (await refused(stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol=symbol))))[0] == code
    assert (await refused(stub.ListViralSpikes(ListViralSpikesRequest(symbols=["BTC", symbol]))))[0] == code


async def test_spikes_of_over_a_hundred_symbols_are_refused(past: Past, stub: Stub) -> None:
    code, detail = await refused(stub.ListViralSpikes(ListViralSpikesRequest(symbols=["BTC"] * 101)))
    assert code == INVALID
    assert "100 at most" in detail


@pytest.mark.parametrize(
    "authors",
    [[], ["twitter:1"] * 101, [""], ["1"], ["twitter:"], [":1"], ["Twitter:1"], ["twitter:a\0b"], ["x:" + "y" * 99]],
)
async def test_authors_that_cannot_be_are_refused(past: Past, stub: Stub, authors: Sequence[str]) -> None:
    code, detail = await refused(stub.GetAuthorCredibility(GetAuthorCredibilityRequest(authors=authors)))
    assert code == INVALID
    assert ": ask for 1 to 100" in detail or ': write "{platform}:{author_id}"' in detail


def forged(token: str, *position: object) -> str:
    """Return a token with the check of a real one and another position."""
    return base64.urlsafe_b64encode(
        orjson.dumps([orjson.loads(base64.urlsafe_b64decode(token))[0], *position])
    ).decode()


async def test_a_token_for_another_question_is_refused(past: Past, stub: Stub) -> None:
    await past.store.write_windows([window(WINDOW), window(0)])
    await past.store.write_spikes([spike(1), spike(2)])
    token = (await stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", page_size=1))).next_page_token
    other = (await stub.ListViralSpikes(ListViralSpikesRequest(page_size=1))).next_page_token
    for call in (
        stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="ETH", page_token=token)),
        stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", start_ms=5, page_token=token)),
        stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", end_ms=NOW, page_token=token)),
        stub.ListViralSpikes(ListViralSpikesRequest(symbols=["BTC"], page_token=other)),
    ):
        code, detail = await refused(call)
        assert (code, detail.partition(":")[0]) == (
            INVALID,
            "page_token belongs to a call with other symbols or times",
        )
    # The size of pages may change.
    request = GetSentimentHistoryRequest(symbol="BTC", page_size=7, page_token=token)
    assert list((await stub.GetSentimentHistory(request)).aggregates) == [window(0)]


async def test_what_is_no_token_is_refused(past: Past, stub: Stub) -> None:
    await past.store.write_windows([window(WINDOW), window(0)])
    await past.store.write_spikes([spike(1), spike(2)])
    windows = (await stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", page_size=1))).next_page_token
    spikes = (await stub.ListViralSpikes(ListViralSpikesRequest(page_size=1))).next_page_token
    nonsense = [
        "x",
        "🚀",
        "AAAA",
        windows[:-4],
        windows + "=",
        base64.b64encode(b"5").decode(),
        base64.b64encode(b"[]").decode(),
    ]
    for token in [
        *nonsense,
        spikes,
        forged(windows, 1, 2, 3),
        forged(windows, 1, 2, 3, "4"),
        forged(windows, 1, 2, 3, True),
        forged(windows, 1, 2, 3, -4),
        forged(windows, 1, LAST_MS + 1, 3, 4),
        forged(windows, 1, 2, 3, 2**64 - 1),
        forged(windows, 1, 2, 3, 4.0),
    ]:
        code, detail = await refused(
            stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC", page_token=token))
        )
        assert (code, detail.partition(":")[0]) == (INVALID, "page_token is not one that this gateway gave"), token
    for token in [*nonsense, windows, forged(spikes, 1, 2, 3, "\0"), forged(spikes, 1, 2, 3, 4)]:
        code, detail = await refused(stub.ListViralSpikes(ListViralSpikesRequest(page_token=token)))
        assert (code, detail.partition(":")[0]) == (INVALID, "page_token is not one that this gateway gave"), token


async def test_without_postgresql_the_answer_is_what_to_do(past: Past, stub: Stub) -> None:
    await past.pool.close()
    for call in (
        stub.GetSentimentHistory(GetSentimentHistoryRequest(symbol="BTC")),
        stub.ListViralSpikes(ListViralSpikesRequest()),
        stub.GetAuthorCredibility(GetAuthorCredibilityRequest(authors=["twitter:1"])),
    ):
        code, detail = await refused(call)
        assert code == grpc.StatusCode.UNAVAILABLE
        assert detail.startswith("the history cannot be read: PostgreSQL ")
        assert detail.endswith("check the server of storage.postgresql.dsn, then ask again")


async def test_a_postgresql_that_hangs_is_one_that_is_away() -> None:
    class Hanging(Nothing):
        async def authors(self, names: Sequence[str]) -> list[AuthorCredibility | None]:
            await asyncio.Event().wait()
            return []

    history = SentimentHistory(Hanging(), now_ms=lambda: NOW, timeout_seconds=0.01)
    with pytest.raises(StorageUnavailableError, match=r"gave no answer in 0\.01 s: check the server"):
        await history.authors(GetAuthorCredibilityRequest(authors=["twitter:1"]))
