#!/usr/bin/env python3
"""Learns to tell speech from other sounds and writes `src/audio/speech/weights.bin` (f32, little-endian).

Run by hand; the result is committed. Speech is espeak-ng's in many languages and voices, in noise, in rooms, over
telephone bands; the rest is noise, music, call progress tones, DTMF, hum. Needs numpy and libespeak-ng:

    python3 benches/training/train_speech.py

The features here and in `src/audio/speech/features.rs` are the same and have to stay so.
"""
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

import synth

OUT = Path(__file__).resolve().parents[2] / "src/audio/speech/weights.bin"
HOP, WINDOW, FFT, BANDS = 160, 400, 512, 20
FIRST, LAST = 4, 121
FLOOR = 1e-4
OFFSETS = [-24, -12, -6, -3, 0, 3, 6, 12, 24]
WIDE = 64
HIDDEN = 32

LANGUAGES = "en-us en-gb-x-rp en-029 de fr-fr es it pt-br ru pl tr ar hi bn ta zh yue ja ko vi sw am zu yo ha ig nl sv fi el he fa ur id ms th hu cs ro uk".split()
VARIANTS = "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 Andy Annie Alicia Michael Lee adam belinda linda steph robert victor boris norbert".split()
TEXT = (
    "one two three yes no hello thank you seven please wait a moment the meter shows an error since this morning can you "
    "help me with my order it should have come on friday of course may i have your name and the number goodbye "
    "la casa es grande y bonita mañana por la tarde ja bitte vielen dank auf wiedersehen où est la gare "
    "nina kuja nyumbani kesho asubuhi oke maka anyi si ka sannu da zuwa"
).split()


