from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import orjson
import pytest

from ingest_svc.sources.replay import ReplaySource
from sentimesh.errors import SentimeshError
from sentimesh.source import SourcePost

LINES = [
    {"platform": "twitter", "received_at_ms": 1_000 * number, "payload": {"data": {"id": str(number)}}}
    for number in range(1, 6)
]


def write(path: Path, lines: list[bytes]) -> Path:
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


async def collect(source: ReplaySource) -> list[SourcePost]:
    return [post async for post in source.posts()]


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.jsonl.gz"])
async def test_a_recording_is_read_in_order(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [orjson.dumps(line) for line in LINES])
    posts = await collect(ReplaySource([path], now_ms=lambda: 77))
    assert [post.identity for post in posts] == [f"replay:{path}:{number}" for number in range(1, 6)]
    assert [post.event_time_ms for post in posts] == [1_000, 2_000, 3_000, 4_000, 5_000]
    assert {(post.raw.platform, post.raw.received_at_ms, post.raw.source) for post in posts} == {
        ("twitter", 77, "replay")
    }
    assert orjson.loads(posts[2].raw.payload) == {"data": {"id": "3"}}


async def test_several_files_blank_lines_and_a_limit(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [b"", orjson.dumps(LINES[0]), b"  "])
    second = write(tmp_path / "b.jsonl", [orjson.dumps(line) for line in LINES])
    posts = await collect(ReplaySource([first, second], limit=3))
    assert [post.identity for post in posts] == [f"replay:{first}:2", f"replay:{second}:1", f"replay:{second}:2"]


async def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(orjson.dumps(LINES[0]) + b"\n")

    monkeypatch.setattr(sys, "stdin", Input())
    assert [post.identity for post in await collect(ReplaySource(["-"]))] == ["replay:-:1"]


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected platform"),
        (b'{"platform": "twitter"}', "expected platform"),
        (b'{"platform": "irc", "payload": {}}', "expected platform"),
    ],
)
async def test_a_broken_line_is_named_after_what_came_before_it(tmp_path: Path, bad: bytes, what: str) -> None:
    path = write(tmp_path / "posts.jsonl", [orjson.dumps(LINES[0]), bad, orjson.dumps(LINES[1])])
    posts = ReplaySource([path]).posts()
    assert (await anext(posts)).identity == f"replay:{path}:1"
    with pytest.raises(SentimeshError, match=rf"posts\.jsonl:2: {what}"):
        await anext(posts)


async def test_an_odd_payload_is_left_to_ingest(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.jsonl", [b'{"platform": "reddit", "payload": [1]}'])
    [post] = await collect(ReplaySource([path]))
    assert (post.raw.payload, post.event_time_ms) == (b"[1]", 0)


async def test_a_missing_or_damaged_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SentimeshError, match=r"cannot read .*absent\.jsonl"):
        await collect(ReplaySource([tmp_path / "absent.jsonl"]))
    damaged = write(tmp_path / "cut.jsonl.gz", [orjson.dumps(line) for line in LINES])
    damaged.write_bytes(damaged.read_bytes()[:-12])
    with pytest.raises(SentimeshError, match="damaged"):
        await collect(ReplaySource([damaged]))
    plain = write(tmp_path / "plain.jsonl", [orjson.dumps(LINES[0])]).rename(tmp_path / "plain.jsonl.gz")
    with pytest.raises(SentimeshError, match="damaged"):
        await collect(ReplaySource([plain]))
