"""Noises that rise and fall as speech does and are none, as numpy arrays at 16 kHz: streets, wind, water, engines, doors."""
import numpy as np

import synth
from grooves import spread
from synth import RATE


def smooth(rng, count, hertz):
    """A random curve of mean 0 and spread 1 that moves at about so many hertz."""
    points = int(count / RATE * hertz * 2) + 4
    values = rng.normal(size=points)
    # Cubic between the points: a straight line has corners, and no weather has.
    at = np.linspace(1, points - 3, count)
    n = at.astype(int)
    x = at - n
    a, b, c, d = (values[np.clip(n + k, 0, points - 1)] for k in (-1, 0, 1, 2))
    return b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))


def loudness(rng, count):
    """How loud over time: a product of movements at very different paces, in decibels, or beats, or swells."""
    db = np.zeros(count)
    t = np.arange(count) / RATE
    for _ in range(rng.integers(1, 4)):
        rate, depth = spread(rng, 0.05, 25), spread(rng, 1.5, 12)
        kind = rng.random()
        if kind < 0.6:
            db += depth * smooth(rng, count, rate)
        elif kind < 0.75:
            db += depth * np.sin(2 * np.pi * (rate * t + rng.random()))
        elif kind < 0.85:  # swells, as of cars that pass
            for at in rng.uniform(0, t[-1], int(rng.integers(1, 8))):
                db += 2 * depth * np.exp(-np.abs(t - at) / spread(rng, 0.3, 4))
        else:  # on and off
            db -= 2 * depth * (slowed_gate(rng, count, rate) < 0.5)
    return 10 ** (np.clip(db, -60, 30) / 20)


def slowed_gate(rng, count, rate):
    gate = np.repeat(rng.random(int(count / RATE * rate) + 2) < rng.uniform(0.2, 0.8), int(RATE / rate) + 1)[:count].astype(float)
    long = int(spread(rng, 0.002, 0.05) * RATE)
    return np.convolve(np.pad(gate, (0, max(0, count - len(gate)))), np.ones(long) / long, "same")


def shaped(rng, count):
    """Noise of a random spectrum: a slope, a band, or some resonances."""
    size = synth.quick(count)
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 20)
    gain = (np.maximum(hertz, spread(rng, 20, 400)) / 500) ** (-rng.uniform(0, 2.5) / 2)
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        middle, wide = spread(rng, 100, 4000), spread(rng, 0.03, 1)
        gain = gain + gain.mean() * rng.uniform(0.5, 8) / (1 + (np.log(hertz / middle) / wide) ** 2)
    if rng.random() < 0.3:
        low = spread(rng, 40, 1500)
        gain = gain / (1 + (low / hertz) ** 4) / (1 + (hertz / (low * spread(rng, 1.5, 10))) ** 4)
    out = np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * gain, size)[:count]
    return out / (out.std() + 1e-9)


