"""Kills each stage and each server with SIGKILL, over and over, while posts go through, and compares the rows.

Against an undisturbed run over the same posts: rows in PostgreSQL (all columns but revision and times of writing),
points in InfluxDB where `make peers` has built it. Recovery: from the kill until the part answers and the backlog of
all consumers is what it was.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from sentimesh.connections import STAGES
from tests.e2e.faults import SERVERS, Crowd, Deployment, Outcome, differences


async def run(folder: Path, crowd: Crowd, model: str, kills: Sequence[str]) -> Outcome:
    """Run one deployment."""
    async with Deployment(folder, model=model) as deployment:
        return await deployment.run(crowd, kills, seed=len(kills))


def main() -> None:
    """Print a row a target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", help="comma-separated; all of them by default")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds-a-round", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=10_000, help="posts a minute")
    parser.add_argument("--stretch", type=float, default=60.0, help="the posts' own times go so much faster")
    parser.add_argument("--model", default="vader")
    parser.add_argument("--keep", type=Path, help="folder for logs and data instead of a temporary one")
    arguments = parser.parse_args()
    crowd = Crowd(
        round(arguments.rate / 60 * arguments.seconds_a_round * arguments.rounds), arguments.rate, arguments.stretch
    )
    with tempfile.TemporaryDirectory(prefix="sentimesh-faults-", dir="/var/tmp") as temporary:
        base = arguments.keep or Path(temporary)
        base.mkdir(parents=True, exist_ok=True)
        base.chmod(0o755)
        expected = asyncio.run(run(base / "undisturbed", crowd, arguments.model, ()))
        posts = sum(row[8] for row in expected.windows.values())
        print(
            f"{crowd.posts:,} posts in {crowd.seconds:.0f} s at {crowd.per_minute:,.0f} a minute, model "
            f"{arguments.model}: {len(expected.windows):,} windows of {posts:,} mentions, "
            f"{len(expected.spikes)} spikes, {len(expected.points):,} points",
            flush=True,
        )
        print(
            f"{'killed':<12}{'rounds':>7}{'rows':>7}{'missing':>9}{'extra':>7}{'different':>11}{'posts lost':>12}"
            f"{'doubled':>9}{'recovery p50':>14}{'max':>7}"
        )
        targets = arguments.targets.split(",") if arguments.targets else (*STAGES, *SERVERS, "influxdb")
        for target in targets:
            found = asyncio.run(run(base / target, crowd, arguments.model, [target] * arguments.rounds))
            parts = differences(expected, found)
            print(
                f"{target:<12}{len(found.recoveries):>7}{sum(d.rows for _, d in parts):>7}"
                f"{sum(d.missing for _, d in parts):>9}{sum(d.extra for _, d in parts):>7}"
                f"{sum(d.different for _, d in parts):>11}{sum(d.posts_lost for _, d in parts):>12}"
                f"{sum(d.posts_doubled for _, d in parts):>9}{median(found.recoveries):>12.1f} s"
                f"{max(found.recoveries):>5.1f} s",
                flush=True,
            )
            for name, difference in parts:
                if difference.example:
                    print(f"    {name}: {difference.example}")


if __name__ == "__main__":
    main()
