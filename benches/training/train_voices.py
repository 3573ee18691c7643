#!/usr/bin/env python3
"""Teaches the network that voices are told apart with and writes `src/transcript/diarization/weights.bin` (f32, little-endian).

A session is one synthetic voice on one line: espeak-ng in many languages and variants, flite and festival where they are
installed, vocal tracts made longer or shorter, every utterance with a pitch, a rate, a level and a tilt of its own, through
rooms, telephone bands and noise. The network puts a stretch of about a second of it where the others of its session are and
those of other sessions are not (prototypes, squared distances, cross-entropy). Stretches are disturbed on the way: tilt,
pitch, another voice or noise beneath. Run by hand; the result is committed. Needs numpy, torch, libespeak-ng:

    python3 benches/training/train_voices.py SESSIONS.npz --voices 240 --recorded 100   # says and keeps the sessions
    python3 benches/training/train_voices.py SESSIONS.npz --steps 1500                  # learns from them
    python3 benches/training/fit_voices.py CALLS                                        # then: what a division in two is worth

None of the voices that `make.py` judges with is used.
"""
import argparse
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

import make
import synth
import voices

BASES = ["en-us", "en-gb-x-rp", "en-029", "en-us", "de", "es", "it", "sw", "pl", "pt-br", "nl"]
VARIANTS = (
    "m1 m4 m5 m6 f2 f4 klatt klatt2 klatt3 klatt4 klatt5 klatt6 Andy Annie belinda boris victor norbert paul pablo miguel marcelo "
    "gustave john ed david edward max mike aunty anika sandro shelby travis iven iven2 iven3 Diogo Gene Gene2 Henrique Hugo Jacky "
    "Mario Marco Nguyen Storm RicishayMax steph2 steph3 rob caleb benjamin antonio"
).split()
LINES = make.AGENT + make.CALLER
# Voices made from people's recordings: flite's, with the pitch each speaks at, and festival's.
FLITE = {"awb": 130, "rms": 105, "slt": 175, "kal16": 105}
FESTIVAL = ["cmu_us_slt_arctic_hts", "kal_diphone"]
SECONDS = 15
# How much stretches are disturbed: tilt, ripples, pitch in octaves.
TILT, RIPPLE, PITCH = 0.35, 0.16, 0.10
SESSIONS, STRETCHES = 20, 4


def warped(samples, factor):
    """As a shorter or longer throat would say it, and faster or slower."""
    return np.interp(np.arange(0, len(samples) - 1, factor), np.arange(len(samples)), samples)


def restless(rng, samples):
    """No two utterances are as loud or as bright as each other."""
    samples = samples * 10 ** (rng.uniform(-5, 0) / 20)
    return samples + rng.uniform(-0.25, 0.25) * np.concatenate([[0], samples[:-1]])


def spoken(rng, speaker):
    """A voice of espeak-ng and some of what it says; `None` where it has no such voice."""
    voice, rate = f"{rng.choice(BASES)}+{rng.choice(VARIANTS)}", rng.uniform(140, 195)
    factor = np.exp(rng.uniform(np.log(0.82), np.log(1.22))) if rng.random() < 0.7 else 1.0
    pitch, spread, parts = rng.uniform(15, 85), rng.uniform(25, 85), []
    for _ in range(7):
        text = " ".join(rng.choice(LINES, rng.choice([1, 1, 2]), replace=False))
        higher, livelier = np.clip(pitch + rng.uniform(-10, 10), 1, 99), np.clip(spread * rng.uniform(0.7, 1.4), 5, 99)
        try:
            said, _ = speaker.speak(voice, text, rate * rng.uniform(0.9, 1.1), higher, livelier)
        except ValueError:
            return None
        parts += [restless(rng, warped(said, factor)), np.zeros(3200)]
    return np.concatenate(parts)[: SECONDS * synth.RATE]


def file_of(command, text=None):
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/said.wav"
        subprocess.run([part.replace("OUT", path) for part in command], input=text, check=True, capture_output=True)
        with wave.open(path) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
            return synth.resample(samples, file.getframerate(), synth.RATE)


