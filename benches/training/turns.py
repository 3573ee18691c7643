#!/usr/bin/env python3
"""Which share of what is said in noise `aftercall process` finds.

    python3 benches/training/turns.py target/release/aftercall [--snr 5] [--recordings 8] [--keep DIR]

Turns of espeak-ng's voices (the judging cast of `make.py`) in white, pink and brown noise and in noise that rises and falls,
so many decibels under the speech, as minutes at 16 kHz and on a telephone line. A turn of more than half a second is found
when half of it is in regions. Needs numpy and libespeak-ng.
"""
import argparse
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

import make
import synth
import weather

SECONDS, HOP = 60, 160


def minute(rng, speaker, snr, noise):
    """The sound, and its turns as (start, end) in seconds."""
    count = SECONDS * synth.RATE
    clean, turns, spoken = np.zeros(count), [], np.zeros(count // HOP, bool)
    accents, men, women = make.CASTS["judge"]
    voices = [f"{rng.choice(accents)}+{rng.choice(sex)}" for sex in (men, women)]
    at = rng.uniform(0.5, 2)
    while True:
        voice = int(rng.integers(2))
        said, _ = speaker.speak(voices[voice], str(rng.choice((make.AGENT, make.CALLER)[voice])), rng.uniform(130, 190), rng.uniform(35, 65), rng.uniform(30, 70))
        active = np.flatnonzero(synth.activity(said))
        start = int(at * 100) * HOP
        if start + len(said) > count or not len(active):
            break
        clean[start : start + len(said)] += said / (said.std() + 1e-9)
        spoken[start // HOP + active] = True
        turns.append((start / synth.RATE + active[0] / 100, start / synth.RATE + active[-1] / 100 + 0.02))
        at += len(said) / synth.RATE + rng.exponential(1.5) + 0.3
    level = np.sqrt((clean**2).sum() / (spoken.sum() * HOP))
    other = weather.outside(rng, SECONDS) if noise == "moving" else synth.coloured(rng, count, {"white": 0, "pink": 1, "brown": 2}[noise])
    return clean + level * 10 ** (-snr / 20) * other / other.std(), turns


def write(path, sound, telephone):
    rate = synth.RATE
    if telephone:
        sound, rate = synth.band(sound, 250, 3500)[::2], 8000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", None))
        file.writeframes((0.5 * sound / np.abs(sound).max() * 32767).astype("<i2").tobytes())


def heard(program, path):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([program, "process", path, "--out", out], check=True, capture_output=True)
        lines = [line.split() for line in (Path(out) / "turns.rttm").read_text().splitlines()]
    return [(float(part[3]), float(part[3]) + float(part[4])) for part in lines]


def covered(turn, regions):
    return sum(max(0, min(turn[1], end) - max(turn[0], start)) for start, end in regions) / (turn[1] - turn[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--snr", type=float, default=5)
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    speaker, all_found, all_turns = synth.Synthesiser(), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, noise in enumerate(("white", "pink", "brown", "moving")):
            shares = []
            for number in range(args.recordings):
                sound, turns = minute(np.random.default_rng([77, kind, number]), speaker, args.snr, noise)
                path = folder / f"{noise}-{number}.wav"
                write(path, sound, number % 2 == 1)
                regions = heard(args.program, path)
                shares += [covered(turn, regions) for turn in turns if turn[1] - turn[0] > 0.5]
            found = sum(share >= 0.5 for share in shares)
            all_found, all_turns = all_found + found, all_turns + len(shares)
            print(f"{noise}: {found} of {len(shares)} turns, {100 * np.mean(shares):.1f} % of their time", flush=True)
    print(f"together {100 * all_found / all_turns:.1f} % of {all_turns} turns")


if __name__ == "__main__":
    main()
