#!/usr/bin/env python3
"""Learns which of what sounds like speech is none, from some seconds on either side, and writes
`src/audio/speech/context.bin` (f32, little-endian).

Run by hand after `train_speech.py`, whose network gives one of the inputs; the result is committed. Speech is espeak-ng's
in many languages and voices and flite's, in noise, over music, in rooms, over telephone bands and codecs; the rest is
noise, music, call progress tones, DTMF, hum (`scenes.py`). Music comes from `synth.py`, `grooves.py` and, sampled
instruments, from `midi.py`, noise that moves from `weather.py`. Needs numpy, torch, libespeak-ng, flite, ffmpeg, fluidsynth
and the sound font `fluid-soundfont-gm`:

    python3 benches/training/train_context.py make SHARDS [--seed 1] [--count 750]    # as often as there are cores, other seeds
    python3 benches/training/train_context.py train SHARDS [--epochs 14]
    python3 benches/training/train_context.py regions FILE.wav...
    python3 benches/training/train_context.py sweep                                   # for the test that Rust and this agree

The features here and in `src/audio/speech/` are the same and have to stay so.
"""
import argparse
import os
from pathlib import Path

import numpy as np

import scenes
import synth
import train_speech
from train_speech import BANDS, FIRST, FLOOR, HANN, HOP, LAGS, LAST, FFT, WINDOW

SPEECH = Path(__file__).resolve().parents[2] / "src/audio/speech"
# The long window: one row for every so many frames, bins of its groups, steps between what is compared.
LONG, EVERY, EDGES, BACK = 2048, 4, [26, 77, 154, 282, 487], 3
LONG_FLOOR = 5e-5
# The network: inputs, channels, taps, dilations of the residual layers.
INPUTS, CHANNELS, TAPS, DILATIONS = 15, 24, 5, [2, 4, 8, 16, 32]
# A voice: this periodic; a pitch that stays: moved by no more than 0.2 % in 40 ms.
VOICED, STILL = 0.6, 0.01
# A step has the best score within so many steps.
EASE = 50
# Added to what the network learnt: chosen on recordings of other seeds, another sound font and other voices, so that little
# of what is said in noise at 5 dB is lost.
LEAN = 0.75


def pitch_steps(samples, count):
    """How far the pitch moved in 40 ms, five times the logarithm, at most 1: one figure per frame."""
    cut = np.lib.stride_tricks.as_strided(samples, (count, WINDOW), (samples.strides[0] * HOP, samples.strides[0]))
    power = np.abs(np.fft.rfft(cut * HANN, FFT)) ** 2
    only = np.zeros_like(power)
    only[:, FIRST - 1 : LAST + 1] = power[:, FIRST - 1 : LAST + 1]
    correlation = np.fft.irfft(only, FFT) * FFT
    heights = correlation[:, 40:201] / (correlation[:, :1] + FLOOR * FFT) / LAGS[40:201]
    best, rows = heights.argmax(1), np.arange(count)
    # The top of a parabola through the highest point and its neighbours.
    below, top, above = (heights[rows, np.clip(best + n, 0, 160)] for n in (-1, 0, 1))
    bend = below - 2 * top + above
    inner = (best > 0) & (best < 160) & (bend < -1e-6)
    lag = best + 40 + np.where(inner, np.clip(0.5 * (below - above) / np.where(inner, bend, -1), -0.5, 0.5), 0)
    step = np.zeros(count)
    step[4:] = np.minimum(5 * np.abs(np.log(lag[4:] / lag[:-4])), 1)
    return step


