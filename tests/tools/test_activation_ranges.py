"""The tool that makes a model's ranges, on a shipped model."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from scorer_svc.model_files import find_model
from scorer_svc.model_store import load_model

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["BTC to the moon", "sell everything, it is over", "gm", "how do I move coins to a wallet?"]


def test_the_ranges_seen_on_texts_are_those_the_model_runs_with(tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(find_model("sentimesh-mini").folder, folder)
    shipped = json.loads((folder / "activation_ranges.json").read_text())
    (tmp_path / "some.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:2]))
    (tmp_path / "more.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[2:]).encode())
    )
    tool: list[str | Path] = [sys.executable, ROOT / "tools" / "activation_ranges.py", folder]
    done = subprocess.run(
        [*tool, tmp_path / "some.jsonl", tmp_path / "more.jsonl.gz"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{folder / 'activation_ranges.json'}: {len(shipped)} ranges, of 4 texts\n"
    made = json.loads((folder / "activation_ranges.json").read_text())
    assert list(made) == list(shipped)
    for name, (least, greatest) in made.items():
        # Four texts go less far than thousands, and not a different way.
        assert abs(least - shipped[name][0]) < 0.5 * (shipped[name][1] - shipped[name][0])
        assert abs(greatest - shipped[name][1]) < 0.5 * (shipped[name][1] - shipped[name][0])
    own, released = load_model(str(folder)), load_model("sentimesh-mini")
    assert re.fullmatch("mini-[0-9a-f]{8}", own.model_version)
    for one, other in zip(own.score(TEXTS), released.score(TEXTS), strict=True):
        assert abs(one.polarity - other.polarity) < 0.1
