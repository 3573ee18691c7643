//! Content codings (RFC 9110 section 8.4): which codings a body has, and how to remove them. Hosts name codings that
//! they did not apply and apply codings that they do not name. So the first bytes of the body decide wherever possible.

use std::io::{self, BufRead, Read, Write};

use brotli_decompressor::BrotliDecoderParameter;
use brotli_decompressor::Decompressor;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

/// Value of our `Accept-Encoding` header.
pub(crate) const ACCEPTED: &str = "gzip, deflate, br";
/// A body with more layers than this is refused as hostile.
const MOST_LAYERS: usize = 4;
const BLOCK_BYTES: usize = 64 * 1024;

/// A word of a `Content-Encoding` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// Should be zlib (RFC 1950). Many hosts send raw deflate (RFC 1951).
    Deflate,
    Brotli,
    /// Not a coding of a body, but a transfer coding or a character set.
    Foreign,
}

/// The codings of a body, in the order in which they were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Codings(Vec<Coding>);

/// One way to unpack bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 1950.
    Zlib,
    /// RFC 1951, without a frame.
    Deflate,
    /// RFC 7932.
    Brotli,
}

/// How unpacking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// The bytes end too early, or they are not in this format.
    Broken,
    /// The output is larger than allowed. The allowed part was written.
    OverLimit,
}

/// Result of unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub size_bytes: u64,
    pub end: End,
}

impl Codings {
    /// Reads the values of all header lines.
    pub(crate) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let words = values.into_iter().flat_map(|value| value.split(','));
        let codings = words.map(|word| word.trim().trim_matches('"').to_ascii_lowercase());
        Self(codings.filter(|word| !matches!(word.as_str(), "" | "identity")).map(|word| named(&word)).collect())
    }

    /// True when the header names at least one known coding.
    #[must_use]
    pub(crate) fn is_packed(&self) -> bool {
        self.0.iter().any(|coding| *coding != Coding::Foreign)
    }

    /// True when the header contains a word that names no known coding.
    #[must_use]
    pub(crate) fn has_foreign(&self) -> bool {
        self.0.contains(&Coding::Foreign)
    }

    /// The known codings, outermost layer first.
    pub(crate) fn outermost_first(&self) -> impl Iterator<Item = Coding> + '_ {
        self.0.iter().rev().copied().filter(|coding| *coding != Coding::Foreign).take(MOST_LAYERS)
    }
}

fn named(word: &str) -> Coding {
    match word {
        "gzip" | "x-gzip" => Coding::Gzip,
        "deflate" => Coding::Deflate,
        "br" => Coding::Brotli,
        _ => Coding::Foreign,
    }
}

impl Coding {
    /// Possible layers of a body with this coding name and these first bytes, most likely first.
    #[must_use]
    pub(crate) fn layers(self, head: &[u8]) -> &'static [Layer] {
        match self {
            Self::Gzip if is_gzip(head) => &[Layer::Gzip],
            Self::Deflate if is_zlib(head) => &[Layer::Zlib, Layer::Deflate],
            Self::Deflate => &[Layer::Deflate],
            Self::Brotli => &[Layer::Brotli],
            Self::Gzip | Self::Foreign => &[],
        }
    }
}

impl Layer {
    /// True when the format starts with magic bytes.
    #[must_use]
    pub(crate) const fn has_mark(self) -> bool {
        matches!(self, Self::Gzip | Self::Zlib)
    }
}

/// True when the bytes start like a gzip member.
#[must_use]
pub(crate) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8])
}

/// Method 8, a window of at most 32 KiB, and the check bits (RFC 1950 section 2.2).
fn is_zlib(head: &[u8]) -> bool {
    let [method, flags, ..] = head else { return false };
    method & 0x8f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0
}

