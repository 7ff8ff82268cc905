"""Posts a second through the whole pipeline (`sentimesh replay`), by model: what the stages cost, what the model costs.

Simulated posts of a fixed seed, so that it runs anywhere; give a recording to measure that instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from ingest_svc.sources.simulator import simulate
from sentimesh.settings import DEFAULT_SYMBOLS

START_MS = 1_700_000_400_000
POSTS_PER_MINUTE = 100
MINUTES = 30


def recording(folder: Path, posts_per_minute: float = POSTS_PER_MINUTE, minutes: int = MINUTES) -> Path:
    """Write simulated posts as a recording and return its path."""
    path = folder / "simulated.jsonl"
    posts = simulate(3, START_MS, DEFAULT_SYMBOLS, posts_per_minute, minutes * 60_000)
    lines = [
        orjson.dumps({"platform": p.platform, "received_at_ms": p.event_time_ms, "payload": p.payload}) for p in posts
    ]
    path.write_bytes(b"\n".join(lines))
    return path


def main() -> None:
    """Replay once a model and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="recording to replay instead of simulated posts")
    parser.add_argument("--models", default="vader,sentimesh-mini,sentimesh-base")
    arguments = parser.parse_args()
    sentimesh = Path(sys.executable).with_name("sentimesh")
    print(f"{'model':<16}{'posts':>8}{'mentions scored':>17}{'seconds':>9}{'posts/s':>9}{'posts/min':>11}{'MiB':>6}")
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file or recording(Path(folder))
        for model in arguments.models.split(","):
            command = [str(sentimesh), "replay", str(file), "--model", model, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            run = json.loads(done.stdout)
            print(
                f"{model:<16}{run['posts_in']:>8,}{run['mentions_scored']:>17,}{run['seconds']:>9.1f}"
                f"{run['posts_per_second']:>9.1f}{run['posts_per_second'] * 60:>11,.0f}{run['peak_memory_mib']:>6}"
            )


if __name__ == "__main__":
    main()
