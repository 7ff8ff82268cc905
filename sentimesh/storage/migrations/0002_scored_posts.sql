-- Scored posts over time, without text: the time series where no InfluxDB is configured (SPEC-NOTES 9: seven days).
CREATE TABLE social_scored_posts (
    symbol VARCHAR(20) NOT NULL,
    post_id TEXT NOT NULL,
    platform VARCHAR(20) NOT NULL,
    model_version TEXT NOT NULL,
    polarity FLOAT NOT NULL,
    confidence FLOAT NOT NULL,
    credibility_score FLOAT NOT NULL,
    engagement_weight FLOAT NOT NULL,
    -- When the post was written.
    posted_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (symbol, post_id)
);

CREATE INDEX idx_scored_posts_symbol_time ON social_scored_posts (symbol, posted_at DESC);
CREATE INDEX idx_scored_posts_time ON social_scored_posts (posted_at);
