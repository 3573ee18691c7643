//! Waveform data and picture of a recording: peaks in the format of audiowaveform (version 2, 8 bits), and a PNG with
//! coloured turns.

use std::fmt::Write as _;

use super::block::OUTPUT_RATE_HZ;
use super::error::AudioError;
use crate::domain::transcript::Turn;
use crate::domain::{Role, Transcript};

/// Peaks per second.
const PIXELS_PER_SECOND: u32 = 20;
const SAMPLES_PER_PIXEL: u32 = OUTPUT_RATE_HZ / PIXELS_PER_SECOND;
/// Size of the picture, pixels. A short call has a narrower one.
const MAX_WIDTH: usize = 1800;
const MIN_WIDTH: usize = 300;
const HEIGHT: usize = 160;

/// Lowest and highest sample of each twentieth of a second, as 8-bit values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waveform {
    peaks: Vec<(i8, i8)>,
    low: i16,
    high: i16,
    count: u32,
}

impl Waveform {
    pub fn push(&mut self, mut samples: &[i16]) {
        while !samples.is_empty() {
            let take = ((SAMPLES_PER_PIXEL - self.count) as usize).min(samples.len());
            for &sample in &samples[..take] {
                self.low = self.low.min(sample);
                self.high = self.high.max(sample);
            }
            samples = &samples[take..];
            self.count += take as u32;
            if self.count == SAMPLES_PER_PIXEL {
                self.end_pixel();
            }
        }
    }

    /// Closes the last, shorter pixel.
    pub fn finish(&mut self) {
        if self.count > 0 {
            self.end_pixel();
        }
    }

    fn end_pixel(&mut self) {
        self.peaks.push(((self.low >> 8) as i8, (self.high >> 8) as i8));
        (self.low, self.high, self.count) = (0, 0, 0);
    }

    /// The JSON format, one line.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let mut text = format!(
            "{{\"version\":2,\"channels\":1,\"sample_rate\":{OUTPUT_RATE_HZ},\"samples_per_pixel\":{SAMPLES_PER_PIXEL},\
             \"bits\":8,\"length\":{},\"data\":[",
            self.peaks.len()
        );
        for (n, (low, high)) in self.peaks.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}{low},{high}");
        }
        text.push_str("]}");
        text.into_bytes()
    }

    /// The PNG: time from left to right, each column in the colour of its speaker.
    pub fn png(&self, turns: &[ColouredTurn]) -> Result<Vec<u8>, AudioError> {
        let width = self.peaks.len().clamp(MIN_WIDTH, MAX_WIDTH);
        let mut pixels = vec![BACKGROUND; width * HEIGHT];
        for column in 0..width {
            let from = column * self.peaks.len() / width;
            let to = ((column + 1) * self.peaks.len() / width).max(from + 1).min(self.peaks.len());
            let columns = self.peaks.get(from..to).unwrap_or_default();
            let low = columns.iter().map(|peak| peak.0).min().unwrap_or(0);
            let high = columns.iter().map(|peak| peak.1).max().unwrap_or(0);
            let milliseconds = (from + to) as u64 * 1000 / u64::from(2 * PIXELS_PER_SECOND);
            let mut here = turns.iter().filter(|coloured| coloured.turn.segment().contains(milliseconds));
            let colour = here.next().map_or(NOBODY, ColouredTurn::colour);
            // Full scale fills the height. Silence is still a visible line.
            let row = |value: i8| (HEIGHT / 2).saturating_add_signed(-isize::from(value) * (HEIGHT as isize / 2) / 128);
            for y in row(high).min(HEIGHT / 2 - 1)..=row(low).min(HEIGHT - 1) {
                pixels[y * width + column] = colour;
            }
        }
        encode(&pixels, width).map_err(|error| AudioError::Internal { what: "picture", cause: error.to_string() })
    }
}

/// A turn and the role of its speaker, for the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColouredTurn {
    pub role: Role,
    pub turn: Turn,
}

impl ColouredTurn {
    /// The turns of a transcript.
    #[must_use]
    pub fn of(transcript: &Transcript) -> Vec<Self> {
        let turn = |turn: &Turn| Self { role: transcript.role(turn.speaker), turn: *turn };
        transcript.turns.iter().map(turn).collect()
    }

    const fn colour(&self) -> u8 {
        match self.role {
            Role::Agent => 2,
            Role::Caller => 3,
            Role::Transfer => 4,
            Role::System => 5,
            Role::Unknown => 6 + (self.turn.speaker % 2) as u8,
        }
    }
}

const BACKGROUND: u8 = 0;
const NOBODY: u8 = 1;
/// Background, no speaker, agent, caller, transfer, system, two unknown speakers.
const PALETTE: [[u8; 3]; 8] = [
    [255, 255, 255],
    [158, 165, 173],
    [31, 111, 180],
    [224, 122, 31],
    [60, 150, 80],
    [110, 110, 110],
    [120, 90, 170],
    [20, 150, 150],
];

fn encode(pixels: &[u8], width: usize) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(PALETTE.as_flattened().to_vec());
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave() -> Waveform {
        let mut waveform = Waveform::default();
        let samples: Vec<i16> = (0..48_000).map(|n| if n < 24_000 { 12_800 } else { -25_600 }).collect();
        for chunk in samples.chunks(701) {
            waveform.push(chunk);
        }
        waveform.push(&[1; 100]);
        waveform.finish();
        waveform
    }

    #[test]
    fn peaks_are_those_of_each_twentieth() {
        let waveform = wave();
        assert_eq!(waveform.peaks.len(), 21);
        assert_eq!((waveform.peaks[0], waveform.peaks[19]), ((0, 50), (-100, 0)));
        let json: serde_json::Value = serde_json::from_slice(&waveform.json()).unwrap();
        assert_eq!(json["length"], 21);
        assert_eq!(json["data"].as_array().unwrap().len(), 42);
        assert_eq!((json["samples_per_pixel"].as_u64(), json["data"][1].as_i64()), (Some(2400), Some(50)));
    }

    #[test]
    fn turns_are_coloured() {
        let turn = ColouredTurn { role: Role::Caller, turn: Turn { speaker: 1, start_ms: 0, end_ms: 500 } };
        let bytes = wave().png(&[turn]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(reader.info().size(), (MIN_WIDTH as u32, HEIGHT as u32));
        let column = |x: usize| (0..HEIGHT).map(|y| pixels[y * MIN_WIDTH + x]).find(|&c| c != BACKGROUND);
        assert_eq!((column(10), column(200)), (Some(3), Some(NOBODY)));
    }

    #[test]
    fn an_empty_recording_is_a_picture_too() {
        assert!(Waveform::default().png(&[]).is_ok());
    }
}
