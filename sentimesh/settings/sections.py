"""The sections of the configuration: what can be set, with ranges and units."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    field_validator,
    model_validator,
)

RAW_TOPICS = [f"social.raw.{name}" for name in ("twitter", "reddit", "telegram", "discord")]


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")  # noqa: TRY004 - pydantic wants ValueError
    return value


def list_source(source: str) -> str:
    """Return the path or URL of a list. Raises ValueError for what can be neither."""
    if not source.strip():
        raise ValueError("Input should be the path of a file or a URL, not empty")
    # A password would be shown wherever the source is named; the query is not.
    if "://" in source and not re.fullmatch(r"https?://[^\s/@?#]+([/?]\S*)?", source):
        raise ValueError("Input should be the path of a file, or a URL of http or https without user and password")
    return source


_Number = BeforeValidator(_no_boolean)
# The query of a URL may hold a key.
_Shown = PlainSerializer(lambda source: re.sub(r"(?<=\?).+", "***", source) if "://" in source else source, str, "json")
Port = Annotated[int, Field(ge=0, le=65_535), _Number]
Positive = Annotated[int, Field(ge=1), _Number]
Share = Annotated[float, Field(ge=0.0, le=1.0), _Number]


class Section(BaseModel):
    """A part of the tree: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, hide_input_in_errors=True)


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


