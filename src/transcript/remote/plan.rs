//! Plans the parts of a call for a service, from the first speech to the last, cut in silence.

use crate::audio::SpeechFlac;
use crate::audio::speech::Speech;
use crate::config::RemoteEngine;
use crate::config::RemoteKind;
use crate::domain::Segment;
use crate::transcript::engine::EngineError;
use crate::transcript::engine::regions;

/// OpenAI documents an upload limit of 25 MB. The difference is for the other fields of the request.
pub const LIMIT_BYTES: u64 = 25_000_000 - 65_536;
/// Bytes per millisecond: 16-bit samples at 16 kHz, plus the overhead of FLAC for incompressible audio.
const BYTES_PER_MS: u64 = 33;
/// Deepgram accepts longer audio; this limit protects the memory of this machine.
const LONGEST_DEEPGRAM_MS: u64 = 30 * 60_000;
/// A longer silence is not sent. A service that diarizes one channel receives it, because it needs the whole
/// conversation.
const GAP_MS: u64 = 30_000;
/// Added on both sides of speech.
const MARGIN_MS: u64 = 300;
/// Length of the search for the quietest cut inside speech.
const LOOKED_AT_MS: u64 = 20_000;
/// Length of a read and encode step.
const STEP_MS: u64 = 10_000;

/// The audio of one request: an interval of some legs, in milliseconds from the start of the recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub legs: Vec<usize>,
    pub span: Segment,
}

impl Part {
    /// The part's key within its call.
    #[must_use]
    pub fn key(&self) -> String {
        let legs: Vec<String> = self.legs.iter().map(ToString::to_string).collect();
        format!("{}@{}-{}", legs.join("+"), self.span.start_ms, self.span.end_ms)
    }

    /// Sent audio in milliseconds, all channels counted, as services bill it.
    #[must_use]
    pub const fn sent_ms(&self) -> u64 {
        self.span.duration_ms() * self.legs.len() as u64
    }

    /// The part as a FLAC file, encoded in steps.
    ///
    /// # Errors
    /// [`EngineError`] if the samples cannot be read.
    pub fn encode(&self, speech: &Speech) -> Result<Vec<u8>, EngineError> {
        let mut flac = SpeechFlac::new(self.legs.len());
        for start in (self.span.start_ms..self.span.end_ms).step_by(STEP_MS as usize) {
            let end = (start + STEP_MS).min(self.span.end_ms);
            let read = |leg: &usize| speech.legs.get(*leg).map_or(Ok(Vec::new()), |leg| leg.samples.read(start, end));
            let planes: Result<Vec<Vec<f32>>, _> = self.legs.iter().map(read).collect();
            flac.push(&planes.map_err(|err| EngineError::Inference { reason: err.to_string() })?);
        }
        Ok(flac.finish())
    }
}

/// The parts of a call, in order. A service for several channels gets both legs together, the others one leg at a time.
///
/// # Errors
/// [`EngineError`] if the samples cannot be read.
pub fn plan(engine: &RemoteEngine, speech: &Speech) -> Result<Vec<Part>, EngineError> {
    let every = 0..speech.legs.len();
    let together: Vec<Vec<usize>> = match engine.kind {
        RemoteKind::Deepgram => vec![every.collect()],
        RemoteKind::Openai => every.map(|leg| vec![leg]).collect(),
    };
    let gap_ms = if speech.legs.len() == 1 && super::diarizes(engine) { u64::MAX } else { GAP_MS };
    let mut parts = Vec::new();
    for legs in together {
        let mut spoken: Vec<Segment> = legs.iter().flat_map(|leg| &speech.legs[*leg].regions).copied().collect();
        spoken.sort_unstable();
        let duration_ms = legs.iter().map(|leg| speech.legs[*leg].samples.duration_ms()).max().unwrap_or(0);
        let longest_ms = match engine.kind {
            RemoteKind::Openai => LIMIT_BYTES / BYTES_PER_MS,
            RemoteKind::Deepgram => LONGEST_DEEPGRAM_MS,
        };
        let mut failed = None;
        let planned = spans(&spoken, duration_ms, (gap_ms, longest_ms), |span| {
            match speech.legs[legs[0]].samples.read(span.start_ms, span.end_ms) {
                Ok(samples) => span.start_ms + regions::quietest(&samples),
                Err(err) => {
                    failed = Some(EngineError::Inference { reason: err.to_string() });
                    span.end_ms
                }
            }
        });
        if let Some(err) = failed {
            return Err(err);
        }
        parts.extend(planned.into_iter().map(|span| Part { legs: legs.clone(), span }));
    }
    Ok(parts)
}

