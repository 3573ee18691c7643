//! The audio stage on a call of three minutes: `cargo bench --bench audio`.
//!
//! Criterion gives wall times. After it, the CPU time per second of audio is printed beside that of ffmpeg on the same
//! file in the same run, where ffmpeg is installed: only ratios mean anything on a busy machine.

#![allow(clippy::disallowed_methods, clippy::expect_used, unreachable_pub)]

use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aftercall::audio::{CancelFlag, NormalizeRequest, normalize};
use aftercall::config;
use aftercall::domain::Container;
use aftercall::quality::signal::SignalMeter;
use criterion::Criterion;

/// The fixture lasts about twenty seconds.
const REPEATS: usize = 9;
const ROUNDS: u32 = 10;

/// Which files a run writes.
#[derive(Clone, Copy)]
enum Output {
    None,
    Wav,
    WavAndFlac,
}

struct Stage {
    folder: tempfile::TempDir,
    settings: config::Audio,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio/speech.mp3");
        fs::write(folder.path().join("call.mp3"), fs::read(fixture).expect("the fixture").repeat(REPEATS))
            .expect("room");
        let settings = config::Audio {
            target_lufs: -16.0,
            ceiling_dbtp: -1.0,
            max_duration: config::Span(Duration::from_secs(3600)),
            memory_cap_bytes: 64 << 20,
        };
        Self { folder, settings }
    }

    fn call(&self) -> PathBuf {
        self.folder.path().join("call.mp3")
    }

    /// Milliseconds of audio.
    fn run(&self, output: Output) -> u64 {
        let (input, wav, flac) = (self.call(), self.folder.path().join("a.wav"), self.folder.path().join("a.flac"));
        let request = NormalizeRequest {
            input: &input,
            container: Container::Mp3,
            settings: &self.settings,
            spool: self.folder.path(),
            wav: matches!(output, Output::Wav | Output::WavAndFlac).then_some(wav.as_path()),
            flac: matches!(output, Output::WavAndFlac).then_some(flac.as_path()),
        };
        let mut meter = SignalMeter::new();
        let done = normalize(&request, &mut [&mut meter], &CancelFlag::default()).expect("the fixture decodes");
        black_box(meter.finish());
        done.duration_ms
    }

    /// The same by ffmpeg; false where there is none.
    fn ffmpeg(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-y", "-i"]).arg(self.call()).args(arguments).current_dir(self.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

/// CPU time of this process and of its finished children so far, in clock ticks of 10 ms (proc(5), fields 14 to 17).
fn cpu_ticks() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<f64> = stat.rsplit(')').next()?.split_whitespace().skip(11).take(4).flat_map(str::parse).collect();
    match fields.as_slice() {
        &[user, system, children_user, children_system] => Some((user + system, children_user + children_system)),
        _ => None,
    }
}

/// CPU microseconds per second of audio, of us or of the children, for the work done `ROUNDS` times.
fn cost(seconds: f64, mut work: impl FnMut() -> bool) -> Option<f64> {
    let before = cpu_ticks()?;
    for _ in 0..ROUNDS {
        if !work() {
            return None;
        }
    }
    let after = cpu_ticks()?;
    let ticks = (after.0 - before.0) + (after.1 - before.1);
    Some(ticks * 10_000.0 / f64::from(ROUNDS) / seconds)
}

fn compare(stage: &Stage) {
    let seconds = stage.run(Output::None) as f64 / 1000.0;
    let rows = [
        ("normalise and measure, WAV", cost(seconds, || stage.run(Output::Wav) > 0)),
        ("normalise and measure, WAV and FLAC", cost(seconds, || stage.run(Output::WavAndFlac) > 0)),
        ("ffmpeg to WAV", cost(seconds, || stage.ffmpeg(&["-ar", "48000", "-ac", "1", "f.wav"]))),
        ("ffmpeg ebur128=peak=true", cost(seconds, || stage.ffmpeg(&["-af", "ebur128=peak=true", "-f", "null", "-"]))),
    ];
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\nCPU microseconds per second of audio ({seconds:.0} s)");
    for (name, cost) in rows {
        let _ = match cost {
            Some(cost) => writeln!(out, "{name:<40}{cost:>8.0}"),
            None => writeln!(out, "{name:<40}{:>8}", "-"),
        };
    }
    if let (Some(ours), Some(plain), Some(loudness)) = (rows[0].1, rows[2].1, rows[3].1) {
        let _ = writeln!(
            out,
            "against ffmpeg to WAV: {:.2}; with its ebur128: {:.2}",
            ours / plain,
            ours / (plain + loudness)
        );
    }
}

fn main() {
    let stage = Stage::new();
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    criterion.bench_function("audio/three_minutes/measure_only", |b| b.iter(|| stage.run(Output::None)));
    criterion.bench_function("audio/three_minutes/wav", |b| b.iter(|| stage.run(Output::Wav)));
    criterion.bench_function("audio/three_minutes/wav_and_flac", |b| b.iter(|| stage.run(Output::WavAndFlac)));
    compare(&stage);
    criterion.final_summary();
}
