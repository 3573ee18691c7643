#!/usr/bin/env python3
"""What a voice sounds like, frame by frame and second by second: the figures of `src/transcript/diarization/`, in numpy.

    python3 benches/training/voices.py > src/transcript/diarization/golden.json

writes what `src/transcript/diarization/tests.rs` compares with: pitch and place of a made-up sound, by the weights as they are.
Needs numpy.
"""
import json
from pathlib import Path

import numpy as np

import train_speech

WEIGHTS = Path(__file__).resolve().parents[2] / "src/transcript/diarization/weights.bin"
# Pitch: normalised cross-correlation at 4 kHz, periods of 400 to 70 Hz, and the cheapest way through its peaks.
EVERY, RATE, HOP, WINDOW, SHORTEST, LONGEST, TAPS, PEAKS = 4, 4000, 40, 120, 10, 57, 63, 5
LONG, ONSET, PER_OCTAVE, MOST, UNVOICED = 0.25, 0.25, 2.1, 1.4, 0.05
MIDDLE = 7.3
# The network: frames' numbers, width, points' numbers, layers' taps and distances.
SEEN, WIDTH, DIMENSIONS, LAYERS = train_speech.BANDS + 2, 48, 24, [(5, 1), (3, 2), (3, 3)]
RANGE, LITTLE = 6.0, 0.3

_at = np.arange(TAPS) - (TAPS - 1) / 2
LOW_PASS = np.sinc(2 * 900 / 16000 * _at) * np.hamming(TAPS)
LOW_PASS = LOW_PASS / LOW_PASS.sum()
LAGS = np.arange(SHORTEST, LONGEST + 1)


