//! Three-minute calls of every dialect, and the sample platform that serves them from a thread of its own, so that its
//! processor time can be told from the worker's.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aftercall::demo::recordings::{self, Sheet};
use aftercall::demo::{Api, SampleAudio, SampleCall, SamplePlatform, SampleText, atoms_id};
use aftercall::domain::{Container, ProviderTurn};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::measure::cpu_seconds_in;

/// Length of every call.
pub const LENGTH_MS: u64 = 180_000;
/// At most 15 characters: the kernel cuts thread names there.
const THREAD: &str = "sample-platform";

/// A platform on loopback.
pub struct Serving {
    pub platform: SamplePlatform,
    pub base_url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    pub async fn start(calls: Vec<SampleCall>) -> Result<Self> {
        let ids: Vec<String> = calls.iter().filter(|call| call.api == Api::Atoms).map(|call| call.id.clone()).collect();
        let platform = SamplePlatform::builder(Arc::new(Timestamp::now)).calls(calls).build();
        for id in ids {
            platform.register_record(&id, serde_json::json!({ "call_id": id, "status": "completed" }));
        }
        let ((ready, base_url), (stop, stopped)) = (oneshot::channel(), oneshot::channel::<()>());
        let served = platform.clone();
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let serving = served.serve(TcpListener::bind("127.0.0.1:0").await?)?;
                let _ = ready.send(serving.base_url());
                let _ = stopped.await;
                serving.stop().await;
                Ok(())
            })
        })?;
        let base_url = base_url.await.context("the sample platform does not listen")?;
        Ok(Self { platform, base_url, stop: Some(stop), thread: Some(thread) })
    }

    pub fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => bail!("the sample platform panicked"),
            Some(Ok(ended)) => ended,
            None => Ok(()),
        }
    }

    /// Processor time of its thread so far.
    pub fn cpu_seconds() -> Result<f64> {
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim() == THREAD {
                return cpu_seconds_in(&task.join("stat"));
            }
        }
        bail!("the sample platform has no thread")
    }
}

/// `count` calls, each source in turn; they ended minutes ago.
pub fn calls(count: u32, now: Timestamp) -> Result<Vec<SampleCall>> {
    let audio = SampleAudio { bytes: three_minutes(&recordings::delivery().bytes)?.into(), container: Container::Mp3 };
    let turns: Arc<[ProviderTurn]> = spoken_again_and_again()?.into();
    let calls = (0..count).zip(Api::ALL.into_iter().cycle()).map(|(n, api)| {
        let mut call = SampleCall::numbered(api, n, now - Duration::from_secs(60 + u64::from(n)));
        (call.audio, call.turns, call.duration_ms) = (Some(audio.clone()), turns.clone(), LENGTH_MS);
        call.text = if api == Api::KrosaiV1 { SampleText::Labelled } else { SampleText::Turns };
        if api == Api::Atoms {
            call.id = atoms_id(call.created_at(), n);
        }
        call
    });
    Ok(calls.collect())
}

/// A dialogue of half a minute, begun anew until the time is over.
fn spoken_again_and_again() -> Result<Vec<ProviderTurn>> {
    let dialogue = Sheet::read()?.dialogue("delivery")?;
    let later = |at: &mut Option<u64>, by: u64| *at = at.map(|ms| ms + by);
    let mut turns = Vec::new();
    for offset in (0..LENGTH_MS).step_by(dialogue.duration_ms as usize) {
        for mut turn in dialogue.turns.iter().cloned() {
            later(&mut turn.start_ms, offset);
            later(&mut turn.end_ms, offset);
            for word in &mut turn.words {
                later(&mut word.start_ms, offset);
                later(&mut word.end_ms, offset);
            }
            turns.push(turn);
        }
    }
    turns.retain(|turn| turn.end_ms.is_some_and(|end| end <= LENGTH_MS));
    Ok(turns)
}

/// The frames of a recording, begun anew until they last three minutes. What is no frame (the tag in front) and the
/// frame that counts the others are left out, or the result would lie about its length.
fn three_minutes(mp3: &[u8]) -> Result<Vec<u8>> {
    const FRAME_MS: u64 = 24;
    let frames = frames(mp3);
    let sound: Vec<&[u8]> = frames.into_iter().filter(|frame| !frame.windows(4).any(|at| at == b"Info")).collect();
    if sound.is_empty() {
        bail!("the sample recording is not MPEG-1 Layer III at 48 kHz");
    }
    Ok(sound.into_iter().cycle().take((LENGTH_MS / FRAME_MS) as usize).flatten().copied().collect())
}

/// MPEG-1 Layer III frames at 48 kHz (ISO/IEC 11172-3 section 2.4.2.3): 1152 samples, 24 ms each.
fn frames(mp3: &[u8]) -> Vec<&[u8]> {
    const KBIT: [usize; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(&[sync, version, rate, _]) = mp3.get(at..at + 4) {
        let bytes = match KBIT.get(usize::from(rate >> 4)) {
            Some(kbit) if sync == 0xff && version & 0xfe == 0xfa && rate & 0x0c == 0x04 => {
                144_000 * kbit / 48_000 + usize::from(rate >> 1 & 1)
            }
            _ => 0,
        };
        match mp3.get(at..at + bytes) {
            Some(frame) if bytes > 0 => frames.push(frame),
            _ => {}
        }
        at += bytes.max(1);
    }
    frames
}

/// How many bytes a file of the database has; none where it is not there.
pub fn size_of(path: PathBuf) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}
