-- A spike is written when it is detected and when it is over; text in sample_posts is kept seven days at most.
ALTER TABLE social_viral_spikes
    ADD COLUMN platform_breakdown JSONB NOT NULL DEFAULT '{}',
    -- False while only its end is known: what the detection says then still replaces the row.
    ADD COLUMN detection_written BOOLEAN NOT NULL DEFAULT TRUE,
    ADD CONSTRAINT sample_posts_are_a_list CHECK (jsonb_typeof(sample_posts) = 'array');

-- Spikes of many symbols, newest first.
CREATE INDEX idx_viral_time ON social_viral_spikes (detected_at, symbol);

-- Only rows that still hold text, so that the purge looks at nothing twice. The condition is the purge's own.
CREATE INDEX idx_viral_text ON social_viral_spikes (detected_at)
    WHERE jsonb_path_exists(sample_posts, '$[*] ? (@.text != "")');
