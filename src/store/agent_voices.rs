//! What the voices of synthetic agents sound like: a row for each call that taught it.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{CallUid, Learnt, SourceName, VoiceFigures};

/// Calls kept of an agent: enough for a steady mean, few enough to follow an agent that was given another voice.
const KEPT: i64 = 12;

/// What is kept of an agent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AgentVoiceRow {
    pub source: String,
    pub agent_id: String,
    /// Of the figures.
    pub version: u32,
    pub calls: u64,
    pub speech_ms: u64,
    pub learnt_at: Timestamp,
}

/// What came of erasing an agent's voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasedVoice {
    /// What so many calls had taught is gone.
    Erased { calls: u64 },
    /// Nothing was erased: so many of the calls are held.
    Held { calls: u64 },
}

#[derive(Debug, FromRow)]
struct Row {
    call_uid: String,
    version: i64,
    speech_ms: i64,
    at_json: String,
}

impl Store {
    /// What a call teaches takes the place of what it taught before. Calls beyond those that are kept, and figures of an
    /// earlier version, are dropped. Says whether it is the first of its agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn learn_agent_voice(
        &self,
        tx: &mut Tx,
        call: CallUid,
        source: &SourceName,
        learnt: &Learnt,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Learnt { agent_id, figures } = learnt;
        let known = count(tx, "SELECT COUNT(*) FROM agent_voice WHERE source = $1 AND agent_id = $2", source, agent_id);
        let known = known.await?;
        self.unlearn_agent_voice(tx, call).await?;
        let uid = call.to_string();
        on_tx!(&mut *tx, |conn| sqlx::query(
            "INSERT INTO agent_voice (call_uid, source, agent_id, version, speech_ms, at_json, learnt_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)"
        )
        .bind(&uid)
        .bind(source.as_str())
        .bind(agent_id)
        .bind(i64::from(figures.version))
        .bind(figures.speech_ms as i64)
        .bind(write_json("agent voice", &uid, &figures.at)?)
        .bind(to_ms(now))
        .execute(conn)
        .await
        .map(drop)?);
        // What a held call taught is part of what is held.
        on_tx!(tx, |conn| sqlx::query(
            "DELETE FROM agent_voice WHERE source = $1 AND agent_id = $2 AND version <= $3 AND call_uid NOT IN \
             (SELECT call_uid FROM agent_voice WHERE source = $1 AND agent_id = $2 AND version = $3 \
              ORDER BY learnt_at DESC, call_uid DESC LIMIT $4) AND NOT EXISTS \
             (SELECT 1 FROM hold WHERE hold.call_uid = agent_voice.call_uid AND released_at IS NULL)"
        )
        .bind(source.as_str())
        .bind(agent_id)
        .bind(i64::from(figures.version))
        .bind(KEPT)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(known == 0)
    }

    /// Nothing is left of what a call taught: whose voice it was is no longer certain. A hold does not keep it, for it may be
    /// a person's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unlearn_agent_voice(&self, tx: &mut Tx, call: CallUid) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("DELETE FROM agent_voice WHERE call_uid = $1")
            .bind(call.to_string())
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }

    /// What erased calls taught goes with them, whoever erased them: builds that did not know of voices left it. Says of how
    /// many calls.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unlearn_voices_of_erased(&self) -> Result<u64, StoreError> {
        on_pool!(&self.db, |pool| sqlx::query(
            "DELETE FROM agent_voice WHERE EXISTS \
             (SELECT 1 FROM call_record WHERE uid = agent_voice.call_uid AND retention_state = 'erased')"
        )
        .execute(pool)
        .await
        .map(|done| done.rows_affected())
        .map_err(StoreError::from))
    }

    /// What the other calls of this agent taught, in figures of this version: a call says nothing about itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agent_voice(
        &self,
        source: &SourceName,
        agent_id: &str,
        version: u32,
        but: CallUid,
    ) -> Result<Vec<VoiceFigures>, StoreError> {
        let rows: Vec<Row> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT call_uid, version, speech_ms, at_json FROM agent_voice \
             WHERE source = $1 AND agent_id = $2 AND version = $3 AND call_uid <> $4 ORDER BY learnt_at, call_uid"
        )
        .bind(source.as_str())
        .bind(agent_id)
        .bind(i64::from(version))
        .bind(but.to_string())
        .fetch_all(pool)
        .await?);
        let read = |row: Row| {
            Ok(VoiceFigures {
                version: row.version as u32,
                at: read_json("agent voice", &row.call_uid, &row.at_json)?,
                speech_ms: row.speech_ms as u64,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Of which agents there is something, by source and agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agent_voices(&self) -> Result<Vec<AgentVoiceRow>, StoreError> {
        let rows: Vec<(String, String, i64, i64, i64, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT source, agent_id, version, COUNT(*), CAST(SUM(speech_ms) AS BIGINT), MAX(learnt_at) \
             FROM agent_voice GROUP BY source, agent_id, version ORDER BY source, agent_id, version"
        )
        .fetch_all(pool)
        .await?);
        let read = |(source, agent_id, version, calls, speech_ms, learnt_at)| AgentVoiceRow {
            source,
            agent_id,
            version: version as u32,
            calls: calls as u64,
            speech_ms: speech_ms as u64,
            learnt_at: from_ms(learnt_at),
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Erases all that was learnt of an agent's voice, unless a hold keeps one of the calls that taught it.
    ///
    /// # Errors
    /// [`StoreError`].
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
