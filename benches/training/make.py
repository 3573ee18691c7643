#!/usr/bin/env python3
"""Makes synthetic calls with exact truth, for `aftercall evaluate`.

    python3 benches/training/make.py OUT [--mono 100] [--dual 50] [--alone 30] [--trio 20] [--seed 1] [--voices judge] [--agents N]

Writes `OUT/NAME.mp3` (or `.wav`) with `NAME.json` (speakers, roles, utterances with words and times, what was done to
the sound) and `NAME.rttm` (speech stretches, split at pauses of 200 ms) beside it. `mono-*`: both sides in one channel,
the same sex in half of them, overlap in a third; `dual-*`: a channel each, both orders, one in five with a caller 20 dB down;
`alone-*`: one speaker; `trio-*`: three in one channel. In every other call each utterance has a pitch, a rate and a level of
its own, as people's do. `--voices learn` gives other voices than `judge`: thresholds and weights are learnt from the former
and judged by the latter. `--agents 4`: the calls of two sides are those of four agents, each with a voice that stays. Needs numpy, libespeak-ng, ffmpeg.
"""
import argparse
import json
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

import synth

# Accents, men, women. No voice is in both casts.
CASTS = {
    "judge": (
        ["en-us", "en-gb-x-rp", "en-029", "en-gb-scotland", "en-gb-x-gbclan"],
        "m2 m3 m7 m8 adam Lee Michael robert quincy".split(),
        "f1 f3 f5 linda steph Alicia".split(),
    ),
    "learn": (
        ["en-us", "en-gb-x-rp", "en-029", "en-gb-x-gbcwmd"],
        "m1 m4 m5 m6 klatt klatt2 klatt4 Andy boris victor norbert paul pablo miguel marcelo gustave john ed david edward max mike "
        "sandro travis iven iven2 iven3 Diogo Gene Gene2 Henrique Hugo Jacky Mario Marco Nguyen Storm rob caleb benjamin antonio".split(),
        "f2 f4 Annie Andrea belinda aunty anika shelby steph2 steph3".split(),
    ),
}

AGENT = """Good morning, how can I help you today?
Thank you for waiting, I have found your order.
May I have the number on the top of the letter, please?
I am sorry to hear that. Let me see what I can do.
The driver was delayed and will be with you before noon.
Is there anything else I can do for you?
I have made a note of that on your account.
Your appointment is on Thursday at half past three.
Could you spell the name of the street for me?
Please hold the blue button for five seconds.
There is a place free tomorrow morning at nine.
The technician will call you thirty minutes before the visit.
Of course.
Certainly.
One moment, please.
You are welcome. Have a pleasant evening.
That will be forty two dollars, including delivery.
I can send the papers to you by post or by message.
Your balance has been updated and nothing is due this month.
Would you like to keep the same seat on the later flight?""".split("\n")
CALLER = """Hi, I am calling about a parcel that should have come yesterday.
Yes.
No, thank you.
It is seven four one nine two.
My internet has been down since the storm on Sunday.
I would like to move my appointment to the afternoon.
Okay.
Right.
Before noon is fine. Can he leave it with the neighbour?
I already told your colleague about this last week.
How long is that going to take?
It says ready now. That was easy.
Could you repeat that, please? The line is not very good.
I need a double room for two nights from Friday.
The bill is higher than it was in the spring.
Wonderful, thank you very much.
What do I have to send you?
My name is Tunde and I live at twelve Palm Court.
Sure.
And if it gets worse, whom should I call?""".split("\n")


def cast(rng, same_sex, count, voices):
    """Voices: name, speed, pitch, range. Where they are not of the same sex, the first two are of both."""
    bases, men, women = CASTS[voices]
    if same_sex:
        picked = list(rng.choice(men if rng.random() < 0.5 else women, count, replace=False))
    else:
        picked = [rng.choice(men), rng.choice(women)]
        picked += list(rng.choice([v for v in men + women if v not in picked], count - 2, replace=False))
        rng.shuffle(picked)
    return [(f"{rng.choice(bases)}+{voice}", rng.uniform(145, 190), rng.uniform(35, 65), rng.uniform(35, 65)) for voice in picked]


