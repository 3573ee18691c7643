-- Attempts older than `ledger.keep`, as sums. A call is counted where its last attempt stands, so that it is counted
-- once whatever a sum is by; one that is processed again after that is counted again.
CREATE TABLE ledger_day (
    day               BIGINT NOT NULL, -- UTC days since 1970
    source            TEXT   NOT NULL,
    org_uid           TEXT   NOT NULL,
    engine            TEXT   NOT NULL, -- '' where no engine made words
    calls             BIGINT NOT NULL, -- whose last attempt is among these
    calls_of_engine   BIGINT NOT NULL, -- whose last attempt with this engine is
    calls_of_day      BIGINT NOT NULL, -- whose last attempt of this day is
    attempts          BIGINT NOT NULL,
    platform_requests BIGINT NOT NULL,
    object_writes     BIGINT NOT NULL,
    bytes_fetched     BIGINT NOT NULL,
    bytes_stored      BIGINT NOT NULL,
    audio_ms          BIGINT NOT NULL,
    engine_ms         BIGINT NOT NULL,
    billed_ms         BIGINT NOT NULL,
    free              BIGINT NOT NULL,
    unpriced          BIGINT NOT NULL,
    priced            BIGINT NOT NULL,
    cost_micros       BIGINT NOT NULL,
    PRIMARY KEY (day, source, org_uid, engine)
);

-- Calls that nobody has ended yet: few beside those that have, and asked for by when they ended.
CREATE INDEX call_record_open ON call_record (source, ended_at) WHERE outcome IS NULL;
