#!/usr/bin/env python3
"""Learns how voices of agents are known again, and writes `src/transcript/voice_table.rs`.

    python3 benches/training/train_profiles.py --say 91 LEARNT.npz STRANGE.npz       # voices of the learning cast, on four lines each
    python3 benches/training/train_profiles.py --say-strangers 50 LEARNT.npz STRANGE.npz
    python3 benches/training/train_profiles.py LEARNT.npz STRANGE.npz > src/transcript/voice_table.rs

The directions in which voices differ more than one voice does from line to line come from within- and between-class
covariances of the learning cast and of voices that neither the network of `train_voices.py` has learnt from nor `make.py`
judges with; on those it is nearly twice as restless. How far the figures may be believed comes from them alone: each half of
them against a table without it, the agent known by two or three lines, beside another voice on a line of the same width. stderr
says what was right. Needs numpy, libespeak-ng.
"""
import argparse
import sys

import numpy as np

import make
import synth
import voices

FEWEST_CALLS = 2
ANOTHER = 0.05  # set by hand: how often an agent is given another voice
SECOND_MS = 800.0  # speech that makes one point
SECOND = 3.0  # set by hand: on lines of the same width a voice varies a fifth of what it varies by otherwise, and that in 17 points
LINES, SECONDS = 4, 14
LEAST = 1.0  # directions in which voices differ less than this are left out
TRIALS = 10  # of each line
# Of what calibration would have the figures believed; in calls there are bits of the other voice too.
TRUSTED = 0.75
# Voices that nothing has learnt from.
STRANGERS = "Alex AnxiousAndy Denis Mike RicishayMax2 RicishayMax3 announcer edward2 grandpa iven4 kaukovalta michel pedro zac grandma".split()


