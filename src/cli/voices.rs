//! The command `voices`. It lists and erases the enrolled voices of synthetic agents. Rows of the store go in. A table
//! or JSON comes out.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{Ended, Purpose, out};
use crate::app::App;
use crate::domain::SourceName;
use crate::store::{AgentVoiceRow, AuditEntry, ErasedVoice};
use crate::transcript::VOICE_VERSION;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the agents with a known voice and the number of calls behind it
    #[command(after_help = "Examples:\n  aftercall voices list\n  aftercall voices list --json")]
    List {
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Erase all that was enrolled of an agent's voice
    #[command(
        after_help = "It is enrolled again from the agent's next calls, unless its [[source.agent]] no longer says `synthetic = true`. While \
                      a legal hold is on one of the calls that taught it, it is not erased.\n\nExamples:\n  \
                      aftercall voices erase agent_123 --source krosai --by ada"
    )]
    Erase {
        /// The platform's id of the agent
        agent: String,
        #[arg(long)]
        source: SourceName,
        /// Your name, for the audit trail
        #[arg(long)]
        by: String,
    },
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::List { .. }) { Purpose::Look } else { Purpose::Change }
    }
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::List { json } => list(app, json).await?,
        Command::Erase { agent, source, by } => erase(app, &agent, &source, &by).await?,
    }
    Ok(Ended::Well)
}

async fn list(app: &App, json: bool) -> Result<()> {
    let voices = app.store.agent_voices().await?;
    if json {
        return out::json(&voices);
    }
    let rows = voices.iter().map(|voice| {
        vec![
            voice.source.clone(),
            voice.agent_id.clone(),
            voice.calls.to_string(),
            format!("{} s", voice.speech_ms / 1000),
            voice.enrolled_at.to_string(),
            state(app, voice).to_owned(),
        ]
    });
    let columns = [
        out::Column::spare("source", 1),
        out::Column::kept("agent"),
        out::Column::kept("calls"),
        out::Column::spare("speech", 3),
        out::Column::spare("enrolled", 2),
        out::Column::kept("state"),
    ];
    let empty =
        "no agent voice is known; they are taken from calls of agents with `synthetic = true` in [[source.agent]]";
    out::table(&columns, rows, empty);
    Ok(())
}

/// The state of an enrolled voice as the table shows it.
fn state(app: &App, voice: &AgentVoiceRow) -> &'static str {
    let source = app.config.source.iter().find(|source| source.name.as_str() == voice.source);
    let declared = source.is_some_and(|source| source.synthetic_agent(Some(&voice.agent_id)).is_some());
    match (voice.version == VOICE_VERSION, declared) {
        (_, false) => "not declared synthetic",
        (false, true) => "of another build",
        (true, true) => "in use",
    }
}

async fn erase(app: &App, agent: &str, source: &SourceName, by: &str) -> Result<()> {
    let mut tx = app.store.begin().await?;
    let calls = match app.store.erase_agent_voice(&mut tx, source, agent).await? {
        ErasedVoice::Erased { calls: 0 } => bail!("nothing is known of the voice of `{agent}` of `{source}`"),
        ErasedVoice::Erased { calls } => calls,
        ErasedVoice::Held { calls } => bail!(
            "legal_hold: {calls} of the calls that taught the voice of `{agent}` are held; without `synthetic = true` it is \
             not used meanwhile"
        ),
    };
    let entry = AuditEntry {
        at: app.now(),
        actor: by.to_owned(),
        action: "agent_voice_erased".to_owned(),
        subject: format!("{source}/{agent}"),
        detail: format!("enrolled from {calls} calls"),
    };
    app.store.audit(&mut tx, &entry).await?;
    tx.commit().await?;
    app.store.truncate_wal().await?;
    out::line(&format!("the voice of `{agent}` is forgotten"));
    Ok(())
}