def dialogue(rng, speaker, voices, overlap, lively, turns):
    """Tracks, utterances with times in ms, and the stretches in which each side sounds."""
    placed, end, who = [], rng.uniform(0.3, 1.0), int(rng.integers(len(voices)))
    for _ in range(turns):
        lines = (AGENT, CALLER)[min(who, 1)]
        count = int(rng.choice([1, 1, 1, 2]))
        text = " ".join(rng.choice(lines, count, replace=False))
        voice, speed, pitch, spread = voices[who]
        if lively:
            speed, pitch = speed * rng.uniform(0.9, 1.1), pitch + rng.uniform(-6, 6)
        said, words = speaker.speak(voice, text, speed, pitch, spread)
        if lively:
            said = said * 10 ** (rng.uniform(-4, 0) / 20)
        active = synth.activity(said)
        at = np.flatnonzero(active)
        first, last = int(at[0]) * 160, int(min(len(said), (at[-1] + 2) * 160))
        gap = rng.uniform(0.15, 1.4)
        if overlap and placed and rng.random() < 0.3:
            gap = -min(rng.uniform(0.3, 1.2), 0.6 * (last - first) / synth.RATE)
        start = max(0.05, end + gap)
        begin = int(start * synth.RATE)
        shift = begin - first
        placed.append((who, text, said, shift, active, [(w, t + shift / 16.0) for w, t in words], begin, shift + last))
        end = max(end, (shift + last) / synth.RATE)
        if len(voices) > 1 and rng.random() < 0.9:
            who = (who + int(rng.integers(1, len(voices)))) % len(voices)
    # Whole seconds: transforms of such lengths are quick.
    count = int(np.ceil(end + rng.uniform(0.4, 1.0))) * synth.RATE
    tracks = np.zeros((len(voices), count))
    marks = np.zeros((len(voices), count // 160 + 2), bool)
    utterances = []
    for who, text, said, shift, active, words, begin, stop in placed:
        lo, hi = max(0, -shift), min(len(said), count - shift)
        tracks[who, shift + lo : shift + hi] += said[lo:hi]
        index = np.flatnonzero(active) + shift // 160 + 1
        marks[who, index[(index >= 0) & (index < marks.shape[1])]] = True
        utterances.append({
            "speaker": who, "start_ms": begin // 16, "end_ms": stop // 16, "text": text,
            "words": [{"text": w, "start_ms": round(t)} for w, t in words],
        })
    return tracks, utterances, [stretches(synth.fill(row, 19)) for row in marks]


def stretches(active):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(int), [0]])))
    return [(int(a) * 10, int(b) * 10) for a, b in zip(edges[::2], edges[1::2])]


def line(rng, track, narrow):
    """A handset, a room and a line."""
    track = synth.room(rng, track)
    if narrow:
        track = synth.band(track, 250, 3400)
    return track / (np.sqrt(np.mean(track[np.abs(track) > 0.01 * np.abs(track).max()] ** 2)) + 1e-9) * 0.08


def write(out, name, channels, narrow, rng, kinds):
    """As MP3 or WAV; returns what was done."""
    sound = np.clip(np.stack(channels, 1), -1, 1)
    rate = 8000 if narrow else 16000
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "call.wav"
        with wave.open(str(wav), "wb") as file:
            file.setparams((len(channels), 2, synth.RATE, 0, "NONE", None))
            file.writeframes((sound * 32767).astype("<i2").tobytes())
        kind = rng.choice(kinds)
        path = out / f"{name}.{'wav' if kind == 'wav' else 'mp3'}"
        options = ["-ar", "48000" if kind == "mp3-48k" else str(rate)]
        if kind != "wav":
            options += ["-c:a", "libmp3lame", "-b:a", f"{(32 if kind == 'mp3-48k' else 16) * len(channels)}k", "-joint_stereo", "0"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(wav), *options, str(path)], check=True)
    return {"file": path.name, "kind": str(kind), "narrow": bool(narrow)}


COUNTS = {"alone": 1, "mono": 2, "dual": 2, "trio": 3}
ROLES = {"alone": ["unknown"], "mono": ["agent", "caller"], "dual": ["agent", "caller"], "trio": ["agent", "caller", "transfer"]}


# What a call is written as: mostly MP3 at 48 kHz, as platforms deliver them; the small ones as small as they can be.
FORMS = ["mp3-48k"] * 3 + ["mp3-own", "wav"]


def agents(count, seed, voices):
    """The voices of so many agents, no two alike."""
    rng = np.random.default_rng([seed, 77])
    bases, men, women = CASTS[voices]
    picked = rng.choice(men + women, count, replace=False)
    return [(f"{rng.choice(bases)}+{voice}", rng.uniform(150, 180), rng.uniform(40, 60), rng.uniform(40, 60)) for voice in picked]


