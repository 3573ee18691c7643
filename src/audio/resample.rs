//! Resamples to 48 kHz for the output and to 16 kHz for speech, with rubato. The output lines up with the input: the
//! filter's delay is cut at the start and made up at the end.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use super::block::OUTPUT_RATE_HZ;
use super::error::AudioError;

/// Approximate input samples per transform. Longer is sharper at the band edge, shorter is faster.
const CHUNK: usize = 1024;

/// Resampler of one channel.
pub(super) struct Resampler {
    rate_hz: u32,
    output_rate_hz: u32,
    /// `None` where both rates are equal.
    fft: Option<Fft<f32>>,
    pending: Vec<f32>,
    scratch: Vec<f32>,
    /// Output samples still to drop because of the delay.
    skip: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// To 48 kHz.
    pub(super) fn new(rate_hz: u32) -> Result<Self, AudioError> {
        Self::between(rate_hz, OUTPUT_RATE_HZ)
    }

    pub(super) fn between(rate_hz: u32, output_rate_hz: u32) -> Result<Self, AudioError> {
        let fft = if rate_hz == output_rate_hz {
            None
        } else {
            // The rates relate in blocks of `unit`. With an odd number of samples the filter's centre would lie between
            // two samples.
            let unit = rate_hz / greatest_common_divisor(rate_hz, output_rate_hz);
            let made = Fft::new_custom(
                rate_hz as usize,
                output_rate_hz as usize,
                CHUNK.next_multiple_of(2 * unit as usize),
                1,
                1,
                rubato::WindowFunction::BlackmanHarris2,
                FixedSync::Both,
            );
            Some(made.map_err(|error| AudioError::Internal { what: "resampler", cause: error.to_string() })?)
        };
        let skip = fft.as_ref().map_or(0, rubato::Resampler::output_delay);
        Ok(Self { rate_hz, output_rate_hz, fft, pending: Vec::new(), scratch: Vec::new(), skip, taken: 0, given: 0 })
    }

    #[must_use]
    pub(super) const fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Appends the output that these samples complete.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), AudioError> {
        self.taken += samples.len() as u64;
        let Some(fft) = &self.fft else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        let chunk = fft.input_frames_next();
        self.pending.extend_from_slice(samples);
        let mut at = 0;
        while self.pending.len() - at >= chunk {
            self.chunk(at, chunk, out)?;
            at += chunk;
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// Puts out the rest. The output then has the duration of the input.
    pub(super) fn finish(mut self, out: &mut Vec<f32>) -> Result<(), AudioError> {
        let Some(fft) = &self.fft else { return Ok(()) };
        let chunk = fft.input_frames_next();
        let due = (u128::from(self.taken) * u128::from(self.output_rate_hz) + u128::from(self.rate_hz) / 2)
            / u128::from(self.rate_hz);
        while u128::from(self.given) < due {
            self.pending.resize(chunk, 0.0);
            let before = out.len();
            self.chunk(0, chunk, out)?;
            let over = u128::from(self.given).saturating_sub(due) as usize;
            out.truncate(out.len() - over.min(out.len() - before));
            self.pending.clear();
        }
        Ok(())
    }

    fn chunk(&mut self, at: usize, chunk: usize, out: &mut Vec<f32>) -> Result<(), AudioError> {
        let Some(fft) = &mut self.fft else { return Ok(()) };
        let internal = |cause: String| AudioError::Internal { what: "resampler", cause };
        let frames = fft.output_frames_next();
        self.scratch.resize(frames, 0.0);
        let input =
            InterleavedSlice::new(&self.pending[at..at + chunk], 1, chunk).map_err(|e| internal(e.to_string()))?;
        let mut output =
            InterleavedSlice::new_mut(&mut self.scratch, 1, frames).map_err(|e| internal(e.to_string()))?;
        let (_, made) =
            fft.process_into_buffer(&input, &mut output, None).map_err(|error| internal(error.to_string()))?;
        let skip = self.skip.min(made);
        self.skip -= skip;
        self.given += (made - skip) as u64;
        out.extend_from_slice(&self.scratch[skip..made]);
        Ok(())
    }
}

const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_stay_where_they_are() {
        for rate in [8_000u32, 11_025, 16_000, 44_100, 48_000, 96_000] {
            let wave = |n: usize, rate: u32| 0.5 * (std::f64::consts::TAU * 440.0 * n as f64 / f64::from(rate)).sin();
            let input: Vec<f32> = (0..rate as usize).map(|n| wave(n, rate) as f32).collect();
            let mut resampler = Resampler::new(rate).unwrap();
            let mut out = Vec::new();
            for chunk in input.chunks(977) {
                resampler.push(chunk, &mut out).unwrap();
            }
            resampler.finish(&mut out).unwrap();
            assert_eq!(out.len(), 48_000, "{rate}");
            let worst =
                (4_000..44_000).map(|n| (f64::from(out[n]) - wave(n, OUTPUT_RATE_HZ)).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-3, "{rate}: {worst}");
        }
    }

    #[test]
    fn a_few_samples_are_still_their_length() {
        let mut resampler = Resampler::new(8_000).unwrap();
        let mut out = Vec::new();
        resampler.push(&[0.25; 7], &mut out).unwrap();
        resampler.finish(&mut out).unwrap();
        assert_eq!(out.len(), 42);
    }
}
