"""Synthetic clips for the sample model: the sample calls' sentences in many voices, bent as telephone lines bend them.

A clip is 16 kHz audio, its text, and where each word truly starts. Everything random comes from a seed.
"""
import array
import ctypes
import itertools
import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

import sample_recordings as make  # the sample calls' own synthesiser and dialogues

OUT = Path(__file__).resolve().parents[2] / "src/transcript/sample_model"

RATE = 16_000
ACCENTS = ["en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc"]
VARIANTS = """f1 f2 f4 f5 m1 m2 m3 m5 m7 m8 anika linda Annie steph steph2 max rob edward john michael Andy travis Alex Andrea
Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Storm adam antonio aunty benjamin boris caleb david ed
grandma grandpa gustave iven kaukovalta klatt2 klatt4 marcelo miguel norbert pablo pedro quincy robert sandro shelby victor
zac""".split()
# In the training, and measured at other speeds and pitches.
KNOWN = ["en-us+f2", "en+m3", "en-us+m3", "en+f2"]
# Never trained on: what "unseen voices" means.
UNSEEN = ["en-us+m4", "en+f3", "en-us+m6", "en-gb-x-rp+Alicia", "en+paul", "en-us+belinda"]
# Words a minute and pitch of the measurements; training leaves a gap around them.
UNSEEN_SPEEDS, UNSEEN_PITCHES = (147, 166, 181), (38, 47, 58)


def texts():
    """Every sentence of every sample call once."""
    return sorted({text for lines in make.DIALOGUES.values() for _, _, text in lines})


def throat(rng):
    """A voice variant of espeak-ng: one vocal tract's length, then every formant a little off it, breath and line."""
    tract = rng.uniform(0.88, 1.16)
    lines = [f"pitch {(low := int(rng.uniform(60, 215)))} {low + int(rng.uniform(15, 100))}"]
    for formant in range(9):
        frequency = 100 * tract * rng.uniform(0.92, 1.1)
        lines.append(f"formant {formant} {frequency:.0f} {rng.uniform(70, 165):.0f} {rng.uniform(75, 165):.0f}")
    lines.append(f"voicing {np.exp(rng.uniform(np.log(28), np.log(170))):.0f}")
    lines.append(f"consonants {rng.uniform(20, 150):.0f} {rng.uniform(15, 150):.0f}")
    lines.append(f"roughness {rng.integers(0, 5)}")
    lines.append(f"flutter {rng.integers(0, 12)}")
    lines.append(f"intonation {rng.integers(1, 5)}")
    if rng.random() < 0.4:
        lines.append("breath " + " ".join(str(int(b)) for b in rng.uniform(0, 12, 8)))
        lines.append("breathw 150 150 200 200 400 400")
    if rng.random() < 0.35:
        lines.append(f"echo {rng.uniform(5, 150):.0f} {rng.uniform(5, 60):.0f}")
    if rng.random() < 0.4:
        lines.append("stressAmp " + " ".join(str(int(a)) for a in np.repeat(rng.uniform(11, 23, 4), 2)))
    if rng.random() < 0.3:
        lines.append("tone " + " ".join(f"{hz} {rng.uniform(60, 255):.0f}" for hz in (300, 900, 1800, 3500)))
    return "language variant\n" + "\n".join(lines) + "\n"


def data_with_throats(folder):
    """A copy of the synthesiser's data, by links, with two variants more: `training` writes a new throat into one before
    each use (the synthesiser lists at most 350 voices, but reads a variant's file whenever it is chosen)."""
    version = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    shipped = Path(version.split("at: ")[1].strip())
    variants = folder / "espeak-ng-data" / "voices" / "!v"
    variants.mkdir(parents=True)
    for number in (0, 1):
        (variants / f"throat{number}").write_text("language variant\n")
    for here, there in [(variants.parents[1], shipped), (variants.parent, shipped / "voices"), (variants, shipped / "voices" / "!v")]:
        for item in there.iterdir():
            if not (here / item.name).exists():
                (here / item.name).symlink_to(item)
    return variants