def beside(rng, agent, same_sex, cast_name):
    """Another voice than the agent's, of its sex or not."""
    bases, men, women = CASTS[cast_name]
    own = agent[0].split("+")[1]
    group = men if (own in men) == bool(same_sex) else women
    voice = rng.choice([voice for voice in group if voice != own])
    return f"{rng.choice(bases)}+{voice}", rng.uniform(145, 190), rng.uniform(35, 65), rng.uniform(35, 65)


def call(rng, speaker, out, name, kind, number, cast_name, small, known):
    same, overlap, lively = number % 2 == 0, number % 3 == 0 and kind != "alone", number % 4 < 2
    voices = cast(rng, same, max(2, COUNTS[kind]), cast_name)[: COUNTS[kind]]
    agent = number // 2 % len(known) if known and len(voices) == 2 else None
    if agent is not None:
        voices = [known[agent], beside(rng, known[agent], same, cast_name)]
    tracks, utterances, spoken = dialogue(rng, speaker, voices, overlap, lively, 7 if small else int(rng.integers(10, 18)))
    narrow = rng.random() < 0.5
    legs = [line(rng, track, narrow) for track in tracks]
    snr, far = rng.uniform(20, 45), 0.0
    if kind in ("mono", "trio"):
        for leg in legs[1:]:
            leg *= 10 ** (rng.uniform(-6, 3) / 20)
    if kind == "dual" and number % 5 == 0:
        far = 20.0
        legs[1] *= 0.1
    hiss = lambda: synth.noise(rng, len(legs[0]) / synth.RATE)
    quiet = [0.08 * 10 ** (-snr / 20) * hiss() / 3 for _ in legs]
    caller_left = bool(number % 2)
    if kind == "dual":
        leak = 10 ** (-rng.uniform(22, 40) / 20) if rng.random() < 0.5 else 0
        legs = [legs[0] + quiet[0] + leak * legs[1], legs[1] + quiet[1] * (0.1 if far else 1) + leak * legs[0] * (0.1 if far else 1)]
        channels = legs[::-1] if caller_left else legs
    else:
        channels = [sum(legs) + quiet[0]]
    roles = ROLES[kind]
    done = write(out, name, channels, narrow, rng, ["mp3-own"] if small else FORMS)
    # Of the agent's lines some are known beforehand, as a prompt or a script would have them.
    script = [line for line in AGENT if rng.random() < 0.6]
    truth = {
        "language": "en", "agent_text": " ".join(script), "agent_id": None if agent is None else f"agent-{agent}",
        **done, "channels": len(channels), "same_sex": bool(same), "overlap": bool(overlap), "lively": bool(lively), "snr_db": round(snr, 1), "caller_down_db": far,
        "dual_channels": ("caller_left" if caller_left else "agent_left") if kind == "dual" else None,
        "speakers": [{"id": i, "role": role, "voice": voices[i][0]} for i, role in enumerate(roles)],
        "turns": sorted(({"speaker": i, "start_ms": a, "end_ms": b} for i, of in enumerate(spoken) for a, b in of), key=lambda t: t["start_ms"]),
        "utterances": utterances,
    }
    (out / f"{name}.json").write_text(json.dumps(truth, indent=1) + "\n")
    lines = [f"SPEAKER {name} 1 {t['start_ms'] / 1000:.3f} {(t['end_ms'] - t['start_ms']) / 1000:.3f} <NA> <NA> {roles[t['speaker']]} <NA> <NA>" for t in truth["turns"]]
    (out / f"{name}.rttm").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    for kind, count in (("mono", 100), ("dual", 50), ("alone", 30), ("trio", 20)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--voices", choices=CASTS, default="judge")
    parser.add_argument("--agents", type=int, default=0, help="so many agents, each with a voice that stays (0: another one in each call)")
    parser.add_argument("--small", action="store_true", help="short calls in small files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    speaker, known = synth.Synthesiser(), agents(args.agents, args.seed, args.voices)
    for kind in COUNTS:
        for number in range(getattr(args, kind)):
            rng = np.random.default_rng([args.seed, len(kind), ord(kind[0]), number])
            call(rng, speaker, args.out, f"{kind}-{number:03}", kind, number, args.voices, args.small, known)


if __name__ == "__main__":
    main()
