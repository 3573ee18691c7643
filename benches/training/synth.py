"""Speech of espeak-ng and sounds that are no speech, as numpy arrays at 16 kHz. Needs libespeak-ng and numpy."""
import ctypes

import numpy as np

RATE = 16000


class _Event(ctypes.Structure):
    """`espeak_EVENT` of espeak-ng's speak_lib.h; `id` is a union, a pointer being its largest member."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_void_p),
    ]


class Synthesiser:
    """Speaks one utterance at a time into memory."""

    def __init__(self):
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(2, 0, None, 0)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self.callback = kind(self._receive)  # kept: the library holds only a pointer
        self.lib.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, count, events):
        if samples and count > 0:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != 0:
            if events[index].type == 1:
                self.words.append((events[index].text_position - 1, events[index].audio_position))
            index += 1
        return 0

    def speak(self, voice, text, words_a_minute=165, pitch=50, pitch_range=50):
        """Samples at 16 kHz, peak about 1, and the words with the milliseconds at which each begins."""
        self.pieces, self.words = [], []
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"no voice {voice}")
        for parameter, value in ((1, words_a_minute), (3, pitch), (4, pitch_range)):
            self.lib.espeak_SetParameter(parameter, int(value), 0)
        data = text.encode()
        self.lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        if not self.pieces:
            return np.zeros(0), []
        samples = resample(np.concatenate(self.pieces) / 32768.0, self.rate, RATE)
        return samples / max(np.abs(samples).max(), 1e-9), word_times(text, self.words)


def word_times(text, starts):
    """(word, start ms). Small words that the synthesiser joins ("I am") begin together with the first of them."""
    starts, found, at, last = dict(starts), [], 0, 0
    for word in text.split(" "):
        last = starts.get(at, last)
        found.append((word, last))
        at += len(word.encode()) + 1
    return found


def resample(samples, rate, to):
    """By truncation or padding of the spectrum: exact for what both rates can hold."""
    if rate == to or len(samples) == 0:
        return samples
    # A twentieth of a second is a whole number of samples at any rate; so many of them transform quickly.
    size = -(-len(samples) * 20 // rate) * rate // 20
    count = size * to // rate
    spectrum = np.fft.rfft(samples, size)
    out = np.zeros(count // 2 + 1, complex)
    kept = min(len(out), len(spectrum))
    out[:kept] = spectrum[:kept]
    return (np.fft.irfft(out, count) * count / size)[: int(round(len(samples) * to / rate))]


def quick(count):
    """A length that transforms quickly, `count` or a little more."""
    return -(-count // 2048) * 2048


def band(samples, low, high, rate=RATE):
    """What a line of this band passes on; edges fall over 10 %."""
    size = quick(len(samples))
    spectrum = np.fft.rfft(samples, size)
    hertz = np.fft.rfftfreq(size, 1 / rate)
    rise = np.clip((hertz - low * 0.9) / (low * 0.2), 0, 1)
    fall = np.clip((high * 1.05 - hertz) / (high * 0.1), 0, 1)
    return np.fft.irfft(spectrum * rise * fall, size)[: len(samples)]


def activity(samples, range_db=35.0, fill_ms=150):
    """For every 10 ms whether a clean utterance sounds then: within `range_db` of its loudest, short gaps filled."""
    hop, window = RATE // 100, RATE // 40
    count = max(0, (len(samples) - window) // hop + 1)
    power = np.convolve(samples**2, np.ones(window), "valid")[::hop][:count]
    if count == 0 or power.max() <= 0:
        return np.zeros(count, bool)
    active = power > power.max() * 10 ** (-range_db / 10)
    return fill(active, fill_ms // 10)


def fill(active, longest):
    """Gaps of at most `longest` steps become active."""
    active = active.copy()
    at = np.flatnonzero(active)
    for left, right in zip(at[:-1], at[1:]):
        if right - left - 1 <= longest:
            active[left:right] = True
    return active


def coloured(rng, count, slope):
    """Noise whose power falls by `slope` (0 white, 1 pink, 2 brown)."""
    size = quick(count)
    spectrum = np.fft.rfft(rng.normal(size=size))
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 30)
    noise = np.fft.irfft(spectrum / hertz ** (slope / 2), size)[:count]
    return noise / (noise.std() + 1e-9)


def envelope(rng, count, low, high, floor):
    """Slow random loudness between `floor` and 1, moving at `low` to `high` Hz."""
    points = max(2, int(count / RATE * rng.uniform(low, high)) + 2)
    return np.interp(np.linspace(0, points - 1, count), np.arange(points), rng.uniform(floor, 1, points))


INSTRUMENTS = ["sine", "organ", "saw", "plucked", "bowed", "bell", "pad", "reed", "string"]


def voice_of_instrument(rng, hertz, seconds, kind, glide_from=None):
    """One note; `glide_from` is the note it slides from, as on a violin or a theremin."""
    t = np.arange(int(seconds * RATE)) / RATE
    if len(t) == 0:
        return t
    pitch = hertz * np.ones_like(t)
    if glide_from:
        pitch = hertz * (glide_from / hertz) ** np.exp(-t / rng.uniform(0.02, 0.12))
    if kind in ("bowed", "reed"):
        pitch = pitch * (1 + rng.uniform(0, 0.015) * np.sin(2 * np.pi * rng.uniform(4, 7) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    if kind == "bell":  # frequency modulation: electric pianos, bells, many a telephone's own melody
        ratio, depth = rng.choice([1.0, 2.0, 3.0, 1.4, 3.5]), rng.uniform(0.5, 5) * np.exp(-t * rng.uniform(1, 12))
        note = np.sin(phase + depth * np.sin(ratio * phase)) * np.exp(-t * rng.uniform(0.5, 6))
    elif kind == "string":  # the higher the partial the sooner it is gone
        fade = rng.uniform(0.3, 2.5)
        note = sum(np.sin(phase * k + k) * np.exp(-t * fade * k) / k ** rng.uniform(0.4, 1.2) for k in range(1, 18) if hertz * k < 7600)
    else:
        roll = {"sine": 9.0, "organ": 1.2, "saw": 1.0, "plucked": 1.4, "bowed": 1.1, "pad": 1.3, "reed": 0.7}[kind]
        partials = 1 if kind == "sine" else int(rng.integers(4, 16))
        odd = kind == "reed" and rng.random() < 0.5
        note = sum(np.sin(phase * k) / k**roll for k in range(1, partials + 1) if hertz * k < 7600 and not (odd and k % 2 == 0))
        if kind == "pad":
            note = note + sum(np.sin(phase * k * 1.004 + 1) / k**roll for k in range(1, partials + 1) if hertz * k < 7600)
    if kind == "plucked":
        note = note * np.exp(-t * rng.uniform(1.5, 9))
    rise = {"pad": rng.uniform(0.05, 0.5), "bowed": 0.06, "reed": 0.03}.get(kind, 0.004)
    return note * np.clip(t / rise, 0, 1) * np.clip((t[-1] - t) / 0.02, 0, 1)


def drum(rng, kind):
    """One stroke."""
    t = np.arange(int(rng.uniform(0.1, 0.35) * RATE)) / RATE
    if kind == "kick":
        return np.sin(2 * np.pi * np.cumsum(rng.uniform(45, 60) + rng.uniform(50, 160) * np.exp(-t * 30)) / RATE) * np.exp(-t * rng.uniform(10, 25)) * 1.5
    if kind == "tom":
        return np.sin(2 * np.pi * np.cumsum(rng.uniform(80, 250) * (1 + 0.5 * np.exp(-t * 15))) / RATE) * np.exp(-t * rng.uniform(8, 20))
    if kind == "snare":
        return (rng.normal(size=len(t)) * 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(150, 260) * t)) * np.exp(-t * rng.uniform(12, 35))
    noise = rng.normal(size=len(t))
    if kind == "hat":
        noise = np.diff(noise, prepend=0)
    return 0.4 * noise * np.exp(-t * rng.uniform(15, 90))


def music(rng, seconds):
    """Chords, arpeggios, melodies, bass and drums of random instruments, dry or with an echo."""
    count = int(seconds * RATE)
    out = np.zeros(count)
    key = 110 * 2 ** (rng.integers(0, 24) / 12)
    scale = rng.permutation([0, 2, 4, 5, 7, 9, 11, 12] if rng.random() < 0.6 else [0, 2, 3, 5, 7, 8, 10, 12])[:6]
    chords = [[0, 4, 7], [0, 3, 7], [0, 5, 9], [0, 4, 10], [0, 4, 7, 11], [0, 3, 7, 10], [0, 7, 12]]

    def put(at, note, gain):
        start = int(at * RATE)
        note = note[: max(0, count - start)]
        out[start : start + len(note)] += gain * note

    parts = rng.permutation(["chords", "melody", "bass", "drums", "arpeggio", "melody", "drums"])[: rng.integers(1, 6)]
    beat = rng.uniform(0.15, 0.7)
    for part in parts:
        kind, at, before = rng.choice(INSTRUMENTS), 0.0, None
        gain, slides = rng.uniform(0.15, 0.7), rng.random() < 0.3
        pattern = [rng.choice(["kick", "snare", "hat", "tom", "clap", None, None], p=[0.2, 0.15, 0.25, 0.1, 0.05, 0.15, 0.1]) for _ in range(8)]
        swing, step, long = rng.uniform(0, 0.3), 0, beat
        while at < seconds:
            if part == "chords":
                long = beat * rng.choice([1, 2, 4, 8])
                root = key * 2 ** (rng.choice(scale) / 12)
                short = rng.uniform(0.3, 1.1)
                for interval in chords[rng.integers(len(chords))]:
                    put(at, voice_of_instrument(rng, root * 2 ** (interval / 12), long * short, kind), 0.6 * gain)
            elif part == "arpeggio":
                root, long = key * 2 ** (rng.choice(scale) / 12), beat / rng.choice([1, 2, 3])
                notes = chords[rng.integers(len(chords))] + [12]
                order = notes if rng.random() < 0.5 else notes[::-1]
                for n, interval in enumerate(order * int(rng.integers(1, 4))):
                    put(at + n * long, voice_of_instrument(rng, 2 * root * 2 ** (interval / 12), long * rng.choice([0.7, 1.0, 2.5]), kind), gain)
                long = long * (n + 1)
            elif part == "melody":
                long = beat * rng.choice([0.5, 1, 1, 2])
                if rng.random() < 0.85:
                    note = 2 * key * 2 ** (rng.choice(scale) / 12)
                    put(at, voice_of_instrument(rng, note, long * rng.uniform(0.6, 1.6), kind, before if slides else None), gain)
                    before = note
            elif part == "bass":
                long = beat * rng.choice([1, 2])
                put(at, voice_of_instrument(rng, key / 2 * 2 ** (rng.choice(scale) / 12), long, kind), gain)
            else:
                long = beat / 2 * (1 + (swing if step % 2 == 0 else -swing))
                if stroke := pattern[step % 8]:
                    put(at, drum(rng, stroke), gain * rng.uniform(0.6, 1))
            at += long
            step += 1
    if rng.random() < 0.3:
        out = out * (1 + rng.uniform(0.1, 0.6) * np.sin(2 * np.pi * rng.uniform(2, 8) * np.arange(count) / RATE))
    if rng.random() < 0.3:
        late = int(rng.uniform(0.03, 0.4) * RATE)
        out[late:] += rng.uniform(0.2, 0.6) * out[:-late]
    if rng.random() < 0.2:
        out = np.tanh(rng.uniform(1, 4) * out / (np.abs(out).max() + 1e-9))
    return out


def signals(rng, seconds):
    """Ringing, DTMF, busy and information tones, fax, sweeps."""
    count = int(seconds * RATE)
    t = np.arange(count) / RATE
    kind = rng.choice([0, 0, 0, 1, 1, 2, 3, 4, 5])
    if kind == 0:  # call progress tones with their cadence
        pairs = [(400, 450), (440, 480), (425, 425), (480, 620), (350, 440), (400, 425), (950, 1400), (1000, 1000)]
        low, high = pairs[rng.integers(len(pairs))]
        period = rng.choice([0.5, 1.0, 3.0, 4.0, 5.0, 6.0])
        at = (t + rng.uniform(0, period)) % period
        gate = at < period * rng.uniform(0.2, 0.6)
        if rng.random() < 0.3:  # British and Indian ringing is double
            gate = (at % 3.0 < 0.4) | ((at % 3.0 > 0.6) & (at % 3.0 < 1.0))
        return gate * (np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t + rng.uniform(0, 6)))
    if kind in (1, 2):  # DTMF
        out, at = np.zeros(count), 0.0
        on, off = rng.uniform(0.04, 0.4), rng.uniform(0.03, 0.5)
        while at < seconds:
            low, high = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477, 1633])
            part = (t >= at) & (t < at + on)
            out[part] = np.sin(2 * np.pi * low * t[part]) + np.sin(2 * np.pi * high * t[part])
            at += on + off * rng.uniform(0.7, 1.5)
        return out
    if kind == 3:  # beeps
        period = rng.uniform(0.3, 3)
        return ((t % period) < rng.uniform(0.05, 0.5) * period) * np.sin(2 * np.pi * rng.uniform(300, 2500) * t)
    if kind == 4:  # sweeps and sirens
        hertz = rng.uniform(300, 900) + rng.uniform(50, 280) * np.sin(2 * np.pi * rng.uniform(0.1, 3) * t)
        return np.sin(2 * np.pi * np.cumsum(hertz) / RATE)
    hertz = np.repeat(rng.choice([1100, 1300, 2100, 2225, 1650, 1850], count // 160 + 1), 160)[:count]
    return np.sin(2 * np.pi * np.cumsum(hertz) / RATE)  # modem


def hum_and_clicks(rng, seconds):
    count = int(seconds * RATE)
    t = np.arange(count) / RATE
    base = rng.choice([50, 60])
    out = sum(np.sin(2 * np.pi * base * k * t) / k for k in range(1, rng.integers(3, 20)))
    if rng.random() < 0.6:
        clicks = np.zeros(count)
        for at in rng.integers(0, max(1, count - 400), int(seconds * rng.uniform(0.5, 8))):
            long = int(rng.integers(30, 400))
            clicks[at : at + long] += rng.normal(size=long) * np.exp(-np.arange(long) / (long / 4)) * rng.uniform(0.2, 3)
        out = out * rng.uniform(0, 0.3) + clicks
    return out


def noise(rng, seconds):
    """Steady or moving noise of some colour."""
    count = int(seconds * RATE)
    out = coloured(rng, count, rng.uniform(0, 2))
    if rng.random() < 0.4:
        out = out * envelope(rng, count, 0.3, 6, rng.uniform(0.05, 0.8))
    if rng.random() < 0.3:
        low = rng.uniform(80, 1500)
        out = band(out, low, low * rng.uniform(1.5, 6))
    return out


def no_speech(rng, seconds):
    """Some sound in which nobody speaks."""
    kind = rng.random()
    if kind < 0.17:
        return noise(rng, seconds)
    if kind < 0.72:
        return music(rng, seconds)
    if kind < 0.92:
        return signals(rng, seconds)
    return hum_and_clicks(rng, seconds)


def room(rng, samples):
    """A little reverberation and a tilted spectrum, as rooms and handsets give."""
    if rng.random() < 0.5:
        long = int(RATE * rng.uniform(0.05, 0.25))
        tail = rng.normal(size=long) * np.exp(-np.arange(long) / (long / 5)) * rng.uniform(0.01, 0.08)
        tail[0] = 1
        size = 1 << (len(samples) + long).bit_length()
        samples = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]
    size = quick(len(samples))
    spectrum = np.fft.rfft(samples, size)
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 50)
    knots = np.log(np.array([50, 200, 500, 1000, 2000, 4000, 8000]))
    curve = np.interp(np.log(hertz), knots, rng.normal(0, 3, len(knots)))
    return np.fft.irfft(spectrum * 10 ** (curve / 20), size)[: len(samples)]
