#!/usr/bin/env python3
"""Makes sounds in which nobody speaks: noise, music, ringing, DTMF, silence; `--seconds` of each, thirty kinds.

    python3 benches/training/sounds.py OUT [--seconds 60] [--seed 1]

Together half an hour of what a recording may hold instead of speech, to ask how much of it is taken for speech. Nothing
here is shared with what `train_speech.py` learns from: strings are delay lines, drums and pieces are other
ones. Half of the files are 16 kHz WAV, the others telephone band and 8 kHz. Needs numpy.
"""
import argparse
import wave
from pathlib import Path

import numpy as np

RATE = 16000
TAU = 2 * np.pi


class Tape:
    """Sounds laid on a stretch of silence."""

    def __init__(self, seconds):
        self.samples = np.zeros(int(seconds * RATE))

    def lay(self, at, sound, gain=1.0):
        start = int(at * RATE)
        if start < len(self.samples):
            end = min(len(self.samples), start + len(sound))
            self.samples[start:end] += gain * sound[: end - start]


def time(seconds):
    return np.arange(int(seconds * RATE)) / RATE


def note(name):
    """Hertz of a MIDI number."""
    return 440 * 2 ** ((name - 69) / 12)


def string(rng, hertz, seconds, dull=0.5):
    """A plucked string: a delay line that loses its highs (Karplus and Strong, 1983)."""
    long = max(2, int(round(RATE / hertz)))
    line, out = rng.uniform(-1, 1, long), []
    for _ in range(int(seconds * hertz) + 1):
        out.append(line)
        line = 0.996 * (dull * line + (1 - dull) * np.roll(line, 1))
    return np.concatenate(out)[: int(seconds * RATE)]


def piano(hertz, seconds):
    t = time(seconds)
    depth = 1.6 * np.exp(-3 * t)
    return np.sin(TAU * hertz * t + depth * np.sin(TAU * hertz * t) + 0.3 * depth * np.sin(TAU * 7 * hertz * t)) * np.exp(-1.7 * t) * np.minimum(1, t / 0.003)


def organ(hertz, seconds):
    t = time(seconds)
    return sum(g * np.sin(TAU * hertz * k * t) for k, g in ((1, 1), (2, 0.7), (3, 0.4), (4, 0.5), (8, 0.2)) if hertz * k < 7500) * np.clip(np.minimum(t, seconds - t) / 0.02, 0, 1)


def strings(hertz, seconds):
    t = time(seconds)
    out = 0
    for detune, rate in ((0.997, 5.1), (1.0, 5.6), (1.003, 4.7)):
        phase = TAU * np.cumsum(hertz * detune * (1 + 0.004 * np.sin(TAU * rate * t))) / RATE
        out = out + sum(np.sin(k * phase) / k for k in range(1, 14) if k * hertz < 7500)
    return out / 3 * np.clip(np.minimum(t / 0.15, (seconds - t) / 0.2), 0, 1)


def oboe(hertz, seconds):
    t = time(seconds)
    phase = TAU * np.cumsum(hertz * (1 + 0.006 * np.sin(TAU * 5.5 * t) * np.minimum(1, t / 0.3))) / RATE
    gains = (0.5, 1, 0.9, 0.6, 0.7, 0.3, 0.2, 0.1)
    return sum(g * np.sin((k + 1) * phase) for k, g in enumerate(gains) if (k + 1) * hertz < 7500) * np.clip(np.minimum(t / 0.05, (seconds - t) / 0.05), 0, 1)


def kick():
    t = time(0.3)
    return np.sin(TAU * np.cumsum(48 + 120 * np.exp(-40 * t)) / RATE) * np.exp(-12 * t)


def snare(rng):
    t = time(0.2)
    return (0.6 * rng.normal(size=len(t)) + np.sin(TAU * 185 * t)) * np.exp(-22 * t) * 0.6


def hat(rng, open_=False):
    t = time(0.25 if open_ else 0.06)
    return np.diff(rng.normal(size=len(t)), prepend=0) * np.exp(-(12 if open_ else 70) * t) * 0.3


def drums(rng, tape, beat, gain=1.0):
    at, step = 0.0, 0
    while at < len(tape.samples) / RATE:
        if step % 8 in (0, 5):
            tape.lay(at, kick(), gain)
        if step % 8 in (2, 6):
            tape.lay(at, snare(rng), gain)
        tape.lay(at, hat(rng, step % 16 == 15), gain * (1 if step % 2 else 0.6))
        at, step = at + beat / 2, step + 1


