from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis.asyncio
import typer
from google.protobuf.json_format import MessageToDict
from typer.testing import CliRunner, Result

from filter_svc.known_bots import KnownBots, MemoryKnownBots, RedisKnownBots
from filter_svc.service import FilterStage
from sentimesh.cli.explain import ExplainError, explain
from sentimesh.errors import SentimeshError
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.rpc import RpcServer, add_stage

T = TypeVar("T")
DAY_MS = 86_400_000
NOW_MS = 1_571_500_000_000
POST = SocialPost(
    post_id="twitter:1",
    platform="twitter",
    symbol="BTC",
    text="Bitcoin broke out of its range today and the funding rate is still negative",
    author_id="bot",
    timestamp_ms=NOW_MS,
    author=SocialPost.AuthorMetrics(followers=0, following=900, account_created_ms=NOW_MS - 30 * DAY_MS),
)


def post_json(**fields: object) -> str:
    return json.dumps(MessageToDict(POST) | fields)


def tweet(number: int, text: str, **data: object) -> dict[str, Any]:
    user = {
        "id": "5",
        "username": "a",
        "created_at": "2019-09-19T15:46:40.000Z",
        "public_metrics": {"followers_count": 0, "following_count": 900},
    }
    common = {"id": str(number), "text": text, "author_id": "5", "created_at": "2019-10-19T15:46:40.000Z", "lang": "en"}
    return {"data": common | data, "includes": {"users": [user]}}


def recorded(*payloads: dict[str, Any]) -> bytes:
    lines = [json.dumps({"platform": "twitter", "received_at_ms": NOW_MS, "payload": payload}) for payload in payloads]
    return "\n\n".join(lines).encode()


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    app = typer.Typer()
    app.command()(explain)
    return CliRunner().invoke(app, list(arguments), input=stdin)


def found(*arguments: str, stdin: bytes | None = None) -> list[dict[str, Any]]:
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def failure(*arguments: str, stdin: bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, SentimeshError), result.output
    assert isinstance(result.exception, ExplainError)
    return str(result.exception)


def test_a_post_as_a_table() -> None:
    result = run("--post-json", post_json())
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines == [
        "twitter:1  BTC",
        "account_age            0.0000  account 30 days old: nothing up to 30 days",
        "follower_ratio         0.0000  0 followers, follows 900, ratio 0.00: 2 would be full",
        "originality            0.2500  no copy of a post seen before it: full",
        "verification           0.1250  not verified: half",
        "sum                    0.3750",
        "copy_paste_flooding  x 1.0000  no other post of these words before it",
        "post_frequency       x 1.0000  1 post in an hour: usual rate unknown, up to 8 for the crowd",
        "new_account          x 1.0000  30 days or older: not suspect",
        "known_bot            x 1.0000  not in the set of known bots",
        "author_history       x 1.0000  nothing held against the account",
        "credibility            0.3750  passes: at least 0.3",
        "as a copy              0.1250  were it a copy of another post",
    ]


def test_a_table_names_the_reason_and_no_stranger_steers_the_terminal() -> None:
    config_free = ["--jsonl", "-"]
    lines = f"{post_json()}\n{post_json(postId='twitter:2' + chr(27) + '[31m')}\n"
    result = run(*config_free, stdin=lines.encode())
    assert result.exit_code == 0
    assert "twitter:2[31m  BTC" in result.stdout
    assert "dropped: duplicate (least that passes: 0.3)" in result.stdout
    assert chr(27) not in result.stdout


