#!/usr/bin/env python3
"""Learns which directions tell voices apart and writes `src/transcript/voices/weights.bin` (f32, little-endian).

A stretch of about a second is summed up by mean and spread of its cepstra and pitch. Linear discriminant analysis over
many synthetic voices, each under many lines and noises, finds the directions in which voices differ most against how one
voice differs from itself. Run by hand; the result is committed. Needs numpy and libespeak-ng:

    python3 tests/calls/train_voices.py

The summary here and in `src/transcript/voices/` are the same and have to stay so. None of the voices of `make.py` is used.
"""
from pathlib import Path

import numpy as np

import make
import synth
import train_speech

OUT = Path(__file__).resolve().parents[2] / "src/transcript/voices/weights.bin"
CEPSTRA, DIMENSIONS = 14, 12
BASES = ["en-us", "en-gb", "en-029", "de", "es", "it", "sw", "pl", "pt-br", "nl"]
VARIANTS = (
    "m1 m4 m5 m6 f2 f4 klatt klatt2 klatt3 klatt4 klatt5 klatt6 Andy Annie belinda boris victor norbert paul pablo miguel marcelo "
    "gustave john ed david edward max mike aunty anika sandro shelby travis iven iven2 iven3 Diogo Gene Gene2 Henrique Hugo Jacky "
    "Mario Marco Nguyen Storm RicishayMax steph2 steph3 rob caleb benjamin antonio"
).split()
DCT = np.cos(np.pi * np.arange(1, CEPSTRA + 1)[:, None] * (np.arange(20) + 0.5) / 20) * np.sqrt(2 / 20)


def periods(samples):
    """Log of the best period of every frame, in samples."""
    cut = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    power = np.abs(np.fft.rfft(cut * train_speech.HANN, 512)) ** 2
    only = np.zeros_like(power)
    only[:, 3:122] = power[:, 3:122]
    correlation = np.fft.irfft(only, 512)[:, 40:201] / train_speech.LAGS[40:201]
    return np.log(40 + correlation.argmax(1))


def summary(bands, tonal, period, level):
    """Mean and spread of cepstra and pitch over the louder frames."""
    loud = level > level.max() - 25 * np.log(10) / 10
    c = bands[loud] @ DCT.T
    voiced = loud & (tonal[:, 2] > 0.55)
    p = period[voiced]
    pitch = [p.mean(), p.std()] if len(p) >= 5 else [np.nan, np.nan]
    return np.concatenate([c.mean(0), c.std(0), pitch])


def main():
    rng, speaker = np.random.default_rng(9), synth.Synthesiser()
    lines = make.AGENT + make.CALLER
    voices = [(f"{rng.choice(BASES)}+{variant}", rng.uniform(35, 65)) for variant in VARIANTS for _ in range(2)]
    said = []
    for voice, pitch in voices:
        text = " ".join(rng.permutation(lines)[:6])
        try:
            said.append(speaker.speak(voice, text, rng.uniform(145, 190), pitch, rng.uniform(35, 65))[0])
        except ValueError:
            print("no voice", voice)
    within, between, count = 0, [], 0
    for condition in range(8):
        narrow, snr = condition % 2 == 0, rng.uniform(15, 45)
        means = []
        for samples in said:
            track = make.line(rng, samples, narrow)
            track = track + 0.08 * 10 ** (-snr / 20) / 3 * synth.noise(rng, len(track) / synth.RATE + 0.1)[: len(track)]
            bands, tonal = train_speech.frames(np.ascontiguousarray(track))
            period, level = periods(track), np.log(np.exp(bands).sum(1))
            marks = synth.activity(samples)[: len(bands)]
            at, rows = 0, []
            index = np.flatnonzero(marks)
            while at < len(index) - 60:
                long = int(rng.integers(60, 150))
                pick = index[at : at + long]
                if len(pick) >= 50:
                    rows.append(summary(bands[pick], tonal[pick], period[pick], level[pick]))
                at += long
            rows = np.array(rows)
            rows = rows[~np.isnan(rows).any(1)]
            if len(rows) < 4:
                continue
            means.append(rows.mean(0))
            within = within + (rows - rows.mean(0)).T @ (rows - rows.mean(0))
            count += len(rows) - 1
        means = np.array(means)
        between.append(np.cov(means.T))
    within, between = within / count, np.mean(between, 0)
    # Directions in which every voice varies by one, sorted by how much voices differ in them.
    value, vector = np.linalg.eigh(within + 1e-4 * np.eye(len(within)) * np.trace(within) / len(within))
    whiten = vector / np.sqrt(value)
    value, vector = np.linalg.eigh(whiten.T @ between @ whiten)
    order = np.argsort(value)[::-1][:DIMENSIONS]
    print("variance between voices, in units of that within:", value[order].round(1))
    weights = (whiten @ vector[:, order]).T.astype("<f4")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(weights.tobytes())
    print(f"{OUT.name}: {weights.shape}, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
