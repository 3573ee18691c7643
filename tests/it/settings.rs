//! A setting that is declared and read nowhere promises something that nobody keeps.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Declared ahead of what will read them: `aftercall check` says so to whoever sets one.
const AHEAD: &[&str] = &["webhook_secret"];

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What stands below `src` and `jobs`: the configuration's own files, and all others.
fn sources() -> (String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("jobs"), &mut files);
    let is_ours = |path: &&PathBuf| path.starts_with(root.join("src/config")) || path.ends_with("src/config.rs");
    let read = |ours: bool| -> String {
        let code = |path: &PathBuf| fs::read_to_string(path).unwrap();
        // What tests read nobody else does.
        let without_tests = |code: String| code.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        files.iter().filter(|path| is_ours(path) == ours).map(code).map(without_tests).collect()
    };
    (read(true), read(false))
}

/// The fields of every struct of the configuration that serde fills.
fn declared(code: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let (mut inside, mut reads, mut skipped) = (false, false, false);
    for line in code.lines() {
        let line = line.trim();
        reads = (reads || line.starts_with("#[derive") && line.contains("Deserialize")) && line != "}";
        if line.starts_with("pub struct ") || line.starts_with("struct ") {
            inside = reads && line.ends_with('{');
        }
        inside = inside && line != "}";
        let field = line.strip_prefix("pub ").and_then(|line| line.split_once(": ")).map(|(name, _)| name);
        if let Some(name) = field.filter(|_| inside && !skipped && line.ends_with(',')) {
            fields.insert(name.to_owned());
        }
        skipped = line == "#[serde(skip)]";
    }
    fields
}

/// Whether some code reads a field of this name. A secret that is read from a file is read as the secret.
fn is_read(name: &str, code: &str, inside: &str) -> bool {
    let word = |code: &str, name: &str| {
        let text = format!(".{name}");
        let ends = |at: usize| !code[at + text.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        code.match_indices(&text).any(|(at, _)| ends(at))
    };
    match name.strip_suffix("_file") {
        Some(secret) if word(inside, name) => AHEAD.contains(&secret) || word(code, secret) || word(inside, secret),
        _ => word(code, name),
    }
}

fn unread(config: &str, rest: &str) -> Vec<String> {
    // Methods of the configuration itself may read a field on behalf of everybody.
    let through_methods = |name: &String| {
        let own = format!(".{name}");
        config.match_indices(&own).any(|(at, _)| {
            let before = &config[..at];
            let of = before.rfind("fn ").map(|at| &before[at..]);
            // Checking a value is not using it.
            of.is_some_and(|of| !of.starts_with("fn validate") && !of.starts_with("fn read_secret_files"))
        })
    };
    let fields = declared(config).into_iter();
    fields
        .filter(|name| !AHEAD.contains(&name.as_str()) && !is_read(name, rest, config) && !through_methods(name))
        .collect()
}

#[test]
fn every_declared_setting_is_read_somewhere() {
    let (config, rest) = sources();
    let fields = declared(&config);
    for known in ["recording_grace", "silent_after", "requests_per_day", "guard_minimum", "price_per_minute", "listen"]
    {
        assert!(fields.contains(known), "{known}: {fields:?}");
    }
    assert!(!fields.contains("key_files"), "no setting");
    assert_eq!(unread(&config, &rest), Vec::<String>::new());
}

#[test]
fn a_setting_that_is_read_nowhere_is_seen() {
    let config = "#[derive(Debug, Deserialize)]\npub struct Audio {\n    /// Loudness.\n    pub target: f64,\n    \
                  pub keep_wav: bool,\n    pub key_file: Option<PathBuf>,\n}\nimpl Audio {\n    fn validate(&self) {\n        \
                  self.keep_wav;\n    }\n}\n";
    assert_eq!(unread(config, "audio.target"), ["keep_wav", "key_file"]);
    assert_eq!(unread(config, "audio.target_lufs + audio.keep_wav"), ["key_file", "target"]);
    let reads = format!("{config}fn fill() {{ read(&audio.key_file, &mut audio.key) }}");
    assert_eq!(unread(&reads, "audio.target; audio.keep_wav"), Vec::<String>::new());
    assert_eq!(
        unread(&config.replace("self.keep_wav", "").replace("fn validate", "fn keeps"), "a.target a.key_file"),
        ["keep_wav"]
    );
    // What serde does not fill is no setting.
    assert_eq!(unread("#[derive(Debug)]\npub struct Other {\n    pub nobody: u8,\n}\n", ""), Vec::<String>::new());
}
