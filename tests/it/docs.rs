//! The pages a reader starts from: their links lead somewhere, their commands exist, and the README stays short.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGES: &[&str] = &[
    "README.md",
    "benches/README.md",
    "benches/training/README.md",
    "deploy/README.md",
    "src/audio/README.md",
    "src/transcript/README.md",
    "src/transcript/sample_model/README.md",
    ".github/CONTRIBUTING.md",
    ".github/decisions.md",
];
const MOST_README_LINES: usize = 200;

#[test]
fn the_readme_has_at_most_200_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= MOST_README_LINES, "README.md has {lines} lines");
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in PAGES {
        for link in links(&read(page)) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = root().join(page).parent().map(Path::to_path_buf).unwrap_or_default();
            if !folder.join(target).exists() {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Each `aftercall …` command of a shell block, with `--help` at its end: clap refuses commands that do not exist.
#[test]
fn every_command_named_in_a_page_exists() {
    let mut unknown = Vec::new();
    let mut seen = 0;
    for page in PAGES {
        for words in commands(&read(page)) {
            seen += 1;
            let known = help_of(&words).is_some_and(|help| names_all(&help, &words));
            if !known {
                unknown.push(format!("{page}: aftercall {}", words.join(" ")));
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found in the pages");
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}

#[test]
fn links_and_commands_are_found() {
    let page = "See [a](x/y.md#z) and [b](https://h.test).\n```sh\naftercall jobs list --json   # all\n```\nor `aftercall run`.";
    assert_eq!(links(page), ["x/y.md#z", "https://h.test"]);
    assert_eq!(commands(page), [vec!["jobs", "list", "--json"], vec!["run"]]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The targets of `[text](target)`.
fn links(page: &str) -> Vec<&str> {
    page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// What follows `aftercall ` in shell blocks and in code spans, as words.
fn commands(page: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
        } else if in_block {
            found.extend(line.split("aftercall ").nth(1).map(words));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(|span| span.strip_prefix("aftercall ")).map(words));
        }
    }
    found.retain(|words| !words.is_empty());
    found
}

fn words(command: &str) -> Vec<String> {
    let end = command.find([')', '#', '&', '|']).unwrap_or(command.len());
    command[..end].split_whitespace().map(|word| word.trim_matches('`').to_owned()).collect()
}

/// The help text of the command that these words begin with; none where clap does not know it.
fn help_of(words: &[String]) -> Option<String> {
    let help = |path: &[String]| {
        let output = Command::new(env!("CARGO_BIN_EXE_aftercall")).args(path).arg("--help").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let first = help(&words[..1])?;
    match words.get(1) {
        Some(second) if first.contains("Commands:") && is_plain(second) => help(&words[..2]),
        _ => Some(first),
    }
}

fn is_plain(word: &str) -> bool {
    word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !word.starts_with('-')
}

/// Whether a help text names every option of the command.
fn names_all(help: &str, words: &[String]) -> bool {
    words.iter().filter(|word| word.starts_with("--")).all(|option| help.contains(option.as_str()))
}
