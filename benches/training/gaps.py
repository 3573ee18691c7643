#!/usr/bin/env python3
"""Compares the conversation figures of `aftercall process` with the truth of calls that `make.py` made.

    python3 benches/training/make.py CALLS --dual 50 --mono 100 --alone 0 --trio 0
    python3 benches/training/gaps.py CALLS target/release/aftercall
    python3 benches/training/gaps.py CALLS target/release/aftercall --kind mono

Per call: talk of each role, overlap, speech and longest silence, as shares of the call. Per answer: the gap from the end of
the caller's turn to the beginning of the agent's. Turns are stretches of speech; those of one side less than 200 ms apart
are one, on both sides of the comparison. On one channel the words with their times are given, as an engine would hear
them, and what the agent is known to say; `process` gives no figures by role there, so those of its turns are compared: what
they would be. Calls without roles are counted and left out.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path


def joined(stretches, within=200):
    out = []
    for start, end in sorted(stretches):
        if out and start - out[-1][1] < within:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([start, end])
    return out


def answers(agent, caller):
    """(end of the caller's turn, gap), as `src/quality/conversation.rs` has it."""
    found = []
    for n, (start, end) in enumerate(caller):
        goes_on = caller[n + 1][0] if n + 1 < len(caller) else float("inf")
        answer = next((a for a in agent if a[0] > start and a[1] > end and a[0] < goes_on), None)
        if answer:
            found.append((end, answer[0] - end))
    return found


def total(stretches):
    return sum(end - start for start, end in stretches)


def overlap(a, b):
    return sum(max(0, min(x[1], y[1]) - max(x[0], y[0])) for x in a for y in b)


def silence(stretches, duration):
    ends = [0] + [end for _, end in stretches]
    starts = [start for start, _ in stretches] + [duration]
    return max(0, *(start - end for end, start in zip(ends, starts)))


def figures(agent, caller, duration):
    anyone = joined(agent + caller, 0)
    return {
        "agent talk": total(agent) / duration, "caller talk": total(caller) / duration, "overlap": overlap(agent, caller) / duration,
        "speech": total(anyone) / duration, "longest silence": silence(anyone, duration) / duration,
    }


def share(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))]


def given(truth, out):
    """What `process` is told."""
    if truth["dual_channels"]:
        return ["--caller-channel", "left" if truth["dual_channels"] == "caller_left" else "right"]
    words = sorted((word for said in truth["utterances"] for word in said["words"]), key=lambda word: word["start_ms"])
    (out / "known.json").write_text(json.dumps([{"text": " ".join(word["text"] for word in words), "words": words}]))
    (out / "agent.txt").write_text(truth["agent_text"])
    return ["--transcript", out / "known.json", "--agent-text", out / "agent.txt"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("calls", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--kind", choices=["dual", "mono"], default="dual")
    parser.add_argument("--each", action="store_true")
    args = parser.parse_args()
    off, null, errors, missed, invented, count = {}, {}, [], 0, 0, 0
    for path in sorted(args.calls.glob(f"{args.kind}-*.json")):
        truth = json.loads(path.read_text())
        with tempfile.TemporaryDirectory() as out:
            run = [args.program, "process", args.calls / truth["file"], "--out", out, *given(truth, Path(out))]
            subprocess.run(run, capture_output=True, check=True)
            quality = json.loads((Path(out) / "quality.json").read_text())
            heard = json.loads((Path(out) / "transcript.json").read_text())
        roles = {speaker["id"]: speaker["role"] for speaker in heard["speakers"]}
        duration, talk = quality["duration_ms"], quality["conversation"]
        of = lambda turns, role, names: joined([[t["start_ms"], t["end_ms"]] for t in turns if names.get(t["speaker"]) == role])
        true_roles = {speaker["id"]: speaker["role"] for speaker in truth["speakers"]}
        true = [of(truth["turns"], role, true_roles) for role in ("agent", "caller")]
        ours = [of(heard["turns"], role, roles) for role in ("agent", "caller")]
        known = figures(*true, duration)
        if talk is None or not any(ours):
            why = quality["reasons"].get("conversation") or quality["reasons"]["conversation.agent_talk_ms"]
            null[why] = null.get(why, 0) + 1
            continue
        measured = figures(*ours, duration)
        if args.kind == "dual":
            measured = {
                "agent talk": talk["agent_talk_ms"] / duration, "caller talk": talk["caller_talk_ms"] / duration, "overlap": talk["overlap_ms"] / duration,
                "speech": talk["speech_ms"] / duration, "longest silence": talk["longest_silence_ms"] / duration,
            }
        for name, value in known.items():
            off.setdefault(name, []).append(abs(measured[name] - value))
        gaps, found = answers(*true), answers(*ours)
        here = []
        for end, gap in gaps:
            near = min(found, key=lambda other: abs(other[0] - end), default=None)
            if near is None or abs(near[0] - end) > 500:
                missed += 1
            else:
                found.remove(near)
                here.append(near[1] - gap)
        invented += len(found)
        errors += here
        count += 1
        if args.each:
            worst = max(known, key=lambda name: off[name][-1])
            print(f"{path.stem}: {len(here)} of {len(gaps)} answers, worst {max(map(abs, here), default=0)} ms; {worst} off by {100 * off[worst][-1]:.1f} %")
    size = [abs(error) for error in errors]
    print("null:", ", ".join(f"{why} {calls}" for why, calls in null.items()) or "none")
    print(f"{count} calls, {len(errors)} answers compared, {missed} missed, {invented} too many")
    print(f"response gap: median error {share(size, 0.5)} ms, p95 {share(size, 0.95)} ms, mean {sum(errors) / len(errors):+.0f} ms")
    for name, values in off.items():
        print(f"{name}: off by {100 * share(values, 0.5):.2f} % of the call (median), {100 * share(values, 0.95):.2f} % (p95), {100 * max(values):.2f} % (most)")


if __name__ == "__main__":
    main()