class Voices(make.Synthesiser):
    """Speaks one text in any voice, with true word starts, at 16 kHz."""

    def say(self, voice, speed, pitch, text):
        self.samples, self.words = array.array("h"), []
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            sys.exit(f"no voice {voice}")
        self.lib.espeak_SetParameter(1, int(speed), 0)
        self.lib.espeak_SetParameter(3, int(pitch), 0)
        data = text.encode()
        self.lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        spoken = np.array(self.samples, dtype=np.float32)
        audible = np.flatnonzero(np.abs(spoken) >= 2 * make.AUDIBLE)
        first, last = int(audible[0]), int(audible[-1]) + 1
        starts = {at: start * self.rate // 1000 for at, start in self.words}
        bounds = make.word_bounds(text, starts, first, last)
        samples = spoken[first:last] / 32768
        words = [(word, (left - first) / self.rate, (right - first) / self.rate) for word, left, right in bounds]
        return resample(samples, self.rate, RATE), words


def resample(samples, rate_from, rate_to):
    """Band-limited by the spectrum: the clips are short, and nothing here is real time."""
    count = int(round(len(samples) * rate_to / rate_from))
    spectrum = np.fft.rfft(samples)
    kept = min(len(spectrum), count // 2 + 1)
    out = np.zeros(count // 2 + 1, dtype=complex)
    out[:kept] = spectrum[:kept]
    return (np.fft.irfft(out, count) * (count / len(samples))).astype(np.float32)


def part(rng, samples, words):
    """The whole clip, or a run of its words cut where a pause ends: speech regions seldom hold a whole sentence."""
    if len(words) < 3 or rng.random() < 0.6:
        return samples, words
    pauses = [i + 1 for i, (word, _, _) in enumerate(words[:-1]) if word[-1] in ".,?"]
    if not pauses or rng.random() < 0.25:
        pauses = list(range(1, len(words)))
    cut = int(rng.choice(pauses))
    left, right = (0, cut) if rng.random() < 0.5 else (cut, len(words))
    begin, end = words[left][1], words[right - 1][2]
    begin = 0.0 if left == 0 else max(begin - 0.02, 0)
    shifted = [(word, a - begin, b - begin) for word, a, b in words[left:right]]
    return samples[int(begin * RATE) : int(end * RATE)], shifted


def with_margins(rng, samples, words, most=0.45):
    before, after = rng.uniform(0.03, most, 2)
    out = np.concatenate([np.zeros(int(before * RATE), np.float32), samples, np.zeros(int(after * RATE), np.float32)])
    return out, [(word, a + before, b + before) for word, a, b in words]


def bend(rng, samples):
    """Gain, the make-up of a line, noise: all but the codec."""
    samples = samples * 10 ** (rng.uniform(-22, 0) / 20) / max(1e-3, np.abs(samples).max())
    if rng.random() < 0.5:
        knee = rng.uniform(0.15, 0.6)
        samples = knee * np.tanh(samples / knee)
    if rng.random() < 0.35:
        spectrum = np.fft.rfft(samples)
        at = np.fft.rfftfreq(len(samples), 1 / RATE)
        low, high = rng.uniform(60, 300), rng.uniform(3300, 3900)
        spectrum *= 1 / np.sqrt(1 + (low / np.maximum(at, 1)) ** 8) / np.sqrt(1 + (at / high) ** 24)
        samples = np.fft.irfft(spectrum, len(samples))
        if rng.random() < 0.5:  # G.711: mu-law there and back
            coded = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
            coded = np.round(np.clip(coded, -1, 1) * 127) / 127
            samples = np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255
    if rng.random() < 0.5:  # another microphone: a tilt and a hump
        at = np.fft.rfftfreq(len(samples), 1 / RATE)
        tilt = rng.uniform(-5, 5) * np.log2(np.maximum(at, 100) / 1000)
        hump = rng.uniform(-8, 8) * np.exp(-((np.log2(np.maximum(at, 50) / rng.uniform(300, 4000)) / 0.7) ** 2))
        samples = np.fft.irfft(np.fft.rfft(samples) * 10 ** (np.clip(tilt + hump, -15, 15) / 20), len(samples))
        samples /= max(1.0, np.abs(samples).max())
    level = np.sqrt(np.mean(samples**2) + 1e-9)
    noise = rng.standard_normal(len(samples))
    if rng.random() < 0.5:
        noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.maximum(np.arange(len(noise) // 2 + 1), 8)), len(noise))
        noise /= np.sqrt(np.mean(noise**2))
    snr_db = rng.uniform(12, 55)
    return np.clip(samples + noise * level * 10 ** (-snr_db / 20), -1, 1).astype(np.float32)


def through_mp3(rng, all_samples):
    """Every clip through MP3 and back, a few bit rates, joined with pauses so that the encoder starts but a few times."""
    out = [None] * len(all_samples)
    groups = {}
    for index in range(len(all_samples)):
        choice = int(rng.integers(0, 5))
        groups.setdefault(choice, []).append(index)
    for choice, indices in groups.items():
        rate, bits = [(48_000, "32k"), (48_000, "64k"), (16_000, "24k"), (24_000, "32k"), (8_000, "16k")][choice]
        gap = RATE // 2
        places, pieces, at = [], [], gap
        for index in indices:
            places.append(at)
            pieces += [np.zeros(gap, np.float32), all_samples[index]]
            at += len(all_samples[index]) + gap
        pieces.append(np.zeros(gap, np.float32))
        decoded = codec(np.concatenate(pieces), rate, bits)
        for index, place in zip(indices, places):
            out[index] = decoded[place : place + len(all_samples[index])]
    return out


def codec(samples, rate, bits):
    """One MP3 round trip through ffmpeg; encoder and decoder delay are taken out by ffmpeg itself."""
    with tempfile.TemporaryDirectory() as scratch:
        wav, mp3 = Path(scratch) / "in.wav", Path(scratch) / "out.mp3"
        with wave.open(str(wav), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", None))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        quiet = ["ffmpeg", "-v", "error", "-y", "-i"]
        subprocess.run([*quiet, str(wav), "-ar", str(rate), "-c:a", "libmp3lame", "-b:a", bits, str(mp3)], check=True)
        raw = subprocess.run([*quiet, str(mp3), "-ar", str(RATE), "-f", "s16le", "-"], check=True, capture_output=True).stdout
    out = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    return np.pad(out, (0, max(0, len(samples) - len(out))))[: len(samples)]


def seen_setting(rng):
    """Speed and pitch of a training clip, never within two steps of a measured one."""
    while True:
        speed, pitch = int(rng.integers(130, 200)), int(rng.integers(25, 75))
        if min(abs(speed - s) for s in UNSEEN_SPEEDS) > 2 and min(abs(pitch - p) for p in UNSEEN_PITCHES) > 2:
            return speed, pitch


def training(seed, per_text):
    """`per_text` clips of each text, a sixth of them two in a row as one region, three in five through MP3."""
    folder = tempfile.TemporaryDirectory()
    variants = data_with_throats(Path(folder.name))
    os.environ["ESPEAK_DATA_PATH"] = folder.name  # read once, when the synthesiser starts
    rng, voices, clips = np.random.default_rng(seed), Voices(), []
    turn = itertools.cycle((0, 1))

    def one(text):
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
        lot = rng.random()
        if lot < 0.25:
            voice = str(rng.choice(["en-us+f2", "en+m3", "en-us+m3", "en+f2"]))
        elif lot < 0.65:
            number = next(turn)
            (variants / f"throat{number}").write_text(throat(rng))
            voice = f"{rng.choice(ACCENTS)}+throat{number}"
        samples, words = part(rng, *voices.say(voice, *seen_setting(rng), text))
        if rng.random() < 0.6:  # another throat: pitch, formants and speed together
            stretch = rng.uniform(0.85, 1.18)
            samples = resample(samples, RATE, RATE * stretch)
            words = [(word, a * stretch, b * stretch) for word, a, b in words]
        return samples, words

    every = texts()
    for text in every * per_text:
        samples, words = one(text)
        if rng.random() < 0.16:
            second, more = one(str(rng.choice(every)))
            gap = rng.uniform(0.15, 0.7)
            start = len(samples) / RATE + gap
            level = rng.uniform(0.3, 1.5)
            samples = np.concatenate([samples, np.zeros(int(gap * RATE), np.float32), second * np.float32(level)])
            words = words + [(word, a + start, b + start) for word, a, b in more]
        samples, words = with_margins(rng, samples, words)
        clips.append((bend(rng, samples), words))
    coded = [index for index in range(len(clips)) if rng.random() < 0.6]
    for index, samples in zip(coded, through_mp3(rng, [clips[i][0] for i in coded])):
        clips[index] = (samples, clips[index][1])
    return clips


def unheard(seed, voices_of):
    """Whole sentences at speeds, pitches, noises and gains that training left out, all through MP3."""
    rng, voices, clips = np.random.default_rng(seed), Voices(), []
    for voice in voices_of:
        for text in texts():
            samples, words = voices.say(voice, rng.choice(UNSEEN_SPEEDS), rng.choice(UNSEEN_PITCHES), text)
            samples, words = with_margins(rng, samples, words, 0.3)
            clips.append((bend(rng, samples), words))
    coded = through_mp3(rng, [samples for samples, _ in clips])
    return [(samples, words) for samples, (_, words) in zip(coded, clips)]


def self_test():
    """The sentence that `doctor` recognises, as training never heard it: sentence.pcm and sentence.txt."""
    text = "Two seats for the late show, please."
    samples, _ = Voices().say("en+m3", UNSEEN_SPEEDS[1], UNSEEN_PITCHES[1], text)
    samples = np.concatenate([np.zeros(4000, np.float32), samples * np.float32(0.4), np.zeros(4000, np.float32)])
    noise = np.random.default_rng(5).standard_normal(len(samples)).astype(np.float32) * 0.002
    (OUT / "sentence.pcm").write_bytes((np.clip(samples + noise, -1, 1) * 32767).astype("<i2").tobytes())
    (OUT / "sentence.txt").write_text(text + "\n")


def for_evaluate(out):
    """The clips that training leaves out, with their references: for `aftercall evaluate`."""
    for kind, seed, voices in (("known", 1, KNOWN), ("unseen", 2, UNSEEN)):
        folder = out / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number, (samples, words) in enumerate(unheard(seed, voices)):
            voice = voices[number // len(texts())]
            name = f"{voice}-{number % len(texts()):02}"
            with wave.open(str(folder / f"{name}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", None))
                file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
            ms = lambda seconds: int(1000 * seconds)
            said = [{"text": word, "start_ms": ms(start), "end_ms": ms(end)} for word, start, end in words]
            whole = {"speaker": 0, "start_ms": said[0]["start_ms"], "end_ms": said[-1]["end_ms"], "words": said}
            whole["text"] = " ".join(word for word, _, _ in words)
            reference = {"language": "en", "speakers": [{"id": 0, "role": "unknown"}], "utterances": [whole]}
            (folder / f"{name}.json").write_text(json.dumps(reference) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for_evaluate(Path(sys.argv[1]))
    else:
        self_test()
