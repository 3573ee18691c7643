//! The walls of the house: who may import whom, and what only one place may touch. This reads the sources themselves,
//! so a wall that is broken fails the build with the file and line.

mod code;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use self::code::{code_only, starts_word};

/// Each part and what it may import besides itself, `domain` and `telemetry`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &[]),
    ("coding", &[]),
    ("digest", &[]),
    ("telemetry", &["config"]),
    ("json", &[]),
    ("wire", &["json"]),
    ("source", &["wire", "config", "coding"]),
    ("fetch", &["config", "coding"]),
    ("audio", &["config"]),
    ("quality", &["audio"]),
    ("transcript", &["audio", "config", "digest", "json"]),
    ("artifacts", &["config", "digest"]),
    ("store", &["config"]),
    ("queue", &["store", "config"]),
    ("record_outcome", &["store", "queue"]),
    ("app", PARTS_AND_CONFIG),
    ("jobs", APP_AND_PARTS),
    ("worker", &["app", "jobs", "queue"]),
    // `transcript` renders the forms that are not stored.
    ("api", &["app", "jobs", "queue", "store", "wire", "artifacts", "transcript"]),
    // `config` reads the sources that the demo writes for its own platform.
    ("demo", &["wire", "app", "cli", "config"]),
    ("cli", EVERYTHING),
    ("main", &["cli", "config"]),
];
const PARTS_AND_CONFIG: &[&str] = &[
    "wire",
    "source",
    "fetch",
    "audio",
    "quality",
    "transcript",
    "artifacts",
    "store",
    "queue",
    "record_outcome",
    "config",
];
const APP_AND_PARTS: &[&str] = &[
    "app",
    "config",
    "wire",
    "source",
    "fetch",
    "audio",
    "quality",
    "transcript",
    "artifacts",
    "store",
    "queue",
    "record_outcome",
];
const EVERYTHING: &[&str] = &[
    "app",
    "wire",
    "source",
    "fetch",
    "audio",
    "quality",
    "transcript",
    "artifacts",
    "store",
    "queue",
    "record_outcome",
    "config",
    "jobs",
    "worker",
    "api",
    "demo",
    "digest",
];
/// Open to every part, except that `domain` stands on nothing.
const OPEN: &[&str] = &["domain", "telemetry"];

/// What only one place may touch: the text that gives it away, where it may stand, and why.
const ONLY_IN: &[(&[&str], &[&str], &str)] = &[
    (&["aws_"], &["src/artifacts/s3.rs", "src/artifacts/s3/"], "the S3 SDK lives in one place"),
    (&["sqlx::"], &["src/store.rs", "src/store/", "src/queue.rs", "src/queue/"], "SQL lives in store and queue"),
];

/// A part or a job one can hold in the head; suites are read case by case.
const fn most_lines(path: &str) -> usize {
    match path.as_bytes() {
        [b's', b'r', b'c', b'/', ..] | [b'j', b'o', b'b', b's', b'/', ..] => 400,
        _ => 450,
    }
}

