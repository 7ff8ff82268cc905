"""The stub and the module agree."""

import subprocess
import sys
from pathlib import Path

from sentimesh import _native, native


def test_stub_matches_the_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "sentimesh._native"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_name_is_public() -> None:
    names = {name for name in vars(_native) if not name.startswith("_")}
    assert set(native.__all__) == names