def test_a_native_payload_is_one_mention_a_symbol(tmp_path: Path) -> None:
    file = tmp_path / "tweet.json"
    file.write_text(json.dumps(tweet(7, "Switching all of my $BTC into $ETH this week, wish me luck"), indent=2))
    mentions = found("--platform", "twitter", str(file))
    assert [(mention["post_id"], mention["symbol"]) for mention in mentions] == [
        ("twitter:7", "BTC"),
        ("twitter:7", "ETH"),
    ]
    assert {mention["credibility_score"] for mention in mentions} == {0.375}
    assert not any(mention["near_duplicate"] for mention in mentions)
    assert mentions[0]["factors"][0] == {
        "name": "account_age",
        "value": 0.0,
        "input": "account 30 days old: nothing up to 30 days",
        "unknown": False,
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_a_recording_is_read_in_order_copies_and_what_ingest_drops_included(tmp_path: Path, compressed: bool) -> None:
    text = "Bitcoin broke out of its range today and the funding rate is still negative"
    content = recorded(tweet(1, text), tweet(2, text), tweet(3, "good morning everybody"), tweet(2, text))
    file = tmp_path / ("posts.jsonl.gz" if compressed else "posts.jsonl")
    file.write_bytes(gzip.compress(content) if compressed else content)
    first, copy, chatter, again = found("--jsonl", str(file))
    assert (first["passes"], first["credibility_score"]) == (True, 0.375)
    assert (copy["near_duplicate"], copy["passes"], copy["drop_reason"]) == (True, False, "duplicate")
    assert (chatter["post_id"], chatter["stage"], chatter["reason"]) == ("twitter:3", "ingest", "no_symbol")
    assert again["reason"] == "duplicate"
    assert "twitter:3  ingest drops it: no_symbol" in run("--jsonl", str(file)).stdout


def test_standard_input_holds_a_payload_or_lines_of_posts() -> None:
    [of_payload] = found("--platform", "twitter", "-", stdin=json.dumps(tweet(7, "$BTC")).encode())
    [of_post] = found("--jsonl", "-", stdin=post_json().encode())
    assert (of_payload["post_id"], of_post["post_id"]) == ("twitter:7", "twitter:1")


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("--post-json", "{"), b"", "--post-json is not JSON"),
        (("--post-json", "[]"), b"", "--post-json is not a JSON object"),
        (("--post-json", '{"postid": "x"}'), b"", "--post-json is not a SocialPost"),
        (("--post-json", '{"post_id": "x:1"}'), b"", "--post-json cannot be used: post x:1 has the symbol ''"),
        (("--jsonl", "-"), post_json().encode() + b"\n\n{", "-:3 is not JSON"),
        (("--jsonl", "-"), b'{"platform": "x", "payload": {}}', "-:1 cannot be used: platform is 'x'"),
        (("--jsonl", "-"), b'{"platform": "twitter", "payload": {}}', "-:1 cannot be used: payload.data is missing"),
        (("--platform", "twitter", "-"), b"{", "- cannot be used: payload is not JSON"),
        (("--platform", "mastodon", "-"), b"{}", "- cannot be used: platform is 'mastodon'"),
    ],
)
def test_what_cannot_be_read_is_named(arguments: tuple[str, ...], stdin: bytes, sentence: str) -> None:
    assert failure(*arguments, stdin=stdin).startswith(sentence)


def test_a_file_that_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    assert "none.jsonl: No such file" in failure("--jsonl", str(tmp_path / "none.jsonl"))
    damaged = tmp_path / "posts.jsonl.gz"
    damaged.write_bytes(gzip.compress(recorded(tweet(1, "$BTC")))[:-9])
    assert "posts.jsonl.gz is damaged" in failure("--jsonl", str(damaged))


@pytest.mark.parametrize(
    "arguments", [(), ("-",), ("--platform", "twitter"), ("--jsonl", "-", "--post-json", "{}"), ("-", "--jsonl", "-")]
)
def test_one_kind_of_input_is_asked_for(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "give one of FILE" in result.output


class Elsewhere:
    """An event loop of its own, because the command runs one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._servers: list[RpcServer] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def serve(self, known_bots: KnownBots) -> str:
        async def start() -> RpcServer:
            server = RpcServer("127.0.0.1", 0)
            await server.start([add_stage(server.server, "filter", FilterStage(known_bots))])
            return server

        self._servers.append(self.run(start()))
        return self._servers[-1].address

    def close(self) -> None:
        for server in self._servers:
            self.run(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    running = Elsewhere()
    yield running
    running.close()


def test_a_running_filter_knows_its_bots_and_forgets_what_it_was_asked(elsewhere: Elsewhere) -> None:
    address = elsewhere.serve(MemoryKnownBots(["twitter:bot"]))
    other = post_json(postId="twitter:2", authorId="a")
    of_bot, of_copy = found("--jsonl", "-", "--address", address, stdin=f"{post_json()}\n{other}".encode())
    assert (of_bot["known_bot"], of_bot["credibility_score"], of_bot["drop_reason"]) == (True, 0.0, "known_bot")
    assert (of_copy["known_bot"], of_copy["near_duplicate"], of_copy["passes"]) == (False, False, True)
    table = run("--post-json", post_json(), "--address", address).stdout
    assert "known_bot            x 0.0000  in the set of known bots" in table
    assert "dropped: known_bot" in table


def test_a_running_filter_that_cannot_answer_says_why(elsewhere: Elsewhere) -> None:
    async def away() -> redis.asyncio.Redis:
        # Nothing listens on the discard port.
        return redis.asyncio.Redis(host="127.0.0.1", port=9, socket_connect_timeout=1)

    client = elsewhere.run(away())
    address = elsewhere.serve(RedisKnownBots(client))
    sentence = failure("--post-json", post_json(), "--address", address)
    assert sentence.startswith(f"the filter at {address} says: Redis does not answer")
    refused = failure("--post-json", post_json(symbol="btc"), "--address", address)
    assert refused.startswith("--post-json cannot be used: post twitter:1 has the symbol 'btc'")
    elsewhere.run(client.aclose())


def test_no_filter_at_the_address_is_named() -> None:
    sentence = failure("--post-json", post_json(), "--address", "127.0.0.1:9")
    assert sentence.startswith("no filter answers at 127.0.0.1:9: start one with `sentimesh up`")