class Finbert(Section):
    """What `sentimesh models pull finbert` fetches: a published ONNX export of ProsusAI/finbert, at one commit."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")] = "Xenova/finbert"
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] = "9a38ddcf0f69cb74acb4aa2d1ca5986151e9d953"
    # The graph with 32-bit weights; config.json and tokenizer.json are at the top.
    graph: str = "onnx/model.onnx"


class Model(Section):
    """The sentiment model."""

    # A shipped model, a stored one, vader, or the folder of another; auto: what `sentimesh models use` chose.
    primary: str = "auto"
    # Where stored models are; without, the folder models in data_dir.
    store: Path | None = None
    finbert: Finbert = Finbert()
    # A FinBERT exported elsewhere (model.onnx, tokenizer.json, config.json): what finbert means while none is stored.
    model_path: str = "/models/finbert-onnx"
    # Posts the model takes at once, at most, all of like length: found among four times as many, as far as they wait.
    batch_size: Positive = 32
    # So long the scorer waits for that many, milliseconds: pays where a batch costs much less than its posts do singly
    # (cuda).
    linger_ms: Annotated[float, Field(ge=0, le=5000), _Number] = 0
    max_length: Annotated[int, Field(ge=8, le=512), _Number] = 128
    inference_device: Literal["cpu", "cuda"] = "cpu"
    fallback: str = "vader"
    # Batches scored at once, each on one core.
    threads: Positive = 2
    # Distinct texts whose score is remembered.
    score_cache_entries: Positive = 50_000
    # A batch that takes longer goes to the next model.
    batch_deadline_seconds: Annotated[float, Field(gt=0), _Number] = 60.0
    # The next model takes over from one whose mean time of a post is longer; without, none is too slow.
    max_ms_per_post: Annotated[float, Field(gt=0), _Number] | None = None
    # A model that failed is loaded again after a second, then after twice as long each time, up to this.
    retry_max_seconds: Annotated[float, Field(ge=1), _Number] = 60.0
    # Scores that share of the posts as well, beside the one that counts, to compare the two.
    shadow_model: str | None = None
    shadow_sample: Share = 0.05


class Flooding(Section):
    """Copies of one text: from so many earlier ones a post shares the weight of one voice with them."""

    # How long a text is remembered, as a fingerprint: about 200 bytes of Redis for each.
    remember_hours: Annotated[int, Field(ge=1, le=168), _Number] = 24
    # The same for a Telegram channel's own texts: a channel repeats itself every few days.
    channel_remember_hours: Annotated[int, Field(ge=1, le=2160), _Number] = 720
    copies: Positive = 2
    # Texts under so many characters, links and punctuation aside, are alike by chance.
    short_text_copies: Positive = 10
    # The same for copies of one account alone.
    short_text_own_copies: Positive = 3
    short_text_characters: Annotated[int, Field(ge=0), _Number] = 20


class PostFrequency(Section):
    """Posts of an account in an hour: never too many up to the floor, else up to what is usual."""

    floor: Annotated[float, Field(ge=1), _Number] = 8
    # Times the account's own mean over its lifetime; times the mean of all accounts that wrote in the hour before.
    lifetime_factor: Annotated[float, Field(gt=0), _Number] = 3
    population_factor: Annotated[float, Field(gt=0), _Number] = 8


class AuthorHistory(Section):
    """What is learned of accounts from the posts of the last days; shares are of an account's posts."""

    enabled: bool = True
    learn_hours: Positive = 24
    # The streams hold seven days.
    days: Annotated[int, Field(ge=1, le=7), _Number] = 7
    # Of a busier week only the newest part is judged: about 200 bytes of memory for each.
    max_messages: Positive = 10_000_000
    # An account of whom nothing is heard for so long is nobody special any more.
    forget_days: Annotated[int, Field(ge=7, le=3650), _Number] = 30
    # Persistently low: so many posts on so many days, that share of them under min_credibility_threshold.
    low_min_posts: Positive = 10
    low_min_days: Annotated[int, Field(ge=1, le=7), _Number] = 2
    low_share: Annotated[float, Field(gt=0.0, le=1.0), _Number] = 0.9
    # Flooding: so many posts, that share of them the account's own words again or late copies of a text of others.
    flooding_min_posts: Positive = 10
    flooding_share: Annotated[float, Field(gt=0.0, le=1.0), _Number] = 0.5
    # Of an account with flooding_min_posts that many texts are remembered beyond the days, as fingerprints.
    remembered_texts: Annotated[int, Field(ge=0, le=10_000), _Number] = 50
    # A learned bot stays one until its shares are under that part of those above.
    release: Share = 0.5
    # A text of so many posts by so many accounts is copied; its first ones are let off.
    copies_min_posts: Annotated[int, Field(ge=2), _Number] = 10
    copies_min_accounts: Positive = 2
    copies_let_off: Annotated[int, Field(ge=0), _Number] = 3
    # What is not known of an account counts as so many posts: as credible as those of all accounts for its credibility.
    prior_posts: Annotated[float, Field(gt=0), _Number] = 10
    # As credible as this for its multiplier, which is 1.0 for a mean of this or more and falls in proportion below.
    full_credibility: Annotated[float, Field(gt=0.0, le=1.0), _Number] = 0.4


class SpamFilter(Section):
    """Credibility."""

    min_account_age_days: Annotated[float, Field(ge=0, lt=365), _Number] = 30
    min_credibility_threshold: Share = 0.3
    known_bot_refresh_hours: Positive = 24
    # Files and URLs that list bots: an id a line or a JSON list, `twitter:123` or, for every platform, `123`.
    known_bot_sources: list[Annotated[str, AfterValidator(list_source), _Shown]] = []
    simhash_threshold: Annotated[int, Field(ge=0, le=7), _Number] = 3
    simhash_ttl_hours: Annotated[float, Field(gt=0), _Number] = 1
    flooding: Flooding = Flooding()
    post_frequency: PostFrequency = PostFrequency()
    # How much of its credibility an account under min_account_age_days loses, were it of today and followed by nobody.
    new_account_penalty: Share = 0.7
    author_history: AuthorHistory = AuthorHistory()