PROGRESSION = ((60, 64, 67), (57, 60, 64), (65, 69, 72), (67, 71, 74))


def chords(tape, beat, voice, gain=0.3, every=4):
    for n in range(int(len(tape.samples) / RATE / (every * beat)) + 1):
        for name in PROGRESSION[n % 4]:
            tape.lay(n * every * beat, voice(note(name), every * beat * 0.98), gain)


def arpeggio(tape, beat, voice, gain=0.4, long=1.0, up=12):
    for n in range(int(len(tape.samples) / RATE / (beat / 2)) + 1):
        chord = PROGRESSION[n // 8 % 4]
        name = (*chord, chord[1] + 12)[(0, 1, 2, 3, 2, 1, 2, 1)[n % 8]] + up
        tape.lay(n * beat / 2, voice(note(name), beat * long), gain)


def melody(rng, tape, beat, voice, gain=0.4, low=60):
    at, place = 0.0, 4
    scale = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)
    while at < len(tape.samples) / RATE:
        place = int(np.clip(place + rng.integers(-2, 3), 0, len(scale) - 1))
        long = beat * rng.choice([0.5, 0.5, 1, 1, 2])
        if rng.random() < 0.88:
            tape.lay(at, voice(note(low + scale[place]), long * 0.95), gain)
        at += long


def bass(tape, beat, gain=0.5):
    for n in range(int(len(tape.samples) / RATE / beat) + 1):
        t = time(beat * 0.8)
        hertz = note(PROGRESSION[n // 4 % 4][0] - 24 + (0, 0, 7, 0)[n % 4])
        tape.lay(n * beat, np.tanh(2 * np.sin(TAU * hertz * t)) * np.exp(-3 * t), gain)


def portamento(rng, seconds):
    """A lead that slides from note to note and never lets go."""
    target = np.repeat([note(72 + int(rng.choice([0, 2, 4, 7, 9, 12, -3, -5]))) for _ in range(int(seconds / 0.4) + 1)], int(0.4 * RATE))[: int(seconds * RATE)]
    kernel = np.exp(-np.arange(RATE // 4) / (0.05 * RATE))
    slow = np.exp(np.convolve(np.log(target) - np.log(target[0]), kernel / kernel.sum())[: len(target)]) * target[0]
    phase = TAU * np.cumsum(slow * (1 + 0.005 * np.sin(TAU * 6 * time(seconds)[: len(slow)]))) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 8))


def acid(rng, seconds):
    """A bass whose resonance is swept up and down."""
    names = [note(36 + int(rng.choice([0, 0, 12, 3, 7, 10]))) for _ in range(int(seconds / 0.13) + 1)]
    hertz = np.repeat(names, int(0.13 * RATE))[: int(seconds * RATE)]
    t = np.arange(len(hertz)) / RATE
    phase, centre = np.cumsum(hertz) / RATE, 700 + 550 * np.sin(TAU * 0.2 * t)
    return sum(np.sin(TAU * k * phase) / k * (0.3 + 3 * np.exp(-(((hertz * k - centre) / 200) ** 2))) for k in range(1, 30)) * np.exp(-(t % 0.13) * 8)


def tones(seconds, pairs, on):
    """Sums of sines, sounding while `on` of the time is true."""
    t = time(seconds)
    return sum(np.sin(TAU * hz * t) for hz in pairs) * on(t)


def keys(rng, seconds, on, off):
    tape, at = Tape(seconds), 0.3
    while at < seconds:
        t = time(on)
        tape.lay(at, np.sin(TAU * rng.choice([697, 770, 852, 941]) * t) + np.sin(TAU * rng.choice([1209, 1336, 1477, 1633]) * t))
        at += on + off
    return tape.samples


def shaped(rng, seconds, slope):
    size = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.normal(size=size))
    return np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(size, 1 / RATE), 40) ** (slope / 2), size)


def hold_music(rng, seconds, beat):
    tape = Tape(seconds)
    chords(tape, beat, strings, 0.15)
    arpeggio(tape, beat, piano, 0.3)
    melody(rng, tape, beat, oboe, 0.2, 72)
    bass(tape, beat, 0.3)
    drums(rng, tape, beat, 0.25)
    return tape.samples