def mel_triangles():
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)
    hertz = lambda m: 700 * (10 ** (m / 2595) - 1)
    edges = hertz(np.linspace(mel(120), mel(3800), BANDS + 2)) / (synth.RATE / FFT)
    bins = np.arange(FFT // 2 + 1)
    weights = np.zeros((BANDS, len(bins)))
    for n in range(BANDS):
        low, middle, high = edges[n : n + 3]
        weights[n] = np.clip(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0, None)
    return weights


TRIANGLES = mel_triangles()
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
LAGS = np.correlate(HANN, HANN, "full")[WINDOW - 1 :]
LAGS = LAGS / LAGS[0]


def frames(samples):
    """Bands, peaks, held, periodic: one row per 10 ms."""
    count = (len(samples) - WINDOW) // HOP + 1
    cut = np.lib.stride_tricks.as_strided(samples, (count, WINDOW), (samples.strides[0] * HOP, samples.strides[0]))
    power = np.abs(np.fft.rfft(cut * HANN, FFT)) ** 2
    bands = np.log(power @ TRIANGLES.T + FLOOR)
    inside = power[:, FIRST : LAST + 1]
    total = inside.sum(1)
    bins, rows = np.arange(inside.shape[1]), np.arange(count)
    running = np.concatenate([np.zeros((count, 1)), np.cumsum(inside, 1)], 1)
    around = lambda at: running[rows, np.minimum(at + 3, len(bins))] - running[rows, np.maximum(at - 2, 0)]
    first = inside.argmax(1)
    second = np.where(np.abs(bins - first[:, None]) > 4, inside, -1).argmax(1)
    peaks = (around(first) + around(second)) / (total + FLOOR)
    shape = np.log(inside + 0.1 * FLOOR)
    shape -= shape.mean(1, keepdims=True)
    shape /= np.linalg.norm(shape, axis=1, keepdims=True) + 1e-3
    held = np.zeros(count)
    held[6:] = (shape[6:] * shape[:-6]).sum(1)
    only = np.zeros_like(power)
    only[:, FIRST - 1 : LAST + 1] = power[:, FIRST - 1 : LAST + 1]
    correlation = np.fft.irfft(only, FFT) * FFT
    energy = correlation[:, 0] + FLOOR * FFT
    periodic = np.clip((correlation[:, 40:201] / energy[:, None] / LAGS[40:201]).max(1), 0, 1.5)
    return bands, np.stack([peaks, held, periodic], 1)


def floors(bands):
    count = len(bands)
    running = np.concatenate([np.zeros((1, BANDS)), np.cumsum(bands, 0)])
    low, high = np.maximum(np.arange(count) - 2, 0), np.minimum(np.arange(count) + 3, count)
    smooth = (running[high] - running[low]) / (high - low)[:, None]
    steps = np.stack([smooth[at : at + 10].min(0) for at in range(0, count, 10)])
    wide = np.stack([steps[max(0, n - 15) : n + 16].min(0) for n in range(len(steps))])
    return wide[np.arange(count) // 10]


def inputs(samples):
    """What the network sees of every frame."""
    bands, tonal = frames(np.asarray(samples, float))
    count = len(bands)
    above = np.clip(bands - floors(bands), 0, 8) / 4
    row = np.concatenate([above, tonal], 1)
    at = np.clip(np.arange(count)[:, None] + np.array(OFFSETS), 0, count - 1)
    near = row[at].reshape(count, -1)
    four = np.concatenate([above.mean(1, keepdims=True), tonal], 1)
    sums = np.concatenate([np.zeros((1, 4)), np.cumsum(four, 0)])
    squares = np.concatenate([np.zeros((1, 4)), np.cumsum(four**2, 0)])
    low, high = np.maximum(np.arange(count) - WIDE, 0), np.minimum(np.arange(count) + WIDE + 1, count)
    size = (high - low)[:, None]
    mean = (sums[high] - sums[low]) / size
    spread = np.sqrt(np.maximum((squares[high] - squares[low]) / size - mean**2, 0))
    return np.concatenate([near, mean, spread], 1).astype(np.float32)


def example(rng, speaker):
    """One recording of some seconds and its labels."""
    seconds = rng.uniform(8, 16)
    count = int(seconds * synth.RATE)
    clean, active = np.zeros(count), np.zeros(count // HOP + 1, bool)
    if rng.random() < 0.5:
        at = rng.uniform(0, 2)
        voices = [f"{rng.choice(LANGUAGES)}+{rng.choice(VARIANTS)}" for _ in range(2)]
        while at < seconds - 0.3:
            voice = voices[rng.integers(2)]
            words = rng.choice(TEXT, int(rng.choice([1, 2, 4, 8, 14])))
            try:
                said, _ = speaker.speak(voice, " ".join(words), rng.uniform(120, 220), rng.uniform(20, 80), rng.uniform(20, 80))
            except ValueError:
                voices[0], voices[1] = "en-us+" + rng.choice(VARIANTS), "de+" + rng.choice(VARIANTS)
                continue
            if len(said) < 1600:
                continue
            marks = synth.activity(said)
            said = synth.room(rng, said) * 10 ** (rng.uniform(-8, 0) / 20)
            start = int(at * 100) * HOP
            said = said[: count - start]
            clean[start : start + len(said)] += said
            marks = marks[: len(active) - start // HOP]
            active[start // HOP : start // HOP + len(marks)] |= marks
            at += len(said) / synth.RATE + rng.exponential(0.7)
        loud = np.sqrt((clean**2).sum() / max(1, active.sum() * HOP))
        snr = rng.choice([60, rng.uniform(15, 40), rng.uniform(3, 15)])
        other = synth.no_speech(rng, seconds) if rng.random() < 0.25 else synth.noise(rng, seconds)
        other = other[:count] / (other.std() + 1e-9)
        sound = clean + loud * 10 ** (-snr / 20) * np.pad(other, (0, count - len(other)))
    else:
        other = synth.no_speech(rng, seconds)[:count]
        sound = np.pad(other, (0, count - len(other)))
        if rng.random() < 0.7:
            sound = sound / (sound.std() + 1e-9) + 10 ** (-rng.uniform(5, 60) / 20) * synth.noise(rng, seconds)[:count]
        if rng.random() < 0.3:
            sound = synth.room(rng, sound)
    if rng.random() < 0.5:
        sound = synth.band(sound, rng.uniform(100, 320), rng.uniform(3200, 3900))
    peak = np.abs(sound).max() + 1e-9
    sound = sound / peak * 10 ** (-rng.choice([rng.uniform(0, 20), rng.uniform(20, 45)]) / 20)
    sound = np.round(np.clip(sound, -1, 1) * 32767) / 32768
    found = inputs(sound)
    return found, active[: len(found)]


def train(x, y, rng, epochs=14):
    mean, scale = x.mean(0), x.std(0) + 1e-3
    sizes = [x.shape[1], HIDDEN, 16, 1]
    weights = [rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32) for a, b in zip(sizes, sizes[1:])]
    biases = [np.zeros(b, np.float32) for b in sizes[1:]]
    moments = [[np.zeros_like(p), np.zeros_like(p)] for p in weights + biases]
    steps = 0
    batch = 1024
    for epoch in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        for at in range(0, len(order) - batch, batch):
            pick = order[at : at + batch]
            a = [(x[pick] - mean) / scale]
            for w, b in zip(weights[:-1], biases[:-1]):
                a.append(np.maximum(a[-1] @ w + b, 0))
            p = 1 / (1 + np.exp(-(a[-1] @ weights[-1] + biases[-1])[:, 0]))
            t = y[pick]
            total += -(t * np.log(p + 1e-7) + (1 - t) * np.log(1 - p + 1e-7)).sum()
            # A sound taken for speech costs words that nobody said; it weighs double.
            d = ((p - t) * np.where(t > 0, 1, 2) / batch)[:, None].astype(np.float32)
            grads_w, grads_b = [], []
            for n in reversed(range(len(weights))):
                grads_w.insert(0, a[n].T @ d)
                grads_b.insert(0, d.sum(0))
                if n:
                    d = (d @ weights[n].T) * (a[n] > 0)
            steps += 1
            for p_, g, m in zip(weights + biases, grads_w + grads_b, moments):
                m[0] = 0.9 * m[0] + 0.1 * g
                m[1] = 0.999 * m[1] + 0.001 * g * g
                p_ -= rate * (m[0] / (1 - 0.9**steps)) / (np.sqrt(m[1] / (1 - 0.999**steps)) + 1e-8)
        print(f"epoch {epoch}: loss {total / len(order):.4f}", flush=True)
    # The scaling of the inputs goes into the first layer.
    first = weights[0] / scale[:, None]
    return [first, *weights[1:]], [biases[0] - mean @ first, *biases[1:]]


def apply(x, weights, biases):
    for w, b in zip(weights[:-1], biases[:-1]):
        x = np.maximum(x @ w + b, 0)
    return 1 / (1 + np.exp(-(x @ weights[-1] + biases[-1])[:, 0]))


def share(seed, count):
    rng, speaker = np.random.default_rng(seed), synth.Synthesiser()
    return [example(rng, speaker) for _ in range(count)]


def main():
    count, shares = int(sys.argv[1]) if len(sys.argv) > 1 else 1500, 2
    rng, began = np.random.default_rng(5), time.time()
    with multiprocessing.get_context("spawn").Pool(shares) as pool:
        made = sum(pool.starmap(share, [(seed, count // shares) for seed in range(shares)]), [])
    print(f"{len(made)} recordings in {time.time() - began:.0f} s", flush=True)
    held = made[: count // 12]
    x = np.concatenate([m[0] for m in made[count // 12 :]])
    y = np.concatenate([m[1] for m in made[count // 12 :]]).astype(np.float32)
    weights, biases = train(x, y, rng)
    p, t = apply(np.concatenate([m[0] for m in held]), weights, biases) > 0.5, np.concatenate([m[1] for m in held])
    print(f"held out: missed {np.mean(~p[t]):.4f} of speech, false {np.mean(p[~t]):.4f} of the rest")
    flat = [part.astype("<f4").ravel() for pair in zip([w.T for w in weights], biases) for part in pair]
    OUT.write_bytes(np.concatenate(flat).tobytes())
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
