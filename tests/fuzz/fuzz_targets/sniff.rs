#![no_main]

use aftercall::audio::probe::sniff_bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = sniff_bytes(bytes);
});