def pieces(rng, seconds):
    """Every kind by name."""
    def piece(*parts):
        tape = Tape(seconds)
        for part in parts:
            part(tape)
        return tape.samples

    t = time(seconds)
    pluck = lambda hz, long: string(rng, hz, long)
    yield "silence", np.zeros(len(t))
    yield "noise-white", rng.normal(size=len(t))
    yield "noise-pink", shaped(rng, seconds, 1)
    yield "noise-brown", shaped(rng, seconds, 2)
    yield "noise-street", shaped(rng, seconds, 1.4) * (1 + 0.7 * np.sin(TAU * 0.23 * t) + 0.3 * np.sin(TAU * 1.7 * t))
    yield "hum", sum(np.sin(TAU * 50 * k * t) / k for k in range(1, 14))
    yield "ringback-europe", tones(seconds, (400, 450), lambda t: (t % 3 < 0.4) | ((t % 3 > 0.6) & (t % 3 < 1)))
    yield "ringback-america", tones(seconds, (440, 480), lambda t: t % 6 < 2)
    yield "ringback-one-tone", tones(seconds, (425,), lambda t: t % 5 < 1)
    yield "busy", tones(seconds, (480, 620), lambda t: t % 1 < 0.5)
    yield "dtmf-quick", keys(rng, seconds, 0.06, 0.06)
    yield "dtmf-slow", keys(rng, seconds, 0.25, 0.2)
    yield "beeps", tones(seconds, (1000,), lambda t: t % 1.4 < 0.3)
    yield "fax", tones(seconds, (2100,), lambda t: t % 4 < 3) + tones(seconds, (1100,), lambda t: t % 3.5 < 0.5)
    yield "music-chord", piece(lambda tape: [tape.lay(0, organ(note(n), seconds)) for n in (60, 64, 67)])
    yield "music-organ", piece(lambda tape: chords(tape, 0.6, organ))
    yield "music-piano", piece(lambda tape: chords(tape, 0.55, piano, 0.4, 2), lambda tape: melody(rng, tape, 0.55, piano, 0.5, 72))
    yield "music-strings", piece(lambda tape: chords(tape, 0.8, strings), lambda tape: melody(rng, tape, 0.8, strings, 0.3, 67))
    yield "music-guitar", piece(lambda tape: arpeggio(tape, 0.5, pluck, 0.5, 2.0, 0))
    yield "music-harp", piece(lambda tape: arpeggio(tape, 0.3, pluck, 0.5, 3.0))
    yield "music-oboe", piece(lambda tape: melody(rng, tape, 0.5, oboe, 0.5, 67))
    yield "music-cello", piece(lambda tape: melody(rng, tape, 0.7, strings, 0.5, 43))
    yield "music-lead", portamento(rng, seconds)
    yield "music-acid", piece(lambda tape: drums(rng, tape, 0.26 * 2, 0.8)) + 0.3 * acid(rng, seconds)
    yield "music-drums", piece(lambda tape: drums(rng, tape, 0.5))
    yield "music-drums-bass", piece(lambda tape: drums(rng, tape, 0.45), lambda tape: bass(tape, 0.45))
    yield "music-band", piece(lambda tape: drums(rng, tape, 0.5, 0.6), lambda tape: bass(tape, 0.5), lambda tape: arpeggio(tape, 0.5, pluck, 0.4), lambda tape: melody(rng, tape, 0.5, piano, 0.4, 72))
    yield "music-waltz", piece(lambda tape: chords(tape, 0.42, pluck, 0.3, 3), lambda tape: melody(rng, tape, 0.42, oboe, 0.4, 72))
    yield "music-hold", hold_music(rng, seconds, 0.52)
    yield "music-hold-quick", hold_music(rng, seconds, 0.33)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    for number, (name, samples) in enumerate(pieces(rng, args.seconds)):
        samples = 0.35 * samples / (np.abs(samples).max() + 1e-9)
        if not name.startswith("silence"):
            samples = samples + 0.0005 * rng.normal(size=len(samples))
        rate = RATE
        if number % 2:
            spectrum = np.fft.rfft(samples)
            hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
            samples = np.fft.irfft(spectrum * ((hertz > 280) & (hertz < 3450)), len(samples))[::2]
            rate = 8000
        with wave.open(str(args.out / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", None))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
