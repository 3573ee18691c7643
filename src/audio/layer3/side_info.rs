//! Side information (ISO/IEC 11172-3 2.4.1.7, ISO/IEC 13818-3 2.4.1.7): how the spectra of a frame are written down.

use super::Broken;
use super::bands::{Bands, LINES};
use super::bits::Bits;

/// How two channels were made into the two that are coded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Joint {
    pub intensity: bool,
    pub mid_side: bool,
}

/// What a frame's header says, as far as layer III asks.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub mpeg1: bool,
    pub mpeg25: bool,
    pub channels: usize,
    pub joint: Joint,
    pub bands: &'static Bands,
    /// Where the side information begins, and where it ends.
    pub side: (usize, usize),
}

impl Form {
    pub fn of(frame: &[u8], rate_hz: u32) -> Result<Self, Broken> {
        let &[_, second, _, fourth, ..] = frame else { return Err(Broken) };
        let version = second >> 3 & 3;
        let (mpeg1, mpeg25) = (version == 3, version == 0);
        let channels = if fourth >> 6 == 3 { 1 } else { 2 };
        let joint = match fourth >> 6 {
            1 => Joint { intensity: fourth & 0x10 != 0, mid_side: fourth & 0x20 != 0 },
            _ => Joint::default(),
        };
        let start = if second & 1 == 0 { 6 } else { 4 };
        let len = match (mpeg1, channels) {
            (true, 1) | (false, 2) => 17,
            (true, _) => 32,
            (false, _) => 9,
        };
        let side = (start, start + len);
        if frame.len() < side.1 {
            return Err(Broken);
        }
        Ok(Self { mpeg1, mpeg25, channels, joint, bands: Bands::at(rate_hz), side })
    }

    pub const fn granules(&self) -> usize {
        if self.mpeg1 { 2 } else { 1 }
    }
}

/// Which windows the transform of a granule has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Windows {
    #[default]
    Long,
    Start,
    Short,
    /// The two lowest subbands long, the others short.
    Mixed,
    Stop,
}

impl Windows {
    pub const fn are_short(self) -> bool {
        matches!(self, Self::Short | Self::Mixed)
    }
}

/// One channel of a granule.
#[derive(Debug, Clone, Default)]
pub struct Coding {
    /// Bits of scale factors and spectrum together.
    pub bits: usize,
    /// Lines coded in pairs.
    pub big: usize,
    pub gain: u8,
    /// How long the scale factors are, by a table.
    pub lengths: u16,
    pub windows: Windows,
    pub tables: [u8; 3],
    pub window_gains: [u8; 3],
    /// Where the second and the third table begin to be used.
    pub regions: [usize; 2],
    pub emphasis: bool,
    /// A scale factor counts for this many quarters of a factor of two, as a shift.
    pub scale_shift: u8,
    pub second_quads: bool,
}

/// Side information of a frame.
#[derive(Debug, Clone, Default)]
pub struct SideInfo {
    /// Bytes before this frame's own at which its spectra begin.
    pub leans_on: usize,
    /// Whether the second granule of a channel takes over the scale factors of the first, by groups of bands.
    pub shared: [[bool; 4]; 2],
    pub codings: [[Coding; 2]; 2],
}

impl SideInfo {
    pub fn read(frame: &[u8], form: &Form) -> Result<Self, Broken> {
        let mut bits = Bits::new(&frame[..form.side.1], form.side.0 * 8);
        let mut info = Self::default();
        if form.mpeg1 {
            info.leans_on = bits.take(9) as usize;
            bits.take(if form.channels == 1 { 5 } else { 3 });
            for flag in info.shared[..form.channels].as_flattened_mut() {
                *flag = bits.flag();
            }
        } else {
            info.leans_on = bits.take(8) as usize;
            bits.take(if form.channels == 1 { 1 } else { 2 });
        }
        for granule in &mut info.codings[..form.granules()] {
            for coding in &mut granule[..form.channels] {
                *coding = Coding::read(&mut bits, form)?;
            }
        }
        Ok(info)
    }
}

impl Coding {
    fn read(bits: &mut Bits<'_>, form: &Form) -> Result<Self, Broken> {
        let mut coding = Self {
            bits: bits.take(12) as usize,
            big: 2 * bits.take(9) as usize,
            gain: bits.take(8) as u8,
            lengths: bits.take(if form.mpeg1 { 4 } else { 9 }) as u16,
            ..Self::default()
        };
        if coding.big > LINES {
            return Err(Broken);
        }
        if bits.flag() {
            let kind = bits.take(2);
            let mixed = bits.flag();
            coding.windows = match (kind, mixed) {
                (1, _) => Windows::Start,
                (2, false) => Windows::Short,
                (2, true) if form.bands.mixed.is_some() => Windows::Mixed,
                (3, _) => Windows::Stop,
                _ => return Err(Broken),
            };
            for table in &mut coding.tables[..2] {
                *table = bits.take(5) as u8;
            }
            for gain in &mut coding.window_gains {
                *gain = bits.take(3) as u8;
            }
            coding.regions = [coding.first_region(form), LINES];
        } else {
            for table in &mut coding.tables {
                *table = bits.take(5) as u8;
            }
            let first = bits.take(4) as usize + 1;
            let second = first + bits.take(3) as usize + 1;
            coding.regions = [form.bands.long_start(first), form.bands.long_start(second)];
        }
        coding.emphasis = form.mpeg1 && bits.flag();
        coding.scale_shift = if bits.flag() { 2 } else { 1 };
        coding.second_quads = bits.flag();
        Ok(coding)
    }

    /// Where the first table ends when the windows change: not told, but fixed.
    fn first_region(&self, form: &Form) -> usize {
        match self.windows {
            _ if form.mpeg1 => 36,
            Windows::Short if form.mpeg25 => form.bands.long_start(6),
            _ if form.mpeg25 => form.bands.long_start(8),
            windows if windows.are_short() => 36,
            _ => 54,
        }
    }
}
