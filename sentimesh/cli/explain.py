"""``sentimesh explain``: why a post is as credible as it is."""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import grpc
import orjson
import typer
from google.protobuf.json_format import ParseDict, ParseError
from rich.table import Table
from rich.text import Text

from filter_svc.known_bots import MemoryKnownBots
from filter_svc.service import FilterStage
from ingest_svc.claims import MemoryClaims
from ingest_svc.service import IngestStage
from sentimesh.build import copies_windows_ms, multiplier_options
from sentimesh.cli.gateway import TIMEOUT_SECONDS, show, to_json
from sentimesh.errors import MalformedMessageError, SentimeshError
from sentimesh.pb.pipeline_pb2 import (
    DroppedPost,
    ExplainCredibilityRequest,
    ExplainCredibilityResponse,
    RawPost,
)
from sentimesh.pb.pipeline_pb2_grpc import FilterServiceStub
from sentimesh.pb.social_sentiment_pb2 import SocialPost
from sentimesh.rpc import dropped_post
from sentimesh.settings import Settings, load_settings
from sentimesh.stage import Delivery, Drop, Reject
from sentimesh.symbols import TrackedExtractor, load_assets

HOUR_MS = 3_600_000
Explain = Callable[[SocialPost], Awaitable[ExplainCredibilityResponse]]
Result = ExplainCredibilityResponse | DroppedPost
# Where an input came from, for errors, and what it is.
Given = tuple[str, RawPost | SocialPost]


class ExplainError(SentimeshError):
    """A post that cannot be read, or a filter that cannot be asked."""


