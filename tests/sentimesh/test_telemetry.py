"""Where log lines go."""

from __future__ import annotations

import io

import pytest
import structlog

from sentimesh.telemetry import configure_logging


def test_log_lines_go_to_standard_error_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    first = io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    try:
        configure_logging("info", json=True)
        log = structlog.get_logger()
        log.info("first")
        # As under a test runner: the standard error of the moment of configuration is closed.
        first_said = first.getvalue()
        first.close()
        second = io.StringIO()
        monkeypatch.setattr("sys.stderr", second)
        log.info("second", stage="ingest")
        log.debug("unheard")
    finally:
        structlog.configure(**before)
    assert '"event": "first"' in first_said
    assert '"stage": "ingest", "event": "second"' in second.getvalue()
    assert "unheard" not in second.getvalue()
