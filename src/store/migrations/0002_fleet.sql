-- What many workers share. New tables rather than new columns wherever a build before this one reads `SELECT *`:
-- PostgreSQL refuses a prepared statement whose columns have changed under it, and old and new builds run together.

-- The pace of a source, one row each, obeyed by every worker.
CREATE TABLE source_pace (
    source       TEXT   NOT NULL PRIMARY KEY,
    day          BIGINT NOT NULL DEFAULT 0, -- UTC days since 1970 that the counts are of
    asked_first  BIGINT NOT NULL DEFAULT 0, -- requests that come first: details, tail polls
    asked_rest   BIGINT NOT NULL DEFAULT 0, -- requests that take what is left: full passes
    first_before BIGINT NOT NULL DEFAULT 0, -- asked_first of the day before
    next_free_us BIGINT NOT NULL DEFAULT 0, -- microseconds since 1970: when the next request may leave
    held_until   BIGINT NOT NULL DEFAULT 0, -- nobody asks before this moment
    held_for     TEXT,                      -- throttled, broken
    failures     BIGINT NOT NULL DEFAULT 0, -- in a row, whoever met them
    openings     BIGINT NOT NULL DEFAULT 0  -- of the circuit breaker, in a row
);

-- Requests under way, where only so many may be; a row outlives its worker until `until_at` at most.
CREATE TABLE source_request (
    id       TEXT   NOT NULL PRIMARY KEY,
    source   TEXT   NOT NULL,
    until_at BIGINT NOT NULL
);
CREATE INDEX source_request_source ON source_request (source, until_at);

-- How far a source has been accounted for.
CREATE TABLE reconcile_state (
    source         TEXT   NOT NULL PRIMARY KEY,
    tail_from      BIGINT, -- the next tail poll goes back to here; null: as far as its window
    filter         TEXT,   -- whether date filters were seen to be obeyed: honoured, ignored
    probed_at      BIGINT,
    since_at       BIGINT, -- calls before this moment were never looked for
    passed_at      BIGINT, -- the last pass over the recent window ended
    full_passed_at BIGINT, -- the last pass over everything ended
    pass_json      TEXT    -- the pass under way: where it stands and what it counted
);

-- When a list last showed a call. A call that a whole pass did not show has vanished at its source.
CREATE TABLE call_sighting (
    call_uid  TEXT   NOT NULL PRIMARY KEY REFERENCES call_record (uid),
    listed_at BIGINT NOT NULL
);

-- What steers a backfill; a backfill without a row runs as fast as its lane frees.
CREATE TABLE backfill_order (
    backfill_id     TEXT   NOT NULL PRIMARY KEY REFERENCES backfill (id),
    steering        TEXT   NOT NULL, -- run, paused, cancelled
    rate_per_minute BIGINT,
    where_outcome   TEXT,            -- only calls of ours that ended like this
    cursor_json     TEXT,            -- where the listing stands
    fed_from        BIGINT,          -- when feeding began
    next_feed_at    BIGINT           -- when the rate lets the next call go
);
ALTER TABLE backfill_item ADD COLUMN org_uid TEXT;
ALTER TABLE backfill_item ADD COLUMN turn BIGINT NOT NULL DEFAULT 0; -- the n-th oldest call of its organisation
ALTER TABLE backfill_item ADD COLUMN expires_at BIGINT; -- when its source copy or URL is expected to be gone
CREATE INDEX backfill_item_turn ON backfill_item (backfill_id, state, turn, ended_at);
CREATE INDEX backfill_item_expiry ON backfill_item (backfill_id, state, expires_at);

-- Why a worker takes no work at the moment; null: it does.
ALTER TABLE worker ADD COLUMN resting_for TEXT;

-- What an attempt used. Names our own ids only.
CREATE TABLE ledger (
    id                TEXT   NOT NULL PRIMARY KEY,
    at                BIGINT NOT NULL,
    source            TEXT   NOT NULL,
    org_uid           TEXT   NOT NULL,
    call_uid          TEXT   NOT NULL,
    ended             TEXT   NOT NULL, -- how the attempt ended: an outcome, or failed
    platform_requests BIGINT NOT NULL,
    object_writes     BIGINT NOT NULL,
    bytes_fetched     BIGINT NOT NULL,
    bytes_stored      BIGINT NOT NULL,
    audio_ms          BIGINT NOT NULL,
    engine            TEXT,            -- null: no engine made words
    engine_ms         BIGINT NOT NULL,
    billed_ms         BIGINT NOT NULL,
    pricing           TEXT   NOT NULL, -- cost, free, unpriced
    cost_micros       BIGINT NOT NULL  -- millionths of the engine's currency unit; 0 unless pricing is cost
);
CREATE INDEX ledger_at ON ledger (at);
CREATE INDEX ledger_call ON ledger (call_uid);
