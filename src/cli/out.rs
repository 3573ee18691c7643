//! The output of all commands. Lines, tables and JSON go to stdout. Notes, errors and progress go to stderr.

mod table;

use std::io::{IsTerminal, Write};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

pub(super) use table::Column;

/// Writes a line to stdout. A closed pipe, as with `| head`, is ignored.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Writes text to stdout without a line end.
pub(super) fn raw(text: &str) {
    let _ = write!(std::io::stdout().lock(), "{text}");
}

/// Writes a note to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes the error of a failed command to stderr.
pub(super) fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// Writes one JSON document to stdout.
pub(super) fn json<T: Serialize>(value: &T) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Writes a table to stdout. On a terminal it is fitted to the width, see [`table::fitted`]. stderr names the columns
/// that were left out. Without rows, only the line `empty` is written, to stderr.
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

/// A progress bar on stderr. It is hidden when stderr is no terminal.
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

/// The value as text, or a dash for `None`.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// Milliseconds as minutes and seconds, such as `3:05` for 185,000 ms.
pub(super) fn minutes(ms: u64) -> String {
    let seconds = (ms + 500) / 1000;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A count with its noun, such as `1 day` or `2 days`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// A size with its unit, such as `2.8 MiB` for 2,936,013 bytes.
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
