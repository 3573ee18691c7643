//! Decodes GSM 06.10 full rate in WAV as telephone exchanges write it: two frames in 65 bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use oxideav_gsm::{DecoderState, FRAME_SAMPLES, MSGSM_BLOCK_LEN, MSGSM_BLOCK_SAMPLES, UnpackedFrame};

use super::block::Block;
use super::decoder::{Decode, Facts, Missing, Step, guarded, undecodable};
use super::error::AudioError;

/// Pairs of frames per block: 0.4 s at 8 kHz.
const PAIRS: usize = 10;

/// Decoder of a byte range of a file.
pub(super) struct Gsm {
    reader: std::io::Take<BufReader<File>>,
    decoder: DecoderState,
    bytes: Vec<u8>,
    facts: Facts,
}

impl Gsm {
    pub(super) fn open(path: &Path, rate_hz: u32, sound: Range<u64>) -> Result<Self, AudioError> {
        if rate_hz == 0 {
            return Err(undecodable("the header gives no rate"));
        }
        let mut file = File::open(path).map_err(AudioError::io("open"))?;
        file.seek(SeekFrom::Start(sound.start)).map_err(AudioError::io("read"))?;
        let mut facts = Facts::new("gsm");
        facts.saw(rate_hz, 1);
        let reader = BufReader::with_capacity(64 * 1024, file).take(sound.end.saturating_sub(sound.start));
        Ok(Self { reader, decoder: DecoderState::new(), bytes: Vec::new(), facts })
    }
}

impl Decode for Gsm {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        self.bytes.clear();
        let wanted = (PAIRS * MSGSM_BLOCK_LEN) as u64;
        (&mut self.reader).take(wanted).read_to_end(&mut self.bytes).map_err(AudioError::io("read"))?;
        let pairs = self.bytes.as_chunks::<MSGSM_BLOCK_LEN>().0;
        if pairs.is_empty() {
            return Ok(Step::End);
        }
        let frames = pairs.len() * MSGSM_BLOCK_SAMPLES;
        block.set_silence(self.facts.rate_hz, 1, frames);
        let (decoder, plane) = (&mut self.decoder, &mut block.planes[0]);
        let decoded = guarded(|| {
            for (pair, samples) in pairs.iter().zip(plane.chunks_exact_mut(MSGSM_BLOCK_SAMPLES)) {
                let (first, second) = UnpackedFrame::pair_from_msgsm_block(pair).ok()?;
                for (frame, samples) in [first, second].iter().zip(samples.chunks_exact_mut(FRAME_SAMPLES)) {
                    for (to, sample) in samples.iter_mut().zip(decoder.decode_frame(frame)) {
                        *to = f32::from(sample) / 32_768.0;
                    }
                }
            }
            Some(())
        });
        if decoded.flatten().is_none() {
            self.decoder = DecoderState::new();
            return Ok(Step::Lost(Missing { frames: frames as u64, rate_hz: self.facts.rate_hz, channels: 1 }));
        }
        Ok(Step::Audio)
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }
}
