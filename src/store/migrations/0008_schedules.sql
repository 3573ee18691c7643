-- When a schedule last fired; null: not since this column is there.
ALTER TABLE schedule ADD COLUMN fired_at BIGINT;
-- How far a worker's clock is ahead of the database's, milliseconds; negative where it is behind.
ALTER TABLE worker ADD COLUMN clock_ahead_ms BIGINT NOT NULL DEFAULT 0;
-- When a source was last polled.
ALTER TABLE reconcile_state ADD COLUMN polled_at BIGINT;
-- What is still owed to receivers: little beside what was delivered, and asked for by every look at the metrics.
CREATE INDEX outbox_open ON outbox (created_at) WHERE delivered_at IS NULL;