class Aggregation(Section):
    """Windows."""

    window_seconds: Positive = 300
    volume_baseline_days: Positive = 7
    min_posts_per_window: Positive = 3
    score_ttl_seconds: Positive = 600
    # Closed windows needed before the volume ratio means something (an hour of them).
    baseline_min_windows: Positive = 12
    allowed_lateness_seconds: Annotated[int, Field(ge=0), _Number] = 5
    backfill_hours: Positive = 1
    # system: windows close by the wall clock; event: by the largest post time seen (replays).
    clock: Literal["system", "event"] = "system"
    live_refresh_seconds: Annotated[float, Field(gt=0), _Number] = 1.0
    # Symbols are divided among the replicas; a StatefulSet's ordinal is the index.
    replica_index: Annotated[int, Field(ge=0), _Number] = 0
    replica_count: Positive = 1

    @model_validator(mode="after")
    def _one_of_them(self) -> Aggregation:
        if self.replica_index >= self.replica_count:
            raise ValueError(
                f"replica_index {self.replica_index} is not under replica_count {self.replica_count}: they count from 0"
            )
        return self


class ViralDetection(Section):
    """Spikes."""

    spike_threshold: Annotated[float, Field(gt=1), _Number] = 5.0
    min_mentions_per_window: Positive = 10
    sliding_window_seconds: Positive = 60
    slide_interval_seconds: Positive = 10
    cooldown_seconds: Annotated[int, Field(ge=0), _Number] = 300
    trigger_re_aggregation: bool = True
    # Gets a POST with each spike of at least that ratio; none without.
    webhook_url: SecretStr | None = None
    webhook_min_ratio: Annotated[float, Field(ge=0), _Number] = 10.0


class ScoringIntegration(Section):
    """What the opportunity scorer reads."""

    # The constraint of the specification: at most 15 % of the opportunity score.
    weight: Annotated[float, Field(ge=0.0, le=0.15), _Number] = 0.10
    default_score: Share = 0.5
    max_staleness_minutes: Annotated[float, Field(gt=0), _Number] = 15
    score_field: Literal["social_sentiment_score", "directional_score"] = "social_sentiment_score"


class Kafka(Section):
    """Kept from the specification: the topics are the JetStream subjects; only the retention is used."""

    raw_topics: list[str] = RAW_TOPICS
    normalized_topic: Literal["social.normalized"] = "social.normalized"
    filtered_topic: Literal["social.filtered"] = "social.filtered"
    scored_topic: Literal["social.scored"] = "social.scored"
    viral_alerts_topic: Literal["social.viral-alerts"] = "social.viral-alerts"
    partitions: Positive = 20
    replication_factor: Positive = 3
    # Streams hold post text: at most the seven days that the specification allows.
    retention_hours: Annotated[int, Field(ge=1, le=168), _Number] = 168

    @field_validator("raw_topics")
    @classmethod
    def _fixed(cls, topics: list[str]) -> list[str]:
        if sorted(topics) != sorted(RAW_TOPICS):
            raise ValueError(f"Input should be {', '.join(RAW_TOPICS)}: the names of the subjects are fixed")
        return topics


class InfluxDB(Section):
    """InfluxDB 2; without a url it is not used. Its buckets: ``{bucket}``, ``{bucket}_posts``, ``{bucket}_spikes``."""

    url: SecretStr | None = None
    token: SecretStr | None = None
    org: Annotated[str, Field(min_length=1)] = "sentimesh"
    # InfluxDB keeps names that start with an underscore to itself.
    bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "social_sentiment"
    scored_posts_retention_days: Annotated[int, Field(ge=1, le=7), _Number] = 7
    aggregate_retention_days: Positive = 90
    viral_spike_retention_days: Positive = 365

    @field_validator("url")
    @classmethod
    def _plain(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", url.get_secret_value()):
            raise ValueError("Input should be http://host:port or https://host:port, without user and password")
        return url

    @model_validator(mode="after")
    def _usable(self) -> InfluxDB:
        if self.url is not None and self.token is None:
            raise ValueError("url is set and token is not: set both, or neither to go without InfluxDB")
        return self


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
    # Until a silent worker is taken for dead and its messages go to another.
    ack_wait_seconds: Annotated[float, Field(ge=1), _Number] = 30
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
