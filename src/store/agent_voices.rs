//! Enrolled speaker embeddings of synthetic agents: one row per call that contributed one.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{CallUid, Enrolled, SourceName, SpeakerEmbedding};

/// Calls kept per agent. The number is enough for a stable mean, and the mean still follows a changed voice.
const KEPT: i64 = 12;

/// The stored data of one agent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AgentVoiceRow {
    pub source: String,
    pub agent_id: String,
    /// Version of the speaker embeddings.
    pub version: u32,
    pub calls: u64,
    pub speech_ms: u64,
    pub enrolled_at: Timestamp,
}

/// The result of erasing an agent's voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasedVoice {
    /// The embeddings of this many calls were erased.
    Erased { calls: u64 },
    /// Nothing was erased, because this many of the calls are held.
    Held { calls: u64 },
}

#[derive(Debug, FromRow)]
struct EmbeddingRow {
    call_uid: String,
    version: i64,
    speech_ms: i64,
    at_json: String,
}

impl Store {
    /// Stores the call's speaker embedding in place of an earlier one. Drops embeddings of earlier versions and calls
    /// beyond the limit. Returns true for the first call of the agent.
    pub async fn enroll_agent_voice(
        &self,
        tx: &mut Tx,
        call: CallUid,
        source: &SourceName,
        enrolled: &Enrolled,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Enrolled { agent_id, embedding } = enrolled;
        let known = count(tx, "SELECT COUNT(*) FROM agent_voice WHERE source = $1 AND agent_id = $2", source, agent_id);
        let known = known.await?;
        self.unenroll_agent_voice(tx, call).await?;
        let uid = call.to_string();
        on_tx!(&mut *tx, |conn| sqlx::query(
            "INSERT INTO agent_voice (call_uid, source, agent_id, version, speech_ms, at_json, learnt_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)"
        )
        .bind(&uid)
        .bind(source.as_str())
        .bind(agent_id)
        .bind(i64::from(embedding.version))
        .bind(embedding.speech_ms as i64)
        .bind(write_json("agent voice", &uid, &embedding.at)?)
        .bind(to_ms(now))
        .execute(conn)
        .await
        .map(drop)?);
        // The embedding of a held call is part of the held data.
        on_tx!(tx, |conn| sqlx::query(
            "DELETE FROM agent_voice WHERE source = $1 AND agent_id = $2 AND version <= $3 AND call_uid NOT IN \
             (SELECT call_uid FROM agent_voice WHERE source = $1 AND agent_id = $2 AND version = $3 \
              ORDER BY learnt_at DESC, call_uid DESC LIMIT $4) AND NOT EXISTS \
             (SELECT 1 FROM hold WHERE hold.call_uid = agent_voice.call_uid AND released_at IS NULL)"
        )
        .bind(source.as_str())
        .bind(agent_id)
        .bind(i64::from(embedding.version))
        .bind(KEPT)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(known == 0)
    }

    /// Deletes the embedding of a call, because its speaker is no longer certain. A hold does not prevent this: the
    /// voice may be a human's.
    pub async fn unenroll_agent_voice(&self, tx: &mut Tx, call: CallUid) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("DELETE FROM agent_voice WHERE call_uid = $1")
            .bind(call.to_string())
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Deletes the embeddings of erased calls, which earlier builds without this table left behind. Returns the number
    /// of deleted rows.
    pub async fn unenroll_voices_of_erased(&self) -> Result<u64, StoreError> {
        on_pool!(&self.db, |pool| sqlx::query(
            "DELETE FROM agent_voice WHERE EXISTS \
             (SELECT 1 FROM call_record WHERE uid = agent_voice.call_uid AND retention_state = 'erased')"
        )
        .execute(pool)
        .await
        .map(|done| done.rows_affected())
        .map_err(StoreError::from))
    }

    /// The embeddings of this version from the agent's calls other than `but`, because a call must not be compared with
    /// itself.
    pub async fn agent_voice(
        &self,
        source: &SourceName,
        agent_id: &str,
        version: u32,
        but: CallUid,
    ) -> Result<Vec<SpeakerEmbedding>, StoreError> {
        let rows: Vec<EmbeddingRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT call_uid, version, speech_ms, at_json FROM agent_voice \
             WHERE source = $1 AND agent_id = $2 AND version = $3 AND call_uid <> $4 ORDER BY learnt_at, call_uid"
        )
        .bind(source.as_str())
        .bind(agent_id)
        .bind(i64::from(version))
        .bind(but.to_string())
        .fetch_all(pool)
        .await?);
        let read = |row: EmbeddingRow| {
            Ok(SpeakerEmbedding {
                version: row.version as u32,
                at: read_json("agent voice", &row.call_uid, &row.at_json)?,
                speech_ms: row.speech_ms as u64,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// The agents with stored embeddings, by source, agent and version.
    pub async fn agent_voices(&self) -> Result<Vec<AgentVoiceRow>, StoreError> {
        let rows: Vec<(String, String, i64, i64, i64, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT source, agent_id, version, COUNT(*), CAST(SUM(speech_ms) AS BIGINT), MAX(learnt_at) \
             FROM agent_voice GROUP BY source, agent_id, version ORDER BY source, agent_id, version"
        )
        .fetch_all(pool)
        .await?);
        let read = |(source, agent_id, version, calls, speech_ms, enrolled_at)| AgentVoiceRow {
            source,
            agent_id,
            version: version as u32,
            calls: calls as u64,
            speech_ms: speech_ms as u64,
            enrolled_at: from_ms(enrolled_at),
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Erases all embeddings of an agent, unless a hold keeps one of their calls.
    pub async fn erase_agent_voice(
        &self,
        tx: &mut Tx,
        source: &SourceName,
        agent_id: &str,
    ) -> Result<ErasedVoice, StoreError> {
        let held = "SELECT COUNT(*) FROM agent_voice WHERE source = $1 AND agent_id = $2 AND EXISTS \
                    (SELECT 1 FROM hold WHERE hold.call_uid = agent_voice.call_uid AND released_at IS NULL)";
        let held = count(tx, held, source, agent_id).await?;
        if held > 0 {
            return Ok(ErasedVoice::Held { calls: held as u64 });
        }
        let calls = on_tx!(tx, |conn| sqlx::query("DELETE FROM agent_voice WHERE source = $1 AND agent_id = $2")
            .bind(source.as_str())
            .bind(agent_id)
            .execute(conn)
            .await?
            .rows_affected());
        Ok(ErasedVoice::Erased { calls })
    }
}

async fn count(tx: &mut Tx, sql: &'static str, source: &SourceName, agent_id: &str) -> Result<i64, StoreError> {
    Ok(on_tx!(tx, |conn| sqlx::query_scalar(sql).bind(source.as_str()).bind(agent_id).fetch_one(conn).await?))
}
