//! Transcript versions. A version is written once and never changed. A correction is the next version.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{CallUid, Transcript};

/// One version.
#[derive(Debug, Clone)]
pub struct TranscriptRow {
    pub version: u32,
    pub transcript: Transcript,
    /// The byte-exact text form.
    pub text: String,
    pub created_at: Timestamp,
}

#[derive(Debug, FromRow)]
struct StoredTranscript {
    version: i64,
    json: String,
    text: String,
    created_at: i64,
}

impl Store {
    /// Writes the next version and returns its number, counted from 1.
    ///
    /// # Errors
    /// [`StoreError`]. A unique violation if another run of the call wrote this version first.
    pub async fn add_transcript(
        &self,
        tx: &mut Tx,
        uid: CallUid,
        transcript: &Transcript,
        text: &str,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let id = uid.to_string();
        let json = write_json("transcript", &id, transcript)?;
        let version: i64 = on_tx!(tx, |conn| sqlx::query_scalar(
            "INSERT INTO transcript (call_uid, version, json, text, created_at) \
             SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3, $4 FROM transcript WHERE call_uid = $1 \
             RETURNING version",
        )
        .bind(&id)
        .bind(json)
        .bind(text)
        .bind(to_ms(now))
        .fetch_one(conn)
        .await?);
        Ok(version as u32)
    }

    /// All versions of a call, oldest first.
    pub async fn transcripts(&self, uid: CallUid) -> Result<Vec<TranscriptRow>, StoreError> {
        let id = uid.to_string();
        let rows: Vec<StoredTranscript> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT version, json, text, created_at FROM transcript WHERE call_uid = $1 ORDER BY version"
        )
        .bind(&id)
        .fetch_all(pool)
        .await?);
        let read = |row: StoredTranscript| {
            let transcript = read_json("transcript", &id, &row.json)?;
            Ok(TranscriptRow {
                version: row.version as u32,
                transcript,
                text: row.text,
                created_at: from_ms(row.created_at),
            })
        };
        rows.into_iter().map(read).collect()
    }
}
