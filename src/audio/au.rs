//! Reads AU, the sound file of Sun and NeXT: a header of six big-endian words, then the samples.

use std::path::Path;

use super::chunks::Places;
use super::decoder::{Decode, undecodable};
use super::error::AudioError;
use super::layout::Layout;
use super::pcm::{Order, Pcm, PcmShape, SampleCoding, SampleForm};

/// Opens an AU file. The length in the header is ignored, because only samples follow the header.
pub(super) fn open(path: &Path) -> Result<Box<dyn Decode>, AudioError> {
    let places = Places::open(path).map_err(AudioError::io("open"))?;
    let header = places.exactly::<24>(0).map_err(AudioError::io("read"))?;
    let Some(header) = header else { return Err(undecodable("the AU header is cut off")) };
    let [_, offset, _, encoding, rate_hz, channels] = words(&header);
    let coding = match encoding {
        1 => SampleCoding::MuLaw,
        2 => SampleCoding::S8,
        3 => SampleCoding::S16,
        4 => SampleCoding::S24,
        5 => SampleCoding::S32,
        6 => SampleCoding::F32,
        7 => SampleCoding::F64,
        27 => SampleCoding::ALaw,
        other => return Err(AudioError::Unsupported { codec: unread(other) }),
    };
    let shape = PcmShape {
        form: SampleForm { coding, order: Order::Big },
        rate_hz,
        channels: u16::try_from(channels).unwrap_or(u16::MAX),
        layout: Layout::default(),
    };
    let begin = u64::from(offset).max(24).min(places.total());
    let file = std::fs::File::open(path).map_err(AudioError::io("open"))?;
    Ok(Box::new(Pcm::open(file, shape, begin..places.total())?))
}

fn words(header: &[u8; 24]) -> [u32; 6] {
    let mut words = [0; 6];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

/// The name of an encoding that is not supported.
fn unread(encoding: u32) -> String {
    let name = match encoding {
        23 => "g721",
        24 => "g722",
        25 => "g723_24",
        26 => "g723_40",
        _ => "unknown",
    };
    format!("{name} (AU encoding {encoding})")
}
