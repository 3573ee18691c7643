//! MPEG audio layer III (ISO/IEC 11172-3, ISO/IEC 13818-3 and the half rates of MPEG 2.5), one frame at a time: most calls
//! come in it, and decoding it is most of what the audio stage costs.

mod bands;
pub mod bits;
mod codes;
mod hybrid;
mod side_info;
mod spectrum;
mod stereo;
mod synthesis;
#[cfg(test)]
mod tests;
mod window;

use fearless_simd::Simd;

use self::bands::LINES;
use self::bits::Bits;
use self::hybrid::{Hybrid, Rows, SLOTS, SUBBANDS, reorder};
use self::side_info::{Form, SideInfo, Windows};
use self::spectrum::Spectrum;
use self::synthesis::Synthesis;
use super::frames::FrameHeader;

/// The most a frame may lean on, bytes (nine bits of `main_data_begin`).
const RESERVOIR: usize = 511;

/// A frame that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// What a decoder remembers.
#[derive(Debug, Default)]
pub struct Layer3 {
    /// The last bytes of past frames, and those of the frame at hand.
    reservoir: Vec<u8>,
    spectra: [Spectrum; 2],
    hybrid: [Hybrid; 2],
    synthesis: [Synthesis; 2],
}

impl Layer3 {
    /// Decodes a whole frame into `planes`. Of a frame that leans on bytes which are not there, what begins in them comes out
    /// as silence, in which the sound before rings out.
    pub fn decode(&mut self, header: &FrameHeader, frame: &[u8], planes: &mut Vec<Vec<f32>>) -> Result<(), Broken> {
        let form = Form::of(frame, header.rate_hz)?;
        planes.resize_with(form.channels, Vec::new);
        for plane in &mut *planes {
            plane.resize(form.granules() * LINES, 0.0);
        }
        let info = SideInfo::read(frame, &form);
        let start = self.take(&frame[form.side.1..], info.as_ref().map_or(0, |info| info.leans_on));
        let mut info = info.inspect_err(|_| self.reservoir.clear())?;
        let mut at = start;
        for granule in 0..form.granules() {
            let codings = &info.codings[granule][..form.channels];
            let bits: usize = codings.iter().map(|coding| coding.bits).sum();
            let mut windows = [Windows::Long; 2];
            match usize::try_from(at) {
                Ok(from) => {
                    self.read(&form, &mut info, granule, from).inspect_err(|_| self.reservoir.clear())?;
                    windows = [0, 1].map(|channel| info.codings[granule][channel].windows);
                }
                Err(_) => self.spectra.iter_mut().for_each(Spectrum::clear),
            }
            at += bits as isize;
            let level = fearless_simd::Level::new();
            fearless_simd::dispatch!(level, simd => self.sound(simd, &form, windows, granule, planes));
        }
        Ok(())
    }

    /// Takes a frame's bytes; where in the reservoir the spectra begin, in bits: less than 0 when that is not there any more.
    fn take(&mut self, bytes: &[u8], leans_on: usize) -> isize {
        let gone = self.reservoir.len().saturating_sub(RESERVOIR);
        self.reservoir.drain(..gone);
        let start = self.reservoir.len() as isize - leans_on as isize;
        self.reservoir.extend_from_slice(bytes);
        start * 8
    }

    fn read(&mut self, form: &Form, info: &mut SideInfo, granule: usize, mut at: usize) -> Result<(), Broken> {
        for channel in 0..form.channels {
            let spectrum = &mut self.spectra[channel];
            let before = spectrum.factors;
            spectrum.read(Bits::new(&self.reservoir, at), form, info, (granule, channel), &before)?;
            at += info.codings[granule][channel].bits;
        }
        if form.channels == 2 {
            let [first, second] = &info.codings[granule];
            let joint = form.joint.intensity || form.joint.mid_side;
            if joint && first.windows != second.windows {
                return Err(Broken);
            }
            stereo::separate(&mut self.spectra, form, second);
        }
        Ok(())
    }

    // Compiled for each instruction set where it is inlined.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn sound<S: Simd>(&mut self, simd: S, form: &Form, windows: [Windows; 2], granule: usize, planes: &mut [Vec<f32>]) {
        let mut rows: Rows = [[0.0; SUBBANDS]; SLOTS];
        for (channel, plane) in planes.iter_mut().enumerate() {
            let spectrum = &mut self.spectra[channel];
            let windows = windows[channel];
            reorder(&mut spectrum.lines, form.bands, windows);
            // Reordering moves lines within their band.
            let filled = if windows.are_short() && spectrum.filled > 0 { LINES } else { spectrum.filled };
            self.hybrid[channel].run(simd, &spectrum.lines, filled, windows, &mut rows);
            if let Some(out) = plane.as_chunks_mut::<LINES>().0.get_mut(granule) {
                self.synthesis[channel].run(simd, &rows, out);
            }
        }
    }
}
