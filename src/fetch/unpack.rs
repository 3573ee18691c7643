//! Turns a received body into the recording: removes content codings and refuses bodies that are not a recording.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use tempfile::NamedTempFile;

use super::error::FetchError;
use super::partial::{HEAD_BYTES, Received};
use super::sniff;
use crate::coding;
use crate::coding::{Coding, Codings, End, Layer};
use crate::domain::Sha256;

/// Number of bytes that audio recognition needs.
const SNIFF_BYTES: u64 = 64 * 1024;
const BLOCK_BYTES: usize = 256 * 1024;
/// Most gzip layers that are removed without being named.
const MOST_UNNAMED: usize = 3;

/// Recognises audio by its first bytes.
pub type LooksLikeAudio = fn(&[u8]) -> bool;

/// Rules of unpacking.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub codings: Codings,
    pub limit_bytes: u64,
    pub looks_like_audio: LooksLikeAudio,
    pub host: String,
}

/// A recording under its final name.
#[derive(Debug)]
pub(super) struct Plain {
    pub size_bytes: u64,
    pub sha256: Sha256,
    pub head: Vec<u8>,
    /// The packed bytes ended early. The unpacked part is kept.
    pub is_short: bool,
}

/// Unpacks the received body and renames it to its final name. A refused body is removed.
///
/// # Errors
/// [`FetchError`]: too large, empty, not a recording, or a disk error.
pub(super) fn settle(received: Received, dest: &Path, rules: &Rules) -> Result<Plain, FetchError> {
    let failed = |source| FetchError::Spool { path: dest.to_owned(), source };
    let part = received.part.clone();
    let settled = unpacked(received, dest, rules).and_then(|peeled| {
        peeled.check()?;
        match peeled.content {
            Content::Layer(file) => {
                file.as_file().sync_all().map_err(failed)?;
                file.persist(dest).map_err(|err| failed(err.error))?;
                std::fs::remove_file(&part).map_err(failed)?;
            }
            Content::Part(part) => std::fs::rename(part, dest).map_err(failed)?,
        }
        Ok(peeled.plain)
    });
    if settled.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    settled
}

/// The file with the current bytes.
enum Content {
    Part(PathBuf),
    Layer(NamedTempFile),
}

impl Content {
    fn path(&self) -> &Path {
        match self {
            Self::Part(path) => path,
            Self::Layer(file) => file.path(),
        }
    }
}

fn unpacked<'a>(received: Received, dest: &'a Path, rules: &'a Rules) -> Result<Peeling<'a>, FetchError> {
    let Received { part, sha256, size_bytes, head } = received;
    let plain = Plain { size_bytes, sha256, head, is_short: false };
    let mut peeling = Peeling { dest, rules, content: Content::Part(part), plain };
    for coding in rules.codings.outermost_first() {
        peeling.take_off(coding, |_| true)?;
    }
    // A layer that was not named is removed only when its content is known.
    let is_known = |inside: &[u8]| {
        coding::is_gzip(inside) || sniff::text_kind(inside).is_some() || (rules.looks_like_audio)(inside)
    };
    for _ in 0..MOST_UNNAMED {
        if !coding::is_gzip(&peeling.plain.head) || !peeling.take_off(Coding::Gzip, is_known)? {
            break;
        }
    }
    Ok(peeling)
}

/// A body while its layers are removed.
struct Peeling<'a> {
    dest: &'a Path,
    rules: &'a Rules,
    content: Content,
    plain: Plain,
}

impl Peeling<'_> {
    /// Removes one coding when the bytes are packed with it and pass `wanted`. Otherwise the bytes stay as they are.
    fn take_off(&mut self, coding: Coding, wanted: impl Fn(&[u8]) -> bool) -> Result<bool, FetchError> {
        for layer in coding.layers(&self.plain.head) {
            let (file, plain, end) = self.unpack(*layer)?;
            // Packers store incompressible bytes unchanged. So audio frames can be visible inside a packed body without
            // magic bytes.
            let is_plain =
                || -> Result<bool, FetchError> { Ok(!layer.has_mark() && self.looks_like_audio(self.content.path())?) };
            let is_wanted = match end {
                End::OverLimit if is_plain()? => false,
                End::OverLimit => {
                    let limit_bytes = self.rules.limit_bytes;
                    return Err(FetchError::TooLarge { limit_bytes, size_bytes: limit_bytes.saturating_add(1) });
                }
                End::Whole => {
                    let inside = self.head_of(file.path())?;
                    wanted(&inside) && ((self.rules.looks_like_audio)(&inside) || !is_plain()?)
                }
                // The beginning of a recording, possibly packed once more. Junk that happens to unpack stops early.
                End::Broken => {
                    let is_beginning = coding::is_gzip(&plain.head) || self.looks_like_audio(file.path())?;
                    is_beginning && (plain.size_bytes > self.plain.size_bytes / 2 || !is_plain()?)
                }
            };
            if is_wanted {
                let is_short = self.plain.is_short || end == End::Broken;
                self.plain = Plain { is_short, ..plain };
                self.content = Content::Layer(file);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn looks_like_audio(&self, path: &Path) -> Result<bool, FetchError> {
        Ok((self.rules.looks_like_audio)(&self.head_of(path)?))
    }

    fn head_of(&self, path: &Path) -> Result<Vec<u8>, FetchError> {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(SNIFF_BYTES).read_to_end(&mut head));
        read.map_err(|source| self.failed(source))?;
        Ok(head)
    }

    /// Refuses a body that is not a recording.
    fn check(&self) -> Result<(), FetchError> {
        let (host, size_bytes) = (self.rules.host.clone(), self.plain.size_bytes);
        if size_bytes == 0 {
            return Err(FetchError::Empty { host });
        }
        if let Some(what) = sniff::text_kind(&self.plain.head) {
            return Err(FetchError::NotARecording { host, what, size_bytes });
        }
        if self.rules.codings.has_foreign() && !self.looks_like_audio(self.content.path())? {
            return Err(FetchError::NotARecording { host, what: "a body in an unknown content coding", size_bytes });
        }
        Ok(())
    }

    fn unpack(&self, layer: Layer) -> Result<(NamedTempFile, Plain, End), FetchError> {
        let folder = self.dest.parent().unwrap_or_else(|| Path::new("."));
        let made = tempfile::Builder::new().prefix(".unpacked-").tempfile_in(folder);
        let mut file = made.map_err(|source| self.failed(source))?;
        let (plain, end) = self.unpack_to(layer, file.as_file_mut()).map_err(|source| self.failed(source))?;
        Ok((file, plain, end))
    }

    fn unpack_to(&self, layer: Layer, file: &mut File) -> io::Result<(Plain, End)> {
        let mut packed = BufReader::with_capacity(BLOCK_BYTES, File::open(self.content.path())?);
        let mut sink = Digested { file: BufWriter::new(file), hasher: sha2::Sha256::default(), head: Vec::new() };
        let unpacked = coding::unpack(layer, &mut packed, self.rules.limit_bytes, &mut sink)?;
        sink.flush()?;
        let sha256 = Sha256::from_bytes(sink.hasher.finalize().into());
        Ok((Plain { size_bytes: unpacked.size_bytes, sha256, head: sink.head, is_short: false }, unpacked.end))
    }

    fn failed(&self, source: io::Error) -> FetchError {
        FetchError::Spool { path: self.dest.to_owned(), source }
    }
}

/// A file whose digest and first bytes are recorded while it is written.
struct Digested<'a> {
    file: BufWriter<&'a mut File>,
    hasher: sha2::Sha256,
    head: Vec<u8>,
}

impl Write for Digested<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
