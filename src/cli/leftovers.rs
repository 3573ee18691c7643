//! Removal of the files of an earlier `process` run. A folder and the inputs of this run go in. Without the removal, an
//! old manifest could describe files of the new run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::domain::Container;

/// All file names of `process` except the original, which has the extension of its container. The manifest is removed
/// first. After a failure in between, no manifest describes a part of the files.
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

/// Removes the files of an earlier run from `dir`. Files with other names and the inputs of this run stay.
///
/// # Errors
/// A file cannot be removed. The error names the file.
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
        // Another path of the same file.
        let input = dir.path().join(".").join("original.mp3");
        clear(dir.path(), &[&input, &at("transcript.txt"), Path::new("nowhere")]).unwrap();
        assert!(stay.iter().all(|name| at(name).exists()) && !go.iter().any(|name| at(name).exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), stay.len());
        clear(&at("not there"), &[]).unwrap();
    }
}
