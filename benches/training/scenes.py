"""Recordings to learn from and what is spoken in them: espeak-ng's speech in many languages and voices and flite's, in noise,
over music, in rooms, over telephone bands and codecs; and sounds in which nobody speaks. Needs what `train_context.py` names."""
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

import grooves
import midi
import synth
import train_speech
import weather

FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
VARIANTS = train_speech.VARIANTS + "whisper croak max ed john mike paul shelby aunty".split()
FLITE = ["awb", "rms", "kal16"]


def sampled(rng, seconds):
    """A stretch of music of sampled instruments; a long piece is kept and cut from."""
    kept = sampled.__dict__
    if kept.get("left", 0) <= 0:
        kept["piece"], kept["left"] = midi.render(rng, 600, FONT, int(rng.choice([9, 15, 40]))), 40
    kept["left"] -= 1
    start = rng.integers(0, len(kept["piece"]) - int(seconds * synth.RATE))
    out = kept["piece"][start : start + int(seconds * synth.RATE)]
    return out / (out.std() + 1e-6)


def one_sound(rng, seconds):
    """Music played, sampled or synthesised; noise that moves; signals, hum, steady noise."""
    kind = rng.random()
    if kind < 0.35:
        return weather.outside(rng, seconds)
    if kind < 0.6:
        return grooves.groove(rng, seconds)
    return sampled(rng, seconds) if kind < 0.8 else synth.no_speech(rng, seconds)


def sounds(rng, seconds):
    """Something in which nobody speaks: of one kind, of two at once, or of two after each other."""
    count = int(seconds * synth.RATE)
    level = lambda sound: np.pad(sound[:count], (0, max(0, count - len(sound)))) / (sound.std() + 1e-6)
    sound, kind = level(one_sound(rng, seconds)), rng.random()
    if kind < 0.12:
        sound = sound + level(one_sound(rng, seconds)) * 10 ** (rng.uniform(-15, 0) / 20)
    elif kind < 0.35:
        cut = int(count * rng.uniform(0.2, 0.8))
        sound[cut:] = level(one_sound(rng, seconds))[cut:] * 10 ** (rng.uniform(-15, 0) / 20)
        if rng.random() < 0.4:
            sound[cut : cut + int(rng.uniform(0, 3) * synth.RATE)] = 0
    return sound


def flite(voice, text, rng):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "a.wav"
        stretch, mean = rng.uniform(0.75, 1.3), {"awb": 130, "rms": 95, "kal16": 110}[voice] * rng.uniform(0.8, 1.3)
        subprocess.run(["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.2f}", "--setf", f"int_f0_target_mean={mean:.0f}", "-t", text, "-o", str(path)], check=True)
        said = read(path)
    return said / (np.abs(said).max() + 1e-9)


