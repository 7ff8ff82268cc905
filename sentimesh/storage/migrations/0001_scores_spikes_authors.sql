-- The specification's three tables; columns after its own are marked.
CREATE TABLE social_sentiment_scores (
    id BIGSERIAL PRIMARY KEY,
    symbol VARCHAR(20) NOT NULL,
    window_start TIMESTAMPTZ NOT NULL,
    window_end TIMESTAMPTZ NOT NULL,
    polarity FLOAT NOT NULL,
    volume_ratio FLOAT NOT NULL,
    credibility FLOAT NOT NULL,
    social_sentiment_score FLOAT NOT NULL,
    post_count INT NOT NULL,
    unique_authors INT NOT NULL,
    platform_breakdown JSONB NOT NULL DEFAULT '{}',
    viral_spike BOOLEAN NOT NULL DEFAULT FALSE,
    spike_ratio FLOAT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    -- ours
    directional_score FLOAT NOT NULL,
    baseline_ready BOOLEAN NOT NULL,
    insufficient_data BOOLEAN NOT NULL,
    revision INT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    -- One row a window: a write that is tried again changes nothing.
    UNIQUE (symbol, window_start)
);

CREATE INDEX idx_sentiment_symbol_time ON social_sentiment_scores (symbol, window_end DESC);
CREATE INDEX idx_sentiment_score ON social_sentiment_scores (social_sentiment_score);

CREATE TABLE social_viral_spikes (
    id BIGSERIAL PRIMARY KEY,
    symbol VARCHAR(20) NOT NULL,
    spike_ratio FLOAT NOT NULL,
    mention_count INT NOT NULL,
    baseline_rate FLOAT NOT NULL,
    dominant_platform VARCHAR(20),
    sample_posts JSONB,
    detected_at TIMESTAMPTZ NOT NULL,
    resolved_at TIMESTAMPTZ,
    price_impact_pct FLOAT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    UNIQUE (symbol, detected_at)
);

CREATE INDEX idx_viral_symbol_time ON social_viral_spikes (symbol, detected_at DESC);

CREATE TABLE social_author_credibility (
    author_id VARCHAR(100) PRIMARY KEY,
    platform VARCHAR(20) NOT NULL,
    credibility_score FLOAT NOT NULL,
    is_known_bot BOOLEAN NOT NULL DEFAULT FALSE,
    last_updated TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
