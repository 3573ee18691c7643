//! Reads bits, most significant first. What lies behind the end is zeros: a decoder that runs into them looks at
//! [`Bits::at`].

#[derive(Debug, Clone, Copy)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// Position, in bits.
    pub at: usize,
}

impl<'a> Bits<'a> {
    /// How many bits [`Bits::ahead`] shows at least.
    pub const AHEAD: u32 = 57;

    pub const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The next bits, from the top down.
    #[inline]
    pub fn ahead(&self) -> u64 {
        let from = self.at / 8;
        let rest = self.bytes.get(from..).unwrap_or_default();
        let bytes = rest.first_chunk::<8>().copied().unwrap_or_else(|| {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            bytes
        });
        u64::from_be_bytes(bytes) << (self.at % 8)
    }

    /// The next `count` bits, at most 32.
    #[inline]
    pub fn take(&mut self, count: u32) -> u32 {
        let bits = if count == 0 { 0 } else { self.ahead() >> (64 - count) };
        self.at += count as usize;
        bits as u32
    }

    pub fn flag(&mut self) -> bool {
        self.take(1) == 1
    }

    /// Whether everything read was there.
    pub const fn inside(&self) -> bool {
        self.at <= self.bytes.len() * 8
    }
}