#[test]
fn the_sources_keep_to_the_table() {
    let mut broken = Vec::new();
    for (path, source) in sources(&["src", "jobs"]) {
        broken.extend(violations(&path, &source));
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn no_file_is_longer_than_one_can_hold() {
    let files = sources(&["src", "jobs", "tests", "benches"]);
    let long: Vec<String> = files
        .iter()
        .map(|(path, source)| (path, source.lines().count(), most_lines(path)))
        .filter(|(_, lines, most)| lines > most)
        .map(|(path, lines, most)| format!("{path}: {lines} lines, more than {most}"))
        .collect();
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

/// Functions and constants that a later step of the plan uses.
const KEPT: &[&str] = &["stores_nothing", "G711"];

#[test]
fn what_is_public_is_used_by_others() {
    let files = sources(&["src", "jobs", "tests", "benches"]);
    let files: Vec<(&str, String)> = files.iter().map(|(path, source)| (path.as_str(), code_only(source))).collect();
    let mut users: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (path, code) in &files {
        for name in code.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            users.entry(name).or_default().insert(path);
        }
    }
    let mut alone = Vec::new();
    for (path, code) in files.iter().filter(|(path, _)| path.starts_with("src/") || path.starts_with("jobs/")) {
        let names = code.lines().filter_map(public_function_or_constant);
        alone.extend(
            names.filter(|name| users[name].len() == 1 && !KEPT.contains(name)).map(|name| format!("{path}: {name}")),
        );
    }
    assert!(alone.is_empty(), "public, and named in no other file:\n{}\n", alone.join("\n"));
    assert!(public_function_or_constant("    pub const fn new() -> Self {") == Some("new"));
    assert!(public_function_or_constant("pub const TOP: u8 = 1;") == Some("TOP"));
    assert!(public_function_or_constant("pub(crate) fn new() {").is_none());
}

/// The name that a line declares. Types are left out: a public signature may need one that nobody names.
fn public_function_or_constant(line: &str) -> Option<&str> {
    let mut words = line.trim_start().strip_prefix("pub ")?.split_whitespace().peekable();
    let mut constant = false;
    while let Some(first) = words.next() {
        match first {
            "async" => {}
            "const" => constant = true,
            "fn" => return words.next().and_then(word),
            name => return constant.then(|| word(name)).flatten(),
        }
    }
    None
}

#[test]
fn a_broken_wall_is_seen() {
    let one = |path: &str, source: &str| {
        let found = violations(path, source);
        assert_eq!(found.len(), 1, "{path}: {source}\n{found:#?}");
        found[0].clone()
    };
    assert!(one("src/wire/zudu.rs", "//! doc\nuse crate::store::Pool;\n").starts_with("src/wire/zudu.rs:2: "));
    assert!(one("src/quality/mos.rs", "fn f() { crate::config::load(); }").contains("quality may not import config"));
    assert!(one("src/source.rs", "use super::store::calls;").contains("source may not import store"));
    assert!(one("src/audio/mod.rs", "pub(crate) use super::queue as q;").contains("queue"));
    assert!(one("src/audio/decode.rs", "use super::super::queue;").contains("audio may not import queue"));
    assert!(one("src/fetch.rs", "use crate :: store :: X;").contains("store"));
    assert!(one("src/fetch.rs", "use\n    crate::store::X;").contains("src/fetch.rs:2"));
    assert!(one("src/domain/call.rs", "use crate::telemetry::x;").contains("domain may not import telemetry"));
    assert!(one("jobs/deliver.rs", "use crate::cli::Table;").contains("jobs may not import cli"));
    assert!(one("src/main.rs", "use aftercall::store::Pool;").contains("main may not import store"));
    assert!(one("src/fetch.rs", "use crate::{domain::CallId, store::Pool};").contains("one `use crate::part::"));
    assert!(one("src/fetch.rs", "use crate::*;").contains("one `use crate::part::"));
    assert!(one("src/fetch.rs", "use crate as top;").contains("one `use crate::part::"));
    assert!(one("src/mystery.rs", "fn f() {}").contains("`mystery` is not in the table"));
    assert!(one("src/fetch.rs", "use crate::mystery::X;").contains("`mystery` is not in the table"));
    assert!(one("src/artifacts/dir.rs", "use aws_sdk_s3::Client;").contains("S3 SDK"));
    assert!(one("src/app.rs", "async fn f(pool: sqlx::SqlitePool) {}").contains("SQL"));
    assert!(one("src/fetch.rs", "#[cfg(test)] mod tests { use crate::store::Pool; }").contains("store"));
    assert!(one("src/fetch.rs", "let quote = '\"'; use crate::store::X; let end = '\"';").contains("store"));
    assert!(one("src/fetch.rs", "fn f<'a>(x: &'a str) {} use crate::store::X; // it's").contains("store"));
    assert!(one("src/fetch.rs", "r#\"a\"b\"#; b'\\''; '\\\\'; use crate::store::X;").contains("store"));
}

#[test]
fn what_is_allowed_is_left_alone() {
    for (path, source) in [
        ("src/source.rs", "use crate::wire::Zudu;\nuse crate::config::Source;\nuse crate::domain::{\n    CallId,\n};"),
        ("src/source.rs", "use crate::source::page;\nuse crate::telemetry::stage;\nuse self::page::Page;"),
        ("src/audio/decode.rs", "use super::wav;\nuse super::super::audio::wav;"),
        (
            "src/fetch.rs",
            "// use crate::store::X;\n/* crate::queue::Y /* nested */ sqlx:: */ /// [`crate::app::App`]\n",
        ),
        ("src/fetch.rs", "let s = \"crate::store::X \\\" sqlx::\"; let r = r#\"aws_ \" sqlx::x\"#;"),
        ("src/fetch.rs", "let t = std::time::Instant::now(); let v = env!(\"CARGO_PKG_VERSION\");"),
        ("src/fetch.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}"),
        ("src/app.rs", "use crate::store::Pool;\nuse crate::queue::Queue;"),
        ("src/artifacts/s3.rs", "use aws_sdk_s3::Client;"),
        ("src/artifacts/s3/listing.rs", "use aws_sdk_s3::primitives::DateTime;"),
        ("src/store/calls.rs", "sqlx::query(\"\")"),
        ("src/queue.rs", "use crate::store::Pool;\nuse sqlx::Row;"),
        ("src/cli/process.rs", "use crate::audio::probe;\nuse crate::demo::Platform;"),
        ("src/lib.rs", "#[path = \"../jobs/mod.rs\"]\npub mod jobs;"),
        ("src/main.rs", "use aftercall::cli;\naftercall::telemetry::init();"),
    ] {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}

/// Every Rust file below these folders of the package, by its path from the package's root.
pub fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in folders {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.iter().any(|file| file.ends_with("src/lib.rs")), "no sources found below {}", root.display());
    let named = |file: PathBuf| {
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.strip_prefix(root).unwrap_or(&file).to_string_lossy().replace('\\', "/"), source)
    };
    files.into_iter().map(named).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    // A folder that is not there yet holds nothing to complain about.
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Everything wrong with one file, as `path:line: what`.
fn violations(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let mut found = Vec::new();
    let mut report = |at: usize, what: String| {
        let line = code[..at].matches('\n').count() + 1;
        found.push(format!("{path}:{line}: {what}"));
    };
    let part = part_of(path);
    if part != "lib" && allowed(part).is_none() {
        report(0, not_in_table(part));
        return found;
    }
    for (at, target) in imports(path, &code) {
        match target {
            Target::Part(name) if name == part || part == "lib" => {}
            Target::Part(name) if allowed(name).is_none() => report(at, not_in_table(name)),
            Target::Part(name) => {
                let open = part != "domain" && OPEN.contains(&name);
                if !open && !allowed(part).is_some_and(|parts| parts.contains(&name)) {
                    report(at, format!("{part} may not import {name}"));
                }
            }
            Target::Several => {
                report(at, "write one `use crate::part::…` a line, so that this test can read it".to_owned());
            }
        }
    }
    for (marks, places, why) in ONLY_IN {
        if places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place))) {
            continue;
        }
        for (at, mark) in marks.iter().flat_map(|mark| code.match_indices(mark)) {
            if starts_word(&code, at) {
                report(at, format!("`{mark}`: {why}"));
            }
        }
    }
    found
}

