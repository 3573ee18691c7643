#!/usr/bin/env python3
"""Learns how sure a known text makes who is the agent, from dialogues of lines that no test call uses.

    python3 benches/training/train_roles.py [--seed 1] > src/transcript/roles/table.rs

The dialogues are words only: some are misheard, some go to the wrong speaker, callers repeat what they are told, and of what
an agent says only its greeting and a part of the rest is known beforehand. A logistic regression on the known words of both
(see known_text.rs) is fitted to one half of the dialogues; the other half says how sure it may ever be. The share of known
words in what somebody says was tried beside their number and adds nothing. Needs numpy.
"""
import argparse
import re
import sys

import numpy as np

ROW, FEWEST = 3, 4
AGENT = """Welcome to the city library, this is the automatic assistant speaking.
Hello and thanks for ringing Blue Door Insurance, what brings you to us today?
You are through to the repairs team, tell me what is broken.
Which card do you want to renew?
Can you read me the four digits on the back?
The book you asked for is on the shelf and is kept for a week.
I see two claims under your name, which one is it about?
A plumber can be with you between two and five this afternoon.
We would need a photo of the damage and the receipt.
The office in the harbour is open until six.
Let me put that into the system, it takes a second.
Is the water still running?
You will receive a text with the details in a few minutes.
Your plan includes ten gigabytes and calls to every network.
I am afraid the earliest date I have is the ninth.
Could I take your date of birth, please?
That has been changed for you and there is no charge.
Anything more you want to know?
Thanks for your patience, we are nearly done.
Have a good rest of the day, goodbye.""".split("\n")
CALLER = """Good day, I think somebody drove into my parked car.
I want to keep the book for another week if that works.
The tap in the kitchen will not close.
Yes that is right.
No it stopped an hour ago.
Two eight one five.
I have sent the photo already, on Monday.
What will it cost me?
Could somebody come before two?
My daughter uses the same card.
It was the white van from across the street.
The ninth is too late for me.
Fine.
Thanks a lot for your help.
I do not have the receipt any more.
When do you close on Saturdays?
Third of May nineteen eighty.
I would rather speak to a person.
Sorry, say that again?
All right then, bye.""".split("\n")
SPARE = "the a to of and is it that for you on with was at be this have from or had by not but what all were when we there can".split()


def plain(text):
    return re.sub(r"[^a-z0-9' ]", " ", text.lower()).split()


def rows(words):
    return [tuple(words[i : i + ROW]) for i in range(len(words) - ROW + 1)]


def misheard(rng, words, rate):
    out = []
    for word in words:
        luck = rng.random()
        if luck < rate * 0.6:
            out.append(str(rng.choice(SPARE)))
        elif luck < rate * 0.8:
            continue
        else:
            out.append(word)
            if luck > 1 - rate * 0.2:
                out.append(str(rng.choice(SPARE)))
    return out


def call(rng):
    """Known words of the agent and of the caller, as the recogniser and the voices give them."""
    greeting = AGENT[int(rng.integers(3))]
    script = [line for line in AGENT[3:] if rng.random() < rng.choice([0.0, 0.3, 0.7])]
    known = {row for line in [greeting, *script] for row in rows(plain(line))}
    rate, astray = rng.choice([0.0, 0.05, 0.15, 0.3]), rng.choice([0.0, 0.02, 0.1])
    said, last = ([], []), greeting
    for turn in range(int(rng.integers(2, 16))):
        who = turn % 2
        if who == 0:
            line = greeting if turn == 0 and rng.random() < 0.8 else str(rng.choice(AGENT[3:]))
            last = line
        elif rng.random() < 0.08:
            # "The office in the harbour?"
            words = plain(last)
            start = int(rng.integers(max(1, len(words) - 4)))
            line = " ".join(words[start : start + int(rng.integers(3, 7))])
        else:
            line = str(rng.choice(CALLER))
        words = misheard(rng, plain(line), rate)
        whole = rng.random() < astray
        cut = len(words) if whole else int(rng.integers(len(words) + 1)) if rng.random() < astray else 0
        said[1 - who].append(words[:cut])
        said[who].append(words[cut:])
    figures = []
    for utterances in said:
        count = 0
        for words in utterances:
            inside = np.zeros(len(words), bool)
            for i, row in enumerate(rows(words)):
                if row in known:
                    inside[i : i + ROW] = True
            count += int(inside.sum())
        figures.append(count)
    return figures


def fit(x, rounds=200):
    """Logistic regression without a constant: which of the two comes first says nothing (Newton's method, a little ridge)."""
    w = 0.0
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-x * w))
        w += (np.sum(x * (1 - p)) - w) / (np.sum(x * x * p * (1 - p)) + 1)
    return w


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=8000)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    calls = [figures for figures in (call(rng) for _ in range(args.calls)) if max(figures) >= FEWEST]
    x = np.array([np.log1p(agent) - np.log1p(caller) for agent, caller in calls])
    half = len(x) // 2
    w = fit(x[:half])
    odds = x[half:] * w
    sure = np.abs(odds)
    stated = 1 / (1 + np.exp(-sure))
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.01)):
        here = (stated >= low) & (stated < high)
        if here.any():
            print(f"said {stated[here].mean():.3f}, right {(odds[here] > 0).mean():.3f} of {here.sum()}", file=sys.stderr)
    top = sure > np.log(99)
    most = (np.sum(odds[top] > 0) + 1) / (top.sum() + 2)
    print("//! Made by `benches/training/train_roles.py`: do not edit by hand.\n")
    print(f"/// Weight of ln(1 + known words), agent's minus the other's.\npub const KNOWN_WORDS: f64 = {w:.3f};")
    print("/// The most that the calls it was learnt on can show: right ones and one more, of all and two more (Laplace's rule).")
    print(f"pub const MOST: f64 = {most:.4f};")


if __name__ == "__main__":
    main()