/// `speech` must be ordered and may overlap. Speech that is too long is cut at the result of `quietest`.
fn spans(
    speech: &[Segment],
    duration_ms: u64,
    (gap_ms, longest_ms): (u64, u64),
    mut quietest: impl FnMut(Segment) -> u64,
) -> Vec<Segment> {
    let mut all: Vec<Segment> = Vec::new();
    for region in speech.iter().filter(|region| !region.is_empty()) {
        let from = region.start_ms.saturating_sub(MARGIN_MS);
        let to = (region.end_ms + MARGIN_MS).min(duration_ms.max(region.end_ms));
        match all.last_mut() {
            Some(open) if to <= open.end_ms => {}
            Some(open) if to - open.start_ms <= longest_ms && from <= open.end_ms.saturating_add(gap_ms) => {
                open.end_ms = to;
            }
            // Speech of two legs may overlap. The start is moved so that no audio is sent twice.
            Some(open) => {
                let from = from.max(open.end_ms);
                all.push(Segment::new(from, to));
            }
            None => all.push(Segment::new(from, to)),
        }
        while let Some(open) = all.last_mut()
            && open.duration_ms() > longest_ms
        {
            let (end, latest) = (open.end_ms, open.start_ms + longest_ms);
            let earliest = latest - LOOKED_AT_MS.min(longest_ms / 2);
            let cut = quietest(Segment::new(earliest, latest)).clamp(earliest, latest);
            open.end_ms = cut;
            all.push(Segment::new(cut, end));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn silence_is_not_sent_and_nothing_is_sent_twice() {
        let speech = [Segment::new(1_000, 4_000), Segment::new(3_500, 9_000), Segment::new(100_000, 101_000)];
        assert_eq!(
            spans(&speech, HOUR, (GAP_MS, HOUR), |_| 0),
            [Segment::new(700, 9_300), Segment::new(99_700, 101_300)]
        );
        assert_eq!(spans(&speech, HOUR, (u64::MAX, HOUR), |_| 0), [Segment::new(700, 101_300)]);
        assert_eq!(spans(&speech[2..], 101_000, (GAP_MS, HOUR), |_| 0), [Segment::new(99_700, 101_000)]);
        assert!(spans(&[], HOUR, (GAP_MS, HOUR), |_| 0).is_empty());
    }

    #[test]
    fn what_is_too_long_is_cut_between_segments_of_speech_else_at_a_pause() {
        let speech = [Segment::new(0, 50_000), Segment::new(60_000, 110_000), Segment::new(120_000, 170_000)];
        assert_eq!(
            spans(&speech, HOUR, (GAP_MS, 120_000), |_| 0),
            [Segment::new(0, 110_300), Segment::new(119_700, 170_300)]
        );
        let monologue = spans(&[Segment::new(0, 2 * HOUR)], 2 * HOUR, (GAP_MS, 700_000), |span| span.start_ms + 7);
        assert_eq!((monologue[0].start_ms, monologue.last().unwrap().end_ms), (0, 2 * HOUR));
        assert!(monologue.windows(2).all(|pair| pair[0].end_ms == pair[1].start_ms));
        assert!(monologue.iter().all(|span| span.duration_ms() <= 700_000));
        // A wrong result of the function cannot cause an endless loop.
        assert!(spans(&[Segment::new(0, HOUR)], HOUR, (GAP_MS, 60_000), |_| 0).len() < 200);
    }

    #[test]
    fn the_longest_part_is_within_the_limit_even_where_nothing_compresses() {
        let mut state = 7u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32 * 0.99
        };
        let mut flac = SpeechFlac::new(1);
        flac.push(&[(0..160_000).map(|_| noise()).collect()]);
        assert!((flac.finish().len() as u64) < 10_000 * BYTES_PER_MS);
    }
}
