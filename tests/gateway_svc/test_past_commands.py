"""``sentimesh spikes`` and ``sentimesh history`` against a real gateway on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import grpc
import pytest
from rich.console import Console

from sentimesh.build import now_ms
from sentimesh.cli import main
from sentimesh.cli.gateway import MomentError, moment_ms
from sentimesh.cli.history import ask as ask_history
from sentimesh.cli.spikes import table
from sentimesh.pb.gateway_pb2 import GetSentimentHistoryRequest
from sentimesh.pb.pipeline_pb2 import SamplePost, ViralSpike
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from tests.gateway_svc.conftest import Past

HOUR = 3_600_000
WINDOW = 300_000
# 2023-11-14 22:00 UTC.
AT = 1_699_999_200_000

# Exit code, standard output, standard error.
Sentimesh = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def sentimesh(past: Past, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sentimesh:
    """The command line, in a thread: it runs an event loop of its own."""
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sentimesh", *arguments])

        def command() -> int:
            try:
                main()
            except SystemExit as ended:
                return int(ended.code or 0)
            return 0

        code = await asyncio.to_thread(command)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def lines(out: str) -> list[str]:
    """Return lines without what is only there to align columns."""
    return [" ".join(line.split()) for line in out.splitlines()]


def spike(at: int, symbol: str = "BTC", over_ms: int = 0) -> ViralSpike:
    samples = [
        SamplePost(post_id=f"twitter:{weight}", source_url=f"https://x.com/i/{weight}", engagement_weight=weight)
        for weight in (1, 3, 2)
    ]
    return ViralSpike(
        symbol=symbol,
        spike_ratio=6.25,
        mention_count=60,
        baseline_rate=9.6,
        detected_at_ms=at,
        dominant_platform="twitter",
        sample_posts=samples,
        resolved_at_ms=at + over_ms if over_ms else 0,
    )


def window(end: int, symbol: str = "BTC") -> SentimentAggregate:
    return SentimentAggregate(
        symbol=symbol,
        window_start_ms=end - WINDOW,
        window_end_ms=end,
        polarity=-0.25,
        volume_ratio=1.5,
        credibility=0.625,
        social_sentiment_score=0.8125,
        directional_score=0.3,
        post_count=47,
        unique_authors=31,
        viral_spike=True,
        spike_ratio=6,
        updated_at_ms=end,
    )


async def test_spikes_are_a_table_newest_first(past: Past, sentimesh: Sentimesh) -> None:
    past.now_ms = AT + 10 * HOUR
    await past.store.write_spikes([spike(AT), spike(AT + HOUR, "SOL", 90_000), spike(AT, "ETH", 3 * HOUR)])
    code, out, _ = await sentimesh("spikes", "--since", "2023-11-14T20:00", "--address", past.address)
    assert code == 0
    assert lines(out) == [
        "detected symbol ratio mentions baseline platform over since most engaged post",
        "2023-11-14 23:00 SOL 6.2x 60 9.6 twitter 23:01 https://x.com/i/3",
        "2023-11-14 22:00 ETH 6.2x 60 9.6 twitter 2023-11-15 01:00 https://x.com/i/3",
        "2023-11-14 22:00 BTC 6.2x 60 9.6 twitter still on https://x.com/i/3",
        "times are UTC",
    ]


async def test_spikes_are_those_of_the_gateways_last_day(past: Past, sentimesh: Sentimesh) -> None:
    # Its clock counts, not ours.
    past.now_ms = AT + 24 * HOUR
    await past.store.write_spikes([spike(AT), spike(AT - 1)])
    _, out, _ = await sentimesh("spikes", "--json", "--address", past.address)
    assert [json.loads(line)["detected_at_ms"] for line in out.splitlines()] == [str(AT)]


async def test_spikes_are_json_lines_over_pages_up_to_the_limit(past: Past, sentimesh: Sentimesh) -> None:
    now = now_ms()
    past.now_ms = now
    ages = range(1000, 1_203_000, 1000)
    await past.store.write_spikes([spike(now - age) for age in ages])
    arguments = ("spikes", "BTC", "--json", "--address", past.address, "--limit")
    code, out, _ = await sentimesh(*arguments, "1101")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [int(line["detected_at_ms"]) for line in found] == [now - age for age in ages[:1101]]
    assert found[0]["resolved_at_ms"] == "0"
    assert found[0]["sample_posts"][0]["source_url"] == "https://x.com/i/1"
    assert len((await sentimesh(*arguments, "5000"))[1].splitlines()) == len(ages)


async def test_a_table_that_leaves_spikes_out_says_so(past: Past, sentimesh: Sentimesh) -> None:
    past.now_ms = now_ms()
    await past.store.write_spikes([spike(past.now_ms - age) for age in (10, 20, 30)])
    assert "the newest 2 are shown" in (await sentimesh("spikes", "--limit", "2", "--address", past.address))[1]
    assert "newest" not in (await sentimesh("spikes", "--limit", "3", "--address", past.address))[1]


async def test_no_spikes_is_said_in_words_and_no_json_line(past: Past, sentimesh: Sentimesh) -> None:
    past.now_ms = AT
    code, out, _ = await sentimesh("spikes", "--since", "2023-11-14T21:30:00+01:00", "--address", past.address)
    assert (code, out) == (0, "no spikes in that time\n")
    assert await sentimesh("spikes", "--since", "2023-11-01", "--json", "--address", past.address) == (0, "", "")


def test_links_of_strangers_do_not_steer_the_terminal() -> None:
    bad = spike(AT)
    bad.sample_posts[1].source_url = "https://x.com/\x1b]0;owned\x07[bold]\n"
    bad.dominant_platform = "[red]x"
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table([bad]))
    assert "\x1b]0;" not in capture.get()
    assert "https://x.com/]0;owned[bold]" in capture.get()
    assert "[red]x" in capture.get()


def test_a_post_without_a_link_is_named_by_its_id() -> None:
    without = spike(AT)
    for post in without.sample_posts:
        post.source_url = ""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table([without, ViralSpike(symbol="ADA")]))
    assert "twitter:3" in capture.get()
    assert "ADA" in capture.get()


async def test_history_is_a_table_oldest_first(past: Past, sentimesh: Sentimesh) -> None:
    past.now_ms = AT + HOUR
    quiet = window(AT)
    quiet.viral_spike, quiet.insufficient_data = False, True
    await past.store.write_windows([window(AT + WINDOW), quiet])
    code, out, _ = await sentimesh("history", "btc", "--address", past.address)
    assert code == 0
    assert lines(out) == [
        "window ends score dir. pol. volume cred. posts authors",
        "2023-11-14 22:00 0.8125 0.3000 -0.250 1.50x 0.625 47 31 too few to score",
        "2023-11-14 22:05 0.8125 0.3000 -0.250 1.50x 0.625 47 31 extreme bullish, spike 6.0x",
        "times are UTC; directional score, polarity, credibility",
    ]


async def test_history_is_json_lines_over_all_pages(past: Past, sentimesh: Sentimesh) -> None:
    past.now_ms = AT + 2000 * WINDOW
    await past.store.write_windows([window(AT + n * WINDOW) for n in range(1500)])
    span = ("--since", "2023-11-14T22:00Z", "--until", "2023-11-18")
    code, out, _ = await sentimesh("history", "BTC", "--json", *span, "--address", past.address)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    # Three days and two hours of windows, the first of which ends after the start.
    assert [int(line["window_end_ms"]) for line in found] == [AT + n * WINDOW for n in range(1, 889)]
    past.now_ms = AT + 2 * WINDOW
    request = GetSentimentHistoryRequest(symbol="BTC", start_ms=1, page_size=1)
    assert [a.window_end_ms async for a in ask_history(request, past.address)] == [AT, AT + WINDOW, AT + 2 * WINDOW]


async def test_no_history_is_said_in_words(past: Past, sentimesh: Sentimesh) -> None:
    code, out, _ = await sentimesh("history", "ETH", "--address", past.address)
    assert (code, out) == (0, "no closed windows in that time\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("spikes", "NOPE"), "NOPE is not tracked"),
        (("spikes", "B-"), "'B-' is not a symbol"),
        (("history", "NOPE"), "NOPE is not tracked"),
        (("spikes", "--since", "yesterday"), "'yesterday' is no time: give how long ago, such as 24h"),
        (("history", "BTC", "--since", "24 h"), "'24 h' is no time"),
        (("history", "BTC", "--since", "1h", "--until", "2h"), " is after end_ms "),
    ],
)
async def test_an_error_is_one_line(past: Past, sentimesh: Sentimesh, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = await sentimesh(*arguments, "--address", past.address)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert words in err


@pytest.mark.parametrize("arguments", [("spikes",), ("history", "BTC")])
async def test_a_gateway_without_postgresql_is_told_apart_from_no_gateway(
    past: Past, sentimesh: Sentimesh, arguments: tuple[str, ...]
) -> None:
    # Port 1 is privileged and unassigned: nothing of the tests ever listens on it.
    code, _, err = await sentimesh(*arguments, "--address", "127.0.0.1:1")
    assert (code, err) == (
        1,
        "error: no gateway answers at 127.0.0.1:1: start one with `sentimesh up`, or name another with --address\n",
    )
    await past.pool.close()
    code, _, err = await sentimesh(*arguments, "--address", past.address)
    assert code == 1
    assert err.startswith(f"error: the gateway at {past.address} says: the history cannot be read: PostgreSQL ")
    assert err.endswith("then ask again\n")


async def test_another_server_is_not_taken_for_the_gateway(sentimesh: Sentimesh) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    code, _, err = await sentimesh("spikes", "--address", f"127.0.0.1:{port}")
    assert code == 1
    assert "is not the gateway" in err
    await server.stop(None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", AT - 90_000),
        ("24h", AT - 24 * HOUR),
        ("7d", AT - 7 * 24 * HOUR),
        ("2w", AT - 14 * 24 * HOUR),
        ("9999999w", 1),
        ("2023-11-14T22:00", AT),
        ("2023-11-14T22:00:00.250Z", AT + 250),
        ("2023-11-14 23:00+01:00", AT),
        ("2023-11-15", AT + 2 * HOUR),
        # 0 would be "not given" to the gateway.
        ("1970-01-01", 1),
        ("0001-01-01", 1),
    ],
)
def test_moments_are_read(text: str, expected: int) -> None:
    assert moment_ms(text, AT) == expected


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1y", "\u0661h", "10:00", "2023-13-01", "12345678h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(MomentError, match="such as 24h or 7d"):
        moment_ms(text, AT)
