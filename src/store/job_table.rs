//! The queue's tables in our own column forms. River's columns have other types on SQLite than on PostgreSQL. A
//! statement of [`job_sql`] reads `job` instead of `river_job`, so that it is the same for both engines.

/// SQL: the worker of a job's latest attempt.
macro_rules! last_worker {
    (sqlite) => {
        "json_extract(attempted_by, '$[#-1]')"
    };
    (postgres) => {
        "attempted_by[array_length(attempted_by, 1)]"
    };
}

/// SQL: `clock`, one row with the database's time, and `job`, the jobs. Times are milliseconds since 1970, and JSON is
/// text. `state` and `finalized_at` are River's own columns, because its indexes contain them.
macro_rules! job_table {
    (sqlite) => {
        "WITH clock AS (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms), \
         job AS NOT MATERIALIZED (SELECT id, kind, queue, priority, state, finalized_at, \
         CAST(attempt AS BIGINT) AS attempt, CAST(max_attempts AS BIGINT) AS max_attempts, \
         json_extract(args, '$.subject') AS subject, json_extract(args, '$.tenant') AS tenant, \
         json(args) AS args, json(metadata) AS metadata, json(errors) AS errors, \
         json_extract(metadata, '$.throttled_since') AS throttled_since, \
         json_extract(metadata, '$.failure.cause') AS failure_cause, \
         COALESCE(json_extract(metadata, '$.retrying'), 0) = 1 AS retrying, \
         CAST(unixepoch(scheduled_at, 'subsec') * 1000 AS INTEGER) AS next_ms, \
         CAST(unixepoch(created_at, 'subsec') * 1000 AS INTEGER) AS created_ms, \
         CAST(unixepoch(attempted_at, 'subsec') * 1000 AS INTEGER) AS attempted_ms, \
         CAST(unixepoch(finalized_at, 'subsec') * 1000 AS INTEGER) AS finalized_ms \
         FROM river_job) "
    };
    (postgres) => {
        "WITH clock AS (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms), \
         job AS NOT MATERIALIZED (SELECT id, kind, queue, priority, state, finalized_at, \
         CAST(attempt AS BIGINT) AS attempt, CAST(max_attempts AS BIGINT) AS max_attempts, \
         args->>'subject' AS subject, args->>'tenant' AS tenant, \
         args::text AS args, metadata::text AS metadata, array_to_json(errors)::text AS errors, \
         (metadata->>'throttled_since')::bigint AS throttled_since, \
         metadata->'failure'->>'cause' AS failure_cause, \
         COALESCE(metadata->>'retrying', '') = 'true' AS retrying, \
         CAST(extract(epoch FROM scheduled_at) * 1000 AS BIGINT) AS next_ms, \
         CAST(extract(epoch FROM created_at) * 1000 AS BIGINT) AS created_ms, \
         CAST(extract(epoch FROM attempted_at) * 1000 AS BIGINT) AS attempted_ms, \
         CAST(extract(epoch FROM finalized_at) * 1000 AS BIGINT) AS finalized_ms \
         FROM river_job) "
    };
}

/// A statement on `job` and `clock` for the engine of a pool or transaction.
macro_rules! job_sql {
    ($engine:expr, $($sql:expr),+ $(,)?) => {
        $engine.sql(
            concat!($crate::store::job_table!(sqlite), $($sql),+),
            concat!($crate::store::job_table!(postgres), $($sql),+),
        )
    };
}
pub(crate) use {job_sql, job_table, last_worker};
