"""``sentimesh replay`` as a user runs it: a process of its own, on servers of its own."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from ingest_svc.sources.simulator import Spike, simulate

MINUTE = 60_000
START = 1_700_000_400_000
POSTS = [
    {"platform": post.platform, "received_at_ms": post.event_time_ms, "payload": post.payload}
    for post in simulate(
        seed=11,
        start_ms=START,
        symbols=["BTC", "ETH", "SOL"],
        posts_per_minute=15,
        duration_ms=80 * MINUTE,
        spikes=[Spike("SOL", START + 70 * MINUTE)],
    )
]


def sentimesh(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [str(Path(sys.executable).with_name("sentimesh")), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "crowd.jsonl.gz"
    lines = [orjson.dumps(post) for post in POSTS]
    lines.append(orjson.dumps({"platform": "twitter", "received_at_ms": START, "payload": {"data": {}}}))
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    return path


def test_every_post_is_accounted_for_and_two_runs_give_the_same_windows(recording: Path, tmp_path: Path) -> None:
    options = ["--symbols", "BTC,ETH,SOL", "--model", "vader", "--json"]
    first = sentimesh("replay", str(recording), *options, "--export", str(tmp_path / "a"))
    assert first.returncode == 0, first.stderr.decode()
    summary = json.loads(first.stdout)
    assert summary["posts_in"] == len(POSTS) + 1
    assert summary["posts_unaccounted"] == 0
    assert summary["dead_letters"] == {"ingest": 1}
    total = summary["posts_scored"] + summary["posts_without_symbol"] + sum(summary["posts_dropped"].values()) + 1
    assert total == summary["posts_in"]
    assert summary["windows"] == summary["windows_written"] == 3 * 16

    scored = read(tmp_path / "a" / "scored.jsonl")
    assert len(scored) == summary["mentions_scored"]
    assert summary["mentions_not_counted"] == {}
    dropped = Counter((row["stage"], row["reason"]) for row in read(tmp_path / "a" / "dropped.jsonl"))
    assert dropped["ingest", "no_symbol"] == summary["posts_without_symbol"]
    assert dropped["ingest", "repost"] == summary["posts_dropped"]["ingest.repost"]
    aggregates = read(tmp_path / "a" / "aggregates.jsonl")
    assert sum(int(str(row["post_count"])) for row in aggregates) == len(scored)
    assert "SOL" in {row["symbol"] for row in read(tmp_path / "a" / "spikes.jsonl")}

    second = sentimesh(
        "replay", "-", *options, "--export", str(tmp_path / "b"), stdin=gzip.decompress(recording.read_bytes())
    )
    assert second.returncode == 0, second.stderr.decode()
    for name in ("aggregates.jsonl", "spikes.jsonl"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text(), name
    # Stages write as they go, so only the order of these lines may differ.
    both = [sorted((tmp_path / folder / "dropped.jsonl").read_text().splitlines()) for folder in ("a", "b")]
    assert both[0] == both[1]


def test_by_the_system_clock_an_old_recording_is_late_and_the_summary_says_so(recording: Path) -> None:
    done = sentimesh("replay", str(recording), "--symbols", "BTC", "--model", "vader", "--clock", "system", "--json")
    assert done.returncode == 0, done.stderr.decode()
    summary = json.loads(done.stdout)
    assert summary["mentions_scored"] > 0
    assert summary["mentions_not_counted"] == {"late": summary["mentions_scored"]}
    assert summary["posts_unaccounted"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-file.jsonl"], "there is no file no-such-file.jsonl"),
        (["-", "--speed", "fast"], "--speed fast is not a speed"),
        (["-", "--symbols", "BTC,not a symbol"], "symbol"),
        (["-", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_an_error_is_one_line_that_says_what_is_wrong(arguments: list[str], message: str) -> None:
    done = sentimesh("replay", *arguments, stdin=b"")
    assert done.returncode == 1
    [line] = done.stderr.decode().strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"platform": "twitter"\n')
    done = sentimesh("replay", str(path), "--model", "vader")
    assert done.returncode == 1
    assert "broken.jsonl" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert sentimesh("replay").returncode == 2