def correlation(samples):
    """For every 10 ms the likeness of samples to those a period later; a column for each period and one on either side."""
    count, reach = len(samples) // HOP, WINDOW + LONGEST + 1
    padded = np.concatenate([np.zeros(reach // 2), samples, np.zeros(2 * reach)])
    cut = np.lib.stride_tricks.sliding_window_view(padded, reach)[: count * HOP : HOP]
    cut = cut - cut.mean(1, keepdims=True)
    running = np.concatenate([np.zeros((count, 1)), np.cumsum(cut * cut, 1)], 1)
    now, out = cut[:, :WINDOW], np.empty((count, len(LAGS) + 2))
    for n in range(out.shape[1]):
        lag = SHORTEST - 1 + n
        energy = running[:, lag + WINDOW] - running[:, lag]
        out[:, n] = (now * cut[:, lag : lag + WINDOW]).sum(1) / np.sqrt((running[:, WINDOW] + 1e-7) * (energy + 1e-7))
    return out


def pitch(samples):
    """Octaves above 1 Hz for every 10 ms of a sound at 16 kHz, NaN without a voice."""
    heights = correlation(np.convolve(samples, LOW_PASS, "same")[::EVERY])
    count = len(heights)
    if count == 0:
        return np.zeros(0)
    inner = heights[:, 1:-1]
    peak = (inner >= heights[:, :-2]) & (inner > heights[:, 2:])
    best = np.argsort(-np.where(peak, inner * (1 - LONG * LAGS / LONGEST), -9), 1, kind="stable")[:, :PEAKS]
    rows = np.arange(count)[:, None]
    there, left, here, right = peak[rows, best], heights[rows, best], heights[rows, best + 1], heights[rows, best + 2]
    period = LAGS[best] + 0.5 * (left - right) / (left - 2 * here + right - 1e-12)
    octaves = np.log2(RATE / np.where(there, period, 1))
    local = np.empty((count, PEAKS + 1))
    local[:, 0] = np.where(there, here, 0).max(1) - UNVOICED
    local[:, 1:] = np.where(there, 1 - here * (1 - LONG * period / LONGEST), 1e9)
    step = np.full((count, PEAKS + 1, PEAKS + 1), ONSET)
    step[:, 0, 0] = 0
    step[1:, 1:, 1:] = np.minimum(PER_OCTAVE * np.abs(octaves[:-1, :, None] - octaves[1:, None, :]), MOST)
    cost, came_from, states = local[0], np.zeros((count, PEAKS + 1), int), np.arange(PEAKS + 1)
    for n in range(1, count):
        total = cost[:, None] + step[n]
        came_from[n] = total.argmin(0)
        cost = local[n] + total[came_from[n], states]
    out, state = np.full(count, np.nan), int(cost.argmin())
    for n in range(count - 1, -1, -1):
        if state:
            out[n] = octaves[n, state - 1]
        state = came_from[n, state]
    return out


def sounds(samples):
    """What the network sees: bands, whether there is a voice, its pitch. A frame's middle is where the next one's pitch is."""
    bands, _ = train_speech.frames(np.ascontiguousarray(samples, float))
    octaves = np.concatenate([pitch(samples), np.full(3, np.nan)])[1 : len(bands) + 1]
    voiced = np.isfinite(octaves)
    return np.concatenate([bands, voiced[:, None], np.where(voiced, octaves - MIDDLE, 0)[:, None]], 1).astype(np.float32)


def unpacked(flat):
    """Weights and biases, layer by layer."""
    at, out = 0, []
    for inputs, outputs in [(LAYERS[0][0] * SEEN, WIDTH), (3 * WIDTH, WIDTH), (3 * WIDTH, WIDTH), (2 * WIDTH + 3, DIMENSIONS)]:
        out.append((flat[at : at + inputs * outputs].reshape(outputs, inputs), flat[at + inputs * outputs :][:outputs]))
        at += (inputs + 1) * outputs
    return out


def point(rows, layers):
    """Where a stretch lies."""
    bands, voiced, octaves = rows[:, :-2], rows[:, -2], rows[:, -1]
    loudness = bands.mean(1)
    weight = (loudness > loudness.max() - RANGE) * np.where(voiced > 0, 1, LITTLE)
    weight = weight / weight.sum()
    rows = np.concatenate([(bands - (weight * loudness).sum()) / 3, voiced[:, None], 2 * octaves[:, None]], 1)
    for (taps, apart), (weights, bias) in zip(LAYERS, layers):
        reach = taps // 2 * apart
        padded = np.pad(rows, ((reach, reach), (0, 0)))
        near = np.concatenate([padded[n * apart : n * apart + len(rows)] for n in range(taps)], 1)
        rows = np.maximum(near @ weights.T + bias, 0)
    mean = weight @ rows
    spread = np.sqrt(np.maximum(weight @ rows**2 - mean**2, 1e-4))
    count = max(voiced.sum(), 1)
    height = (octaves * voiced).sum() / count
    moves = np.sqrt(max((octaves**2 * voiced).sum() / count - height**2, 1e-5))
    weights, bias = layers[-1]
    return weights @ np.concatenate([mean, spread, [2 * height, 2 * moves, voiced.mean()]]) + bias


def buzz():
    """A second and a half of a made-up voice between two stretches of noise: whole numbers make it the same everywhere."""
    count, state, phase, out = 24_000, 1, 0, np.zeros(24_000)
    y = [0.0, 0.0]
    for n in range(count):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        noise = ((state >> 8) / 8_388_608 - 1) * 0.01
        # 110 Hz, rising to 165.
        phase += 110 + 55 * n // count
        pulse = phase >= 16_000
        phase %= 16_000
        sample = (0.3 if pulse and 4_000 <= n < 20_000 else 0.0) + 1.8 * y[0] - 0.9 * y[1]
        y = [sample, y[0]]
        out[n] = np.float32(0.2 * sample + noise)
    return out


def main():
    samples = buzz()
    octaves = pitch(samples)
    layers = unpacked(np.frombuffer(WEIGHTS.read_bytes(), "<f4"))
    place = point(sounds(samples)[20:120], layers)
    rounded = [None if np.isnan(value) else round(float(value), 4) for value in octaves]
    print(json.dumps({"pitch": rounded, "point": [round(float(value), 4) for value in place]}))


if __name__ == "__main__":
    main()
