"""Generate sentimesh/pb from proto/ (``make proto``); with ``--check`` only report a difference."""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = ROOT / "sentimesh" / "pb"
# protoc writes plain top-level imports; the generated modules live in a package.
PLAIN_IMPORT = re.compile(r"^import (\w+_pb2) as (\w+)$", re.MULTILINE)


def generate(target: Path) -> None:
    """Write modules and stubs for every file of proto/ into ``target``."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names = sorted(path.name for path in PROTO.glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"--python_out={target}",
            f"--mypy_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_grpc_out={target}",
            *names,
        ]
    )
    if status:
        raise SystemExit(f"protoc failed with status {status}")
    for path in [*target.glob("*_pb2*.py"), *target.glob("*_pb2*.pyi")]:
        text = path.read_text()
        text = PLAIN_IMPORT.sub(r"from sentimesh.pb import \1 as \2", text)
        text = re.sub(r"^import (\w+_pb2)$", r"from sentimesh.pb import \1", text, flags=re.MULTILINE)
        path.write_text(text)
    for name in names:
        # A file without services still gets a module that only imports grpc.
        stem = name.removesuffix(".proto")
        if "service " not in (PROTO / name).read_text():
            for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
                (target / f"{stem}{suffix}").unlink(missing_ok=True)


def main() -> None:
    """Generate, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed files differ")
    arguments = parser.parse_args()
    if not arguments.check:
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name for path in Path(folder).iterdir()}
        committed = {path.name for path in TARGET.glob("*_pb2*")}
        _, different, errors = filecmp.cmpfiles(folder, TARGET, fresh | committed, shallow=False)
        if different or errors or fresh != committed:
            changed = sorted({*different, *errors, *(fresh ^ committed)})
            raise SystemExit(f"sentimesh/pb is not what proto/ generates: {', '.join(changed)}; run make proto")


if __name__ == "__main__":
    main()
