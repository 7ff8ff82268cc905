"""A whole recording through the real system, and every window and spike that came out recomputed by the tests' oracle.

    python bench/oracle.py [FILE] [--model sentimesh-mini]

Without a file, simulated posts of a fixed seed. Ends with 1 when there is a difference. Windows are compared in all
fields but the number of their revision, which depends on where batches ended.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.pipeline import recording
from sentimesh.settings import DEFAULT_SYMBOLS
from tests.aggregator_svc.comparison import Export

POSTS_PER_MINUTE = 60
MINUTES = 180
SHOWN = 20
HOUR_MS = 3_600_000


def main() -> None:
    """Replay, recompute, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="recording to replay instead of simulated posts")
    parser.add_argument("--model", default="vader")
    arguments = parser.parse_args()
    sentimesh = Path(sys.executable).with_name("sentimesh")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = arguments.file or recording(folder, POSTS_PER_MINUTE, MINUTES)
        command = [str(sentimesh), "replay", str(file), "--model", arguments.model, "--export", str(folder / "export")]
        done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=True)
        run = json.loads(done.stdout)
        print(
            f"{run['posts_in']:,} posts, {run['mentions_scored']:,} mentions scored by {run['model']} "
            f"in {run['seconds']:.0f} s"
        )
        started = time.monotonic()
        found = Export.compare(folder / "export", DEFAULT_SYMBOLS)
        seconds = time.monotonic() - started
    marked = sum(window.viral_spike for window in found.oracle.windows.values())
    corrected = sum(window.revision > 0 for window in found.oracle.windows.values())
    print(f"recomputed in {seconds:.0f} s: {marked} windows marked with a spike, {corrected} corrected by late posts")
    spoken = {start // HOUR_MS for (start, _), window in found.oracle.windows.items() if window.post_count}
    loud = {start // HOUR_MS for (start, _), window in found.oracle.windows.items() if window.viral_spike}
    wrong = sum((spike.detected_at_ms - 1) // HOUR_MS not in loud for spike in found.oracle.spikes)
    print(
        f"{len(spoken)} hours with posts, {len(spoken - loud)} without a window over the threshold; "
        f"alerts in these: {wrong}"
    )
    print(f"{'':<10}{'compared':>10}{'differences':>13}{'largest float difference':>26}")
    for name, comparison in (("windows", found.windows), ("spikes", found.spikes)):
        print(f"{name:<10}{comparison.compared:>10,}{len(comparison.differences):>13}{comparison.largest:>26.2e}")
    differences = found.windows.differences + found.spikes.differences
    for difference in differences[:SHOWN]:
        print(difference)
    if differences:
        sys.exit(1)


if __name__ == "__main__":
    main()
