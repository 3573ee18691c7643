-- One schema for SQLite and PostgreSQL: times are milliseconds since 1970 UTC in BIGINT, ids and JSON are TEXT.
-- Two files of the same meaning would drift; where an engine needs its own statement it gets its own migration.

CREATE TABLE organization (
    uid      TEXT   NOT NULL PRIMARY KEY,
    source   TEXT   NOT NULL,
    org_id   TEXT   NOT NULL, -- the platform's id, '' where it has none
    UNIQUE (source, org_id)
);

CREATE TABLE call_record (
    uid                TEXT    NOT NULL PRIMARY KEY,
    source             TEXT    NOT NULL,
    call_id            TEXT    NOT NULL, -- the platform's id; stays in the tombstone, which refuses the call's return
    org_uid            TEXT    NOT NULL REFERENCES organization (uid),
    org_id             TEXT,
    direction          TEXT,
    status             TEXT    NOT NULL,
    ended_at           BIGINT,
    duration_ms        BIGINT,
    call_json          TEXT    NOT NULL, -- the call as its source tells it; '{}' once scrubbed
    first_seen_at      BIGINT  NOT NULL,
    updated_at         BIGINT  NOT NULL,
    retain_until       BIGINT  NOT NULL,
    retention_basis    TEXT    NOT NULL,
    retention_days     BIGINT  NOT NULL,
    retention_state    TEXT    NOT NULL,
    retention_reason   TEXT,
    generation         BIGINT  NOT NULL DEFAULT 0, -- a commit that carries an older one is refused
    outcome            TEXT,
    outcome_reason     TEXT,
    outcome_at         BIGINT,
    original_json      TEXT, -- the stored original, set as soon as it is safe
    progress_json      TEXT, -- what the audio steps made, until the run ends
    artifacts_json     TEXT    NOT NULL DEFAULT '[]',
    quality_json       TEXT,
    flags_json         TEXT    NOT NULL DEFAULT '[]',
    transcript_version BIGINT  NOT NULL DEFAULT 0,
    UNIQUE (source, call_id)
);
CREATE INDEX call_record_due ON call_record (retain_until) WHERE retention_state = 'active';
CREATE INDEX call_record_ended ON call_record (ended_at);
CREATE INDEX call_record_call_id ON call_record (call_id);

CREATE TABLE transcript (
    call_uid   TEXT   NOT NULL REFERENCES call_record (uid),
    version    BIGINT NOT NULL,
    json       TEXT   NOT NULL,
    text       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (call_uid, version)
);

CREATE TABLE outbox (
    id              TEXT   NOT NULL PRIMARY KEY, -- also the idempotency key the receiver sees
    call_uid        TEXT   NOT NULL REFERENCES call_record (uid),
    target          TEXT   NOT NULL,
    version         BIGINT NOT NULL, -- of the transcript it carries
    created_at      BIGINT NOT NULL,
    delivered_at    BIGINT
);
CREATE INDEX outbox_call ON outbox (call_uid);

CREATE TABLE hold (
    id          TEXT   NOT NULL PRIMARY KEY,
    call_uid    TEXT   NOT NULL REFERENCES call_record (uid),
    matter      TEXT   NOT NULL,
    placed_by   TEXT   NOT NULL,
    placed_at   BIGINT NOT NULL,
    review_by   BIGINT NOT NULL,
    released_at BIGINT,
    released_by TEXT
);
CREATE INDEX hold_open ON hold (call_uid) WHERE released_at IS NULL;

CREATE TABLE audit (
    id       TEXT   NOT NULL PRIMARY KEY, -- UUIDv7: sorts by time
    at       BIGINT NOT NULL,
    actor    TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    subject  TEXT   NOT NULL, -- one of our own ids, never personal data
    detail   TEXT   NOT NULL
);
CREATE INDEX audit_subject ON audit (subject);

CREATE TABLE backfill (
    id          TEXT    NOT NULL PRIMARY KEY,
    source      TEXT    NOT NULL,
    from_at     BIGINT  NOT NULL,
    to_at       BIGINT  NOT NULL,
    again       BOOLEAN NOT NULL,
    origin      TEXT    NOT NULL, -- command or schedule
    state       TEXT    NOT NULL, -- listing, feeding, done, failed
    listed      BIGINT  NOT NULL DEFAULT 0,
    enqueued    BIGINT  NOT NULL DEFAULT 0,
    done        BIGINT  NOT NULL DEFAULT 0,
    failed      BIGINT  NOT NULL DEFAULT 0,
    skipped_json TEXT   NOT NULL DEFAULT '{}',
    reason      TEXT,
    created_at  BIGINT  NOT NULL,
    updated_at  BIGINT  NOT NULL
);

CREATE TABLE backfill_item (
    backfill_id TEXT   NOT NULL REFERENCES backfill (id),
    call_uid    TEXT   NOT NULL REFERENCES call_record (uid),
    ended_at    BIGINT NOT NULL,
    state       TEXT   NOT NULL, -- listed, enqueued, done, failed
    job_id      BIGINT,
    PRIMARY KEY (backfill_id, call_uid)
);
CREATE INDEX backfill_item_next ON backfill_item (backfill_id, state, ended_at);
CREATE INDEX backfill_item_call ON backfill_item (call_uid);

CREATE TABLE api_key (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    hash       TEXT   NOT NULL UNIQUE,
    scopes     TEXT   NOT NULL, -- space separated
    org_id     TEXT, -- null: every organisation
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE TABLE worker (
    id         TEXT   NOT NULL PRIMARY KEY,
    version    TEXT   NOT NULL,
    host       TEXT   NOT NULL,
    started_at BIGINT NOT NULL,
    beat_at    BIGINT NOT NULL
);

CREATE TABLE schedule (
    name    TEXT   NOT NULL PRIMARY KEY,
    next_at BIGINT NOT NULL
);

CREATE TABLE fact (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
