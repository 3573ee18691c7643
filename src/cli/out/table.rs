//! Tables that fit the terminal. Columns, rows and a width go in. Text and the heads of the left-out columns come out.
//! Cells wrap only between words. A table that is still too wide loses columns in the order that the command states.
//! Then the longest words are shortened.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};

/// Columns under a ruled header. There are no other lines, so that `awk` can read the table.
const STYLE: TableStyle = NOTHING.header_separator(LineStyle::none().fill('─').junction('─'));
/// The padding of a cell, one space on each side.
const PADDING: usize = 2;
/// A cell of at most this many characters is not wrapped, such as `2.8 MiB`.
const UNWRAPPED: usize = 12;
/// A shortened word keeps at least this many characters, the ellipsis included.
const SHORTEST_WORD: usize = 8;

/// The head of a column and its rank for leaving it out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    head: &'static str,
    /// The column with the highest number is left out first. A column with 0 is always shown.
    spare: u8,
}

impl Column {
    /// A column that is always shown.
    pub(crate) const fn kept(head: &'static str) -> Self {
        Self { head, spare: 0 }
    }

    /// A column that may be left out on a narrow terminal. A higher `order` is left out earlier.
    pub(crate) const fn spare(head: &'static str, order: u8) -> Self {
        Self { head, spare: order }
    }
}

/// A table as text, with the heads of the left-out columns.
pub(super) struct Fitted {
    pub text: String,
    pub left_out: Vec<&'static str>,
}

/// Lays a table out within `width` characters. Without a width the table is as wide as it needs to be.
pub(super) fn fitted(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Fitted {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let mut left_out = Vec::new();
    let Some(width) = width else { return Fitted { text: laid_out(columns, rows, &shown, None), left_out } };
    while needed(columns, rows, &shown) > width {
        let Some(next) = shown.iter().copied().filter(|n| columns[*n].spare > 0).max_by_key(|n| columns[*n].spare)
        else {
            break;
        };
        shown.retain(|n| *n != next);
        left_out.push(columns[next].head);
    }
    let rows = shortened(columns, rows, &shown, width);
    Fitted { text: laid_out(columns, &rows, &shown, Some(width)), left_out }
}

fn laid_out(columns: &[Column], rows: &[Vec<String>], shown: &[usize], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(shown.iter().map(|n| columns[*n].head));
    for row in rows {
        table.add_row(shown.iter().map(|n| row.get(*n).map_or("", String::as_str)));
    }
    table.set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
        for (place, n) in shown.iter().enumerate() {
            let least = longest_word(columns[*n], rows, *n) + PADDING;
            if let Some(column) = table.column_mut(place) {
                let least = Width::Fixed(u16::try_from(least).unwrap_or(u16::MAX));
                column.set_constraint(ColumnConstraint::LowerBoundary(least));
            }
        }
    }
    table.to_string()
}

/// The width of the table when every long cell is wrapped at each of its spaces.
fn needed(columns: &[Column], rows: &[Vec<String>], shown: &[usize]) -> usize {
    let cells: usize = shown.iter().map(|n| longest_word(columns[*n], rows, *n) + PADDING).sum();
    cells + shown.len().saturating_sub(1)
}

fn longest_word(column: Column, rows: &[Vec<String>], n: usize) -> usize {
    let longest = |text: &str| text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
    let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| match cell.chars().count() {
        all if all <= UNWRAPPED => all,
        _ => longest(cell),
    });
    cells.chain([longest(column.head)]).max().unwrap_or(0)
}

