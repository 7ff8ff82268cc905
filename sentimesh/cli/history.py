"""``sentimesh history``: the closed windows of a symbol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from gateway_svc.bands import band_name
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
from sentimesh.pb.gateway_pb2 import GetSentimentHistoryRequest
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate


def history(
    symbol: Annotated[str, typer.Argument(help="Ticker such as BTC, or a pair such as ETH/USD.")],
    since: Annotated[
        str | None, typer.Option(help="24h or 7d ago, or an ISO time (UTC); a day before the end if not given.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="1h ago, or an ISO time (UTC); now if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List the closed windows of a symbol, oldest first."""
    now_ms = time.time_ns() // 1_000_000
    request = GetSentimentHistoryRequest(
        symbol=symbol,
        # 0: the gateway's default.
        start_ms=moment_ms(since, now_ms) if since is not None else 0,
        end_ms=moment_ms(until, now_ms) if until is not None else 0,
    )
    asyncio.run(_print(request, address, as_json))


async def _print(request: GetSentimentHistoryRequest, address: str, as_json: bool) -> None:
    figures = ("score", "dir.", "pol.", "volume", "cred.", "posts", "authors")
    shown = new_table(("window ends",), figures, "times are UTC; directional score, polarity, credibility")
    shown.add_column("")
    async for aggregate in ask(request, address):
        if as_json:
            typer.echo(to_json(aggregate, indent=None))
        else:
            shown.add_row(*_row(aggregate))
    if shown.row_count:
        show(shown)
    elif not as_json:
        typer.echo("no closed windows in that time")


async def ask(request: GetSentimentHistoryRequest, address: str) -> AsyncIterator[SentimentAggregate]:
    """Yield the windows of all pages. Raises GatewayError or InvalidSymbolError."""
    async with gateway(address) as stub:
        while True:
            response = await stub.GetSentimentHistory(request, timeout=TIMEOUT_SECONDS)
            for aggregate in response.aggregates:
                yield aggregate
            request.page_token = response.next_page_token
            if not request.page_token:
                return


def _row(aggregate: SentimentAggregate) -> tuple[str, ...]:
    remarks = [
        "too few to score" if aggregate.insufficient_data else band_name(aggregate.social_sentiment_score),
        *([f"spike {aggregate.spike_ratio:.1f}x"] if aggregate.viral_spike else []),
    ]
    return (
        show_time(aggregate.window_end_ms),
        f"{aggregate.social_sentiment_score:.4f}",
        f"{aggregate.directional_score:.4f}",
        f"{aggregate.polarity:+.3f}",
        f"{aggregate.volume_ratio:.2f}x",
        f"{aggregate.credibility:.3f}",
        str(aggregate.post_count),
        str(aggregate.unique_authors),
        ", ".join(remarks),
    )