def said(rng, speaker, voice, lively):
    """Some seconds of a voice, and which frames of it sound."""
    name, rate, pitch, spread = voice
    parts, active, seconds = [], [], 0.0
    while seconds < SECONDS:
        faster, higher = (rate * rng.uniform(0.9, 1.1), pitch + rng.uniform(-6, 6)) if lively else (rate, pitch)
        samples, _ = speaker.speak(name, str(rng.choice(make.AGENT + make.CALLER)), faster, higher, spread)
        samples = samples[: len(samples) // 160 * 160] * (10 ** (rng.uniform(-4, 0) / 20) if lively else 1.0)
        sounding = synth.activity(samples)[: len(samples) // 160]
        parts += [samples, np.zeros(3200)]
        active += [sounding, np.zeros(len(samples) // 160 - len(sounding) + 20, bool)]
        seconds += len(samples) / synth.RATE
    return np.concatenate(parts), np.concatenate(active)[1:].astype(bool)


def figures(line, active, layers):
    """Speech in ms, and the mean of its points as `manner.rs` has it."""
    seen = voices.sounds(line)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], synth.fill(active[: len(seen)], 19).astype(int), [0]])))
    points, weights = [], []
    for first, end in zip(edges[::2], edges[1::2]):
        parts = max(1, (end - first + 40) // 80)
        cuts = [first + n * (end - first) // parts for n in range(parts + 1)]
        for a, b in zip(cuts, cuts[1:]):
            if b > a:
                points.append(voices.point(seen[a:b], layers))
                weights.append(min(b - a, 80))
    points, weights = np.array(points), np.array(weights, float)
    return 10 * weights.sum(), weights @ points / weights.sum()


def sessions(rng, count, group):
    """(voice, whether its line is narrow, speech in ms, mean) of each line."""
    bases = make.CASTS["learn"][0]
    layers, speaker = voices.unpacked(np.frombuffer(voices.WEIGHTS.read_bytes(), "<f4")), synth.Synthesiser()
    for number in range(count):
        name = f"{rng.choice(bases)}+{rng.choice(group)}"
        voice = name, rng.uniform(145, 190), rng.uniform(35, 65), rng.uniform(35, 65)
        for line in range(LINES):
            samples, active = said(rng, speaker, voice, line // 2 == 0)
            samples = make.line(rng, samples, line % 2 == 0)
            loud = 0.08 * 10 ** (-rng.uniform(20, 45) / 20) / 3
            samples = samples + loud * synth.noise(rng, len(samples) / synth.RATE + 1)[: len(samples)]
            yield number, line % 2 == 0, *figures(samples, active, layers)


class Table:
    def __init__(self, kept, chosen):
        voice, places = kept["voice"][chosen], kept["at"][chosen]
        of = [places[voice == one] for one in np.unique(voice)]
        middles = np.array([rows.mean(0) for rows in of])
        within = sum((rows - rows.mean(0)).T @ (rows - rows.mean(0)) for rows in of) / (len(places) - len(of))
        self.mean = middles.mean(0)
        between = np.cov(middles.T) - within / LINES
        half = np.linalg.inv(np.linalg.cholesky(within))
        spread, turned = np.linalg.eigh(half @ between @ half.T)
        best = np.argsort(-spread)
        best = best[spread[best] >= LEAST]
        # Along these one voice varies by one from line to line, and voices by so much.
        self.directions, self.between = (turned.T @ half)[best], spread[best]
        self.scale = 1.0

    def along(self, at):
        return self.directions @ (np.asarray(at) - self.mean)

    def likeness(self, profile, at, speech_ms):
        """As `AgentVoice::likeness`, before the scale."""
        mean, calls = profile
        call = 1 + SECOND * SECOND_MS / speech_ms
        normal = lambda away, variance: -0.5 * (away**2 / variance + np.log(variance))
        at, known = self.along(at), self.between / (self.between + 1 / calls)
        return float((normal(at - known * self.along(mean), known / calls + call) - normal(at, self.between + call)).sum())


def trials(table, kept, chosen, rng):
    """(likenesses of the agent and of the other voice, whether the profile is a third one's), for each of the lines."""
    voice, out = kept["voice"], []
    for line in np.repeat(np.flatnonzero(chosen), TRIALS):
        others = np.flatnonzero(chosen & (voice != voice[line]))
        another = rng.random() < ANOTHER
        taught = voice == (voice[rng.choice(others)] if another else voice[line])
        taught[line] = False
        picked = rng.choice(np.flatnonzero(taught), int(rng.integers(FEWEST_CALLS, LINES)), replace=False)
        profile = kept["at"][picked].mean(0), len(picked)
        other = rng.choice(others[kept["narrow"][others] == kept["narrow"][line]])
        out.append(([table.likeness(profile, kept["at"][n], kept["speech_ms"][n]) for n in (line, other)], another))
    return out


def confidence(scale, trial):
    """Of the right one."""
    agent, other = (np.log((1 - ANOTHER) * np.exp(min(scale * one, 30.0)) + ANOTHER) for one in trial[0])
    return 1 / (1 + np.exp(other - agent))


def report(scale, all_trials):
    right = np.array([confidence(scale, trial) for trial in all_trials])
    stated = np.maximum(right, 1 - right)
    print(f"{len(right)} trials, scale {scale:.3f}", file=sys.stderr)
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.01)):
        here = (stated >= low) & (stated < high)
        if here.any():
            print(f"  said {stated[here].mean():.3f}, right {(right[here] > 0.5).mean():.4f} of {here.sum()}", file=sys.stderr)
    strange, sure = np.array([trial[1] for trial in all_trials]), stated >= 0.95
    print(f"  roles given: {sure[~strange].mean():.3f} with its own profile, {sure[strange].mean():.3f} with another's", file=sys.stderr)
    print(f"  wrong of those given: {(right[sure] < 0.5).mean():.4f}", file=sys.stderr)


def calibrated(kept):
    """The scale, and the most that can be said."""
    rng, all_trials = np.random.default_rng(1), []
    for half in (0, 1):
        chosen = kept["strange"] & (kept["voice"] % 2 == half)
        all_trials += trials(Table(kept, ~chosen), kept, chosen, rng)
    # Together the figures say less than one by one.
    worth = lambda scale: np.log([max(confidence(scale, trial), 1e-12) for trial in all_trials]).mean()
    scale = TRUSTED * float(max(np.linspace(0.05, 1.0, 20), key=worth))
    report(scale, all_trials)
    right = np.array([confidence(scale, trial) for trial in all_trials])
    top = np.maximum(right, 1 - right) >= 0.99
    # Trials of one line are hardly more than one.
    return scale, ((right[top] > 0.5).sum() / TRIALS + 1) / (top.sum() / TRIALS + 2)


def written(table, most):
    numbers = lambda values: "[" + ", ".join(f"{value:.4f}" for value in values) + "]"
    size, count = len(table.mean), len(table.between)
    rows = "".join(f"    {numbers(row)},\n" for row in table.directions)
    print(f"""//! Made by `benches/training/train_profiles.py`: do not edit by hand.

/// Numbers of a voice's figures, and directions in them that tell voices apart.
pub const FIGURES: usize = {size};
pub const DIRECTIONS: usize = {count};
/// Calls that make an agent known.
pub const FEWEST_CALLS: usize = {FEWEST_CALLS};
/// Where voices lie on average.
pub const MEAN: [f64; FIGURES] = {numbers(table.mean)};
/// Along these a voice varies by one from call to call.
pub const ALONG: [[f64; FIGURES]; DIRECTIONS] = [
{rows}];
/// How much voices vary along them, squared.
pub const BETWEEN: [f64; DIRECTIONS] = {numbers(table.between)};
/// What the figures say together is this share of what they say one by one.
pub const SCALE: f64 = {table.scale:.3f};
/// How much more one point varies than a whole call does.
pub const SECOND: f64 = {SECOND:.1f};
/// How often an agent has another voice than the one that is known.
pub const ANOTHER: f64 = {ANOTHER};
/// The most that the calls it was learnt on can show: right ones and one more, of all and two more (Laplace's rule).
pub const MOST: f64 = {most:.4f};""")


def keep(path, rows):
    np.savez(path, **dict(zip(("voice", "narrow", "speech_ms", "at"), map(np.array, zip(*rows)))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("learnt")
    parser.add_argument("strange")
    parser.add_argument("--say", type=int, default=0, help="voices of the learning cast to say and keep the figures of")
    parser.add_argument("--say-strangers", type=int, default=0, help="the same of voices that nothing has learnt from")
    args = parser.parse_args()
    _, men, women = make.CASTS["learn"]
    if args.say:
        keep(args.learnt, sessions(np.random.default_rng(5), args.say, men + 3 * women))
    elif args.say_strangers:
        keep(args.strange, sessions(np.random.default_rng(6), args.say_strangers, STRANGERS))
    else:
        learnt, strange = np.load(args.learnt), np.load(args.strange)
        kept = {name: np.concatenate([learnt[name], strange[name]]) for name in learnt.files}
        kept["strange"] = np.arange(len(kept["voice"])) >= len(learnt["voice"])
        kept["voice"] = kept["voice"] + kept["strange"] * (1 + learnt["voice"].max())
        table = Table(kept, np.ones(len(kept["voice"]), bool))
        table.scale, most = calibrated(kept)
        written(table, most)


if __name__ == "__main__":
    main()