def explain(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A native payload, with --platform; - is standard input.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option("--platform", help="What FILE is of: twitter, reddit, telegram or discord.")
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option("--jsonl", metavar="FILE", help="Lines of a recording, or of SocialPosts; - is standard input."),
    ] = None,
    post_json: Annotated[
        str | None, typer.Option("--post-json", metavar="TEXT", help="One SocialPost as JSON, with its symbol.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of a running filter to ask; without, this program answers itself.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a mention.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None,
) -> None:
    """Show factor by factor how credible posts are.

    Without --address there are no known bots, and the posts given are compared with one another. A running filter
    knows the bots and how often it has seen the words and the author; it compares a post with none for near-duplicates.
    """
    if [file, jsonl, post_json].count(None) != 2 or (file is None) != (platform is None):
        raise typer.BadParameter("give one of FILE with --platform, --jsonl, --post-json")
    given = _sources(file, platform, jsonl, post_json)
    asyncio.run(_explain(given, load_settings(config), address, _print_json if as_json else _print))


async def _explain(
    given: Iterator[Given],
    settings: Settings,
    address: str | None,
    output: Callable[[Result], None],
) -> None:
    ingest = IngestStage(
        TrackedExtractor(load_assets(settings.symbols)),
        MemoryClaims(settings.ingest.claim_window_hours * HOUR_MS, settings.ingest.copy_window_seconds * 1000),
        settings.ingest.languages,
        lambda: time.time_ns() // 1_000_000,
    )
    async with _local(settings) if address is None else _remote(address) as ask:
        for sequence, (where, what) in enumerate(given, 1):
            posts = [what] if isinstance(what, SocialPost) else []
            if isinstance(what, RawPost):
                [outcomes] = await ingest.process([Delivery(what, sequence)])
                for outcome in outcomes:
                    if isinstance(outcome, Reject):
                        raise ExplainError(f"{where} cannot be used: {outcome.reason}")
                    if isinstance(outcome, Drop):
                        output(dropped_post("ingest", outcome))
                    elif isinstance(outcome.message, SocialPost):
                        posts.append(outcome.message)
            for post in posts:
                try:
                    output(await ask(post))
                except MalformedMessageError as error:
                    raise ExplainError(f"{where} cannot be used: {error}") from error


@asynccontextmanager
async def _local(settings: Settings) -> AsyncIterator[Explain]:
    options = settings.spam_filter
    copies_ms, channel_copies_ms = copies_windows_ms(options)
    yield FilterStage(
        MemoryKnownBots(),
        options=multiplier_options(options),
        min_credibility=options.min_credibility_threshold,
        simhash_threshold=options.simhash_threshold,
        simhash_ttl_ms=int(options.simhash_ttl_hours * HOUR_MS),
        copies_ms=copies_ms,
        channel_copies_ms=channel_copies_ms,
    ).explain


@asynccontextmanager
async def _remote(address: str) -> AsyncIterator[Explain]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = FilterServiceStub(channel)

        async def ask(post: SocialPost) -> ExplainCredibilityResponse:
            try:
                return await stub.ExplainCredibility(ExplainCredibilityRequest(post=post), timeout=TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise _sentence(error, address) from error

        yield ask


def _sentence(error: grpc.aio.AioRpcError, address: str) -> SentimeshError:
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            return MalformedMessageError(details)
        case grpc.StatusCode.UNAVAILABLE if details.startswith("Redis "):
            return ExplainError(f"the filter at {address} says: {details}")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return ExplainError(
                f"no filter answers at {address}: start one with `sentimesh up`, or leave out --address"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return ExplainError(f"what answers at {address} is not the filter: give its host:port with --address")
        case code:
            return ExplainError(f"the filter at {address} failed with {code.name}: {details}; see its log")


def _sources(file: Path | None, platform: str | None, jsonl: Path | None, post_json: str | None) -> Iterator[Given]:
    if jsonl is not None:
        yield from _lines(jsonl)
    elif file is not None and platform is not None:
        payload = b"".join(line for _, line in _read(file))
        yield str(file), RawPost(platform=platform, payload=payload, source="explain")
    else:
        yield "--post-json", _post("--post-json", _parsed("--post-json", post_json or ""))


def _lines(path: Path) -> Iterator[Given]:
    for number, line in _read(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        record = _parsed(where, line)
        if "payload" not in record:
            yield where, _post(where, record)
            continue
        received_at_ms = record.get("received_at_ms")
        yield (
            where,
            RawPost(
                platform=str(record.get("platform")),
                payload=orjson.dumps(record["payload"]),
                received_at_ms=received_at_ms if isinstance(received_at_ms, int) and received_at_ms > 0 else 0,
                source="explain",
            ),
        )


def _read(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            plain = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            yield from enumerate(plain, 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ExplainError(f"the compressed file {path} is damaged ({error}): get it again") from error
    except OSError as error:
        raise ExplainError(f"cannot read {path}: {error.strerror}; name a file of posts, or -") from error


def _parsed(where: str, text: str | bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ExplainError(f"{where} is not JSON ({error}): correct it") from error
    if not isinstance(found, dict):
        raise ExplainError(f"{where} is not a JSON object: give a SocialPost, or a line of a recording")
    return found


def _post(where: str, record: dict[str, Any]) -> SocialPost:
    try:
        return ParseDict(record, SocialPost())
    except ParseError as error:
        raise ExplainError(f"{where} is not a SocialPost ({error}): correct it, or name its --platform") from error


def _print_json(result: Result) -> None:
    typer.echo(to_json(result, indent=None))


def _print(result: Result) -> None:
    if isinstance(result, ExplainCredibilityResponse):
        show(table(result))
    else:
        typer.echo(f"{_printable(result.post_id)}  ingest drops it: {result.reason}")


def table(explained: ExplainCredibilityResponse) -> Table:
    """Return an explanation as people read it."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "left"):
        shown.add_column(justify=justify)
    shown.title = Text(f"{_printable(explained.post_id)}  {_printable(explained.symbol)}", "bold")
    shown.title_justify = "left"
    for factor in explained.factors:
        shown.add_row(factor.name, f"{factor.value:.4f}", Text(factor.input, "yellow" if factor.unknown else ""))
    shown.add_row("sum", f"{explained.sum:.4f}", "")
    for multiplier in explained.multipliers:
        takes = multiplier.value < 1.0
        shown.add_row(multiplier.name, f"x {multiplier.value:.4f}", Text(multiplier.input, "red" if takes else ""))
    least = f"{explained.min_credibility:g}"
    verdict = (
        Text(f"passes: at least {least}", "green")
        if explained.passes
        else Text(f"dropped: {explained.drop_reason} (least that passes: {least})", "red")
    )
    shown.add_row("credibility", f"{explained.credibility_score:.4f}", verdict)
    if not explained.near_duplicate:
        shown.add_row("as a copy", f"{explained.credibility_score_as_copy:.4f}", "were it a copy of another post")
    return shown


def _printable(text: str) -> str:
    """Return text of strangers without what would steer the terminal."""
    return "".join(character for character in text if character.isprintable())