def read(path):
    """First channel of a 16-bit WAV at 16 kHz."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0]
        return synth.resample(samples / 32768, file.getframerate(), synth.RATE)


def sway(rng, said):
    """Pitch and rate that move, as people's do and a synthesiser's do not."""
    points = max(2, int(len(said) / synth.RATE * rng.uniform(1, 4)) + 1)
    speed = np.interp(np.linspace(0, points - 1, len(said)), np.arange(points), 1 + rng.normal(0, rng.uniform(0.01, 0.07), points))
    return np.interp(np.arange(0, len(said) - 1, 1.0), np.cumsum(np.clip(speed, 0.7, 1.4)) - 1, said)


def coded(rng, sound):
    """What a codec leaves of it."""
    kind = rng.choice(["mulaw", "bits", "mp3", "mp3", "adpcm"])
    peak = np.abs(sound).max() + 1e-9
    if kind == "mulaw":
        squeezed = np.sign(sound) * np.log1p(255 * np.abs(sound)) / np.log(256)
        squeezed = np.round(squeezed * 127) / 127
        return np.sign(squeezed) * (256 ** np.abs(squeezed) - 1) / 255
    if kind == "bits":
        return np.round(sound / peak * 127 * rng.uniform(0.2, 1)) / 127 * peak
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ("a.mp3" if kind == "mp3" else "a.wav")
        options = ["-c:a", "libmp3lame", *(["-ar", "8000", "-b:a", rng.choice(["8k", "16k"])] if rng.random() < 0.5 else ["-ar", "16000", "-b:a", rng.choice(["16k", "24k", "32k"])])]
        options = options if kind == "mp3" else ["-ar", "8000", "-c:a", "adpcm_ima_wav"]
        raw = ["-f", "s16le", "-ar", "16000", "-ac", "1"]
        data = (np.clip(sound / peak, -1, 1) * 32000).astype("<i2").tobytes()
        subprocess.run(["ffmpeg", "-v", "error", *raw, "-i", "-", *options, str(path)], input=data, check=True)
        back = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), *raw, "-"], capture_output=True, check=True).stdout
    back = np.frombuffer(back, "<i2") / 32000 * peak
    return np.pad(back, (0, max(0, len(sound) - len(back))))[: len(sound)]


def talk(rng, speaker, count):
    """Somebody, or two, speaking now and then; and when."""
    clean, active = np.zeros(count), np.zeros(count // train_speech.HOP + 1, bool)
    at, pause = rng.uniform(0, 4), rng.choice([0.4, 1.0, 5.0])
    voices = [f"{rng.choice(train_speech.LANGUAGES)}+{rng.choice(VARIANTS)}" if rng.random() < 0.8 else rng.choice(FLITE) for _ in range(2)]
    while at < count / synth.RATE - 0.3:
        voice = voices[rng.integers(2)]
        words = " ".join(rng.choice(train_speech.TEXT, int(rng.choice([1, 1, 2, 4, 8, 14]))))
        try:
            if voice in FLITE:
                said = flite(voice, words, rng)
            else:
                said, _ = speaker.speak(voice, words, rng.uniform(110, 230), rng.uniform(15, 85), rng.uniform(10, 100))
        except ValueError:
            voices[0], voices[1] = "en-us+" + rng.choice(VARIANTS), "de+" + rng.choice(VARIANTS)
            continue
        if len(said) < 1600:
            continue
        if rng.random() < 0.6:
            said = sway(rng, said)
        marks = synth.activity(said)
        said = synth.room(rng, said) * 10 ** (rng.uniform(-12, 0) / 20)
        start = int(at * 100) * train_speech.HOP
        said = said[: count - start]
        clean[start : start + len(said)] += said
        marks = marks[: len(active) - start // train_speech.HOP]
        active[start // train_speech.HOP : start // train_speech.HOP + len(marks)] |= marks
        at += len(said) / synth.RATE + rng.exponential(pause)
    return clean, active


def example(rng, speaker):
    """One recording of some seconds and its labels."""
    seconds = 24
    count = int(seconds * synth.RATE)
    active = np.zeros(count // train_speech.HOP + 1, bool)
    hiss = lambda: (lambda n: n[:count] / (n.std() + 1e-9))(synth.noise(rng, seconds))
    if rng.random() < 0.45:
        clean, active = talk(rng, speaker, count)
        loud = np.sqrt((clean**2).sum() / max(1, active.sum() * train_speech.HOP)) or 0.1
        snr = rng.choice([60, rng.uniform(15, 40), rng.uniform(2, 12), rng.uniform(2, 12)])
        kind = rng.random()
        other = sounds(rng, seconds) if kind < 0.4 else hiss() if kind < 0.75 else weather.outside(rng, seconds)
        other = other / (other.std() + 1e-9)
        if kind >= 0.75:
            snr = rng.uniform(5, 30)
        if kind < 0.25:  # music until, or from, some time on: a call put on hold
            cut, fade = int(count * rng.uniform(0.1, 0.9)), 10 ** (-rng.uniform(5, 60) / 20)
            side = slice(cut, None) if rng.random() < 0.6 else slice(None, cut)
            other[side] *= fade
            snr = rng.uniform(-3, 20)
        sound = clean + loud * 10 ** (-snr / 20) * other + loud * 10 ** (-rng.uniform(25, 70) / 20) * hiss()
    else:
        sound = sounds(rng, seconds)
        if rng.random() < 0.8:
            sound = sound / (sound.std() + 1e-9) + 10 ** (-rng.uniform(5, 70) / 20) * hiss()
        if rng.random() < 0.4:
            sound = synth.room(rng, sound)
    if rng.random() < 0.5:
        sound = synth.band(sound, rng.uniform(100, 320), rng.uniform(3200, 3900))
    if rng.random() < 0.35:
        sound = coded(rng, sound)
    peak = np.abs(sound).max() + 1e-9
    sound = sound / peak * 10 ** (-rng.choice([rng.uniform(0, 20), rng.uniform(20, 45)]) / 20)
    sound = np.round(np.clip(sound, -1, 1) * 32767) / 32768
    return sound, active
