//! What people and scripts read: lines, tables and JSON on stdout, progress on stderr.

mod table;

use std::io::{IsTerminal, Write};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

pub(super) use table::Column;

/// A line on stdout. A reader that has gone away (`| head`) is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Text as it is, without a line end.
pub(super) fn raw(text: &str) {
    let _ = write!(std::io::stdout().lock(), "{text}");
}

/// A remark on stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The last word of a failed command, on stderr.
pub(super) fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// One JSON document on stdout.
pub(super) fn json<T: Serialize>(value: &T) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table on stdout. On a terminal it is fitted to the width, see [`table::fitted`]; stderr names the columns that were
/// left out. An empty table is one line on stderr: `empty`.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>, empty: &str) {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    if rows.is_empty() {
        return note(empty);
    }
    let width = std::io::stdout().is_terminal().then(|| comfy_table::Table::new().width()).flatten();
    let fitted = table::fitted(columns, &rows, width.map(usize::from));
    line(&fitted.text);
    if !fitted.left_out.is_empty() {
        note(&format!(
            "left out at this width: {} (a wider terminal or --json shows them)",
            fitted.left_out.join(", ")
        ));
    }
}

/// A bar on stderr when that is a terminal, nothing otherwise.
pub(super) fn bar(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), target());
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// A dash for what is not there.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// `3:05` for 185,000 ms.
pub(super) fn minutes(ms: u64) -> String {
    let seconds = (ms + 500) / 1000;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `1 day`, `2 days`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// `2.8 MiB` for 2,936,013 bytes.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (2_936_013, "2.8 MiB"),
            (1 << 40, "1.0 TiB"),
            (1 << 50, "1024.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
