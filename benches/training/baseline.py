#!/usr/bin/env python3
"""Writes the references of the sample calls, as `aftercall evaluate` reads them, to `tests/calls/baseline/calls`.

    python3 benches/training/baseline.py

Truth is the sheet that the sample calls were made from. What is judged against it, and must not become worse:

    aftercall evaluate --refs tests/calls/baseline/calls --model sample --language en --given agent-text --json > tests/calls/baseline/figures.json
"""
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT / "src/demo/recordings"
FILES = {"delivery": "delivery.mp3", "reminder": "reminder.mp3", "booking": "booking.mp4", "late": "late.mp3", "wordless": "wordless.mp3", "clinic": "clinic-dual.mp3"}
PAUSE_MS = 200


def main():
    sheet = json.loads((RECORDINGS / "sheet.json").read_text())
    out = ROOT / "tests/calls/baseline/calls"
    out.mkdir(exist_ok=True)
    for name, file in FILES.items():
        utterances, turns = [], []
        for turn in sheet[name]["turns"]:
            speaker = int(turn["role"] != "agent")
            words = [{"text": t, "start_ms": a, "end_ms": b} for t, a, b in turn["words"]]
            utterances.append({"speaker": speaker, "start_ms": words[0]["start_ms"], "end_ms": words[-1]["end_ms"], "text": turn["text"], "words": words})
            for word in words:
                if turns and turns[-1]["speaker"] == speaker and word["start_ms"] < turns[-1]["end_ms"] + PAUSE_MS:
                    turns[-1]["end_ms"] = word["end_ms"]
                else:
                    turns.append({"speaker": speaker, "start_ms": word["start_ms"], "end_ms": word["end_ms"]})
        # The greeting alone: what anybody who runs an agent knows of it.
        greeting = next(u["text"] for u in utterances if u["speaker"] == 0)
        speakers = [{"id": 0, "role": "agent"}, {"id": 1, "role": "caller"}]
        reference = {"file": f"../../../../src/demo/recordings/{file}", "language": "en", "agent_text": greeting, "speakers": speakers, "turns": turns, "utterances": utterances}
        (out / f"{name}.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
