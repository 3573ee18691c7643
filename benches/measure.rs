//! What the benches share.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Linux counts the times in `/proc` in hundredths of a second on every architecture Rust runs on (`proc(5)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time this process has used so far, all threads, user and system.
pub fn cpu_seconds() -> Result<f64> {
    cpu_seconds_in(Path::new("/proc/self/stat"))
}

/// The same from the `stat` of a process or of a thread.
pub fn cpu_seconds_in(stat: &Path) -> Result<f64> {
    let stat = fs::read_to_string(stat).context("processor time needs Linux's /proc")?;
    // The second field is the program's name in parentheses and may hold blanks; utime and stime are 14 and 15.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// `123 456`, so that columns of large numbers can be read.
pub fn whole(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The machine in a line, to stand above the figures.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{cores} cores, {}, load {load} before the start", model.map_or("unknown", |(_, name)| name.trim()))
}
