"""The configuration: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sentimesh.cli.app import app
from sentimesh.settings import SettingsError, load_settings, masked

SPECIFICATION = Path(__file__).resolve().parents[3] / "shared" / "spec" / "000_30a46e55dca66f94.txt"


@pytest.fixture(autouse=True)
def _no_configuration_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)


@pytest.mark.recorded
@pytest.mark.skipif(not SPECIFICATION.is_file(), reason="../shared/spec is not here")
def test_the_specifications_tree_is_accepted_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SPECIFICATION.read_text()
    start = text.index("```yaml\nsocial_sentiment:") + len("```yaml\n")
    path = tmp_path / "specification.yaml"
    path.write_text(text[start : text.index("```", start)])
    monkeypatch.setenv("TWITTER_BEARER_TOKEN", "hunter2")
    settings = load_settings(path)
    assert settings.model.primary == "finbert"
    assert settings.storage.redis.volume_baseline_ttl_seconds == 691_200
    assert settings.sources.twitter.bearer_token is not None
    assert settings.sources.twitter.bearer_token.get_secret_value() == "hunter2"
    assert settings.sources.reddit.client_id is None


def test_defaults_need_no_file() -> None:
    settings = load_settings(None)
    assert len(settings.symbols) == 20
    assert settings.server.host == "127.0.0.1"
    assert settings.nats.url is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("social_sentiment:\n  agregation: {}\n", "social_sentiment.agregation: there is no such key"),
        (
            "social_sentiment:\n  aggregation:\n    window_second: 3\n",
            "social_sentiment.aggregation.window_second: there is no such key",
        ),
        (
            "social_sentiment:\n  spam_filter:\n    min_credibility_threshold: 1.5\n",
            "social_sentiment.spam_filter.min_credibility_threshold: Input should be less than or equal to 1",
        ),
        (
            "social_sentiment:\n  scoring_integration:\n    weight: 0.2\n",
            "social_sentiment.scoring_integration.weight: Input should be less than or equal to 0.15",
        ),
        (
            "social_sentiment:\n  spam_filter:\n    known_bot_sources: [bots.txt, 'https://me:geheim@a.example/']\n",
            "social_sentiment.spam_filter.known_bot_sources.1: Input should be the path of a file, or a URL of http",
        ),
        (
            "social_sentiment:\n  spam_filter:\n    known_bot_sources: ['']\n",
            "social_sentiment.spam_filter.known_bot_sources.0: Input should be the path of a file or a URL, not empty",
        ),
        ("social_sentiment:\n  symbols: [BTC, 'no symbol!']\n", "social_sentiment.symbols: "),
        ("other: 1\n", "the one top-level key must be social_sentiment:"),
        ("social_sentiment: [\n", "not YAML at line 2"),
        ("social_sentiment:\n  model:\n    primary: ${NO_SUCH_VARIABLE}\n", "NO_SUCH_VARIABLE is not set"),
        (
            "social_sentiment:\n  sources:\n    twitter:\n      bearer_token: hunter2\n",
            "secrets come from the environment only; write ${SOURCES_TWITTER_BEARER_TOKEN} here",
        ),
        (
            "social_sentiment:\n  aggregation:\n    window_seconds: 305\n",
            "aggregation.window_seconds 305 is not a multiple of viral_detection.slide_interval_seconds 10",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_key_and_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sentimesh.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: cannot be read"):
        load_settings(tmp_path / "absent.yaml")


def test_the_environment_wins_and_secrets_never_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sentimesh.yaml"
    path.write_text("social_sentiment:\n  nats:\n    url: ${BROKER}\n    batch_size: 10\n")
    monkeypatch.setenv("BROKER", "nats://user:hunter2@localhost:4222")
    monkeypatch.setenv("SENTIMESH__NATS__BATCH_SIZE", "20")
    settings = load_settings(path)
    assert settings.nats.batch_size == 20
    assert settings.nats.url is not None
    assert settings.nats.url.get_secret_value().endswith("localhost:4222")
    assert "hunter2" not in repr(settings)
    assert masked(settings)["social_sentiment"]["nats"]["url"] == "***"


def test_the_commands_show_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sentimesh.yaml"
    path.write_text("social_sentiment:\n  symbols: [eth, BTC]\n  storage:\n    redis:\n      url: ${CACHE}\n")
    monkeypatch.setenv("CACHE", "redis://:hunter2@localhost")
    checked = CliRunner().invoke(app, ["config", "check", str(path)])
    assert checked.output == f"ok: {path}: 2 symbols, model sentimesh-base\n"
    shown = CliRunner().invoke(app, ["config", "show", str(path)])
    assert "url: '***'" in shown.output
    assert "hunter2" not in shown.output


def test_a_list_of_bots_is_shown_without_the_key_in_its_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sentimesh.yaml"
    path.write_text(
        "social_sentiment:\n  spam_filter:\n    known_bot_sources: ['https://a.example/b?key=${KEY}', 'b?.txt']"
    )
    monkeypatch.setenv("KEY", "geheim")
    settings = load_settings(path)
    assert settings.spam_filter.known_bot_sources == ["https://a.example/b?key=geheim", "b?.txt"]
    shown = masked(settings)["social_sentiment"]["spam_filter"]["known_bot_sources"]
    assert shown == ["https://a.example/b?***", "b?.txt"]