def recorded_voices(rng):
    """Half a minute of each voice that was made from recordings, at several pitches."""
    out = []
    text = lambda: "  ".join(rng.choice(LINES, 11, replace=False))
    for voice, pitch in FLITE.items():
        for _ in range(7):
            height, spread, slow = pitch * np.exp(rng.normal(0, 0.2)), rng.uniform(10, 35), rng.uniform(0.85, 1.15)
            set_to = {"int_f0_target_mean": height, "int_f0_target_stddev": spread, "duration_stretch": slow}
            options = [part for name, value in set_to.items() for part in ("--setf", f"{name}={value:.2f}")]
            out.append(file_of(["flite", "-voice", voice, *options, "-t", text(), "-o", "OUT"]))
    for voice in FESTIVAL:
        out += [file_of(["text2wave", "-eval", f"(voice_{voice})", "-o", "OUT"], text().encode()) for _ in range(3)]
    return out


def made_of(rng, samples):
    """A voice made from a recorded one: another throat, its utterances in another order."""
    samples = warped(samples, np.exp(rng.uniform(np.log(0.75), np.log(1.32))))
    active = synth.fill(synth.activity(samples / np.abs(samples).max(), 32, 120), 5)
    pieces = [(a // 10 * 160, b // 10 * 160 + 200) for a, b in make.stretches(active) if b - a > 300]
    parts = [part for n in rng.permutation(len(pieces)) for part in (restless(rng, samples[slice(*pieces[n])]), np.zeros(3200))]
    return np.concatenate(parts)[: SECONDS * synth.RATE]


def sessions(rng, count, recorded):
    """What the network sees of each session's speech, frame by frame, and which voice it is."""
    speaker, out = synth.Synthesiser(), []
    bank = recorded_voices(rng) if recorded else []
    for voice in range(count + recorded):
        said = spoken(rng, speaker) if voice < count else made_of(rng, bank[rng.integers(len(bank))])
        if said is None:
            continue
        active = synth.activity(said / np.abs(said).max())[1:]
        for _ in range(2):
            line = make.line(rng, said, rng.random() < 0.5)
            line = line + 0.08 * 10 ** (-rng.uniform(12, 45) / 20) / 3 * rng.normal(size=len(line))
            seen = voices.sounds(line)
            seen = seen[: len(active)][active[: len(seen)]]
            if len(seen) > 500:
                out.append((seen.astype(np.float16), voice))
    return out


def disturbed(rng, rows, other):
    bands, places = rows[:, :-2], np.linspace(-1, 1, rows.shape[1] - 2)
    bands += rng.normal(0, TILT) * places + rng.normal(0, RIPPLE) * np.cos(np.pi * rng.integers(2, 5) * (places + 1) / 2)
    rows[:, -1] += rows[:, -2] * rng.normal(0, PITCH)
    if rng.random() < 0.25:
        beneath = other[:, :-2] - other[:, :-2].mean() + bands.mean() - rng.uniform(1.5, 5)
        bands[:] = np.logaddexp(bands, beneath)
    if rng.random() < 0.3:
        bands[:] = np.logaddexp(bands, bands.mean() + rng.normal(0, 0.5, bands.shape[1]) - rng.uniform(1, 5))
    return rows


def network(torch):
    """The layers of `voices.py`, so that torch can move them."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            inputs = [voices.SEEN, voices.WIDTH, voices.WIDTH]
            layer = lambda width, taps, apart: torch.nn.Conv1d(width, voices.WIDTH, taps, dilation=apart, padding=taps // 2 * apart)
            self.layers = torch.nn.ModuleList(layer(width, *shape) for width, shape in zip(inputs, voices.LAYERS))
            self.last = torch.nn.Linear(2 * voices.WIDTH + 3, voices.DIMENSIONS)

        def forward(self, rows):
            bands, voiced, octaves = rows[:, :, :-2], rows[:, :, -2], rows[:, :, -1]
            loudness = bands.mean(2)
            loud = loudness > loudness.max(1, keepdim=True).values - voices.RANGE
            weight = loud.float() * (voices.LITTLE + (1 - voices.LITTLE) * voiced)
            weight = weight / weight.sum(1, keepdim=True)
            level = (weight * loudness).sum(1)[:, None, None]
            x = torch.cat([(bands - level) / 3, voiced[:, :, None], 2 * octaves[:, :, None]], 2).transpose(1, 2)
            for layer in self.layers:
                x = torch.relu(layer(x))
            mean = (x * weight[:, None]).sum(2)
            spread = ((x * x * weight[:, None]).sum(2) - mean**2).clamp(min=1e-4).sqrt()
            count = voiced.sum(1).clamp(min=1)
            height = (octaves * voiced).sum(1) / count
            moves = ((octaves**2 * voiced).sum(1) / count - height**2).clamp(min=1e-5).sqrt()
            pitch = torch.stack([2 * height, 2 * moves, voiced.mean(1)], 1)
            return self.last(torch.cat([mean, spread, pitch], 1))

        def flat(self):
            parts = [part for layer in self.layers for part in (layer.weight.permute(0, 2, 1), layer.bias)]
            return torch.cat([part.detach().reshape(-1) for part in (*parts, self.last.weight, self.last.bias)])

    return Network()


def learn(rng, all_sessions, steps):
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(1)
    held = [(rows, voice) for rows, voice in all_sessions if voice % 8 == 0]
    taught = [(rows, voice) for rows, voice in all_sessions if voice % 8]
    print(f"{len(taught)} sessions to learn from, {len(held)} of other voices to look at")

    def stretch(rows, length):
        at = rng.integers(0, len(rows) - length)
        return rows[at : at + length].astype(np.float32)

    def batch(chosen, count, length, disturb):
        rows = []
        for session, _ in chosen:
            for _ in range(count):
                one = stretch(session, length)
                rows.append(disturbed(rng, one, stretch(taught[rng.integers(len(taught))][0], length)) if disturb else one)
        return torch.tensor(np.stack(rows))

    net = network(torch)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.15)
    for step in range(1, steps + 1):
        chosen = [taught[n] for n in rng.choice(len(taught), SESSIONS, replace=False)]
        points = net(batch(chosen, STRETCHES, int(rng.choice([60, 80, 100])), True)).view(SESSIONS, STRETCHES, -1)
        centre = points.mean(1)
        # Its own centre is that of the other stretches.
        others = (centre[:, None] * STRETCHES - points) / (STRETCHES - 1)
        away = ((points[:, :, None] - centre) ** 2).sum(3)
        own = torch.eye(SESSIONS, dtype=torch.bool)[:, None].expand_as(away)
        away = torch.where(own, ((points - others) ** 2).sum(2)[:, :, None].expand_as(away), away)
        truth = torch.arange(SESSIONS).repeat_interleave(STRETCHES)
        loss = torch.nn.functional.cross_entropy(-0.5 * away.reshape(-1, SESSIONS), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            with torch.no_grad():
                points = net(batch(held, 6, 80, False)).view(len(held), 6, -1)
                centre = points.mean(1)
                within = ((points - centre[:, None]) ** 2).sum(2).mean() * 6 / 5
                between = torch.cdist(centre, centre)[~torch.eye(len(held), dtype=torch.bool)] ** 2
            print(f"{step}: loss {loss:.3f}; unseen voices lie {between.mean() / within:.1f} spreads apart", flush=True)
    return net.flat().numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sessions", type=Path)
    parser.add_argument("--voices", type=int, default=0, help="voices of espeak-ng to say")
    parser.add_argument("--recorded", type=int, default=0, help="voices to make from flite's and festival's")
    parser.add_argument("--steps", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(9)
    if args.voices:
        made = sessions(rng, args.voices, args.recorded)
        ends = np.cumsum([len(rows) for rows, _ in made])
        np.savez(args.sessions, rows=np.concatenate([rows for rows, _ in made]), ends=ends, voice=[voice for _, voice in made])
    if args.steps:
        kept = np.load(args.sessions)
        parts = np.split(kept["rows"], kept["ends"][:-1])
        weights = learn(rng, list(zip(parts, kept["voice"].tolist())), args.steps)
        voices.WEIGHTS.write_bytes(weights.astype("<f4").tobytes())
        print(f"{voices.WEIGHTS.name}: {len(weights)} weights")


if __name__ == "__main__":
    main()
