"""Recorded posts: JSON lines of ``{"platform", "received_at_ms", "payload"}``, plain, gzipped or on standard input."""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

import orjson

from ingest_svc.sources.pacing import Pacer
from sentimesh.errors import SentimeshError
from sentimesh.pb.pipeline_pb2 import RawPost
from sentimesh.source import SourcePost

PLATFORMS = ("twitter", "reddit", "telegram", "discord")
STANDARD_INPUT = "-"
_LINES_AT_ONCE = 256


class ReplayError(SentimeshError):
    """A recording that cannot be read."""


class ReplaySource:
    """Implements ``sentimesh.source.Source`` over recordings, one file after the other."""

    name = "replay"

    def __init__(
        self,
        paths: Sequence[str | Path],
        speed: float | None = None,
        limit: int | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``speed``: None is as fast as possible, 1 is real time by event time; ``limit``: posts at most.

        Each post is stamped as received when it is read, so that latencies are those of this run.
        """
        self._paths = [str(path) for path in paths]
        self._now_ms = now_ms
        self._speed = speed
        self._limit = limit

    async def posts(self) -> AsyncIterator[SourcePost]:
        """Yield the posts in the order of the files. Raises ReplayError, which names file and line."""
        pacer = Pacer(self._speed)
        lines = islice((post for path in self._paths for post in _read(path)), self._limit)
        # From a pipe a post is handed on as it comes.
        at_once = 1 if STANDARD_INPUT in self._paths else _LINES_AT_ONCE
        while chunk := await asyncio.to_thread(_take, lines, at_once):
            for post, error in chunk:
                if error is not None:
                    raise error
                await pacer.wait(post.event_time_ms)
                post.raw.received_at_ms = self._now_ms()
                yield post


_Read = tuple[SourcePost, ReplayError | None]
_NO_POST = SourcePost(RawPost(), "", 0)


def _take(lines: Iterator[_Read], count: int) -> list[_Read]:
    return list(islice(lines, count))


def _open(path: str) -> AbstractContextManager[Iterable[bytes]]:
    if path == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    if path.endswith(".gz"):
        return gzip.GzipFile(path)
    return Path(path).open("rb")


def _read(path: str) -> Iterator[_Read]:
    """Yield a file's posts; an error is the last item, so that what came before it is still handed on."""
    event_time_ms = 0
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                record = orjson.loads(line)
                if not isinstance(record, dict) or record.get("platform") not in PLATFORMS or "payload" not in record:
                    yield _NO_POST, _error(path, number, f"expected platform ({', '.join(PLATFORMS)}) and payload")
                    return
                received_at_ms = record.get("received_at_ms")
                event_time_ms = received_at_ms if isinstance(received_at_ms, int) else event_time_ms
                raw = RawPost(
                    platform=record["platform"], payload=orjson.dumps(record["payload"]), source=ReplaySource.name
                )
                yield SourcePost(raw, f"replay:{path}:{number}", event_time_ms), None
    except orjson.JSONDecodeError as error:
        yield _NO_POST, _error(path, number, f"not JSON ({error})")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield _NO_POST, _error(path, number + 1, f"the compressed file is damaged ({error})")
    except OSError as error:
        yield _NO_POST, ReplayError(f"cannot read {path}: {error.strerror or error}; name a recording or - ")


def _error(path: str, number: int, what: str) -> ReplayError:
    return ReplayError(f"{path}:{number}: {what}; mend or remove that line")
