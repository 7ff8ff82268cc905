"""Lists of bots out of files and from a real HTTP server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sentimesh import bot_lists
from sentimesh.bot_lists import BotListError, BotListUnavailableError, Patience, parse, read_list, shown

ONCE = Patience(silence_seconds=0.3, whole_seconds=1.0, attempts=1)


class Publisher:
    """Answers with what :attr:`answers` holds for a path: status, headers, body; without one it never ends."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.asked: list[str] = []
        self.over = threading.Event()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                answers = publisher.answers.get(self.path.partition("?")[0])
                if answers is None:
                    self.close_connection = True
                    publisher.over.wait()
                    return
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.stop()


@pytest.mark.parametrize(
    ("content", "accounts"),
    [
        (b"123\ntwitter:123\n", {"123", "twitter:123"}),
        (b"\xef\xbb\xbf# head\r\n\r\n 123 # bought\r\nreddit:t2_ab-c\r\n", {"123", "reddit:t2_ab-c"}),
        (b' \n["telegram:user123", 9007199254740993, "9007199254740993"]', {"telegram:user123", "9007199254740993"}),
    ],
)
def test_a_list_is_an_id_a_line_or_a_json_list(content: bytes, accounts: set[str]) -> None:
    assert parse(content, "bots") == accounts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"123\n<html>\n", "bots:2: '<html>' is no account"),
        (b"123\n@name", "bots:2: '@name' is no account"),
        (b"x:123", "bots:1: 'x:123' is no account"),
        (b"123\n" + b"1" * 200, "bots:2: '1111"),
        (b"123\n\xff\n", "bots:2: not UTF-8"),
        (b'["1",\n"2"', "bots:2: not a JSON list"),
        (b'["1", null]', "bots: item 2 is neither text nor a whole number"),
        (b"[true]", "bots: item 1 is neither"),
        (b"[1.5]", "bots: item 1 is neither"),
        (b'["1", "a b"]', "bots: item 2: 'a b' is no account"),
        (b'{"bots": []}', "bots:1: "),
        (b"[]", "bots: there is no account in it"),
        (b"# nobody\n", "bots: there is no account in it"),
    ],
)
def test_what_is_no_list_is_refused_with_its_line(content: bytes, message: str) -> None:
    with pytest.raises(BotListError) as refused:
        parse(content, "bots")
    assert str(refused.value).startswith(message)


async def test_files_are_read_and_those_that_cannot_be_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bots.txt"
    path.write_text("1\n2\n")
    assert await read_list(str(path)) == {"1", "2"}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await read_list("~/bots.txt") == {"1", "2"}
    for missing in (tmp_path / "absent", tmp_path):
        with pytest.raises(BotListError, match=f"cannot read {missing}"):
            await read_list(str(missing))
    monkeypatch.setattr(bot_lists, "LARGEST_BYTES", 3)
    with pytest.raises(BotListError, match=r"bots\.txt is over"):
        await read_list(str(path))


async def test_urls_are_read_through_redirects(publisher: Publisher) -> None:
    publisher.answers["/old"] = [(302, {"Location": "/list"}, b"")]
    publisher.answers["/list"] = [(200, {"Content-Type": "text/plain"}, b"1\n2\n")]
    assert await read_list(f"{publisher.url}/old?key=geheim", ONCE) == {"1", "2"}
    assert publisher.asked == ["/old?key=geheim", "/list"]


async def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(publisher: Publisher) -> None:
    publisher.answers["/busy"] = [(503, {}, b""), (200, {}, b"1\n")]
    assert await read_list(f"{publisher.url}/busy", Patience(attempts=2)) == {"1"}
    publisher.answers["/gone"] = [(404, {}, b"")]
    with pytest.raises(BotListError, match=r"/gone answers with status 404"):
        await read_list(f"{publisher.url}/gone")
    assert publisher.asked.count("/gone") == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "does not give its list"),
        ((500, {}, b""), "answers with status 500"),
        ((304, {}, b""), "answers with status 304"),
        ((200, {"Content-Type": "text/html; charset=utf-8"}, b"123"), "gives a web page"),
        ((200, {}, b"<!doctype html>\n"), ":1: '<!doctype html>' is no account"),
        ((200, {}, b""), "there is no account in it"),
        ((302, {"Location": "/list"}, b""), "does not give its list"),
        # Fewer bytes than it says: half a list is none.
        ((200, {"Content-Length": "100"}, b"1\n2\n"), "does not give its list"),
    ],
)
async def test_a_url_that_fails_says_how_and_not_its_key(
    publisher: Publisher, answer: tuple[int, dict[str, str], bytes] | None, message: str
) -> None:
    if answer is not None:
        publisher.answers["/list"] = [answer]
    with pytest.raises(BotListError) as refused:
        await read_list(f"{publisher.url}/list?key=geheim", ONCE)
    assert message in str(refused.value)
    assert f"{publisher.url}/list" in str(refused.value)
    assert "geheim" not in repr(refused.value)
    assert refused.value.__cause__ is None


async def test_a_url_is_given_up_when_it_is_too_large_or_nobody_is_there(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BotListUnavailableError, match=r"127\.0\.0\.1:9/list does not give"):
        await read_list("http://127.0.0.1:9/list", ONCE)
    publisher.answers["/list"] = [(200, {}, b"1\n" * 100)]
    monkeypatch.setattr(bot_lists, "LARGEST_BYTES", 100)
    with pytest.raises(BotListError, match="/list is over"):
        await asyncio.wait_for(read_list(f"{publisher.url}/list"), 60)


def test_a_source_is_shown_without_its_query() -> None:
    assert shown("https://a.example/bots?key=geheim#x") == "https://a.example/bots"
    assert shown("/etc/bots?.txt") == "/etc/bots?.txt"
