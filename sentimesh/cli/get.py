"""``sentimesh get``: ask the gateway for a symbol's sentiment."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway_svc.bands import band_name
from sentimesh.cli.gateway import DEFAULT_ADDRESS, TIMEOUT_SECONDS, Address, gateway, to_json
from sentimesh.pb.gateway_pb2 import GetSocialSentimentRequest, SentimentBand, SentimentSource, SocialSentiment

_STYLES = {
    SentimentBand.SENTIMENT_BAND_EXTREME_BEARISH: "bold red",
    SentimentBand.SENTIMENT_BAND_BEARISH: "red",
    SentimentBand.SENTIMENT_BAND_NEUTRAL: "yellow",
    SentimentBand.SENTIMENT_BAND_BULLISH: "green",
    SentimentBand.SENTIMENT_BAND_EXTREME_BULLISH: "bold green",
}


def get(
    symbol: Annotated[str, typer.Argument(help="Ticker such as BTC, or a pair such as ETH/USD.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Ask the gateway for the sentiment of a symbol."""
    sentiment = asyncio.run(ask(symbol, address))
    if as_json:
        typer.echo(to_json(sentiment))
    else:
        Console().print(panel(sentiment))


async def ask(symbol: str, address: str, timeout_seconds: float = TIMEOUT_SECONDS) -> SocialSentiment:
    """Return the gateway's answer; raises GatewayError or InvalidSymbolError."""
    async with gateway(address) as stub:
        response = await stub.GetSocialSentiment(GetSocialSentimentRequest(symbol=symbol), timeout=timeout_seconds)
    return response.sentiment


def panel(sentiment: SocialSentiment) -> Panel:
    """Return the answer as people read it."""
    band = band_name(sentiment.social_sentiment_score)
    source = SentimentSource.Name(sentiment.source).removeprefix("SENTIMENT_SOURCE_").lower()
    style = _STYLES.get(sentiment.band, "")
    table = Table.grid(padding=(0, 3))
    table.add_row("score", Text(f"{sentiment.social_sentiment_score:.4f}  {band}", style))
    table.add_row("directional", f"{sentiment.directional_score:.4f}")
    if sentiment.HasField("aggregate"):
        aggregate = sentiment.aggregate
        table.add_row("polarity", f"{aggregate.polarity:+.3f}")
        ready = "" if aggregate.baseline_ready else "  (baseline not ready)"
        table.add_row("volume ratio", f"{aggregate.volume_ratio:.2f}x{ready}")
        table.add_row("credibility", f"{aggregate.credibility:.3f}")
        few = "  (too few to score)" if aggregate.insufficient_data else ""
        table.add_row("posts", f"{aggregate.post_count} by {aggregate.unique_authors} authors{few}")
        if aggregate.viral_spike:
            table.add_row("viral spike", Text(f"{aggregate.spike_ratio:.1f}x", "bold magenta"))
        table.add_row("age", f"{_duration(sentiment.age_ms)}, from {source}")
    content: list[RenderableType] = [table]
    if not sentiment.data_available:
        content.append(Text(f"no usable data: {sentiment.detail}", "yellow"))
    return Panel(Group(*content), title=sentiment.symbol, title_align="left", expand=False)


def _duration(milliseconds: int) -> str:
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
