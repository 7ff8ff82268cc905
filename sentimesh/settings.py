"""The configuration: the specification's YAML tree, environment overrides, secrets from the environment only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sentimesh.errors import InvalidSymbolError, SentimeshError
from sentimesh.symbols import validate_symbol

ROOT_KEY = "social_sentiment"
CONFIG_VARIABLE = "SENTIMESH_CONFIG"
ENVIRONMENT_PREFIX = "SENTIMESH__"
DEFAULT_SYMBOLS = [
    *("BTC", "ETH", "SOL", "XRP", "BNB", "DOGE", "ADA", "TRX", "LINK", "AVAX"),
    *("DOT", "LTC", "BCH", "SHIB", "UNI", "NEAR", "ATOM", "XLM", "XMR", "APT"),
]
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_KEYS = frozenset(
    {"bearer_token", "client_id", "client_secret", "api_id", "api_hash", "bot_token", "api_key", "token", "url", "dsn"}
)

Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SettingsError(SentimeshError):
    """The configuration cannot be used; says which key, why, and what to do."""


class Section(BaseModel):
    """A part of the tree: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Twitter(Section):
    """X API v2."""

    enabled: bool = True
    bearer_token: SecretStr | None = None
    api_tier: Literal["basic", "pro"] = "basic"
    stream_rules_max: Positive = 25
    backfill_on_startup: bool = True
    backfill_hours: Positive = 1


class Reddit(Section):
    """Reddit's OAuth API."""

    enabled: bool = True
    client_id: SecretStr | None = None
    client_secret: SecretStr | None = None
    user_agent: str = "TradeStream/1.0"
    poll_interval_seconds: Positive = 30
    subreddits: list[str] = ["cryptocurrency", "bitcoin", "ethtrader", "CryptoMarkets", "SatoshiStreetBets"]


class Telegram(Section):
    """Public channels over MTProto."""

    enabled: bool = True
    api_id: SecretStr | None = None
    api_hash: SecretStr | None = None
    channels: list[str] = ["WhaleCalls", "CryptoSignalsIO", "CoinGeckoAlerts"]


class Discord(Section):
    """A bot on public servers."""

    enabled: bool = False
    bot_token: SecretStr | None = None
    servers: list[str] = []


class Sources(Section):
    """Where posts come from."""

    twitter: Twitter = Twitter()
    reddit: Reddit = Reddit()
    telegram: Telegram = Telegram()
    discord: Discord = Discord()


class AggregatorFallback(Section):
    """Pre-computed sentiment when the primary sources are degraded."""

    enabled: bool = True
    provider: Literal["lunarcrush"] = "lunarcrush"
    api_key: SecretStr | None = None
    poll_interval_seconds: Positive = 300
    use_when: Literal["primary_sources_degraded", "always"] = "primary_sources_degraded"


class Model(Section):
    """The sentiment model."""

    # A shipped model, vader, or the folder of another model.
    primary: str = "sentimesh-base"
    model_path: str = "/models/finbert-onnx"
    batch_size: Positive = 32
    max_length: Annotated[int, Field(ge=8, le=512)] = 128
    inference_device: Literal["cpu", "cuda"] = "cpu"
    fallback: str = "vader"
    # Posts scored at once, each on one core.
    threads: Positive = 2
    # Distinct texts whose score is remembered.
    score_cache_entries: Positive = 50_000


class SpamFilter(Section):
    """Credibility."""

    min_account_age_days: Annotated[float, Field(ge=0, lt=365)] = 30
    min_credibility_threshold: Share = 0.3
    known_bot_refresh_hours: Positive = 24
    simhash_threshold: Annotated[int, Field(ge=0, le=7)] = 3
    simhash_ttl_hours: Annotated[float, Field(gt=0)] = 1


class Aggregation(Section):
    """Windows."""

    window_seconds: Positive = 300
    volume_baseline_days: Positive = 7
    min_posts_per_window: Positive = 3
    score_ttl_seconds: Positive = 600
    # Closed windows needed before the volume ratio means something (an hour of them).
    baseline_min_windows: Positive = 12
    allowed_lateness_seconds: Annotated[int, Field(ge=0)] = 5
    backfill_hours: Positive = 1
    # system: windows close by the wall clock; event: by the largest post time seen (replays).
    clock: Literal["system", "event"] = "system"
    live_refresh_seconds: Annotated[float, Field(gt=0)] = 1.0


