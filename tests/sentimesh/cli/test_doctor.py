"""``sentimesh doctor``: what it finds, what it calls missing, and that looking changes nothing."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from sentimesh.cli.app import app
from sentimesh.cli.doctor import DoctorError, reachable
from sentimesh.settings import load_settings
from tests.influxd import TOKEN, Influxd

CLOSED = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _free_of_a_running_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage ports that nothing listens on, and a table wide enough to read."""
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "240")
    for port, stage in enumerate(("INGEST", "FILTER", "SCORER", "AGGREGATOR", "GATEWAY"), 2):
        monkeypatch.setenv(f"SENTIMESH__SERVER__{stage}_PORT", str(port))


def doctor(*options: str) -> tuple[Result, dict[str, str]]:
    """Return the result and the table: what was looked at to the rest of its row."""
    result = CliRunner().invoke(app, ["doctor", *options])
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.output.splitlines() if "│" in line]
    return result, {what: f"{state} {finding}" for what, state, finding in cells}


def test_everything_that_the_defaults_need_is_found_with_its_version() -> None:
    result, rows = doctor()
    assert result.exit_code == 0, result.output
    assert rows["native module"] == "ok loads and answers"
    assert "v2." in rows["embedded nats-server"]
    assert "v=9." in rows["embedded Valkey"]
    assert "18." in rows["embedded PostgreSQL"]
    assert rows["model sentimesh-base"].startswith("ok ")
    assert rows["nats.url"] == "- not configured: an embedded server is started"
    assert rows["stage gateway"] == "- not running on 127.0.0.1:6"


def test_configured_servers_answer(
    nats_url: str, redis_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTIMESH__NATS__URL", nats_url)
    monkeypatch.setenv("SENTIMESH__STORAGE__REDIS__URL", redis_url)
    monkeypatch.setenv("SENTIMESH__STORAGE__POSTGRESQL__DSN", postgres_dsn)
    result, rows = doctor()
    assert result.exit_code == 0, result.output
    assert [rows[key] for key in ("nats.url", "storage.redis.url", "storage.postgresql.dsn")] == ["ok answers"] * 3


@pytest.mark.peer
def test_influxdb_is_asked_when_it_is_configured(influx: Influxd, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor()[1]["storage.influxdb.url"] == "- not configured: InfluxDB is not used"
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__URL", influx.url)
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", TOKEN)
    result, rows = doctor()
    assert result.exit_code == 0, result.output
    assert rows["storage.influxdb.url"] == "ok answers"
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", "hunter2")
    result, rows = doctor()
    assert result.exit_code == 1
    assert "unauthorized access" in rows["storage.influxdb.url"]
    assert "hunter2" not in result.output


async def streams(nats_url: str) -> set[str]:
    client = await nats.connect(nats_url)
    try:
        return {str(stream.config.name) for stream in await client.jetstream().streams_info()}
    finally:
        await client.close()


async def test_looking_changes_nothing_on_the_broker(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    for name in await streams(nats_url):
        await client.jetstream().delete_stream(name)
    await client.close()
    settings = load_settings(None)
    settings.nats.url = SecretStr(nats_url)
    findings = await reachable(settings)
    assert ("nats.url", True, "answers") in findings
    assert await streams(nats_url) == set()


def test_what_does_not_answer_is_named_without_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIMESH__NATS__URL", f"nats://user:hunter2@{CLOSED}")
    monkeypatch.setenv("SENTIMESH__STORAGE__REDIS__URL", f"redis://:hunter2@{CLOSED}")
    monkeypatch.setenv("SENTIMESH__STORAGE__POSTGRESQL__DSN", f"postgresql://user:hunter2@{CLOSED}/x")
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__URL", f"http://{CLOSED}")
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", "hunter2")
    result, rows = doctor()
    assert result.exit_code == 1
    for key in ("nats.url", "storage.redis.url", "storage.postgresql.dsn"):
        assert rows[key].startswith("MISSING does not answer ("), rows[key]
    assert rows["storage.influxdb.url"].startswith("MISSING InfluxDB does not answer (")
    assert isinstance(result.exception, DoctorError)
    keys = "nats.url, storage.redis.url, storage.postgresql.dsn, storage.influxdb.url: "
    assert str(result.exception).startswith(keys)
    assert "hunter2" not in result.output + str(result.exception)


def test_a_model_that_is_not_there_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIMESH__MODEL__PRIMARY", str(tmp_path / "none"))
    result, rows = doctor()
    assert result.exit_code == 1
    [row] = [row for what, row in rows.items() if what.startswith("model ") and "vader" not in what]
    assert row.startswith("MISSING ")