/// The rows, with the words of the widest columns cut until the table fits.
fn shortened(columns: &[Column], rows: &[Vec<String>], shown: &[usize], width: usize) -> Vec<Vec<String>> {
    let mut rows = rows.to_vec();
    loop {
        let over = needed(columns, &rows, shown).saturating_sub(width);
        let widest = shown.iter().copied().max_by_key(|n| longest_word(columns[*n], &rows, *n));
        let Some(n) = widest.filter(|_| over > 0) else { return rows };
        let longest = longest_word(columns[n], &rows, n);
        if longest <= SHORTEST_WORD {
            return rows;
        }
        // The widest column shrinks at most to the width of the next one. Then both shrink in turn.
        let others = shown.iter().filter(|other| **other != n);
        let next = others.map(|other| longest_word(columns[*other], &rows, *other)).max().unwrap_or(0);
        let least = longest.saturating_sub(over).max(next.min(longest - 1)).max(SHORTEST_WORD);
        for row in &mut rows {
            if let Some(cell) = row.get_mut(n) {
                *cell = cut(cell, least);
            }
        }
        if longest_word(columns[n], &rows, n) == longest {
            // The head is the longest word of the column. A head is never cut.
            return rows;
        }
    }
}

/// The cell with every word cut to `longest` characters. A cut word ends with an ellipsis.
fn cut(cell: &str, longest: usize) -> String {
    let words = cell.split(' ').map(|word| {
        if word.chars().count() <= longest {
            return word.to_owned();
        }
        let mut kept: String = word.chars().take(longest - 1).collect();
        kept.push('…');
        kept
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [
        Column::kept("call"),
        Column::spare("source", 2),
        Column::spare("direction", 3),
        Column::spare("flags", 1),
        Column::kept("outcome"),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        vec![
            row(["0b0f6c0e-0000-4000-8000-000000000001", "krosai-cockpit", "outbound", "low_level no_times", "done"]),
            row(["call_delivery", "krosai", "inbound", "", "past_retention"]),
        ]
    }

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().filter(|word| !word.starts_with('─')).collect()
    }

    #[test]
    fn words_are_never_split_and_lines_never_too_long() {
        let rows = rows();
        for width in 40..140 {
            let fitted = fitted(&COLUMNS, &rows, Some(width));
            for line in fitted.text.lines() {
                assert!(line.trim_end().chars().count() <= width, "{width}: {line:?}");
            }
            let all: Vec<&str> = rows.iter().flatten().flat_map(|cell| cell.split_whitespace()).collect();
            for word in words(&fitted.text) {
                let known = all.contains(&word) || COLUMNS.iter().any(|column| column.head == word);
                assert!(known || word.ends_with('…'), "{width}: {word:?} is a piece of a word");
            }
        }
    }

    #[test]
    fn columns_go_in_the_order_stated_and_kept_ones_stay() {
        let rows = rows();
        assert_eq!(fitted(&COLUMNS, &rows, None).left_out, Vec::<&str>::new());
        assert_eq!(fitted(&COLUMNS, &rows, Some(120)).left_out, Vec::<&str>::new());
        assert_eq!(fitted(&COLUMNS, &rows, Some(90)).left_out, ["direction"]);
        assert_eq!(fitted(&COLUMNS, &rows, Some(80)).left_out, ["direction", "source"]);
        let narrow = fitted(&COLUMNS, &rows, Some(44));
        assert_eq!(narrow.left_out, ["direction", "source", "flags"]);
        assert!(narrow.text.contains("past_retention") && narrow.text.contains("0b0f6c0e-0000"), "{}", narrow.text);
    }

    #[test]
    fn a_terminal_narrower_than_the_heads_gets_a_table_too() {
        let columns = [Column::kept("unfinished"), Column::kept("transcript")];
        let rows = vec![vec!["call_000001".to_owned(), "v1".to_owned()]];
        for width in 1..30 {
            assert!(fitted(&columns, &rows, Some(width)).text.contains("v1"), "{width}");
        }
    }

    #[test]
    fn cells_wrap_between_words_before_a_column_goes() {
        let columns = [Column::kept("call"), Column::spare("flags", 1)];
        let rows = vec![vec!["call_000001".to_owned(), "clipped low_level no_times".to_owned()]];
        let fitted = fitted(&columns, &rows, Some(30));
        assert!(fitted.left_out.is_empty());
        assert_eq!(words(&fitted.text), ["call", "flags", "call_000001", "clipped", "low_level", "no_times"]);
    }
}
