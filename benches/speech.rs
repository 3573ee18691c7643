//! What recognising costs at the true shape of a 110M FastConformer-CTC (random weights: cost does not depend on them).
//!
//! ```text
//! python3 tests/it/golden/fastconformer.py --full DIR [--int8]     makes the network
//! cargo bench --bench speech -- DIR                                loads it and recognises 30 s, half of it, and 30 s half silent
//! python3 tests/it/golden/fastconformer.py --time DIR              ONNX Runtime on the same network, one thread
//! ```
//!
//! Figures are CPU time (user and system) of this process on one thread, and its peak memory.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod measure;

use std::path::PathBuf;
use std::time::Instant;

use aftercall::domain::Segment;
use aftercall::transcript::engine::Recogniser;
use aftercall::transcript::engine::Search;

fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Noise that rises and falls: speech to a network that knows none.
fn sound(seconds: u32) -> Vec<f32> {
    (0..seconds * 16_000)
        .map(|n: u32| {
            let noise = (n.wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(2_246_822_519) >> 8) as f32 / 1.7e7;
            (noise - 0.5) * (0.3 + 0.2 * (n as f32 / 4_000.0).sin())
        })
        .collect()
}

fn main() {
    let Some(dir) = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map(PathBuf::from) else {
        println!("name the network's folder: cargo bench --bench speech -- DIR (see the top of benches/speech.rs)");
        return;
    };
    println!("{}", measure::machine());
    let before = (Instant::now(), measure::cpu_seconds().unwrap());
    let recogniser = Recogniser::load(&dir, Search::Greedy, 1).unwrap();
    println!(
        "load: {:.2} s, {:.2} s of CPU",
        before.0.elapsed().as_secs_f64(),
        measure::cpu_seconds().unwrap() - before.1
    );
    let samples = sound(30);
    // (what is speech, in ms; its name)
    let whole: Vec<_> = vec![Segment::new(0, 30_000)];
    let halves = vec![Segment::new(0, 7_500), Segment::new(15_000, 22_500)];
    recogniser.recognise(&mut samples.as_slice(), &[Segment::new(0, 2_000)], 30_000).unwrap();
    for (speech, name) in [(whole, "30 s of speech"), (halves, "30 s, half of it silence")] {
        let best = (0..3)
            .map(|_| {
                let started = measure::cpu_seconds().unwrap();
                recogniser.recognise(&mut samples.as_slice(), &speech, 30_000).unwrap();
                measure::cpu_seconds().unwrap() - started
            })
            .fold(f64::INFINITY, f64::min);
        println!("{name}: {best:.2} s of CPU, {:.4} of real time", best / 30.0);
    }
    println!("peak memory: {} MB", measure::whole(peak_megabytes()));
}