def blown(rng, count):
    """Noise whose resonance or edge moves: wind, spray, a train."""
    long, hop = 512, 128
    frames = count // hop + 1
    sound = np.pad(shaped(rng, count), (long, long + hop))
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(long) + 0.5) / long))
    cut = np.lib.stride_tricks.sliding_window_view(sound, long)[long // 2 :: hop][:frames] * window
    hertz = np.fft.rfftfreq(long, 1 / RATE)
    way = np.interp(np.arange(frames) * hop, np.arange(count), smooth(rng, count, spread(rng, 0.1, 6)))
    middle = np.clip(spread(rng, 150, 2500) * 2 ** (rng.uniform(0.2, 1.2) * way), 60, 6000)[:, None]
    if rng.random() < 0.5:
        gain = 0.03 + 1 / (1 + (np.log((hertz + 1) / middle) / spread(rng, 0.05, 0.6)) ** 2)
    else:
        gain = 1 / (1 + (hertz / middle) ** rng.choice([2, 4]))
    part = np.fft.irfft(np.fft.rfft(cut) * gain, long) * window
    out = np.zeros(frames * hop + long)
    for n in range(long // hop):  # the four frames that share a sample
        rows = part[n::4]
        out[n * hop : n * hop + rows.size] += rows.ravel()[: len(out) - n * hop]
    return out[long // 2 :][:count] if len(out) >= count + long // 2 else np.pad(out[long // 2 :], (0, count + long // 2 - len(out)))


def bursts(rng, count):
    """Steps, keys, doors, paper, crackle: short noises, alike or not, in time or not."""
    out = np.zeros(count)
    rate, regular, alike = spread(rng, 0.3, 25), rng.random() < 0.4, rng.random() < 0.5
    at, sound = rng.uniform(0, 1), None
    fall = spread(rng, 0.004, 0.25)
    while at < count / RATE:
        if sound is None or not alike:
            long = int(min(6 * fall, 1.2) * RATE)
            here = shaped(rng, long) if rng.random() < 0.6 else rng.normal(size=long)
            t = np.arange(long) / RATE
            sound = here * np.exp(-t / fall) * np.clip(t / rng.choice([0.001, 0.01, fall / 2]), 0, 1)
            if rng.random() < 0.3:  # something rings
                sound = sound + np.sin(2 * np.pi * spread(rng, 100, 3000) * t) * np.exp(-t / spread(rng, 0.01, 0.2))
        start = int(at * RATE)
        part = sound[: count - start] * 10 ** (rng.uniform(-15, 0) / 20)
        out[start : start + len(part)] += part
        at += 1 / rate if regular else rng.exponential(1 / rate)
    return out


def engine(rng, count):
    """Pulses at a rate that rises and falls, each a short noise or a thud: motors, helicopters, pumps, fans."""
    rate = spread(rng, 6, 220) * 2 ** (rng.uniform(0, 0.7) * smooth(rng, count, spread(rng, 0.05, 1)))
    phase = np.cumsum(rate) / RATE
    cycle = phase % 1
    loud = np.exp(-cycle * rng.uniform(1, 12)) if rng.random() < 0.6 else 0.5 + 0.5 * np.cos(2 * np.pi * phase)
    out = rng.uniform(0.3, 1) * shaped(rng, count) * loud
    partials = int(rng.integers(0, 25))
    for k in range(1, partials + 1):
        out = out + rng.uniform(0, 1) / k ** rng.uniform(0.3, 1.5) * np.sin(2 * np.pi * k * phase + k * k) * (rate * k < 7500)
    return out


def calls(rng, count):
    """Short slides of a pure tone: birds, toys, alarms."""
    out, at = np.zeros(count), rng.uniform(0, 1)
    low, wide, pause = spread(rng, 500, 3000), rng.uniform(0.1, 1.2), spread(rng, 0.1, 2)
    while at < count / RATE:
        long = int(spread(rng, 0.03, 0.5) * RATE)
        curve = np.interp(np.linspace(0, 1, long), np.linspace(0, 1, 4), low * 2 ** (wide * rng.uniform(-1, 1, 4)))
        phase = 2 * np.pi * np.cumsum(np.minimum(curve, 7000)) / RATE
        part = (np.sin(phase) + rng.choice([0, 0.4]) * np.sin(2 * phase)) * np.sin(np.pi * np.linspace(0, 1, long)) ** 0.5
        start = int(at * RATE)
        part = part[: count - start]
        out[start : start + len(part)] += part
        at += long / RATE + rng.exponential(pause)
    return out


def outside(rng, seconds):
    """One of these, or a few at once, rising and falling together or each for itself."""
    count = int(seconds * RATE)
    out = np.zeros(count)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        kind = rng.choice(["shaped", "shaped", "shaped", "blown", "blown", "bursts", "engine", "calls"], p=[0.2, 0.2, 0.15, 0.12, 0.1, 0.1, 0.08, 0.05])
        sound = {"shaped": shaped, "blown": blown, "bursts": bursts, "engine": engine, "calls": calls}[kind](rng, count)
        if kind != "bursts" or rng.random() < 0.3:
            sound = sound * loudness(rng, count)
        out = out + sound / (sound.std() + 1e-9) * 10 ** (rng.uniform(-15, 0) / 20)
    if rng.random() < 0.3:
        out = out * loudness(rng, count)
    return out
