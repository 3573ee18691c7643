//! Decodes Ogg (RFC 3533) with Opus, Vorbis or FLAC. Chained streams are decoded one after the other.
//!
//! `pages` → `stream` (packets and their lengths) → `clock` (gaps, padding) → the codec's decoder.

mod clock;
mod pages;
mod stream;

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use self::clock::{Clock, Mark, Tally};
use self::pages::{OggPage, Pages};
use self::stream::{Sound, Stream, UNKNOWN, VIDEO};
use super::block::Block;
use super::decoder::{Decode, Facts, Missing, Step, undecodable};
use super::engine::{Cut, Engine, OFFSET_SECONDS, codec_name};
use super::error::AudioError;

/// Limit on the other streams whose start time is read.
const MOST_OTHERS: usize = 8;
/// Header and audio may differ by about a packet before audio counts as missing, seconds.
const MISSING_SECONDS: f64 = 0.06;

/// The audio packets that end on one page.
struct Sheet {
    sounds: Vec<Sound>,
    mark: Mark,
    /// Pages of the stream missing before this one, by the page numbers.
    missed: u32,
}

impl Sheet {
    /// `None` for a page on which no audio packet ends.
    fn of(stream: &mut Stream, page: &OggPage) -> Option<Self> {
        let missed = stream.missed_before(page);
        let after_pause = stream.after_pause;
        let sounds = stream.take(page);
        let samples = || sounds.iter().map(|sound| sound.samples as i64);
        let paused = after_pause || sounds.iter().any(|sound| sound.is_pause);
        let mark = Mark { granule: page.granule, held: samples().sum(), longest: samples().max().unwrap_or(0), paused };
        (!sounds.is_empty()).then_some(Self { sounds, mark, missed })
    }

    fn start_seconds(&self, rate_hz: u32) -> Option<f64> {
        Some(self.mark.granule?.saturating_sub(self.mark.held) as f64 / f64::from(rate_hz))
    }
}

/// One audio stream, from its first page to its last.
struct Link {
    stream: Stream,
    engine: Engine,
    clock: Clock,
    /// Whether its pages agree with its packets. `None` until checked.
    agrees: Option<bool>,
    /// Its next page, read ahead to detect the last page.
    ahead: Option<Sheet>,
    /// Silence before its first page.
    front: Option<Silence>,
}

/// The next output.
enum Piece {
    Sound(Sound),
    Silence(Silence),
}

/// Samples that the file does not hold.
#[derive(Debug, Clone, Copy)]
enum Silence {
    Lost(u64),
    /// Nothing was sent. The packets around do not explain it.
    Gap(u64),
    /// The encoder had nothing to send.
    Pause(u64),
}

/// The pages of a file. One page can be put back.
struct Source {
    pages: Pages,
    unread: Option<OggPage>,
    /// Codec of a stream that was skipped as unsupported.
    foreign: Option<&'static str>,
}

impl Source {
    fn next(&mut self) -> Result<Option<OggPage>, AudioError> {
        match self.unread.take() {
            Some(page) => Ok(Some(page)),
            None => self.pages.next().map_err(AudioError::io("read")),
        }
    }

    /// The streams that begin next. Empty at the end of the file. Their first pages come before all other pages (RFC
    /// 3533 section 4).
    fn heads(&mut self) -> Result<Vec<Stream>, AudioError> {
        let mut streams = Vec::new();
        while let Some(page) = self.next()? {
            if page.first {
                match Stream::open(&page) {
                    Ok(stream) if streams.len() <= MOST_OTHERS => streams.push(stream),
                    Ok(_) => {}
                    Err(codec) => self.pass_over(codec),
                }
            } else if !streams.is_empty() {
                self.unread = Some(page);
                break;
            }
        }
        Ok(streams)
    }

    /// Notes an unsupported stream. An audio codec takes precedence over video, and video over unknown.
    fn pass_over(&mut self, codec: &'static str) {
        match self.foreign {
            None | Some(UNKNOWN) => self.foreign = Some(codec),
            Some(VIDEO) if codec != UNKNOWN => self.foreign = Some(codec),
            Some(_) => {}
        }
    }

    /// The next page of the stream on which audio ends. `None` where the stream ends. `other` gets the pages of other
    /// streams.
    fn sheet(&mut self, stream: &mut Stream, mut other: impl FnMut(&OggPage)) -> Result<Option<Sheet>, AudioError> {
        while let Some(page) = self.next()? {
            if page.first {
                if Stream::open(&page).is_ok() {
                    self.unread = Some(page);
                    return Ok(None);
                }
            } else if page.serial != stream.serial {
                other(&page);
            } else if let Some(sheet) = Sheet::of(stream, &page) {
                return Ok(Some(sheet));
            }
        }
        Ok(None)
    }

