//! Bit writer, with the two checksums of a FLAC frame (RFC 9639 sections 9.1.8 and 9.3), and bit reader. The most
//! significant bit comes first.

/// Polynomial x^8 + x^2 + x + 1.
const CRC8: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// Polynomial x^16 + x^15 + x^2 + 1.
const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = (n as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x8005 } else { crc << 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// A growing bit string.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits not yet in `bytes`, in the low end. Always fewer than 8 between calls.
    held: u64,
    count: u32,
}

impl BitWriter {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.held, self.count) = (0, 0);
    }

    /// Complete bytes so far.
    #[must_use]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends the low `count` bits of `value` (at most 48). The higher bits of `value` must be 0.
    #[inline]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        self.held = self.held << count | value;
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.held >> self.count) as u8);
        }
        self.held &= (1 << self.count) - 1;
    }

    /// Appends a Rice code: the quotient as zeros with a final one, then `k` bits.
    #[inline]
    pub(super) fn put_rice(&mut self, value: u32, k: u32) {
        let mut quotient = value >> k;
        while quotient > 31 {
            self.put(0, 32);
            quotient -= 32;
        }
        let low = u64::from(value & ((1 << k) - 1));
        self.put(1 << k | low, quotient + 1 + k);
    }

    /// Fills up to a whole byte with zeros.
    pub(super) fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }

    /// Appends the CRC-8 of all bytes so far.
    pub(super) fn put_crc8(&mut self) {
        let crc = self.bytes.iter().fold(0, |crc: u8, byte| CRC8[usize::from(crc ^ byte)]);
        self.put(u64::from(crc), 8);
    }

    /// Appends the CRC-16 of all bytes so far.
    pub(super) fn put_crc16(&mut self) {
        let step = |crc: u16, byte: &u8| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)];
        let crc = self.bytes.iter().fold(0, step);
        self.put(u64::from(crc), 16);
    }
}

/// Bit reader. Bits behind the end read as 0; [`Bits::inside`] tells whether the end was passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Position, in bits.
    pub at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The next `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let mut ahead = [0; 8];
        let there = rest.len().min(8);
        ahead[..there].copy_from_slice(&rest[..there]);
        let ahead = u64::from_be_bytes(ahead) << (self.at % 8);
        self.at += count as usize;
        if count == 0 { 0 } else { (ahead >> (64 - count)) as u32 }
    }

    pub(super) fn flag(&mut self) -> bool {
        self.take(1) == 1
    }

    /// Whether everything read was there.
    pub(super) const fn inside(&self) -> bool {
        self.at <= self.bytes.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_both_checksums() {
        let mut bits = BitWriter::default();
        for byte in b"123456789" {
            bits.put(u64::from(*byte), 8);
        }
        bits.put_crc8();
        assert_eq!(bits.bytes()[9], 0xf4);
        bits.clear();
        for byte in b"123456789" {
            bits.put(u64::from(*byte), 8);
        }
        bits.put_crc16();
        assert_eq!(bits.bytes()[9..], [0xfe, 0xe8]);
    }

    #[test]
    fn bits_behind_the_end_are_zeros() {
        let mut bits = Bits::new(&[0b1010_0000, 0xff], 0);
        assert_eq!((bits.take(3), bits.flag(), bits.take(0), bits.take(8)), (0b101, false, 0, 0b0000_1111));
        assert!(bits.inside());
        assert_eq!((bits.take(32), bits.inside(), bits.take(32)), (0xf000_0000, false, 0));
    }

    #[test]
    fn rice_codes() {
        let mut bits = BitWriter::default();
        // 9 with k = 2: quotient 2, remainder 1 -> 001 01; 0 with k = 0 -> 1; then 10 zeros to align.
        bits.put_rice(9, 2);
        bits.put_rice(0, 0);
        bits.align();
        assert_eq!(bits.bytes(), [0b0010_1100]);
        bits.clear();
        bits.put_rice(40, 0);
        bits.align();
        assert_eq!(bits.bytes(), [0, 0, 0, 0, 0, 0b1000_0000]);
    }
}
