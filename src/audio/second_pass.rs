//! Second pass: gain, limiter and output to the requested files.

use super::error::AudioError;
use super::first_pass::FirstPassOutput;
use super::flac::FlacWriter;
use super::level::GainPlan;
use super::limiter::Limiter;
use super::output_levels::OutputLevels;
use super::spill::whole;
use super::true_peak::PeakMeter;
use super::wav::{WavWriter, WrittenFile};
use super::waveform::Waveform;
use super::{CancelFlag, NormalizeRequest};
use crate::domain::quality::Normalization;

/// Files and measurements of the second pass.
pub(super) struct SecondPassOutput {
    pub normalization: Normalization,
    pub waveform: Waveform,
    pub wav: Option<WrittenFile>,
    pub flac: Option<WrittenFile>,
}

/// The requested outputs. All get the same samples.
struct Outputs {
    wav: Option<WavWriter>,
    flac: Option<FlacWriter>,
    waveform: Waveform,
    pcm: Vec<i16>,
}

impl Outputs {
    fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        self.pcm.resize(samples.len(), 0);
        quantize(samples, &mut self.pcm);
        if let Some(wav) = &mut self.wav {
            wav.push(&self.pcm)?;
        }
        if let Some(flac) = &mut self.flac {
            flac.push(&self.pcm)?;
        }
        self.waveform.push(&self.pcm);
        Ok(())
    }
}

/// Rounds to 16 bits and clips at full scale. There is no dither, so digital silence stays digital silence.
fn quantize(samples: &[f32], pcm: &mut [i16]) {
    let level = fearless_simd::Level::new();
    fearless_simd::dispatch!(level, _simd => {
        for (pcm, sample) in pcm.iter_mut().zip(samples) {
            *pcm = whole(sample * 32_768.0);
        }
    });
}

/// Runs the pass. A recording without loudness has no `plan` and gets no gain.
pub(super) fn write(
    request: &NormalizeRequest<'_>,
    heard: &mut FirstPassOutput,
    plan: Option<GainPlan>,
    cancel: &CancelFlag,
) -> Result<SecondPassOutput, AudioError> {
    let samples = heard.samples.len();
    let mut outputs = Outputs {
        wav: heard.wav.take().map(|draft| draft.begin(samples)).transpose()?,
        flac: request.flac.map(FlacWriter::create).transpose()?,
        waveform: Waveform::default(),
        pcm: Vec::new(),
    };
    let target_lufs = request.settings.target_lufs;
    let normalization = match plan {
        Some(plan @ GainPlan { ceiling: Some(ceiling), gain_db, .. }) => {
            let figures = write_limited(heard, plan.gain(), Limiter::new(ceiling), &mut outputs, cancel)?;
            Normalization { target_lufs, gain_db, ..figures }
        }
        plan => {
            let gain = plan.map_or(1.0, |plan| plan.gain());
            let gain_db = plan.map_or(0.0, |plan| plan.gain_db);
            write_plain(heard, gain, &mut outputs, cancel)?;
            let peak_dbtp = super::decibels(heard.true_peak).map(|peak| peak + gain_db);
            Normalization {
                target_lufs,
                gain_db,
                limited_db: 0.0,
                output_integrated_lufs: plan.map(|plan| plan.output_lufs),
                output_true_peak_dbtp: peak_dbtp,
                reason: plan.is_none().then(|| super::no_loudness(samples).to_owned()),
            }
        }
    };
    outputs.waveform.finish();
    Ok(SecondPassOutput {
        normalization,
        wav: outputs.wav.map(WavWriter::finish).transpose()?,
        flac: outputs.flac.map(FlacWriter::finish).transpose()?,
        waveform: outputs.waveform,
    })
}

fn write_plain(
    heard: &mut FirstPassOutput,
    gain: f32,
    outputs: &mut Outputs,
    cancel: &CancelFlag,
) -> Result<(), AudioError> {
    heard.samples.read(gain, |block| {
        cancel.pass()?;
        outputs.push(block)
    })
}

fn write_limited(
    heard: &mut FirstPassOutput,
    gain: f32,
    mut limiter: Limiter,
    outputs: &mut Outputs,
    cancel: &CancelFlag,
) -> Result<Normalization, AudioError> {
    let mut peaks = PeakMeter::default();
    let mut levels = OutputLevels::new(&heard.levels, gain);
    let mut out = Vec::new();
    let mut put = |out: &mut Vec<f32>, limiter: &Limiter, outputs: &mut Outputs| {
        peaks.push(out);
        levels.push(out, |hop| limiter.changed(hop));
        let done = outputs.push(out);
        out.clear();
        done
    };
    heard.samples.read(gain, |block| {
        cancel.pass()?;
        limiter.push(block, &mut out);
        put(&mut out, &limiter, outputs)
    })?;
    limiter.finish(&mut out);
    put(&mut out, &limiter, outputs)?;
    peaks.finish();
    Ok(Normalization {
        limited_db: limiter.limited_db(),
        output_integrated_lufs: levels.integrated(),
        output_true_peak_dbtp: super::decibels(peaks.true_peak()),
        ..Normalization::default()
    })
}
