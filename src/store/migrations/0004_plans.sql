-- A plan of a million calls writes every index a million times: none that nothing reads any more, and when copies expire
-- only where that is known.
DROP INDEX backfill_item_next;
DROP INDEX backfill_item_expiry;
CREATE INDEX backfill_item_expiry ON backfill_item (backfill_id, state, expires_at) WHERE expires_at IS NOT NULL;
