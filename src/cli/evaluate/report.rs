//! The report of an evaluation. Judged recordings go in. A table, a JSON document and a comparison with an earlier
//! report come out.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::out;
use crate::domain::transcript::Speaker;
use crate::transcript::score::Score;

const COLUMNS: [out::Column; 10] = [
    out::Column::kept("recording"),
    out::Column::spare("length", 3),
    out::Column::kept("WER"),
    out::Column::spare("cpWER", 2),
    out::Column::kept("labelled"),
    out::Column::kept("roles right"),
    out::Column::spare("sure and wrong", 1),
    out::Column::spare("DER", 4),
    out::Column::spare("DER strict", 5),
    out::Column::spare("invented/min", 6),
];

/// Tolerance of the comparison. A figure that is worse by at most this much counts as equal.
const SLACK: f64 = 0.002;
/// Figures for which a smaller value is better.
const ERRORS: [&str; 6] = ["wer", "cpwer", "confidently_wrong", "der", "der_strict", "invented_words_per_minute"];
/// Figures for which a larger value is better.
const SUCCESSES: [&str; 3] = ["role_accuracy", "labelled", "speakers_right"];

/// The result of one recording.
pub(super) struct Judged {
    pub name: String,
    pub score: Score,
    /// The number of speakers in the reference and the number of speakers found.
    pub speakers: (usize, usize),
    pub roles: Vec<Speaker>,
    pub cpu: Option<Duration>,
}

/// The results of all recordings.
#[derive(Default)]
pub(super) struct Report {
    each: Vec<Judged>,
    all: Score,
    cpu: Option<Duration>,
}

impl Report {
    pub(super) fn add(&mut self, judged: Judged) {
        self.all.add(&judged.score);
        let so_far = self.cpu.or_else(|| self.each.is_empty().then_some(Duration::ZERO));
        self.cpu = so_far.zip(judged.cpu).map(|(sum, one)| sum + one);
        self.each.push(judged);
    }

    pub(super) fn json(&self) -> Value {
        let each: Vec<Value> = self
            .each
            .iter()
            .map(|judged| {
                let mut row = figures(&judged.score);
                row["name"] = json!(judged.name);
                row["speakers"] = json!({ "reference": judged.speakers.0, "found": judged.speakers.1 });
                row["roles"] = json!(judged.roles);
                row
            })
            .collect();
        json!({ "all": self.sum(), "each": each })
    }

    fn sum(&self) -> Value {
        let mut sum = figures(&self.all);
        let right = self.each.iter().filter(|judged| judged.speakers.0 == judged.speakers.1).count();
        sum["recordings"] = json!(self.each.len());
        sum["speakers_right"] = json!(rounded(right as f64 / self.each.len().max(1) as f64));
        let real_time = self.cpu.map(|cpu| cpu.as_secs_f64() * 1000.0 / self.all.audio_ms.max(1) as f64);
        sum["real_time_factor"] = json!(real_time.map(rounded));
        sum["peak_memory_bytes"] = json!(peak_memory());
        sum
    }

    pub(super) fn table(&self, each: bool) {
        let row = |name: &str, audio_ms: u64, row: &Value| {
            let percent = |key: &str| out::or_dash(row[key].as_f64().map(|share| format!("{:.2} %", share * 100.0)));
            let mut cells = vec![name.to_owned(), out::minutes(audio_ms)];
            cells.extend(
                ["wer", "cpwer", "labelled", "role_accuracy", "confidently_wrong", "der", "der_strict"].map(percent),
            );
            cells.push(out::or_dash(row["invented_words_per_minute"].as_f64().map(|words| format!("{words:.2}"))));
            cells
        };
        let shown = self.each.iter().filter(|_| each);
        let mut rows: Vec<Vec<String>> =
            shown.map(|one| row(&one.name, one.score.audio_ms, &figures(&one.score))).collect();
        let sum = self.sum();
        rows.push(row(&format!("all {}", self.each.len()), self.all.audio_ms, &sum));
        out::table(&COLUMNS, rows, "no recording with a reference");
        let speakers = sum["speakers_right"].as_f64().unwrap_or_default() * 100.0;
        let cost = out::or_dash(sum["real_time_factor"].as_f64().map(|factor| format!("{factor:.4}")));
        let memory = out::or_dash(sum["peak_memory_bytes"].as_u64().map(|bytes| format!("{} MB", bytes / 1_000_000)));
        out::line(&format!(
            "speakers counted right in {speakers:.0} %; {cost} of real time (processor); {memory} at most"
        ));
    }

    /// One line for each figure that is worse than in the earlier report.
    pub(super) fn worse_than(&self, earlier: &Value) -> Vec<String> {
        worse(&earlier["all"], &self.sum())
    }
}

/// Reads the JSON report of an earlier run.
pub(super) fn earlier(path: &Path) -> Result<Value> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--baseline: cannot read {shown}"))?;
    let earlier: Value = serde_json::from_str(&text).with_context(|| format!("--baseline: {shown} is not JSON"))?;
    anyhow::ensure!(
        earlier["all"].is_object(),
        "--baseline: {shown}: all: is missing; give the output of evaluate --json"
    );
    Ok(earlier)
}

fn worse(earlier: &Value, now: &Value) -> Vec<String> {
    let compared = |key: &&str, sign: f64| {
        let before = earlier[*key].as_f64()?;
        let found = now[*key].as_f64();
        let fine = found.is_some_and(|now| sign * (now - before) <= SLACK);
        (!fine)
            .then(|| format!("{key}: {} instead of {before}", found.map_or("none".to_owned(), |now| now.to_string())))
    };
    let errors = ERRORS.iter().filter_map(|key| compared(key, 1.0));
    errors.chain(SUCCESSES.iter().filter_map(|key| compared(key, -1.0))).collect()
}

/// The figures of a score. Shares are between 0 and 1. A share of zero words is null.
fn figures(score: &Score) -> Value {
    let share = |part: u64, whole: u64| (whole > 0).then(|| rounded(part as f64 / whole as f64));
    let roles = &score.roles;
    json!({
        "audio_ms": score.audio_ms,
        "words": score.words.words,
        "wer": score.words.rate().map(rounded),
        "cpwer": score.words_by_speaker.rate().map(rounded),
        "role_words": roles.words,
        "labelled": share(roles.labelled, roles.words),
        "role_accuracy": share(roles.right, roles.labelled),
        "confidently_wrong": share(roles.confidently_wrong, roles.words),
        "der": score.diarization.rate().map(rounded),
        "der_strict": score.diarization_strict.rate().map(rounded),
        "invented_words_per_minute": score.invented_per_minute().map(rounded),
    })
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

/// The peak memory of this process in bytes. `None` on a system without `/proc`.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_got_worse_is_named() {
        let before = json!({ "wer": 0.1, "role_accuracy": 0.99, "der": 0.05, "labelled": null });
        let same = json!({ "wer": 0.101, "role_accuracy": 0.989, "der": 0.02, "labelled": 0.5 });
        assert!(worse(&before, &same).is_empty());
        let now = json!({ "wer": 0.12, "role_accuracy": 0.98, "der": null });
        let said = worse(&before, &now).join("; ");
        assert!(
            said.contains("wer: 0.12") && said.contains("role_accuracy: 0.98") && said.contains("der: none"),
            "{said}"
        );
    }
}