fn not_in_table(part: &str) -> String {
    format!("`{part}` is not in the table of this test")
}

fn allowed(part: &str) -> Option<&'static [&'static str]> {
    MAY_IMPORT.iter().find(|(name, _)| *name == part).map(|(_, parts)| *parts)
}

/// The part a file belongs to: `src/wire/zudu.rs` → `wire`, `src/fetch.rs` → `fetch`, `jobs/…` → `jobs`.
fn part_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let first = inside.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

#[derive(Debug)]
enum Target<'code> {
    Part(&'code str),
    Several,
}

/// Where a file names another part, by any of the roads: `crate::part`, `aftercall::part` in the binary, or as many
/// `super::` as lead to the crate's root.
fn imports<'code>(path: &str, code: &'code str) -> Vec<(usize, Target<'code>)> {
    let mut found = Vec::new();
    let road = if path == "src/main.rs" { "aftercall" } else { "crate" };
    for (at, _) in code.match_indices(road).filter(|(at, _)| starts_word(code, *at)) {
        let rest = code[at + road.len()..].trim_start();
        if let Some(rest) = rest.strip_prefix("::") {
            found.push((at, word(rest).map_or(Target::Several, Target::Part)));
        } else if rest.starts_with("as ") {
            found.push((at, Target::Several));
        }
    }
    let depth = depth_of(path);
    for (at, _) in code.match_indices("super").filter(|(at, _)| starts_word(code, *at)) {
        // Only the first of a chain counts its length.
        if code[..at].trim_end().ends_with("super::") {
            continue;
        }
        let mut steps = 0;
        let mut rest = &code[at..];
        while let Some(after) = rest.strip_prefix("super").and_then(|rest| rest.trim_start().strip_prefix("::")) {
            steps += 1;
            rest = after.trim_start();
        }
        // A name of the root that is no part is an item of an inline module (`mod tests { use super::Frame; }`).
        if let Some(name) = word(rest).filter(|name| steps >= depth && allowed(name).is_some()) {
            found.push((at, Target::Part(name)));
        }
    }
    found.sort_by_key(|(at, _)| *at);
    found
}

/// How many `super::` lead from a file's module to the crate's root.
fn depth_of(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let names = inside.split('/').count();
    if inside.ends_with("/mod.rs") { names - 1 } else { names }
}

/// The identifier at the start of some code; `None` for `{`, `*` and the like.
fn word(code: &str) -> Option<&str> {
    let code = code.trim_start();
    let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len());
    (end > 0).then(|| &code[..end])
}