    /// The next stream with audio. `None` at the end of the file.
    fn link(&mut self) -> Result<Option<Link>, AudioError> {
        loop {
            let mut others = self.heads()?;
            if others.is_empty() {
                return Ok(None);
            }
            let mut stream = others.remove(0);
            // Only the first stream is decoded. The start times of the others give its offset.
            let mut earliest: Option<f64> = None;
            let ahead = self.sheet(&mut stream, |page| {
                let Some(at) = others.iter().position(|other| other.serial == page.serial) else { return };
                let rate_hz = others[at].rate_hz;
                if let Some(sheet) = Sheet::of(&mut others[at], page) {
                    others.remove(at);
                    earliest = sheet.start_seconds(rate_hz).into_iter().chain(earliest).reduce(f64::min);
                }
            })?;
            let Some(sheet) = ahead else { continue };
            let Some(params) = stream.params() else { continue };
            let (engine, _) = Engine::of(&params)?;
            let rate_hz = stream.rate_hz;
            let front = front(&sheet, rate_hz, earliest);
            return Ok(Some(Link {
                clock: Clock::new(rate_hz),
                stream,
                engine,
                agrees: None,
                ahead: Some(sheet),
                front,
            }));
        }
    }
}

/// Silence before the first page. Time begins at the first sample of the earliest stream. Audio of missing pages is
/// lost: at most twice the audio of this page for each.
fn front(sheet: &Sheet, rate_hz: u32, earliest: Option<f64>) -> Option<Silence> {
    let start = sheet.start_seconds(rate_hz)?;
    let samples = |seconds: f64| (seconds * f64::from(rate_hz)).round() as u64;
    let most = f64::from(sheet.missed) * 2.0 * sheet.mark.held as f64 / f64::from(rate_hz);
    if start > OFFSET_SECONDS.start && start <= most {
        return Some(Silence::Lost(samples(start)));
    }
    let later = start - earliest?;
    OFFSET_SECONDS.contains(&later).then(|| Silence::Pause(samples(later)))
}

/// Whether the pages of a stream agree with its packets. Reads all pages. `in_vain` counts the bytes of failed page
/// checks.
fn look(path: &Path, wanted: &Stream, in_vain: &mut u64) -> Result<bool, AudioError> {
    let file = File::open(path).map_err(AudioError::io("open"))?;
    let mut pages = Pages::new(file, wanted.offset).map_err(AudioError::io("read"))?;
    pages.in_vain = *in_vain;
    let mut source = Source { pages, unread: None, foreign: None };
    let mut tally = Tally::new(wanted.rate_hz);
    let Some(mut stream) = source.heads()?.into_iter().next() else { return Ok(false) };
    while let Some(sheet) = source.sheet(&mut stream, |_| ())? {
        tally.page(sheet.mark);
    }
    *in_vain = source.pages.in_vain;
    Ok(tally.agrees())
}

/// Decoder of an Ogg file.
pub(super) struct Ogg {
    path: PathBuf,
    source: Source,
    link: Link,
    queue: VecDeque<Piece>,
    cut: Cut,
    /// The last packet was a pause.
    after_pause: bool,
    /// Seconds announced by the header, seconds put out, and seconds in the cut-off last page.
    expected_seconds: f64,
    put_out_seconds: f64,
    cut_off_seconds: f64,
    facts: Facts,
}

impl Ogg {
    pub(super) fn open(path: &Path) -> Result<Self, AudioError> {
        let file = File::open(path).map_err(AudioError::io("open"))?;
        let pages = Pages::new(file, 0).map_err(AudioError::io("read"))?;
        let mut source = Source { pages, unread: None, foreign: None };
        let Some(link) = source.link()? else {
            return Err(match source.foreign {
                Some(codec) => AudioError::Unsupported { codec: codec.to_owned() },
                None => undecodable("no stream with sound begins in it"),
            });
        };
        let rate_hz = f64::from(link.stream.rate_hz);
        let mut ogg = Self {
            path: path.to_owned(),
            facts: Facts::new(link.stream.params().map_or("unknown", |params| codec_name(params.codec))),
            expected_seconds: link.stream.promised().map_or(0.0, |samples| samples as f64 / rate_hz),
            source,
            link,
            queue: VecDeque::new(),
            cut: Cut::default(),
            after_pause: false,
            put_out_seconds: 0.0,
            cut_off_seconds: 0.0,
        };
        ogg.begin();
        Ok(ogg)
    }

    /// Starts the current link.
    fn begin(&mut self) {
        self.cut = Cut { skip: self.link.engine.pre_skip(), left: None };
        self.after_pause = false;
        self.queue.extend(self.link.front.take().map(|front| match front {
            // The encoder delay is part of the lost samples.
            Silence::Lost(frames) => Piece::Silence(Silence::Lost(self.cut.next(frames).1)),
            front => Piece::Silence(front),
        }));
    }