def lines(samples, count):
    """How narrow the lines of a longer spectrum are, and how they stay, in four groups of bins; `count` frames."""
    steps = -(-count // EVERY)
    # The middle of the long window is that of the four frames it stands for.
    before = LONG // 2 - (WINDOW + (EVERY - 1) * HOP) // 2
    padded = np.concatenate([np.zeros(before), samples, np.zeros(LONG + EVERY * HOP)])
    stride = padded.strides[0]
    cut = np.lib.stride_tricks.as_strided(padded, (steps, LONG), (stride * EVERY * HOP, stride))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(LONG) + 0.5) / LONG)
    power = np.abs(np.fft.rfft(cut * window)) ** 2 + LONG_FLOOR
    out = []
    for low, high in zip(EDGES, EDGES[1:]):
        part = power[:, low:high]
        shape = np.log(part)
        mean = shape.mean(1, keepdims=True)
        flat = np.clip(mean[:, 0] - np.log(part.mean(1)), -8, 0) / 4
        shape = shape - mean
        shape /= np.linalg.norm(shape, axis=1, keepdims=True) + 1e-3
        stays = np.zeros(steps)
        stays[BACK:] = (shape[BACK:] * shape[:-BACK]).sum(1)
        out += [flat, stays]
    return np.stack(out, 1)[np.arange(count) // EVERY]


def features(samples):
    """Bands above the floor; peaks, held, periodic, pitch step; lines: one row per frame."""
    samples = np.asarray(samples, float)
    bands, tonal = train_speech.frames(samples)
    above = np.clip(bands - train_speech.floors(bands), 0, 8) / 4
    step = pitch_steps(samples, len(bands))
    return np.concatenate([above, tonal, step[:, None], lines(samples, len(bands))], 1).astype(np.float32)


def first_scores(x, weights):
    """What the first network makes of the frames, from the same features."""
    row, count = x[:, : BANDS + 3], len(x)
    at = np.clip(np.arange(count)[:, None] + np.array(train_speech.OFFSETS), 0, count - 1)
    near = row[at].reshape(count, -1)
    four = np.concatenate([row[:, :BANDS].mean(1, keepdims=True), row[:, BANDS:]], 1).astype(float)
    sums, squares = (np.concatenate([np.zeros((1, 4)), np.cumsum(f, 0)]) for f in (four, four**2))
    wide = train_speech.WIDE
    low, high = np.maximum(np.arange(count) - wide, 0), np.minimum(np.arange(count) + wide + 1, count)
    size = (high - low)[:, None]
    mean = (sums[high] - sums[low]) / size
    spread = np.sqrt(np.maximum((squares[high] - squares[low]) / size - mean**2, 0))
    return train_speech.apply(np.concatenate([near, mean, spread], 1).astype(np.float32), *weights)


def first_network():
    flat = np.frombuffer((SPEECH / "weights.bin").read_bytes(), "<f4")
    sizes, at, weights, biases = [len(train_speech.OFFSETS) * (BANDS + 3) + 8, train_speech.HIDDEN, 16, 1], 0, [], []
    for a, b in zip(sizes, sizes[1:]):
        weights.append(flat[at : at + a * b].reshape(b, a).T)
        biases.append(flat[at + a * b : at + a * b + b])
        at += a * b + b
    return weights, biases


def steps(x, score):
    """What the second network sees: means of four frames."""
    voiced = x[:, BANDS + 2] > VOICED
    still = voiced & (x[:, BANDS + 3] < STILL)
    moved = np.where(voiced, x[:, BANDS + 3], 0)
    # As in Rust, where lines come last.
    rows = np.concatenate([score[:, None], x[:, :BANDS].mean(1)[:, None], x[:, BANDS : BANDS + 3], np.stack([still, moved], 1), x[:, BANDS + 4 :]], 1)
    count = len(rows)
    padded = np.concatenate([rows, np.repeat(rows[-1:], -count % EVERY, 0)])
    return padded.reshape(-1, EVERY, INPUTS).mean(1).astype(np.float32)


def make(out, seed, count):
    out.mkdir(parents=True, exist_ok=True)
    rng, speaker = np.random.default_rng([41, seed]), synth.Synthesiser()
    for part in range(count // 25):
        made = [scenes.example(rng, speaker) for _ in range(25)]
        x = np.stack([features(sound) for sound, _ in made]).astype(np.float16)
        y = np.stack([active for _, active in made])[:, : x.shape[1]]
        np.savez(out / f"part-{seed}-{part}.tmp.npz", x=x, y=y)
        os.replace(out / f"part-{seed}-{part}.tmp.npz", out / f"{seed}-{part}.npz")
        print(f"{seed}: {25 * (part + 1)} recordings", flush=True)


def network():
    """The layers as torch sees them: weights by name, and the function of them."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(3)
    normal = lambda *shape, fan: torch.nn.Parameter(torch.randn(*shape, generator=generator) * (2 / fan) ** 0.5)
    zeros = lambda n: torch.nn.Parameter(torch.zeros(n))
    weights = {"first": normal(CHANNELS, INPUTS, TAPS, fan=INPUTS * TAPS), "first_bias": zeros(CHANNELS)}
    for n in range(len(DILATIONS)):
        weights[f"along{n}"] = normal(CHANNELS, 1, TAPS, fan=TAPS)
        weights[f"across{n}"] = normal(CHANNELS, CHANNELS, 1, fan=4 * CHANNELS)
        weights[f"bias{n}"] = zeros(CHANNELS)
    weights |= {"last": normal(1, CHANNELS, 1, fan=CHANNELS), "last_bias": zeros(1)}

    def run(x):
        half = TAPS // 2
        h = functional.relu(functional.conv1d(x, weights["first"], weights["first_bias"], padding=half))
        for n, d in enumerate(DILATIONS):
            along = functional.conv1d(h, weights[f"along{n}"], padding=half * d, dilation=d, groups=CHANNELS)
            h = h + functional.relu(functional.conv1d(along, weights[f"across{n}"], weights[f"bias{n}"]))
        return functional.conv1d(h, weights["last"], weights["last_bias"])[:, 0]

    return weights, run


def train(shards, epochs, out):
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    made = [np.load(f) for f in sorted(shards.glob("*.npz")) if "tmp" not in f.name]
    first, xs, ys = first_network(), [], []
    for features_, active in ((x, y) for m in made for x, y in zip(m["x"].astype(np.float32), m["y"])):
        score = first_scores(features_, first)
        xs.append(steps(features_, score))
        y = np.concatenate([active, np.zeros(-len(active) % EVERY, bool)]).reshape(-1, EVERY).max(1)
        ys.append(y)
    x, y = np.stack(xs), np.stack(ys)
    rng = np.random.default_rng(5)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    aside = len(x) // 12
    mean, scale = x.reshape(-1, INPUTS).mean(0), x.reshape(-1, INPUTS).std(0) + 1e-3
    x = ((x - mean) / scale).transpose(0, 2, 1)
    weights, run = network()
    optimiser = torch.optim.AdamW(weights.values(), lr=8e-3, weight_decay=0.02)
    batch = 8
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=1 + epochs * ((len(x) - aside) // batch))
    print(f"{len(x)} recordings, {aside} held out", flush=True)
    for epoch in range(epochs):
        total, count = 0.0, 0
        order = aside + rng.permutation(len(x) - aside)
        for at in range(0, len(order) - batch + 1, batch):
            pick = order[at : at + batch]
            seen, spoken = x[pick].copy(), y[pick].copy()
            for n in range(len(pick)):  # stretches of other recordings: music before, after and between speech
                for _ in range(rng.integers(0, 3)):
                    other, start = rng.integers(len(pick)), rng.integers(0, seen.shape[2])
                    stop = start + rng.integers(50, 400)
                    shift = rng.integers(0, seen.shape[2])
                    seen[n, :, start:stop] = np.roll(x[pick[other]], shift, 1)[:, start:stop]
                    spoken[n, start:stop] = np.roll(y[pick[other]], shift)[start:stop]
            truth = torch.tensor(spoken.astype(np.float32))
            near = functional.max_pool1d(truth[:, None], 15, 1, 7)[:, 0]
            # What the first network lets through matters; around a turn nothing does.
            through = torch.tensor(seen[:, 0] * scale[0] + mean[0])
            weight = torch.where(truth > 0, 1.0, torch.where(near > 0, 0.0, 2.0)) * (0.3 + (through > 0.2))
            given = torch.tensor(seen).float()
            given = given + 0.1 * torch.randn(given.shape) + 0.15 * torch.randn(len(pick), INPUTS, 1)
            loss = functional.binary_cross_entropy_with_logits(run(given), truth, weight)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimiser.step()
            schedule.step()
            total, count = total + loss.item(), count + 1
        with torch.no_grad():
            p, t = torch.sigmoid(run(torch.tensor(np.ascontiguousarray(x[:aside])).float())).numpy() > 0.5, y[:aside]
        print(f"epoch {epoch}: loss {total / count:.4f}; held out: missed {np.mean(~p[t]):.4f} of speech, false {np.mean(p[~t]):.4f} of the rest", flush=True)
    # As the detector reads them: input by input where one is spread over all outputs.
    w = {name: value.detach().numpy() for name, value in weights.items()}
    parts = [mean, 1 / scale, w["first"].transpose(2, 1, 0), w["first_bias"]]
    for n in range(len(DILATIONS)):
        parts += [w[f"along{n}"][:, 0].T, w[f"across{n}"][:, :, 0].T, w[f"bias{n}"]]
    parts += [w["last"].ravel(), w["last_bias"] + LEAN]
    out.write_bytes(np.concatenate([part.astype("<f4").ravel() for part in parts]).tobytes())
    print(f"{out}: {out.stat().st_size} bytes")


def load(path):
    flat = np.frombuffer(path.read_bytes(), "<f4")
    at = 0

    def take(*shape):
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return flat[at - size : at].reshape(shape)

    w = {"mean": take(INPUTS), "scale": take(INPUTS), "first": take(TAPS, INPUTS, CHANNELS), "first_bias": take(CHANNELS)}
    w["rest"] = [(take(TAPS, CHANNELS), take(CHANNELS, CHANNELS), take(CHANNELS)) for _ in DILATIONS]
    w |= {"last": take(CHANNELS), "last_bias": take(1)}
    assert at == len(flat)
    return w


def apply(x, w):
    """The same network in numpy: a score for every step."""

    def shifted(h, by):
        out = np.zeros_like(h)
        if abs(by) < len(h):
            out[max(0, -by) : len(h) - max(0, by)] = h[max(0, by) : len(h) - max(0, -by)]
        return out

    h, half = (x - w["mean"]) * w["scale"], TAPS // 2
    h = np.maximum(sum(shifted(h, n - half) @ w["first"][n] for n in range(TAPS)) + w["first_bias"], 0)
    for d, (along, across, bias) in zip(DILATIONS, w["rest"]):
        mixed = sum(shifted(h, (n - half) * d) * along[n] for n in range(TAPS))
        h = h + np.maximum(mixed @ across + bias, 0)
    return 1 / (1 + np.exp(-(h @ w["last"] + w["last_bias"])))


def regions(scores, begin=0.6, end=0.4, pause=20, shortest=10):
    """As `detect.rs` has them, in frames."""
    spans, at = [], 0
    while at < len(scores):
        if scores[at] < begin:
            at += 1
            continue
        start, floor = at, spans[-1][1] if spans else 0
        while start > floor and scores[start - 1] >= end:
            start -= 1
        while at < len(scores) and scores[at] >= end:
            at += 1
        if spans and start - spans[-1][1] < pause:
            spans[-1][1] = at
        else:
            spans.append([start, at])
    return [(a, b) for a, b in spans if b - a >= shortest]


def eased(scores):
    """Means of three, and of those the highest within two seconds: the ends of a turn are kept with it."""
    means = np.array([scores[max(0, n - 1) : n + 2].mean() for n in range(len(scores))])
    return np.array([means[max(0, n - EASE) : n + EASE + 1].max() for n in range(len(means))])


def scores(samples, weights):
    """Both networks together: a score for every frame."""
    x = features(samples)
    first = first_scores(x, first_network())
    return np.minimum(first, eased(apply(steps(x, first), weights))[np.arange(len(x)) // EVERY])


def sweep():
    """What the test in `src/audio/speech/tests.rs` makes too: a buzz that slides, opens and pauses, in noise."""
    state, phase, out = 1, 0.0, []
    for n in range(5 * synth.RATE):
        t = n / synth.RATE
        state = (state * 1664525 + 1013904223) % 2**32
        phase += (140 + 30 * np.sin(5 * t) + 15 * np.sin(17 * t)) / synth.RATE
        open_ = 0.5 + 0.5 * np.sin(21 * t)
        loud = 0.1 if t % 2.5 < 1.6 else 0.0
        buzz = sum(np.sin(2 * np.pi * k * phase) * np.exp(-(((k * 0.14 - 0.4 - 0.5 * open_) / 0.3) ** 2)) for k in range(1, 16))
        out.append(loud * (0.1 + open_) * buzz + 0.002 * ((state >> 8) / 8388608 - 1))
    return np.array(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["make", "train", "regions", "sweep"])
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=750)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--weights", type=Path, default=SPEECH / "context.bin")
    args = parser.parse_args()
    if args.task == "make":
        make(args.paths[0], args.seed, args.count)
    elif args.task == "train":
        train(args.paths[0], args.epochs, args.weights)
    elif args.task == "sweep":
        weights, x = load(args.weights), features(sweep())
        first = first_scores(x, first_network())
        print("both networks:", *(f"{score:.2f}," for score in scores(sweep(), weights)[::25]))
        print("the second alone:", *(f"{score:.3f}," for score in apply(steps(x, first), weights)[::6]))
    else:
        weights, total = load(args.weights), 0.0
        for path in args.paths:
            found = regions(scores(scenes.read(path), weights))
            spoken = sum(b - a for a, b in found) / 100
            total += spoken
            print(f"{path.name}: {spoken:.2f} s", " ".join(f"{a / 100:.2f}-{b / 100:.2f}" for a, b in found[:40]))
        print(f"together {total:.2f} s")


if __name__ == "__main__":
    main()
