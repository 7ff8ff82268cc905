"""From a post received to its score readable in Redis, at a given rate: latency, CPU and memory of each stage, queues.

Five processes as they are deployed (the aggregator is this one), servers from wheels, the system clock, simulated posts
of the present. A second process sends them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from pydantic import SecretStr

from ingest_svc.sources.simulator import SimulatorSource
from sentimesh.bus import Bus
from sentimesh.pump import Pump
from sentimesh.settings import DEFAULT_SYMBOLS, load_settings
from sentimesh.stack import Stack
from sentimesh.telemetry import Tracing, configure_logging
from tests.e2e.faults import Deployment

SAMPLE_SECONDS = 2.0


async def send(nats_url: str, per_minute: float, seconds: float) -> None:
    """Send the present's posts for so long."""
    stop = asyncio.Event()
    async with Bus(SecretStr(nats_url)) as bus:
        pump = Pump(SimulatorSource(1, DEFAULT_SYMBOLS, posts_per_minute=per_minute), bus, Tracing("bench", None))
        running = asyncio.create_task(pump.run(stop))
        await asyncio.sleep(seconds)
        stop.set()
        await running
        print(pump.published)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share stays within."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure(folder: Path, model: str, per_minute: float, seconds: float, warm_up: float) -> None:
    """Run it and print the figures."""
    settings = load_settings(None).model_copy(deep=True)
    latencies: list[tuple[float, int]] = []
    depths: list[tuple[float, int]] = []
    async with Deployment(folder, model=model, influxdb=False, clock="system", stages=OTHERS) as deployment:
        urls = deployment.urls
        settings.nats.url = SecretStr(urls["nats"])
        settings.storage.redis.url = SecretStr(urls["redis"])
        settings.storage.postgresql.dsn = SecretStr(urls["postgresql"])

        def on_visible(posts_ms: Sequence[int]) -> None:
            now = time.monotonic()
            latencies.extend((now, latency) for latency in posts_ms)

        async with Stack(
            settings, stages=["aggregator"], free_ports=True, allow_embedded=False, on_visible=on_visible
        ) as stack:
            processes = {name: psutil.Process(pid) for name, pid in deployment.process_ids.items()}
            processes["aggregator"] = psutil.Process()
            sender = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--send-to", urls["nats"], "--rate", str(per_minute)),
                *("--seconds", str(seconds + warm_up)),
                stdout=asyncio.subprocess.PIPE,
            )
            await asyncio.sleep(warm_up)
            began, used = time.monotonic(), {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}
            while sender.returncode is None:
                depths.append((time.monotonic() - began, await deployment.backlog()))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(sender.wait(), SAMPLE_SECONDS)
            ended = time.monotonic()
            spent = {name: sum(p.cpu_times()[:2]) - used[name] for name, p in processes.items()}
            memory = {name: p.memory_info().rss / 2**20 for name, p in processes.items()}
            sent = int((await sender.communicate())[0])
            await stack.drained()
    shown = sorted(latency for at, latency in latencies if began <= at <= ended)
    print(
        f"model {model}, {per_minute:,.0f} posts a minute for {seconds:.0f} s after {warm_up:.0f} s: "
        f"{sent:,} posts sent, {len(shown):,} mentions shown"
    )
    print(
        f"received to readable in Redis: p50 {percentile(shown, 0.5) / 1000:.2f} s, "
        f"p99 {percentile(shown, 0.99) / 1000:.2f} s, maximum {shown[-1] / 1000:.2f} s"
    )
    third = len(depths) // 3
    parts = (depths[:third], depths[third : 2 * third], depths[2 * third :])
    means = ", ".join(f"{sum(depth for _, depth in part) / len(part):.0f}" for part in parts)
    print(f"messages not finished, all queues, mean of each third of the time: {means}")
    print(f"{'process':<12}{'CPU of one core':>16}{'MiB':>6}")
    for name in processes:
        print(f"{name:<12}{spent[name] / (ended - began):>16.0%}{memory[name]:>6.0f}")


OTHERS = ("ingest", "filter", "scorer", "gateway")


def main() -> None:
    """Measure, or send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sentimesh-base")
    parser.add_argument("--rate", type=float, default=10_000, help="posts a minute")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=15)
    parser.add_argument("--send-to", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_logging("error", json=False)
    if arguments.send_to:
        asyncio.run(send(arguments.send_to, arguments.rate, arguments.seconds))
        return
    with tempfile.TemporaryDirectory(prefix="sentimesh-latency-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(measure(Path(folder), arguments.model, arguments.rate, arguments.seconds, arguments.warm_up))


if __name__ == "__main__":
    main()
