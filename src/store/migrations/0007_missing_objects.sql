-- What a sweep holds against the object store: kept calls of which something is stored, in the order of their keys.
CREATE INDEX call_record_stored ON call_record (org_uid, uid) WHERE retention_state = 'active' AND artifacts_json <> '[]';
-- Calls of which stored objects are missing: none as a rule, and asked for by every look at the metrics.
CREATE INDEX call_record_missing ON call_record (source) WHERE flags_json LIKE '%"missing_object"%';
-- A backfill of only those calls of ours that carry this flag.
ALTER TABLE backfill_order ADD COLUMN where_flag TEXT;