/// Unpacks one layer into `sink`, at most `limit` bytes.
///
/// # Errors
/// Only the errors of `sink`. Bytes that cannot be unpacked end as [`End::Broken`].
pub(crate) fn unpack(
    layer: Layer,
    packed: &mut impl BufRead,
    limit: u64,
    sink: &mut impl Write,
) -> io::Result<Unpacked> {
    let mut out = Counted { sink, size_bytes: 0, limit, block: vec![0; BLOCK_BYTES] };
    let end = match layer {
        Layer::Gzip => members(packed, &mut out)?,
        Layer::Zlib => copy(&mut ZlibDecoder::new(packed), &mut out)?,
        Layer::Deflate => {
            let mut decoder = DeflateDecoder::new(packed);
            match copy(&mut decoder, &mut out)? {
                // Raw deflate has no frame. Only an end at the last byte separates it from junk.
                End::Whole if !at_end(decoder.get_mut()) => End::Broken,
                end => end,
            }
        }
        Layer::Brotli => {
            let mut decoder = Decompressor::new(packed, BLOCK_BYTES);
            // Windows of up to 1 GiB are not part of RFC 7932.
            decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
            copy(&mut decoder, &mut out)?
        }
    };
    Ok(Unpacked { size_bytes: out.size_bytes, end })
}

/// Unpacks every member of a gzip file. Bytes after the last member are ignored.
fn members<W: Write>(mut packed: &mut impl BufRead, out: &mut Counted<'_, W>) -> io::Result<End> {
    loop {
        let mut decoder = GzDecoder::new(packed);
        let end = copy(&mut decoder, out)?;
        packed = decoder.into_inner();
        let more = packed.fill_buf().is_ok_and(is_gzip);
        if end != End::Whole || !more {
            return Ok(end);
        }
    }
}

struct Counted<'a, W> {
    sink: &'a mut W,
    size_bytes: u64,
    limit: u64,
    block: Vec<u8>,
}

fn copy<W: Write>(from: &mut impl Read, out: &mut Counted<'_, W>) -> io::Result<End> {
    loop {
        let read = match from.read(&mut out.block) {
            Ok(0) => return Ok(End::Whole),
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(End::Broken),
        };
        let room = usize::try_from(out.limit - out.size_bytes).unwrap_or(usize::MAX);
        let bytes = out.block.get(..read.min(room)).unwrap_or_default();
        out.sink.write_all(bytes)?;
        out.size_bytes += bytes.len() as u64;
        if read > room {
            return Ok(End::OverLimit);
        }
    }
}

fn at_end(reader: &mut impl BufRead) -> bool {
    reader.fill_buf().is_ok_and(<[u8]>::is_empty)
}

/// The unpacked body would be larger than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} bytes when unpacked")]
pub(crate) struct OverLimit {
    pub limit: usize,
}

/// Removes the named codings of a body in memory, and gzip layers that were not named. A layer that cannot be removed
/// stays as it is.
pub(crate) fn unpack_bytes(body: Vec<u8>, codings: &Codings, limit: usize) -> Result<Vec<u8>, OverLimit> {
    let mut body = body;
    for coding in codings.outermost_first() {
        body = without(body, coding, limit)?;
    }
    for _ in 0..MOST_LAYERS {
        if !is_gzip(&body) {
            break;
        }
        body = without(body, Coding::Gzip, limit)?;
    }
    Ok(body)
}

