#![no_main]

use std::time::Duration;

use aftercall::audio::probe::{Sniffed, sniff_bytes};
use aftercall::audio::{CancelFlag, NormalizeRequest, normalize};
use aftercall::config;
use aftercall::domain::Classify;
use aftercall::domain::Fault;

// Any bytes: a result, or an error that is the recording's.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Sniffed::Audio(container) = sniff_bytes(bytes) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, wav) = (folder.path().join("in"), folder.path().join("out.wav"));
    std::fs::write(&input, bytes).expect("room");
    let settings = config::Audio {
        target_lufs: -16.0,
        ceiling_dbtp: -1.0,
        max_duration: config::Span(Duration::from_secs(600)),
        memory_cap_bytes: 1 << 20,
        keep_wav: false,
    };
    let request =
        NormalizeRequest { input: &input, container, settings: &settings, spool: folder.path(), wav: Some(&wav), flac: None };
    if let Err(error) = normalize(&request, &mut [], &CancelFlag::default()) {
        assert!(error.fault() == Fault::Permanent, "{error}");
    }
});
