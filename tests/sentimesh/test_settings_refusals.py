"""The configuration in detail: every key of the specification, every secret, every way to be refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from sentimesh.settings import Settings, SettingsError, load_settings, masked, source_of

SPEC = Path(__file__).resolve().parents[3] / "shared" / "spec" / "000_30a46e55dca66f94.txt"
SECRET = "hunter2-of-mine"  # noqa: S105 - what the tests look for
HINT = "; correct it (`sentimesh config show` prints every key)"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTIMESH_CONFIG", raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "sentimesh.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return str(caught.value)


def plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def leaves(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in tree.items():
        found += leaves(value, (*prefix, key)) if isinstance(value, dict) else [((*prefix, key), value)]
    return found


def secret_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the path of every SecretStr in the tree, read from the tree: no list of names forgets one."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += secret_keys(field.annotation, f"{prefix}{name}.")
        elif "SecretStr" in str(field.annotation):
            found.append(prefix + name)
    return found


def at(settings: Settings, keys: tuple[str, ...]) -> Any:
    value: Any = settings
    for key in keys:
        value = getattr(value, key)
    return plain(value)


@pytest.mark.recorded
def test_every_key_of_the_specification_is_accepted_and_has_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SPEC.is_file():
        pytest.skip("../shared/spec is not here")
    [block] = re.findall(r"```yaml\n((?:#[^\n]*\n|\n)*social_sentiment:.*?)```", SPEC.read_text(), re.DOTALL)
    document = yaml.safe_load(block)["social_sentiment"]
    for _, value in leaves(document):
        if isinstance(value, str) and value.startswith("${"):
            monkeypatch.setenv(value[2:-1], f"value of {value[2:-1]}")
    path = written(tmp_path, block)
    accepted, defaults = load_settings(path), load_settings(None)
    checked = 0
    for keys, value in leaves(document):
        if isinstance(value, str) and value.startswith("${"):
            assert at(accepted, keys) == f"value of {value[2:-1]}", keys
            assert at(defaults, keys) is None, keys
        else:
            assert at(accepted, keys) == value, keys
            # A shipped model is the default until another is chosen; the specification's is one that is fetched.
            assert at(defaults, keys) == ("auto" if keys == ("model", "primary") else value), keys
        checked += 1
    assert checked == 72


def test_defaults_without_a_file() -> None:
    settings = load_settings(None)
    assert len(settings.symbols) == 20
    assert settings.server_urls() == {"nats": None, "redis": None, "postgresql": None, "influxdb": None}
    assert (settings.server.host, settings.server.gateway_port) == ("127.0.0.1", 50055)
    assert settings.nats.sync_always
    assert settings.data_dir.is_absolute()
    assert source_of(None) == "defaults and environment"


def test_two_loads_share_nothing() -> None:
    first = load_settings(None)
    first.nats.batch_size = 7
    first.symbols.append("PEPE")
    second = load_settings(None)
    assert second.nats.batch_size == 200
    assert "PEPE" not in second.symbols


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "social_sentiment: {symbols: [BTC, ETH, BTC]}\n")
    monkeypatch.setenv("SENTIMESH_CONFIG", str(path))
    assert load_settings(None).symbols == ["BTC", "ETH"]
    assert source_of(None) == str(path)


def test_the_environment_wins_over_the_file_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "social_sentiment: {nats: {batch_size: 10, max_deliver: 3}}\n")
    monkeypatch.setenv("SENTIMESH__NATS__BATCH_SIZE", "20")
    monkeypatch.setenv("SENTIMESH__SOURCES__TWITTER__ENABLED", "false")
    monkeypatch.setenv("SENTIMESH__SYMBOLS", '["SOL"]')
    settings = load_settings(path)
    assert (settings.nats.batch_size, settings.nats.max_deliver) == (20, 3)
    assert not settings.sources.twitter.enabled
    assert settings.symbols == ["SOL"]


@pytest.mark.parametrize("text", ["", "social_sentiment:\n", "# nothing\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_settings(written(tmp_path, text)).model_dump() == load_settings(None).model_dump()


def test_references_are_resolved_in_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HOST", "10.0.0.7")
    monkeypatch.setenv("TEST_SIZE", "64")
    text = 'social_sentiment: {server: {host: "${TEST_HOST}"}, model: {batch_size: "${TEST_SIZE}"}, data_dir: "~/x"}\n'
    settings = load_settings(written(tmp_path, text))
    assert settings.server.host == "10.0.0.7"
    assert settings.model.batch_size == 64
    assert settings.data_dir == Path.home() / "x"


@pytest.mark.parametrize("value", [None, ""])
def test_a_secret_whose_variable_is_unset_or_empty_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TEST_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_TOKEN", value)
        monkeypatch.setenv("SENTIMESH__NATS__URL", value)
    path = written(tmp_path, 'social_sentiment: {sources: {twitter: {bearer_token: "${TEST_TOKEN}"}}}\n')
    settings = load_settings(path)
    assert settings.sources.twitter.bearer_token is None
    assert settings.nats.url is None


@pytest.mark.parametrize(
    ("yaml_text", "expected"),
    [
        ("{nats: {batchsize: 5}}", "social_sentiment.nats.batchsize: there is no such key (did you mean batch_size?)"),
        ("{modle: {}}", "social_sentiment.modle: there is no such key (did you mean model?)"),
        ("{1: 2}", "social_sentiment.1: there is no such key"),
        ("{on: 2}", "social_sentiment.on: there is no such key"),
        ("{nats: }", "social_sentiment.nats: Input should be a section, a mapping of keys to values"),
        ("{nats: {batch_size: 0}}", "social_sentiment.nats.batch_size: Input should be greater than or equal to 1"),
        ("{nats: {batch_size: true}}", "social_sentiment.nats.batch_size: Input should be a number, not true or false"),
        (
            "{nats: {ack_wait_seconds: .inf}}",
            "social_sentiment.nats.ack_wait_seconds: Input should be a finite number",
        ),
        (
            "{scoring_integration: {weight: 0.151}}",
            "social_sentiment.scoring_integration.weight: Input should be less than or equal to 0.15",
        ),
        (
            "{server: {gateway_port: 70000}}",
            "social_sentiment.server.gateway_port: Input should be less than or equal to 65535",
        ),
        (
            "{sources: {twitter: {api_tier: gold}}}",
            "social_sentiment.sources.twitter.api_tier: Input should be 'basic' or 'pro'",
        ),
        (
            "{kafka: {retention_hours: 169}}",
            "social_sentiment.kafka.retention_hours: Input should be less than or equal to 168",
        ),
        (
            "{storage: {influxdb: {scored_posts_retention_days: 8}}}",
            "social_sentiment.storage.influxdb.scored_posts_retention_days: Input should be less than or equal to 7",
        ),
        ("{symbols: BTC}", "social_sentiment.symbols: Input should be a valid list"),
        ("{symbols: []}", "social_sentiment.symbols: track at least one symbol"),
        (
            "{aggregation: {window_seconds: 25}}",
            "social_sentiment: aggregation.window_seconds 25 is not a multiple of "
            "viral_detection.slide_interval_seconds 10",
        ),
    ],
)
def test_a_refusal_says_where_why_and_what_to_do(tmp_path: Path, yaml_text: str, expected: str) -> None:
    path = written(tmp_path, f"social_sentiment: {yaml_text}\n")
    assert refusal(path) == f"{path}: {expected}{HINT}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n", "the one top-level key must be social_sentiment:; put everything under it"),
        ("- 1\n", "the one top-level key must be social_sentiment:; put everything under it"),
        ("social_sentiment: 3\n", "social_sentiment must be a mapping of keys to values; correct it"),
        ("social_sentiment:\n  a: [\n", "not YAML at line 3; correct it"),
        (
            "social_sentiment:\n  nats:\n    batch_size: 1\n    batch_size: 2\n",
            "the key batch_size comes twice at line 4; correct it",
        ),
        (
            "social_sentiment: {server: {host: '${TEST_UNSET}'}}\n",
            "social_sentiment.server.host: the environment variable TEST_UNSET is not set; set it",
        ),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    assert refusal(path) == f"{path}: {expected}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert refusal(path) == f"{path}: cannot be read (No such file or directory); give the path of a YAML file"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"social_sentiment: {server: {host: \xe9}}\n")
    assert refusal(path) == f"{path}: not YAML; correct it"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "SENTIMESH__NATS__BATCH_SIZE",
            "many",
            "SENTIMESH__NATS__BATCH_SIZE for social_sentiment.nats.batch_size: Input should be a valid integer, "
            f"unable to parse string as an integer{HINT}",
        ),
        (
            "SENTIMESH__NATS__SIZE",
            "1",
            f"SENTIMESH__NATS__SIZE for social_sentiment.nats.size: there is no such key{HINT}",
        ),
        (
            "SENTIMESH__SYMBOL",
            "BTC",
            "SENTIMESH__SYMBOL: there is no such key (did you mean symbols?); unset or rename it",
        ),
        (
            "SENTIMESH__SYMBOLS",
            "BTC",
            'SENTIMESH__SYMBOLS: Input should be JSON; correct the variable, as in \'["BTC", "ETH"]\'',
        ),
    ],
)
def test_a_bad_variable_is_named_not_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    assert refusal(written(tmp_path, "social_sentiment: {}\n")) == expected


@pytest.mark.parametrize("keys", secret_keys(Settings))
@pytest.mark.parametrize("value", [SECRET, f"{SECRET}-${{TEST_TOKEN}}"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, keys: str, value: str) -> None:
    node: Any = value
    for key in reversed(keys.split(".")):
        node = {key: node}
    path = written(tmp_path, yaml.safe_dump({"social_sentiment": node}))
    variable = keys.replace(".", "_").upper()
    assert refusal(path) == (
        f"{path}: social_sentiment.{keys}: secrets come from the environment only; "
        f"write ${{{variable}}} here and set that variable"
    )


def test_the_secrets_of_the_tree_are_known() -> None:
    assert len(secret_keys(Settings)) == 13


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_URL", f"nats://user:{SECRET}@nats.example:4222")
    monkeypatch.setenv("SENTIMESH__STORAGE__POSTGRESQL__DSN", f"postgresql://user:{SECRET}@db.example/x")
    settings = load_settings(written(tmp_path, 'social_sentiment: {nats: {url: "${TEST_URL}"}}\n'))
    assert SECRET in plain(settings.nats.url)
    for text in (
        repr(settings),
        str(settings),
        repr(masked(settings)),
        settings.model_dump_json(),
        repr(settings.nats),
    ):
        assert SECRET not in text
    shown = masked(settings)["social_sentiment"]
    assert shown["nats"]["url"] == "***"
    assert shown["storage"]["postgresql"]["dsn"] == "***"
    assert shown["storage"]["redis"]["url"] is None


@pytest.mark.parametrize("value", [f'{{"url": {SECRET}', f'{{"url": {{"a": "{SECRET}"}}}}', f'{{"url": ["{SECRET}"]}}'])
def test_no_refusal_repeats_a_secret(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SENTIMESH__NATS", value)
    with pytest.raises(SettingsError) as caught:
        load_settings(None)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__context__)
    assert caught.value.__suppress_context__


def test_an_assignment_is_checked_and_its_refusal_repeats_nothing() -> None:
    settings = load_settings(None)
    with pytest.raises(ValidationError) as caught:
        settings.nats.url = [SECRET]  # type: ignore[assignment]
    assert SECRET not in str(caught.value)


def test_what_show_prints_can_be_loaded_again(tmp_path: Path) -> None:
    tree = masked(load_settings(None))
    assert load_settings(written(tmp_path, yaml.safe_dump(tree))).model_dump() == load_settings(None).model_dump()


def test_influxdb_is_used_only_with_both_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(None).storage.influxdb.url is None
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__URL", "http://influx.example:8086")
    assert refusal(None) == (
        "configuration: social_sentiment.storage.influxdb: url is set and token is not: "
        f"set both, or neither to go without InfluxDB{HINT}"
    )
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", SECRET)
    settings = load_settings(None)
    assert plain(settings.server_urls()["influxdb"]) == "http://influx.example:8086"
    assert (settings.storage.influxdb.org, settings.storage.influxdb.bucket) == ("sentimesh", "social_sentiment")
    assert SECRET not in repr(settings)


@pytest.mark.parametrize("url", ["influx:8086", "ftp://influx", f"http://u:{SECRET}@influx", "http://", "http://a b"])
def test_a_url_that_influxdb_cannot_have(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__TOKEN", SECRET)
    monkeypatch.setenv("SENTIMESH__STORAGE__INFLUXDB__URL", url)
    assert refusal(None) == (
        "SENTIMESH__STORAGE__INFLUXDB__URL for social_sentiment.storage.influxdb.url: "
        f"Input should be http://host:port or https://host:port, without user and password{HINT}"
    )


@pytest.mark.parametrize("bucket", ["", "_monitoring", 'a"b', "a b"])
def test_a_name_that_a_bucket_cannot_have(tmp_path: Path, bucket: str) -> None:
    tree = {"social_sentiment": {"storage": {"influxdb": {"bucket": bucket}}}}
    assert "storage.influxdb.bucket: String should match pattern" in refusal(written(tmp_path, yaml.safe_dump(tree)))
