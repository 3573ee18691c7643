#!/usr/bin/env python3
"""Loudness and true peak of random speech-like files by us, by ffmpeg's ebur128 and by pyloudnorm; prints Markdown.

    pip install pyloudnorm && cargo build --release && python3 benches/agree.py --files 20

Fails when two meters differ by more than 0.1 LU, or by more than 0.3 dB of true peak. Also puts each output through the
stage again: that may change its loudness by less than 0.1 dB.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy
import pyloudnorm

ROOT = Path(__file__).resolve().parent.parent


def speech_like(rng, rate=48000):
    """Syllables of a harmonic sound, each of another strength, with pauses, over noise."""
    seconds = rng.uniform(8, 30)
    t = numpy.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 250)
    voice = sum(numpy.cos(2 * numpy.pi * pitch * k * t + k * k) / k for k in range(1, int(3400 / pitch)))
    syllable = rng.uniform(0.12, 0.3)
    number = (t / syllable).astype(int)
    strength = 10 ** (rng.uniform(-1.2, 0, number.max() + 1)) * (rng.uniform(0, 1, number.max() + 1) > 0.25)
    sound = strength[number] * numpy.sin(numpy.pi * (t / syllable % 1)) * voice
    sound += rng.normal(0, 10 ** rng.uniform(-4, -2), len(t))
    return sound / abs(sound).max() * 10 ** rng.uniform(-1.5, -0.01)


def write(path, samples):
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 48000, 0, "NONE", ""))
        out.writeframes((samples * 32767).round().astype("<i2").tobytes())


def read(path):
    with wave.open(str(path)) as source:
        return numpy.frombuffer(source.readframes(source.getnframes()), "<i2") / 32768


def ffmpeg(path):
    """Integrated loudness in thousandths, as its frames have it (the summary has one decimal), and true peak."""
    meter = "ebur128=peak=true:metadata=1,ametadata=print:key=lavfi.r128.I:file=-"
    command = ["ffmpeg", "-nostdin", "-i", path, "-af", meter, "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = re.search(r"Peak:\s+(-?[\d.]+)", said.stderr.rsplit("Summary:", 1)[1]).group(1)
    return float(re.findall(r"lavfi\.r128\.I=(-?[\d.]+)", said.stdout)[-1]), float(peak)


def ours(binary, path, out):
    subprocess.run([binary, "process", path, "--no-transcript", "--out", out], check=True, capture_output=True)
    return json.loads((out / "quality.json").read_text())


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", default=ROOT / "target/release/aftercall", type=Path)
    options.add_argument("--files", default=20, type=int)
    options.add_argument("--seed", default=1, type=int)
    given = options.parse_args()
    binary = given.binary.resolve()
    rng = numpy.random.default_rng(given.seed)
    worst = dict.fromkeys(("ffmpeg, LU", "pyloudnorm, LU", "ffmpeg, dB true peak", "second time, dB"), 0.0)
    highest = -99.0
    for number in range(given.files):
        with tempfile.TemporaryDirectory(prefix="aftercall-agree-") as name:
            folder = Path(name)
            path = folder / "in.wav"
            write(path, speech_like(rng))
            first = ours(binary, path, folder / "first")
            loudness = first["loudness"]
            theirs, peak = ffmpeg(path)
            second = ours(binary, folder / "first/audio.wav", folder / "second")
            found = {
                "ffmpeg, LU": loudness["integrated_lufs"] - theirs,
                "pyloudnorm, LU": loudness["integrated_lufs"] - pyloudnorm.Meter(48000).integrated_loudness(read(path)),
                "ffmpeg, dB true peak": loudness["true_peak_dbtp"] - peak,
                "second time, dB": ffmpeg(folder / "second/audio.wav")[0] - ffmpeg(folder / "first/audio.wav")[0],
            }
            highest = max(highest, ffmpeg(folder / "first/audio.wav")[1])
            for what, off in found.items():
                worst[what] = max(worst[what], abs(off))
    print(f"| {given.files} files, seed {given.seed} | largest difference |\n|---|---:|")
    for what, off in worst.items():
        print(f"| {what} | {off:.2f} |")
    print(f"\nHighest true peak put out, by ffmpeg: {highest:.1f} dBTP")
    # Of true peaks ffmpeg prints one decimal: half of it is not a difference.
    limits = (0.1, 0.1, 0.35, 0.1)
    sys.exit(any(off > limit for off, limit in zip(worst.values(), limits)) or highest > -1.0)


if __name__ == "__main__":
    main()
