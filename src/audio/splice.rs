//! A new header in front of a byte range of a file, for a reader that trusts lengths in headers.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use symphonia::core::io::MediaSource;

#[derive(Debug)]
pub(super) struct Splice {
    header: Vec<u8>,
    file: File,
    sound: Range<u64>,
    at: u64,
}

impl Splice {
    #[must_use]
    pub(super) const fn new(header: Vec<u8>, file: File, sound: Range<u64>) -> Self {
        Self { header, file, sound, at: 0 }
    }

    fn len(&self) -> u64 {
        self.header.len() as u64 + (self.sound.end - self.sound.start)
    }
}

impl Read for Splice {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let header = self.header.len() as u64;
        let read = if self.at < header {
            let rest = &self.header[self.at as usize..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        } else {
            let from = self.sound.start.saturating_add(self.at - header);
            let left = self.sound.end.saturating_sub(from).min(buffer.len() as u64) as usize;
            // Beyond the end the file is not read: the offset may exceed the valid range.
            if left == 0 { 0 } else { self.file.read_at(&mut buffer[..left], from)? }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Splice {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl MediaSource for Splice {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn header_and_segment_are_read_as_one() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut splice = Splice::new(b"head".to_vec(), file, 3..7);
        let mut whole = String::new();
        splice.read_to_string(&mut whole).unwrap();
        assert_eq!((whole.as_str(), splice.byte_len()), ("head3456", Some(8)));
        splice.seek(SeekFrom::End(-3)).unwrap();
        let mut rest = String::new();
        splice.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "456");
        assert!(
            splice.seek(SeekFrom::Start(u64::MAX)).is_ok_and(|_| splice.read(&mut [0; 4]).is_ok_and(|read| read == 0))
        );
    }
}
