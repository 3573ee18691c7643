-- Calls whose erasure was decided and not finished: few, and asked for by every sweep.
CREATE INDEX call_record_erasing ON call_record (uid) WHERE retention_state IN ('condemned', 'blocked');
