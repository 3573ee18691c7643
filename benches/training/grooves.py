"""Electronic and amplified music that a voice is easily taken for, as numpy arrays at 16 kHz: lines of notes through
resonances that move, saturated basses, drum kits, leads that slide, bodies of instruments, and loops of all that."""
import numpy as np

import synth
from synth import RATE


def spread(rng, low, high):
    """A figure between the two, any octave as likely as any other."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def slowed(steps, count, each, seconds):
    """Steps of `each` samples that the next does not jump to but nears within some `seconds`."""
    values = np.repeat(np.asarray(steps, float), each)[:count]
    values = np.pad(values, (0, count - len(values)), "edge")
    if seconds <= 0:
        return values
    long = int(6 * seconds * RATE)
    near = np.exp(-np.arange(long) / (seconds * RATE))
    size = synth.quick(count + 2 * long)
    padded = np.concatenate([np.full(long, values[0]), values])
    return np.fft.irfft(np.fft.rfft(padded, size) * np.fft.rfft(near / near.sum(), size), size)[long : long + count]


def wave_weights(rng, partials):
    """How strong each partial is: saw, square, pulse, triangle, a few drawbars."""
    k = np.arange(1, partials + 1)
    kind = rng.choice(["saw", "saw", "square", "pulse", "triangle", "drawbars"])
    if kind == "saw":
        return 1 / k
    if kind == "square":
        return (k % 2) / k
    if kind == "pulse":
        return np.sin(np.pi * k * rng.uniform(0.05, 0.5)) / k
    if kind == "triangle":
        return (k % 2) / k**2
    return rng.uniform(0, 1, partials) * (k <= rng.integers(3, 12))


def tone(hertz, weights, cutoff=None, resonance=1.0, steep=1, body=()):
    """Partials of a pitch that moves, each as strong as a low pass with a resonance, and a fixed body, lets it through."""
    count = len(hertz)
    turn = np.exp(2j * np.pi * np.cumsum(hertz) / RATE).astype(np.complex64)
    out, now = np.zeros(count, np.float32), np.ones(count, np.complex64)
    for k, weight in enumerate(weights, 1):
        now = now * turn
        if abs(weight) < 1e-3:
            continue
        place = hertz * k
        gain = weight * np.clip((7800 - place) / 400, 0, 1)
        if cutoff is not None:
            ratio = place / cutoff
            gain = gain * (((1 - ratio**2) ** 2 + (ratio / resonance) ** 2) ** (-0.5 * steep))
        if body:
            gain = gain * (0.1 + sum(height / (1 + ((place - middle) / width) ** 2) for middle, width, height in body))
        out += (gain * now.imag).astype(np.float32)
    return out.astype(float)


def a_body(rng):
    """What wood, a tube or a box adds: resonances that stay where they are."""
    return [(spread(rng, 180, 3500), spread(rng, 40, 400), rng.uniform(0.3, 1)) for _ in range(rng.integers(2, 6))]


def pattern(rng, steps, scale):
    """Degrees of a scale, or a rest, for the steps of a loop."""
    return [None if rng.random() < 0.25 else int(rng.choice(scale)) for _ in range(steps)]


SCALES = ([0, 12], [0, 0, 0, 12, 10], [0, 0, 3, 5, 7, 10], [0, 2, 4, 5, 7, 9, 11], [0, 3, 5, 6, 7, 10, 12], [0, 7, 12], [0, 1, 5, 7, 8])


def sequence(rng, seconds, beat):
    """A line of notes as a sequencer plays them: a loop of steps, a resonance that opens with each note and over minutes."""
    count = int(seconds * RATE)
    each = int(beat / rng.choice([1, 2, 4, 4]) * RATE)
    loop = int(rng.choice([4, 8, 16, 16, 32]))
    notes, accents = pattern(rng, loop, SCALES[rng.integers(len(SCALES))]), rng.random(loop) < 0.3
    ties, total = rng.random(loop) < rng.uniform(0, 0.5), count // each + 1
    base = spread(rng, 32, 260)
    held, degrees, force, since = 0, [], [], []
    for n in range(total):
        note = notes[n % loop]
        sounding = note is not None
        held = note if sounding else held
        degrees.append(held)
        force.append(float(sounding) * (1.0 if accents[n % loop] else 0.6))
        since.append(0 if sounding and not ties[n % loop] else 1)
    hertz = slowed(base * 2 ** (np.array(degrees) / 12), count, each, rng.choice([0.001, 0.01, spread(rng, 0.01, 0.1)]))
    place = np.arange(count)
    last = np.maximum.accumulate(np.where(np.repeat(since, each)[:count] == 0, place // each * each, 0))
    age = (place - last) / RATE
    decay, fall, gate = spread(rng, 0.03, 0.8), spread(rng, 0.05, 3), rng.choice([0.3, 0.6, 0.95, 1.0])
    opened = np.exp(-age / decay) * slowed(force, count, each, 0.002)
    loud = slowed(force, count, each, 0.004) * np.exp(-age / fall) * np.clip(age / 0.003, 0, 1)
    if gate < 1:
        loud = loud * np.clip((gate * each - place % each) / (0.004 * RATE), 0, 1)
    t = place / RATE
    drift = rng.uniform(0, 1.5) * np.sin(2 * np.pi * (spread(rng, 0.01, 0.5) * t + rng.random()))
    wobble = rng.choice([0, 0, rng.uniform(0.3, 1.5)]) * np.sin(2 * np.pi * rng.choice([0.5, 1, 2, 3, 4]) / beat * t)
    cutoff = spread(rng, 90, 1500) * 2 ** (rng.uniform(0, 4) * opened + drift + wobble)
    weights = wave_weights(rng, int(min(60, 7800 // base)))
    out = tone(hertz, weights, np.clip(cutoff, 40, 9000), spread(rng, 0.6, 14), rng.choice([1, 2])) * loud
    return driven(rng, out, 0.5)


def lead(rng, seconds, beat):
    """Long notes that slide into each other, with vibrato, through a body or a pedal: strings bowed, blown, or electric."""
    count = int(seconds * RATE)
    each = int(beat * rng.choice([0.5, 1, 1, 2]) * RATE)
    scale = SCALES[rng.integers(2, len(SCALES))]
    place, degrees, force = 0, [], []
    for _ in range(count // each + 1):
        if rng.random() < 0.75:
            place += int(rng.integers(-3, 4))
        place = int(np.clip(place, -4, 9))
        degrees.append(12 * (place // len(scale)) + scale[place % len(scale)])
        force.append(float(rng.random() < 0.88) * rng.uniform(0.5, 1))
    glide = rng.choice([0.004, spread(rng, 0.01, 0.05), spread(rng, 0.05, 0.3)])
    pitch = slowed(degrees, count, each, glide)
    t = np.arange(count) / RATE
    vibrato = rng.choice([0, rng.uniform(0.05, 0.7)]) * np.sin(2 * np.pi * np.cumsum(rng.uniform(4, 7.5) + 0.4 * np.sin(2 * np.pi * 0.3 * t)) / RATE)
    depth = np.clip((np.arange(count) % each) / RATE / 0.3, 0, 1) if rng.random() < 0.5 else 1
    base = spread(rng, 60, 700)
    drift = rng.choice([0, 0.05]) * synth.envelope(rng, count, 2, 10, -1)
    hertz = base * 2 ** ((pitch + vibrato * depth + drift) / 12)
    loud = slowed(force, count, each, spread(rng, 0.005, 0.12)) * (1 - rng.uniform(0, 0.4) * (np.arange(count) % each) / each)
    if rng.random() < 0.4:
        loud = loud * np.clip((np.arange(count) % each) / RATE / spread(rng, 0.005, 0.2), 0, 1)
    weights, cutoff = wave_weights(rng, int(min(50, 7800 // base))), None
    if rng.random() < 0.5:  # a pedal, a mute, a filter that follows the loudness
        way = np.sin(2 * np.pi * spread(rng, 0.3, 4) * t) if rng.random() < 0.5 else 2 * loud - 1
        cutoff = np.clip(spread(rng, 300, 2000) * 2 ** (rng.uniform(0.2, 1.5) * way), 100, 7000)
    out = tone(hertz, weights, cutoff, spread(rng, 0.7, 10), 1, a_body(rng) if rng.random() < 0.7 else ())
    if rng.random() < 0.4:
        out = out + tone(hertz * rng.choice([1.004, 0.5, 2, 1.5]), weights, cutoff, 1.0)
    out = out * loud
    if rng.random() < 0.3:  # bow or breath
        out = out + rng.uniform(0.01, 0.1) * out.std() * rng.normal(size=count) * loud
    return driven(rng, out, 0.3)


def bass(rng, seconds, beat):
    """A bass as fingers pluck it: decaying notes of a line that walks or stays, often saturated."""
    count = int(seconds * RATE)
    each = int(beat / rng.choice([1, 1, 2]) * RATE)
    loop, scale = int(rng.choice([4, 8, 16])), SCALES[rng.integers(len(SCALES))]
    notes, walks = pattern(rng, loop, scale), rng.random() < 0.3
    base, bright = spread(rng, 35, 110), rng.uniform(0.5, 2)
    fall, spare = spread(rng, 0.15, 1.5), rng.random() < 0.5
    out, made = np.zeros(count), {}
    for n in range(count // each + 1):
        note = int(rng.choice(scale)) if walks else notes[n % loop]
        if note is None:
            continue
        if note not in made or not spare:
            t = np.arange(int(min(each * rng.choice([0.6, 1, 1.5]), 2 * RATE))) / RATE
            hertz = base * 2 ** (note / 12)
            part = sum(np.sin(2 * np.pi * hertz * k * t) * np.exp(-t / fall * k**0.5) / k**bright for k in range(1, 24) if hertz * k < 7000)
            made[note] = part * np.clip(t / 0.004, 0, 1) * np.clip((t[-1] - t) / 0.01, 0, 1)
        part = made[note][: max(0, count - n * each)] * rng.uniform(0.7, 1)
        out[n * each : n * each + len(part)] += part
    return driven(rng, out, 0.7)


def driven(rng, out, often):
    """An amplifier that gives way, often enough."""
    if rng.random() >= often:
        return out
    out = out / (np.abs(out).max() + 1e-9)
    lean = rng.choice([0, rng.uniform(0, 0.4)])
    return np.tanh(spread(rng, 1, 20) * out + lean) - np.tanh(lean)


def kit(rng, seconds, beat):
    """Drums: every stroke of a piece of the kit is the same sound; a bar or two again and again, with fills."""
    count, each = int(seconds * RATE), int(beat / 4 * RATE)
    out = np.zeros(count)
    swing = rng.choice([0, 0, rng.uniform(0, 0.3)])
    for kind in rng.permutation(["kick", "kick", "snare", "hat", "tom", "clap", "bell", "shaker", "tom"])[: rng.integers(1, 7)]:
        if kind in ("bell", "shaker"):
            t = np.arange(int(spread(rng, 0.03, 0.4) * RATE)) / RATE
            first = spread(rng, 300, 1200)
            sound = sum(np.sign(np.sin(2 * np.pi * first * r * t)) for r in (1, 1.48)) if kind == "bell" else rng.normal(size=len(t))
            sound = 0.3 * sound * np.exp(-t * spread(rng, 8, 60)) * np.clip(t / rng.choice([0.001, 0.02]), 0, 1)
        else:
            sound = synth.drum(rng, kind)
        loop = rng.random(int(rng.choice([8, 16, 16, 32]))) < rng.uniform(0.1, 0.6)
        gains, gain = rng.uniform(0.4, 1, len(loop)), rng.uniform(0.2, 1)
        for n in range(count // each):
            if loop[n % len(loop)] if rng.random() > 0.03 else rng.random() < 0.3:
                at = int(n * each + (swing * each if n % 2 else 0))
                part = sound[: max(0, count - at)]
                out[at : at + len(part)] += gain * gains[n % len(loop)] * part
    if rng.random() < 0.4:
        out = echo(rng, out)
    return driven(rng, out, 0.4)


def echo(rng, out):
    late, gain = int(spread(rng, 0.02, 0.4) * RATE), rng.uniform(0.2, 0.6)
    for _ in range(3):
        out = out + gain * np.pad(out, (late, 0))[: len(out)]
        gain, late = gain * gain, late * 2
    return out


def groove(rng, seconds):
    """One to four of these together, at one rate; sometimes a bar of it again and again."""
    beat = rng.uniform(0.3, 0.9)
    sets = (["kit"], ["kit", "bass"], ["kit", "sequence"], ["sequence"], ["bass"], ["lead"], ["lead", "lead"], ["kit", "bass", "lead"], ["kit", "sequence", "lead"], ["sequence", "sequence"], ["kit", "bass", "pad"], ["lead", "pad"], ["sequence", "pad", "kit"])
    out = 0
    for part in sets[rng.integers(len(sets))]:
        if part == "pad":
            sound = synth.music(rng, seconds)
        else:
            sound = {"kit": kit, "bass": bass, "sequence": sequence, "lead": lead}[part](rng, seconds, beat)
        out = out + sound / (sound.std() + 1e-9) * 10 ** (rng.uniform(-12, 0) / 20)
    if rng.random() < 0.25:
        bar = int(beat * rng.choice([2, 4, 8]) * RATE)
        out = np.tile(out[:bar], len(out) // bar + 1)[: len(out)]
    if rng.random() < 0.25:  # a mix that is squeezed
        out = np.tanh(out / out.std() * rng.uniform(0.3, 2))
    return out
