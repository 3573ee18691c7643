//! Selects the decoder of a file by its container.

use std::path::Path;

use super::aiff;
use super::au;
use super::chunks;
use super::contained::Contained;
use super::decoder::Decode;
use super::elementary::Elementary;
use super::error::AudioError;
use super::foreign;
use super::frames::FrameSyntax;
use super::free_format::FreeFormat;
use super::ogg::Ogg;
use super::riff;
use crate::domain::Container;

/// Opens a file. The container comes from its bytes.
///
/// # Errors
/// An unsupported codec with its name, a file in which nothing decodes, or a file that cannot be read.
pub(super) fn open(path: &Path, container: Container) -> Result<Box<dyn Decode>, AudioError> {
    reader(path, container).map_err(|error| foreign::explained(error, path, container))
}

fn reader(path: &Path, container: Container) -> Result<Box<dyn Decode>, AudioError> {
    match container {
        Container::Mp3 => match FreeFormat::open(path)? {
            Some(free) => Ok(Box::new(free)),
            None => Ok(Box::new(Elementary::open(path, FrameSyntax::Mpeg, 0..u64::MAX)?)),
        },
        Container::Adts => Ok(Box::new(Elementary::open(path, FrameSyntax::Adts, 0..u64::MAX)?)),
        Container::Wav => riff::open(path, chunks::ChunkSyntax::Riff),
        Container::Wave64 => riff::open(path, chunks::ChunkSyntax::Wave64),
        Container::Aiff => aiff::open(path),
        Container::Au => au::open(path),
        Container::Ogg => Ok(Box::new(Ogg::open(path)?)),
        Container::Mp4 | Container::Flac | Container::Matroska => Ok(Box::new(Contained::open(path, container)?)),
        Container::Other => Err(AudioError::UnknownContainer),
    }
}