fn without(body: Vec<u8>, coding: Coding, limit: usize) -> Result<Vec<u8>, OverLimit> {
    for layer in coding.layers(&body) {
        let mut plain = Vec::new();
        let unpacked = unpack(*layer, &mut body.as_slice(), limit as u64, &mut plain);
        match unpacked.map(|unpacked| unpacked.end) {
            Ok(End::Whole) => return Ok(plain),
            Ok(End::OverLimit) => return Err(OverLimit { limit }),
            // The body was truncated. The parser decides whether the first part is usable.
            Ok(End::Broken) if *layer == Layer::Gzip && !plain.is_empty() => return Ok(plain),
            Ok(End::Broken) | Err(_) => {}
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const PLAIN: &[u8] = b"{\"calls\":[{\"id\":\"call_1\"},{\"id\":\"call_2\"},{\"id\":\"call_3\"}]}";

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// One uncompressed meta-block and the empty last one (RFC 7932 section 9.2).
    fn brotli(plain: &[u8]) -> Vec<u8> {
        let bits = (plain.len() as u32 - 1) << 4 | 1 << 20;
        [&bits.to_le_bytes()[..3], plain, &[3]].concat()
    }

    fn unpacked(body: &[u8], header: &str) -> Vec<u8> {
        unpack_bytes(body.to_vec(), &Codings::of([header]), 1 << 20).unwrap()
    }

    #[test]
    fn every_coding_is_taken_off_by_its_names() {
        for name in ["gzip", "x-gzip", "GZIP", " gzip ", "gzip, identity", "identity,gzip,", "\"gzip\""] {
            assert_eq!(unpacked(&gzip(PLAIN), name), PLAIN, "{name}");
        }
        assert_eq!(unpacked(&zlib(PLAIN), "deflate"), PLAIN);
        assert_eq!(unpacked(&deflate(PLAIN), "deflate"), PLAIN);
        assert_eq!(unpacked(&brotli(PLAIN), "br"), PLAIN);
    }

    #[test]
    fn layers_come_off_in_reverse_order() {
        assert_eq!(unpacked(&gzip(&gzip(PLAIN)), "gzip, gzip"), PLAIN);
        assert_eq!(unpacked(&gzip(&brotli(PLAIN)), "br, gzip"), PLAIN);
        assert_eq!(unpacked(&brotli(&zlib(PLAIN)), "deflate, br"), PLAIN);
        let two_lines = Codings::of(["deflate", "gzip"]);
        assert_eq!(unpack_bytes(gzip(&deflate(PLAIN)), &two_lines, 1 << 20).unwrap(), PLAIN);
        assert_eq!(unpacked(&gzip(PLAIN), "aws-chunked, gzip"), PLAIN);
    }

    #[test]
    fn what_is_not_packed_stays_and_what_is_packed_unnamed_does_not() {
        for name in ["", "identity", "gzip", "deflate", "br", "gzip, gzip", "aws-chunked", "utf-8", "binary", "none"] {
            assert_eq!(unpacked(PLAIN, name), PLAIN, "{name}");
        }
        for name in ["", "identity", "utf-8", "br", "deflate", "gzip"] {
            assert_eq!(unpacked(&gzip(PLAIN), name), PLAIN, "{name}");
        }
        assert_eq!(unpacked(&gzip(&gzip(PLAIN)), "gzip"), PLAIN, "packed once more than it says");
    }

    #[test]
    fn members_and_padding_make_one_body() {
        let two = [gzip(&PLAIN[..20]), gzip(&PLAIN[20..]), vec![0; 512]].concat();
        assert_eq!(unpacked(&two, "gzip"), PLAIN);
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let zeros = vec![0; 4 << 20];
        for (body, name) in [(gzip(&zeros), "gzip"), (zlib(&zeros), "deflate"), (gzip(&gzip(&zeros)), "gzip")] {
            let codings = Codings::of([name]);
            assert_eq!(unpack_bytes(body.clone(), &codings, (4 << 20) - 1), Err(OverLimit { limit: (4 << 20) - 1 }));
            assert_eq!(unpack_bytes(body, &codings, 4 << 20).unwrap().len(), 4 << 20, "the limit itself is allowed");
        }
    }

    #[test]
    fn a_cut_body_and_bytes_of_any_kind_never_fail() {
        let whole = gzip(PLAIN);
        for cut in 0..whole.len() {
            let plain = unpacked(&whole[..cut], "gzip");
            assert!(PLAIN.starts_with(&plain) || plain == whole[..cut], "{cut}");
        }
        let mut state = 1_u32;
        for _ in 0..500 {
            let mut junk = Vec::new();
            for _ in 0..64 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                junk.push((state >> 24) as u8);
            }
            for name in ["br", "deflate", "gzip"] {
                let _ = unpack_bytes(junk.clone(), &Codings::of([name]), 1 << 20);
            }
        }
    }
}
