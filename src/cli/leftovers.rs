//! What an earlier `process` left in a folder: its manifest would vouch for files that are not of this run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::domain::Container;

/// Everything `process` has ever written, except the original, whose extension is that of its container.
/// The manifest goes first: whatever happens next, it no longer says that the rest is whole.
const NAMES: [&str; 10] = [
    "manifest.json",
    "audio.wav",
    "quality.json",
    "transcript.json",
    "transcript.txt",
    "transcript.vtt",
    "transcript.srt",
    "turns.rttm",
    "waveform.json",
    "waveform.png",
];

/// Removes an earlier run's files from `dir`, and nothing else: other names stay, and so does what is an input now.
///
/// # Errors
/// Names the file that is in the way.
pub(super) fn clear(dir: &Path, inputs: &[&Path]) -> Result<()> {
    let inputs: Vec<PathBuf> = inputs.iter().filter_map(|input| input.canonicalize().ok()).collect();
    let containers = Container::KNOWN.into_iter().chain([Container::Other]);
    let originals = containers.map(|container| format!("original.{}", container.extension()));
    for name in NAMES.into_iter().map(str::to_owned).chain(originals) {
        let path = dir.join(name);
        if path.canonicalize().is_ok_and(|path| inputs.contains(&path)) {
            continue;
        }
        match fs::remove_file(&path) {
            Err(err) if !matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(err).with_context(|| format!("--out: cannot remove {} of an earlier run", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_an_earlier_run_go_and_no_input_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let stay = ["original.mp3", "original.txt", "notes.txt", "transcript.txt", "manifest.json.bak", "my.wav"];
        let go = ["manifest.json", "original.wav", "original.bin", "audio.wav", "transcript.srt", "waveform.png"];
        for name in stay.iter().chain(&go) {
            fs::write(at(name), name).unwrap();
        }
        // The same file by another way.
        let input = dir.path().join(".").join("original.mp3");
        clear(dir.path(), &[&input, &at("transcript.txt"), Path::new("nowhere")]).unwrap();
        assert!(stay.iter().all(|name| at(name).exists()) && !go.iter().any(|name| at(name).exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), stay.len());
        clear(&at("not there"), &[]).unwrap();
    }
}