class ViralDetection(Section):
    """Spikes."""

    spike_threshold: Annotated[float, Field(gt=1)] = 5.0
    min_mentions_per_window: Positive = 10
    sliding_window_seconds: Positive = 60
    slide_interval_seconds: Positive = 10
    cooldown_seconds: Annotated[int, Field(ge=0)] = 300
    trigger_re_aggregation: bool = True


class ScoringIntegration(Section):
    """What the opportunity scorer reads."""

    # The constraint of the specification: at most 15 % of the opportunity score.
    weight: Annotated[float, Field(ge=0.0, le=0.15)] = 0.10
    default_score: Share = 0.5
    max_staleness_minutes: Annotated[float, Field(gt=0)] = 15
    score_field: Literal["social_sentiment_score", "directional_score"] = "social_sentiment_score"


class Kafka(Section):
    """Kept from the specification: the topics are the JetStream subjects; only the retention is used."""

    raw_topics: list[str] = [f"social.raw.{name}" for name in ("twitter", "reddit", "telegram", "discord")]
    normalized_topic: Literal["social.normalized"] = "social.normalized"
    filtered_topic: Literal["social.filtered"] = "social.filtered"
    scored_topic: Literal["social.scored"] = "social.scored"
    viral_alerts_topic: Literal["social.viral-alerts"] = "social.viral-alerts"
    partitions: Positive = 20
    replication_factor: Positive = 3
    # Streams hold post text: at most the seven days that the specification allows.
    retention_hours: Annotated[int, Field(ge=1, le=168)] = 168


class InfluxDB(Section):
    """InfluxDB 2."""

    url: SecretStr | None = None
    token: SecretStr | None = None
    org: str = "sentimesh"
    bucket: str = "social_sentiment"
    scored_posts_retention_days: Annotated[int, Field(ge=1, le=7)] = 7
    aggregate_retention_days: Positive = 90
    viral_spike_retention_days: Positive = 365


class PostgreSQL(Section):
    """PostgreSQL; without a dsn an embedded one is started."""

    dsn: SecretStr | None = None
    table_prefix: Literal["social_"] = "social_"


class Redis(Section):
    """Redis or Valkey; without a url an embedded one is started."""

    url: SecretStr | None = None
    key_prefix: Literal["social:"] = "social:"
    score_ttl_seconds: Positive = 600
    volume_baseline_ttl_seconds: Positive = 691_200


class Storage(Section):
    """Where results go."""

    influxdb: InfluxDB = InfluxDB()
    postgresql: PostgreSQL = PostgreSQL()
    redis: Redis = Redis()
    # Back end of the time series of scored posts.
    time_series: Literal["postgresql", "influxdb"] = "postgresql"


class Resources(Section):
    """Read by the deployment files, not by the program."""

    ingestion_replicas: Positive = 2
    scoring_replicas: Positive = 2
    aggregation_replicas: Positive = 1
    cpu_request: str = "500m"
    cpu_limit: str = "2000m"
    memory_request: str = "1Gi"
    memory_limit: str = "4Gi"


class Nats(Section):
    """The broker; without a url an embedded one is started."""

    url: SecretStr | None = None
    max_inflight: Positive = 256
    batch_size: Positive = 200
    ack_wait_seconds: Annotated[float, Field(ge=1)] = 120
    max_deliver: Positive = 5
    # Embedded server: write through to the disk before a publish is confirmed.
    sync_always: bool = True


class Server(Section):
    """Listening addresses; port 0 takes any free one."""

    host: str = "127.0.0.1"
    ingest_port: Port = 50051
    filter_port: Port = 50052
    scorer_port: Port = 50053
    aggregator_port: Port = 50054
    gateway_port: Port = 50055
    metrics_port: Port = 9100


class Telemetry(Section):
    """Logs and traces."""

    # host:port of an OTLP gRPC collector such as Jaeger.
    otlp_endpoint: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False


class Ingest(Section):
    """Normalising."""

    # ISO 639-1; posts of unknown language pass, an empty list passes all.
    languages: list[str] = ["en"]
    claim_window_hours: Positive = 24
    copy_window_seconds: Positive = 3600


