"""A real InfluxDB 2 in a folder, started and stopped by its own handle."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx
from pydantic import SecretStr

from sentimesh.embedded import free_port
from sentimesh.settings import InfluxDB

BINARY = Path(__file__).resolve().parents[1] / ".peers" / "bin" / "influxd"
ORG = "sentimesh"
TOKEN = "token-of-the-tests"  # noqa: S105 - of a server that lives as long as a test
START_SECONDS = 120


class Influxd:
    """One server; its data outlives :meth:`kill` and :meth:`stop`."""

    def __init__(self, folder: Path) -> None:
        """Start it and set it up, once it answers."""
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()
        account = {"username": "tests", "password": "of-the-tests", "org": ORG, "bucket": "unused", "token": TOKEN}
        httpx.post(f"{self.url}/api/v2/setup", json=account, timeout=START_SECONDS, trust_env=False).raise_for_status()

    def section(self, bucket: str = "social_sentiment") -> InfluxDB:
        """Return the settings that use this server."""
        return InfluxDB(url=SecretStr(self.url), token=SecretStr(TOKEN), org=ORG, bucket=bucket)

    def start(self) -> None:
        """Start it on its port and data, and wait until it is ready."""
        data = {"bolt": "bolt", "engine": "engine", "sqlite": "sqlite"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(BINARY, "run", "--http-bind-address", f"127.0.0.1:{self._port}", "--reporting-disabled"),
                    *(f"--{name}-path={self._folder / file}" for name, file in data.items()),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"influxd does not start: see {self._folder / 'log'}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/health", trust_env=False).json()["status"] == "pass")
        except (httpx.TransportError, ValueError):
            return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in good order."""
        self._process.terminate()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
