-- What the daily job learns of authors, and what it learned it from.
ALTER TABLE social_author_credibility
    -- What the filter multiplies the credibility of their posts by.
    ADD COLUMN multiplier FLOAT NOT NULL DEFAULT 1.0,
    -- Why it is a known bot: persistently_low or flooding.
    ADD COLUMN rule VARCHAR(20) NOT NULL DEFAULT '',
    -- NULL in rows that the job did not write.
    ADD COLUMN evidence JSONB,
    ADD COLUMN last_seen TIMESTAMPTZ,
    ADD COLUMN known_bot_since TIMESTAMPTZ,
    -- When somebody said that it is no bot; posts until then do not count.
    ADD COLUMN cleared_at TIMESTAMPTZ,
    -- Fingerprints of its own texts with the times when each was first and last seen, 24 bytes each.
    ADD COLUMN texts BYTEA;

CREATE INDEX idx_author_bots ON social_author_credibility (author_id) WHERE is_known_bot;
CREATE INDEX idx_author_last_seen ON social_author_credibility (last_seen);
