"""Music of sampled instruments: random pieces as MIDI, played by fluidsynth with a sound font. Needs fluidsynth and a font.

`train_speech.py` learns from it with one font (`fluid-soundfont-gm`, MIT); as a script it makes pieces of other seeds for
judging, with another font (`timgm6mb-soundfont`):

    python3 benches/training/midi.py OUT --font /usr/share/sounds/sf2/TimGM6mb.sf2 [--pieces 30] [--seconds 60] [--seed 1]
"""
import argparse
import struct
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

RATE = 16000
TICKS = 500  # a beat of half a second: a tick is a millisecond
# General MIDI programs that are voices; what sings is not music alone.
VOICES = {52, 53, 54, 85, 91}
PROGRAMS = [n for n in range(128) if n not in VOICES]
SCALES = ([0, 2, 4, 5, 7, 9, 11], [0, 2, 3, 5, 7, 8, 10], [0, 2, 4, 7, 9], [0, 3, 5, 6, 7, 10], [0, 2, 3, 5, 7, 9, 10])
CHORDS = ([0, 2, 4], [0, 2, 4, 6], [0, 3, 4], [0, 4], [0, 2, 4, 5])
DRUMS = (35, 36, 38, 40, 42, 44, 46, 45, 47, 50, 49, 51, 39, 54, 56, 60, 61, 62, 64, 69, 70, 75, 76)


class Piece:
    """Events of one piece in the order they are written."""

    def __init__(self):
        self.events = []

    def at(self, ms, *data):
        self.events.append((int(ms), len(self.events), bytes(data)))

    def note(self, channel, ms, name, long, force):
        if 0 <= name < 128:
            self.at(ms, 0x90 | channel, int(name), int(np.clip(force, 1, 127)))
            self.at(ms + max(20, long), 0x80 | channel, int(name), 0)

    def file(self):
        track, last = bytearray(), 0
        for ms, _, data in sorted(self.events):
            track += variable(ms - last) + data
            last = ms
        track += b"\x00\xff\x2f\x00"
        return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + bytes(track)


def variable(value):
    out = [value & 127]
    while value := value >> 7:
        out.insert(0, value & 127 | 128)
    return bytes(out)


def section(rng, piece, start, long):
    """Some parts that fit each other, `long` ms of them."""
    end, beat = start + long, rng.uniform(180, 900)
    key, scale = int(rng.integers(0, 12)), SCALES[rng.integers(len(SCALES))]
    roots = rng.integers(0, len(scale), int(rng.choice([1, 2, 4, 8])))
    name = lambda step, octave: key + 12 * (octave + step // len(scale)) + scale[step % len(scale)]
    kinds = list(rng.choice(["chords", "melody", "bass", "arpeggio", "drums", "slow", "quick"], int(rng.choice([1, 1, 1, 2, 2, 3, 4, 5]))))
    loose = rng.choice([0, 0, 12])
    for channel, kind in enumerate(kinds):
        line = 9 if kind == "drums" else channel
        piece.at(start, 0xC0 | line, int(rng.choice(PROGRAMS)) if line != 9 else int(rng.choice([0, 8, 16, 24, 25, 32, 40])))
        for control, value in ((1, rng.choice([0, 0, 30, 90])), (7, rng.integers(50, 127)), (91, rng.choice([0, 30, 100])), (93, rng.choice([0, 0, 80])), (64, 0)):
            piece.at(start, 0xB0 | line, control, int(value))
        piece.at(start, 0xE0 | line, 0, 64)
        at, step, place = float(start), 0, int(rng.integers(0, 7))
        octave, force, glide = int(rng.integers(4, 7)), rng.integers(60, 120), rng.random() < 0.2
        legato, pattern = rng.choice([0.3, 0.7, 1.0, 1.05]), rng.random((4, 16)) < rng.uniform(0.1, 0.5)
        strokes = rng.choice(DRUMS, 4)
        if kind == "chords" and rng.random() < 0.3:
            piece.at(start, 0xB0 | line, 64, 127)
        each = beat * {"chords": rng.choice([1, 2, 4]), "bass": 1, "arpeggio": rng.choice([0.25, 0.5, 1]), "drums": 0.5, "slow": rng.choice([2, 4, 8]), "quick": 0.25, "melody": 1}[kind]
        while at < end - 40:
            root = int(roots[int((at - start) // (4 * beat)) % len(roots)])
            push, late = force + rng.integers(-15, 15), rng.normal() * loose
            when, length = max(start, at + late), each
            if kind == "drums":
                for stroke, hits in zip(strokes, pattern):
                    if hits[step % 16]:
                        piece.note(9, when, stroke, 60, push)
            elif kind == "chords":
                for part in CHORDS[step % len(CHORDS) if rng.random() < 0.3 else 0]:
                    piece.note(line, when, name(root + part, octave), min(each * legato, end - when), push)
            elif kind == "bass":
                piece.note(line, when, name(root + int(rng.choice([0, 0, 0, 4])), 3), min(each * legato, end - when), push)
            elif kind == "arpeggio":
                piece.note(line, when, name(root + (0, 2, 4, 7, 4, 2)[step % 6], octave), min(each * legato * rng.choice([1, 2]), end - when), push)
            else:
                place = int(np.clip(place + rng.integers(-3, 4), 0, 14))
                length = each * (rng.choice([0.5, 0.5, 1, 1, 2, 3]) if kind == "melody" else 1)
                if rng.random() < 0.88:
                    piece.note(line, when, name(place, octave), min(length * legato, end - when), push)
                    if glide:
                        for part in range(8):
                            bend = int(64 + rng.integers(-30, 31) * (1 - part / 7))
                            piece.at(min(when + 12 * part, end - 1), 0xE0 | line, 0, bend)
            at += length
            step += 1
    for line in range(16):
        piece.at(end - 1, 0xB0 | line, 64, 0)
        piece.at(end - 1, 0xB0 | line, 123, 0)


def render(rng, seconds, font, each=15):
    """Sections of `each` seconds after each other, as 16 kHz samples of peak 1."""
    piece = Piece()
    for start in range(0, int(seconds), each):
        section(rng, piece, start * 1000, min(each, int(seconds) - start) * 1000)
    with tempfile.TemporaryDirectory() as scratch:
        midi, out = Path(scratch) / "piece.mid", Path(scratch) / "piece.wav"
        midi.write_bytes(piece.file())
        subprocess.run(["fluidsynth", "-q", "-ni", "-g", "0.4", "-r", str(RATE), "-T", "wav", "-F", str(out), str(font), str(midi)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with wave.open(str(out)) as file:
            both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    samples = both.mean(1)[: int(seconds * RATE)] / 32768
    return samples / (np.abs(samples).max() + 1e-9)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--font", required=True, type=Path)
    parser.add_argument("--pieces", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for number in range(args.pieces):
        samples = 0.35 * render(np.random.default_rng([args.seed, number]), args.seconds, args.font)
        rate = RATE
        if number % 2:
            spectrum, hertz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
            samples, rate = np.fft.irfft(spectrum * ((hertz > 280) & (hertz < 3450)), len(samples))[::2], 8000
        with wave.open(str(args.out / f"piece-{number:03}.wav"), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", None))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