class Settings(BaseSettings):
    """The whole tree under ``social_sentiment:``. Environment variables such as
    ``SENTIMESH__NATS__URL`` override the file.
    """

    model_config = SettingsConfigDict(
        extra="forbid", env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", validate_assignment=True
    )

    enabled: bool = True
    symbols: list[str] = DEFAULT_SYMBOLS
    sources: Sources = Sources()
    aggregator_fallback: AggregatorFallback = AggregatorFallback()
    model: Model = Model()
    spam_filter: SpamFilter = SpamFilter()
    aggregation: Aggregation = Aggregation()
    viral_detection: ViralDetection = ViralDetection()
    scoring_integration: ScoringIntegration = ScoringIntegration()
    kafka: Kafka = Kafka()
    storage: Storage = Storage()
    resources: Resources = Resources()
    nats: Nats = Nats()
    server: Server = Server()
    telemetry: Telemetry = Telemetry()
    ingest: Ingest = Ingest()
    data_dir: Path = Path.home() / ".local" / "share" / "sentimesh"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings

    @field_validator("symbols")
    @classmethod
    def _tracked(cls, symbols: list[str]) -> list[str]:
        if not symbols:
            raise ValueError("track at least one symbol")
        try:
            return list(dict.fromkeys(validate_symbol(symbol) for symbol in symbols))
        except InvalidSymbolError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _windows_fit(self) -> Settings:
        slide = self.viral_detection.slide_interval_seconds
        for key, seconds in (
            ("aggregation.window_seconds", self.aggregation.window_seconds),
            ("viral_detection.sliding_window_seconds", self.viral_detection.sliding_window_seconds),
        ):
            if seconds % slide:
                raise ValueError(f"{key} {seconds} is not a multiple of viral_detection.slide_interval_seconds {slide}")
        return self


def load_settings(path: Path | None) -> Settings:
    """Read a configuration file, or the one that SENTIMESH_CONFIG names, or only defaults and environment.

    Raises SettingsError naming the file, the key path, the reason and what to do.
    """
    if path is None and (named := os.environ.get(CONFIG_VARIABLE)):
        path = Path(named)
    tree = _read(path) if path is not None else {}
    where = str(path) if path is not None else "the environment"
    try:
        return Settings(**tree)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
        at = f"{ROOT_KEY}.{key}" if key else ROOT_KEY
        # From None: the original carries the values, secrets among them.
        raise SettingsError(f"{where}: {at}: {reason}; correct it (`sentimesh config show` prints every key)") from None


def masked(settings: Settings) -> dict[str, Any]:
    """Return the tree as plain values, with *** for every secret that is set."""
    values: dict[str, Any] = settings.model_dump(mode="json")

    def mask(node: Any, original: Any) -> Any:
        if isinstance(original, SecretStr):
            return "***"
        if isinstance(node, dict):
            return {key: mask(value, getattr(original, key, None)) for key, value in node.items()}
        return node

    return {ROOT_KEY: {key: mask(value, getattr(settings, key)) for key, value in values.items()}}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}: not YAML{line}; correct it") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or set(document) != {ROOT_KEY}:
        raise SettingsError(f"{path}: the one top-level key must be {ROOT_KEY}:; put everything under it")
    tree = document[ROOT_KEY] or {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: {ROOT_KEY} must be a mapping of keys to values; correct it")
    resolved: dict[str, Any] = _resolve(path, tree, ROOT_KEY)
    return resolved


def _resolve(path: Path, node: Any, key_path: str) -> Any:
    """Put the environment's values for ``${NAME}``; a secret must be such a reference, unset means none."""
    if isinstance(node, dict):
        return {key: _resolve(path, value, f"{key_path}.{key}") for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(path, value, f"{key_path}[{index}]") for index, value in enumerate(node)]
    is_secret = key_path.rsplit(".", 1)[-1] in _SECRET_KEYS
    if not isinstance(node, str):
        if is_secret and node is not None:
            raise _literal_secret(path, key_path)
        return node
    names = _REFERENCE.findall(node)
    if is_secret:
        if not _REFERENCE.fullmatch(node):
            raise _literal_secret(path, key_path)
        return os.environ.get(names[0]) or None
    unset = [name for name in names if name not in os.environ]
    if unset:
        raise SettingsError(f"{path}: {key_path}: the environment variable {unset[0]} is not set; set it")
    return _REFERENCE.sub(lambda match: os.environ[match.group(1)], node)


def _literal_secret(path: Path, key_path: str) -> SettingsError:
    name = key_path.removeprefix(f"{ROOT_KEY}.").replace(".", "_").upper()
    return SettingsError(
        f"{path}: {key_path}: secrets come from the environment only; write ${{{name}}} here and set that variable"
    )
