"""``sentimesh demo``: the whole system on simulated posts, in under a minute."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway_svc.bands import band_name
from ingest_svc.sources.simulator import SimulatorSource, Spike
from sentimesh.build import now_ms
from sentimesh.cli.get import ask, panel
from sentimesh.cli.run import stopped
from sentimesh.ledger import Ledger
from sentimesh.pb.social_sentiment_pb2 import SentimentAggregate
from sentimesh.settings import Settings, load_settings
from sentimesh.stack import Stack
from sentimesh.telemetry import configure_logging

MINUTE_MS = 60_000
# An hour and a half of simulated posts, so that the volume baseline (an hour of windows) is ready half-way.
SIMULATED_MINUTES = 90
SPIKE_AT_MINUTE = 78
FEED_SECONDS = 30.0
REDRAW_SECONDS = 0.25


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving, in real time, until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed, another crowd.")] = 7,
    posts_per_minute: Annotated[int, typer.Option(help="Simulated posts in a simulated minute.", min=1)] = 15,
    config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None,
) -> None:
    """Start embedded servers and all stages, feed them simulated posts at speed, show what comes out."""
    settings = load_settings(config).model_copy(deep=True)
    configure_logging("error", json=settings.telemetry.log_json)
    # Windows follow the simulated clock, which runs faster than the wall clock and ends at now.
    settings.aggregation.clock = "event"
    asyncio.run(_demo(settings, keep, seed, posts_per_minute))


async def _demo(settings: Settings, keep: bool, seed: int, posts_per_minute: int) -> None:
    console = Console()
    ledger = Ledger()
    board: dict[str, SentimentAggregate] = {}

    def on_live(aggregates: Sequence[SentimentAggregate]) -> None:
        board.update({aggregate.symbol: aggregate for aggregate in aggregates})

    with tempfile.TemporaryDirectory(prefix="sentimesh-demo-") as folder:
        console.print("starting nats-server, Valkey, PostgreSQL and five stages …")
        async with Stack(
            settings,
            data_dir=Path(folder),
            observers=[ledger],
            on_visible=ledger.on_visible,
            on_live=on_live,
            free_ports=True,
        ) as stack:
            start_ms = now_ms() - SIMULATED_MINUTES * MINUTE_MS
            source = SimulatorSource(
                seed=seed,
                symbols=settings.symbols,
                posts_per_minute=posts_per_minute,
                start_ms=start_ms,
                duration_ms=SIMULATED_MINUTES * MINUTE_MS,
                speed=SIMULATED_MINUTES * 60 / FEED_SECONDS,
                spikes=[Spike("SOL", start_ms + SPIKE_AT_MINUTE * MINUTE_MS)],
            )
            running = asyncio.ensure_future(_to_the_end(stack, source))
            # When the source fails, the stack's own error tells; this one must only not be left unread.
            running.add_done_callback(lambda task: task.cancelled() or task.exception())
            seen = 0
            with Live(_table(board, ledger), console=console, refresh_per_second=4) as live:
                while not running.done():
                    await asyncio.wait([running], timeout=REDRAW_SECONDS)
                    live.update(_table(board, ledger))
                    for spike in ledger.spikes[seen:]:
                        console.print(
                            f"[bold red]VIRAL SPIKE[/] {spike.symbol}: {spike.mention_count} mentions in 60 s, "
                            f"{spike.spike_ratio:.1f} times the hour before, most on {spike.dominant_platform}"
                        )
                    seen = len(ledger.spikes)
            await running
            await _summary(console, ledger, stack, board)
            if keep:
                stack.run_source(
                    SimulatorSource(
                        seed=seed + 1, symbols=settings.symbols, posts_per_minute=posts_per_minute, speed=1.0
                    )
                )
                console.print("serving simulated posts in real time; Ctrl-C stops")
                await stopped()


async def _to_the_end(stack: Stack, source: SimulatorSource) -> None:
    await stack.run_source(source)
    await stack.finish()


def _table(board: dict[str, SentimentAggregate], ledger: Ledger) -> Group:
    table = Table(
        title="social sentiment, trailing five minutes", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in ("symbol", "score", "band", "direct.", "polarity", "volume", "cred.", "posts", "spike"):
        table.add_column(name, justify="left" if name in ("symbol", "band") else "right", no_wrap=True)
    busiest = sorted(board.values(), key=lambda a: (-a.post_count, a.symbol))[:10]
    for aggregate in busiest:
        known = not aggregate.insufficient_data
        table.add_row(
            aggregate.symbol,
            f"{aggregate.social_sentiment_score:.2f}",
            band_name(aggregate.social_sentiment_score) if known else "too few posts",
            f"{aggregate.directional_score:.2f}",
            f"{aggregate.polarity:+.2f}",
            f"{aggregate.volume_ratio:.1f}x" if aggregate.baseline_ready else "-",
            f"{aggregate.credibility:.2f}",
            str(aggregate.post_count),
            f"{aggregate.spike_ratio:.1f}x" if aggregate.viral_spike else "",
        )
    counts = Text(
        f"posts in {ledger.received:,} · scored {ledger.scored:,} · dropped {ledger.dropped.total():,} "
        f"· windows closed {len(ledger.windows):,} · spikes {len(ledger.spikes)}"
    )
    return Group(table, counts)


async def _summary(console: Console, ledger: Ledger, stack: Stack, board: Mapping[str, SentimentAggregate]) -> None:
    console.print()
    console.print(f"posts in            {ledger.received:>7,}")
    console.print(f"posts scored        {ledger.scored:>7,}")
    for (stage, reason), count in sorted(ledger.dropped.items(), key=lambda item: -item[1]):
        console.print(f"dropped by {stage:<8} {count:>7,}  {reason}")
    for stage, count in sorted(ledger.dead_letters.items()):
        console.print(f"dead letters        {count:>7,}  {stage}")
    console.print(f"windows written     {await stack.windows_written():>7,}  to PostgreSQL")
    p50, p99 = ledger.percentile_ms(0.50), ledger.percentile_ms(0.99)
    if p50 is not None and p99 is not None:
        console.print(
            f"post to score       p50 {p50 / 1000:.2f} s, p99 {p99 / 1000:.2f} s (received to readable in Redis)"
        )
    for spike in ledger.spikes:
        console.print(
            f"spike               {spike.symbol} {spike.spike_ratio:.1f}x, {spike.mention_count} mentions in 60 s"
        )
    console.print()
    symbol = max(board.values(), key=lambda a: a.post_count).symbol if board else stack.settings.symbols[0]
    address = stack.addresses["gateway"]
    console.print(f"the gateway, asked by gRPC (sentimesh get {symbol} --address {address}):")
    console.print(panel(await ask(symbol, address)))
    console.print("the same with grpcurl, while it serves (sentimesh demo --keep):")
    console.print(
        f'  grpcurl -plaintext -d \'{{"symbol": "{symbol}"}}\' '
        f"{address} com.verlumen.tradestream.social.SentimentGatewayService/GetSocialSentiment",
        soft_wrap=True,
        highlight=False,
    )
