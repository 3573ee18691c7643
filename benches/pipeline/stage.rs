//! The audio stage by itself, as a call's job runs it: decode, measure, normalise, detect speech, write `audio.flac`.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aftercall::audio::speech::SpeechSink;
use aftercall::audio::{CancelFlag, NormalizeRequest, normalize};
use aftercall::config::{Audio, Config};
use aftercall::domain::Container;
use aftercall::quality::signal::SignalMeter;
use anyhow::{Context, Result};
use tempfile::TempDir;

/// A recording (MP3) and a folder to work in.
pub struct Stage {
    folder: TempDir,
    settings: Audio,
}

impl Stage {
    pub fn of(mp3: &[u8]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("call.mp3"), mp3)?;
        Ok(Self { folder, settings: Config::from_toml("")?.audio })
    }

    /// Once, in a spool of its own.
    pub fn run(&self) -> Result<()> {
        let spool = tempfile::tempdir_in(self.folder.path())?;
        let (input, flac) = (self.folder.path().join("call.mp3"), spool.path().join("audio.flac"));
        let request = NormalizeRequest {
            input: &input,
            container: Container::Mp3,
            settings: &self.settings,
            spool: spool.path(),
            wav: None,
            flac: Some(&flac),
        };
        let (mut meter, mut speech) = (SignalMeter::new(), SpeechSink::new(&self.settings, spool.path()));
        normalize(&request, &mut [&mut meter, &mut speech], &CancelFlag::default())?;
        std::hint::black_box(meter.finish());
        std::hint::black_box(speech.finish()?);
        Ok(())
    }

    /// So many, on so many threads: how many a second.
    pub fn throughput(&self, count: usize, threads: usize) -> Result<f64> {
        let (started, next) = (Instant::now(), AtomicUsize::new(0));
        let work = || -> Result<()> {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                self.run()?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            all.into_iter().try_for_each(|thread| thread.join().ok().context("the audio stage panicked")?)
        })?;
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }
}
