"""``sentimesh spikes``: viral spikes that were detected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sentimesh.cli.gateway import (
    DEFAULT_ADDRESS,
    TIMEOUT_SECONDS,
    Address,
    gateway,
    moment_ms,
    new_table,
    show,
    show_time,
    to_json,
)
from sentimesh.pb.gateway_pb2 import ListViralSpikesRequest
from sentimesh.pb.pipeline_pb2 import ViralSpike

LARGEST_PAGE = 1000


def spikes(
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help="Tickers such as BTC; without, all tracked ones.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="24h or 7d ago, or an ISO time (UTC); a day ago if not given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List viral spikes, newest first."""
    # 0: the gateway's default.
    start_ms = moment_ms(since, time.time_ns() // 1_000_000) if since is not None else 0
    found, more = asyncio.run(ask(symbols or [], start_ms, limit, address))
    if as_json:
        for spike in found:
            typer.echo(to_json(spike, indent=None))
    elif found:
        show(table(found, more=more))
    else:
        typer.echo("no spikes in that time")


async def ask(symbols: Sequence[str], start_ms: int, limit: int, address: str) -> tuple[list[ViralSpike], bool]:
    """Return the newest spikes and whether there are more. Raises GatewayError or InvalidSymbolError."""
    found: list[ViralSpike] = []
    request = ListViralSpikesRequest(symbols=symbols, start_ms=start_ms)
    async with gateway(address) as stub:
        while True:
            request.page_size = min(limit - len(found), LARGEST_PAGE)
            response = await stub.ListViralSpikes(request, timeout=TIMEOUT_SECONDS)
            found += response.spikes
            request.page_token = response.next_page_token
            if not request.page_token or len(found) == limit:
                return found, bool(request.page_token)


def table(found: Sequence[ViralSpike], *, more: bool = False) -> Table:
    """Return spikes as people read them; ``more``: there are some that are not shown."""
    caption = f"times are UTC; the newest {len(found)} are shown, --limit shows more" if more else "times are UTC"
    shown = new_table(("detected", "symbol"), ("ratio", "mentions", "baseline"), caption)
    shown.add_column("platform", no_wrap=True)
    shown.add_column("over since")
    shown.add_column("most engaged post", overflow="fold")
    for spike in found:
        shown.add_row(
            show_time(spike.detected_at_ms),
            Text(spike.symbol),
            f"{spike.spike_ratio:.1f}x",
            str(spike.mention_count),
            f"{spike.baseline_rate:.1f}",
            Text(_printable(spike.dominant_platform)),
            _end(spike),
            _most_engaged(spike),
        )
    return shown


def _end(spike: ViralSpike) -> Text:
    if not spike.resolved_at_ms:
        return Text("still on", "bold magenta")
    over, day = show_time(spike.resolved_at_ms), show_time(spike.detected_at_ms)[:11]
    return Text(over.removeprefix(day))


def _most_engaged(spike: ViralSpike) -> Text:
    if not spike.sample_posts:
        return Text("")
    post = max(spike.sample_posts, key=lambda post: post.engagement_weight)
    link = _printable(post.source_url)
    # A terminal that knows links opens it although it is folded.
    return Text(link, f"link {link}" if link.startswith("https://") else "") if link else Text(_printable(post.post_id))


def _printable(text: str) -> str:
    """Return text of strangers without what would steer the terminal."""
    return "".join(character for character in text if character.isprintable() and not character.isspace())