    /// Fills the queue with the next page, or starts the next link. `false` at the end of the file.
    fn turn(&mut self) -> Result<bool, AudioError> {
        let Some(sheet) = self.link.ahead.take() else {
            let Some(link) = self.source.link()? else {
                self.end();
                return Ok(false);
            };
            self.link = link;
            // The length in the header covers the first link only.
            self.expected_seconds = 0.0;
            self.begin();
            return Ok(true);
        };
        self.link.ahead = self.source.sheet(&mut self.link.stream, |_| ())?;
        let left_out = self.left_out(sheet.mark)?;
        if self.link.ahead.is_none() {
            let padding = self.link.clock.padding(sheet.mark);
            let kept = (sheet.mark.held - padding) as u64;
            self.cut.left = (padding > 0).then(|| kept.saturating_sub(self.cut.skip));
        }
        self.lay_out(sheet.sounds, left_out);
        Ok(true)
    }

    /// Samples of the gap before this page.
    fn left_out(&mut self, mark: Mark) -> Result<u64, AudioError> {
        let mut failure = None;
        let Link { stream, clock, agrees, ahead, .. } = &mut self.link;
        let left_out = clock.page(mark, ahead.as_ref().map(|ahead| ahead.mark), || {
            *agrees.get_or_insert_with(|| {
                look(&self.path, stream, &mut self.source.pages.in_vain).unwrap_or_else(|error| {
                    failure = Some(error);
                    false
                })
            })
        });
        failure.map_or(Ok(left_out.unsigned_abs()), Err)
    }

    /// Queues the packets of a page and the gap. The page does not say where its gap is. An encoder marks a pause with
    /// its last packet before it, so the gap goes after such packets.
    fn lay_out(&mut self, sounds: Vec<Sound>, left_out: u64) {
        let mut after_pause = self.after_pause;
        let pauses: Vec<bool> = sounds.iter().map(|sound| sound.is_pause).collect();
        let before = |n: usize| if n == 0 { after_pause } else { pauses[n - 1] };
        let ends: Vec<usize> = (0..sounds.len()).filter(|&n| before(n) && !pauses[n]).collect();
        let meant = after_pause || !ends.is_empty() || pauses.first() == Some(&true);
        let ends = if ends.is_empty() { vec![0] } else { ends };
        let (share, rest) = (left_out / ends.len() as u64, left_out % ends.len() as u64);
        after_pause = pauses.last() == Some(&true);
        for (n, sound) in sounds.into_iter().enumerate() {
            if ends.contains(&n) && left_out > 0 {
                let samples = share + if ends.first() == Some(&n) { rest } else { 0 };
                self.queue.push_back(Piece::Silence(if meant {
                    Silence::Pause(samples)
                } else {
                    Silence::Gap(samples)
                }));
            }
            self.queue.push_back(Piece::Sound(sound));
        }
        self.after_pause = after_pause;
    }

    /// Counts the audio of a cut-off last page as missing.
    fn end(&mut self) {
        if let Some((serial, granule)) = self.source.pages.cut_off.take()
            && serial == self.link.stream.serial
        {
            self.facts.warnings.push("the last page is cut off".to_owned());
            self.cut_off_seconds = self.link.clock.missing(granule) as f64 / f64::from(self.link.stream.rate_hz);
        }
    }

    /// `None` for a packet without output.
    fn decode(&mut self, sound: Sound, block: &mut Block) -> Option<Step> {
        let duration = Duration::from(sound.samples);
        let packet = Packet::new(self.link.stream.serial, Timestamp::ZERO, duration, sound.data);
        if self.link.engine.decode(&packet, block).is_none() {
            let (_, kept) = self.cut.next(sound.samples);
            return (kept > 0).then(|| self.silence(Silence::Lost(kept)));
        }
        self.facts.saw(block.rate_hz, block.planes.len() as u16);
        let kept = self.cut.apply(block);
        self.put_out_seconds += kept as f64 / f64::from(block.rate_hz.max(1));
        (kept > 0).then_some(Step::Audio)
    }

    fn silence(&mut self, silence: Silence) -> Step {
        let (rate_hz, channels) = (self.link.stream.rate_hz, self.facts.channels.max(1));
        let (Silence::Lost(frames) | Silence::Gap(frames) | Silence::Pause(frames)) = silence;
        self.put_out_seconds += frames as f64 / f64::from(rate_hz);
        let missing = Missing { frames, rate_hz, channels };
        match silence {
            Silence::Lost(_) => Step::Lost(missing),
            Silence::Gap(_) => Step::Gap(missing),
            Silence::Pause(_) => Step::Pause(missing),
        }
    }
}

impl Decode for Ogg {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        loop {
            let step = match self.queue.pop_front() {
                Some(Piece::Sound(sound)) => self.decode(sound, block),
                Some(Piece::Silence(silence)) => Some(self.silence(silence)),
                None if self.turn()? => None,
                None => return Ok(Step::End),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    fn facts(&self) -> Facts {
        let missing = self.expected_seconds - self.put_out_seconds;
        let missing = if missing > MISSING_SECONDS { missing } else { 0.0 };
        Facts { missing_seconds: missing.max(self.cut_off_seconds), ..self.facts.clone() }
    }
}
