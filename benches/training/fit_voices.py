#!/usr/bin/env python3
"""What a division in two says about being of two voices: fits WORTH and OFFSET of `src/transcript/diarization/groups.rs`.

    python3 benches/training/make.py CALLS --voices learn --alone 60 --mono 70 --trio 28 --dual 0 --seed 7
    python3 benches/training/fit_voices.py CALLS

Divides every call there by the weights as they are, in numpy as in Rust, and prints the odds with the constants below, for
one voice, for two, and of the larger odds inside the two groups for three; then what a logistic regression on the calls of
one and of two voices would make of the constants. Regions are those of the truth. Needs numpy, ffmpeg.
"""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import synth
import voices

PIECE, STARTS, ROUNDS, INSIDE, AT_PAUSE, FREE, STEADIEST = 80, 12, 12, 3.0, 0.5, 4.0, 0.1
WORTH, OFFSET = np.array([2.04, -23.99, 1.22, 0.10, 8.54, 1.67, 2.22]), -9.28
APART, REGIONS, PITCH_WORTH, PITCH_APART = 0.4, 3, 3.0, (1.2, 1.8)


def pieces(first, end):
    parts = max(1, (end - first + PIECE // 2) // PIECE)
    edges = [first + n * (end - first) // parts for n in range(parts + 1)]
    return [(a, b) for a, b in zip(edges, edges[1:]) if b > a]


def points(seen, regions, layers):
    """Places, weights, whether a pause is before, and of each the count, sum and squares of its pitches."""
    cut = [(a, b, n == 0) for region in regions for n, (a, b) in enumerate(pieces(*region))]
    place = np.array([voices.point(seen[a:b], layers) for a, b, _ in cut])
    weight, begins = np.array([b - a for a, b, _ in cut], float), np.array([first for _, _, first in cut])
    pitch = np.array([[rows[:, -2].sum(), rows[:, -1].sum(), (rows[:, -1] ** 2).sum()] for rows in (seen[a:b] for a, b, _ in cut)])
    return place, weight, begins, pitch


def placed(away, weight, begins, variance):
    local = weight[:, None] / PIECE * away / variance * FREE / 2
    cost, came_from = local[0], np.zeros((len(away), 2), int)
    for n in range(1, len(away)):
        total = cost[:, None] + (AT_PAUSE if begins[n] else INSIDE) * (1 - np.eye(2))
        came_from[n] = total.argmin(0)
        cost = local[n] + total.min(0)
    groups = np.zeros(len(away), int)
    groups[-1] = cost.argmin()
    for n in range(len(away) - 1, 0, -1):
        groups[n - 1] = came_from[n, groups[n]]
    return groups


def two(place, weight, begins):
    """Groups and centres of the cheapest division."""
    best = None
    away_from = lambda centres: ((place[:, None] - centres) ** 2).sum(2)
    for seed in range(0, len(place), -(-len(place) // STARTS)):
        centres = np.stack([place[seed], place[((place - place[seed]) ** 2).sum(1).argmax()]])
        variance, groups = max(STEADIEST, ((place - place.mean(0)) ** 2).sum(1).mean() / 2), None
        for _ in range(ROUNDS):
            now = placed(away_from(centres), weight, begins, variance)
            if groups is not None and (now == groups).all():
                break
            groups = now
            for group in (0, 1):
                if (groups == group).any():
                    centres[group] = np.average(place[groups == group], axis=0, weights=weight[groups == group])
            variance = max(STEADIEST, np.average(away_from(centres)[np.arange(len(place)), groups], weights=weight))
        changed = groups[1:] != groups[:-1]
        cost = len(place) * FREE / 2 * np.log(variance) + np.where(begins[1:], AT_PAUSE, INSIDE)[changed].sum()
        shares = [weight[groups == group].sum() / weight.sum() for group in (0, 1)]
        if min(shares) < 0.06 or min((groups == group).sum() for group in (0, 1)) < 2:
            cost += 1e3
        if best is None or cost < best[0]:
            best = (cost, groups, centres)
    return best[1:]


def figures(place, weight, begins, pitch):
    """The figures that are weighed, what the pitches add, and the groups."""
    groups, centres = two(place, weight, begins)
    off = place - centres[groups]
    whole = np.average(((place - np.average(place, axis=0, weights=weight)) ** 2).sum(1), weights=weight)
    within = max(np.average((off**2).sum(1), weights=weight), 1e-9)
    apart = max(((centres[0] - centres[1]) ** 2).sum(), 1e-9)
    across = np.average((off @ (centres[1] - centres[0])) ** 2, weights=weight) / apart
    region = np.cumsum(begins)
    fewest = min(len(set(region[groups == group])) for group in (0, 1))
    share = min(weight[groups == group].sum() for group in (0, 1)) / weight.sum()
    changes = (groups[1:] != groups[:-1]).sum()
    row = [np.log(whole / within), PIECE / weight.sum(), np.log(apart), min(fewest, 4), min(share, 0.3)]
    row += [np.log(np.sqrt(apart) / max(np.sqrt(across), 1e-9)), min(changes, 8) / 8]
    added, sums = 0.0, [pitch[groups == group].sum(0) for group in (0, 1)]
    mean = [total / max(count, 1) for count, total, _ in sums]
    if fewest >= REGIONS and min(count for count, _, _ in sums) >= 20 and abs(mean[0] - mean[1]) >= APART:
        scatter = sum(squares - total * middle for (_, total, squares), middle in zip(sums, mean))
        spread = np.sqrt(max(scatter / sum(count for count, _, _ in sums), 1e-3))
        low, high = PITCH_APART
        added = PITCH_WORTH * np.clip((abs(mean[0] - mean[1]) / spread - low) / (high - low), 0, 1)
    return np.array(row), added, groups


def third(place, weight, begins, pitch, groups):
    """The larger odds of the two groups being two voices each."""
    best = -np.inf
    for group in (0, 1):
        own = np.flatnonzero(groups == group)
        if len(own) >= 4:
            breaks = begins[own] | (groups[own - 1] != group)
            row, added, _ = figures(place[own], weight[own], breaks, pitch[own])
            best = max(best, OFFSET + row @ WORTH + added)
    return best


def sound(path):
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), "-ar", "16000", "-ac", "1", "-f", "f32le", "-"], capture_output=True, check=True)
    return np.frombuffer(raw.stdout, "<f4").astype(float)


def regions(truth, count):
    spoken = np.zeros(count, bool)
    for turn in truth["turns"]:
        spoken[turn["start_ms"] // 10 : turn["end_ms"] // 10] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], synth.fill(spoken, 19).astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2]) if b - a >= 10]


def regression(rows, truth, ridge=1e-2):
    mean, scale = rows.mean(0), rows.std(0) + 1e-6
    x = np.concatenate([(rows - mean) / scale, np.ones((len(rows), 1))], 1)
    weights, held = np.zeros(x.shape[1]), ridge * len(rows) * np.eye(x.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (p - truth) + held @ (weights * np.append(np.ones(x.shape[1] - 1), 0))
        weights = weights - np.linalg.solve((x.T * (p * (1 - p))) @ x + held, slope)
    return weights[:-1] / scale, weights[-1] - (weights[:-1] * mean / scale).sum()


def main():
    layers = voices.unpacked(np.frombuffer(voices.WEIGHTS.read_bytes(), "<f4"))
    rows, truths = [], []
    for kind in ("alone", "mono", "trio"):
        odds, inside = [], []
        for path in sorted(Path(sys.argv[1]).glob(f"{kind}-*.json")):
            truth = json.loads(path.read_text())
            seen = voices.sounds(sound(path.with_name(truth["file"])))
            call = points(seen, regions(truth, len(seen)), layers)
            row, added, groups = figures(*call)
            odds.append(OFFSET + row @ WORTH + added)
            inside.append(third(*call, groups))
            if kind != "trio":
                rows.append(row)
                truths.append(kind == "mono")
        print(kind, "odds", *np.round(np.sort(odds), 1))
        print(kind, "odds inside", *np.round(np.sort(inside), 1))
    worth, offset = regression(np.array(rows), np.array(truths, float))
    print("a regression on these calls: WORTH", worth.round(2), "OFFSET", round(float(offset), 2))


if __name__ == "__main__":
    main()
