#!/usr/bin/env python3
"""Compares `aftercall process --no-transcript` with other tools on the same files in the same run; prints Markdown.

    cargo build --release && python3 benches/compare.py

Needs ffmpeg with libmp3lame; sox (with libsox-fmt-mp3) and pyloudnorm (pip) are compared where they are installed.
Costs are CPU time (user + system) of the process, the median of interleaved rounds: on a busy machine only the ratios
of one run mean anything. Inputs are made from the speech fixture under changing gain and noise.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEECH = ROOT / "tests/fixtures/audio/speech.mp3"
CHUNK_MINUTES = 20


def run(command, cores=None):
    """CPU seconds, wall seconds and peak memory in MB of a command that must succeed."""
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        if cores:
            os.sched_setaffinity(0, cores)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss / 1024


def make_inputs(folder, minutes):
    """MP3s, 48 kHz mono at 64 kbit/s. Longer ones than the first chunk repeat it: frames are frames."""
    chunk = folder / "chunk.mp3"
    length = min(max(minutes), CHUNK_MINUTES) * 60
    graph = (
        "[0:a]volume='0.5+0.4*sin(t/37)':eval=frame[s];"
        "[1:a]volume='0.5+0.5*sin(t/53)':eval=frame[n];"
        f"[s][n]amix=2:normalize=0,atrim=0:{length}"
    )
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", SPEECH, "-f", "lavfi", "-i",
         "anoisesrc=c=pink:a=0.02:r=48000:seed=7", "-filter_complex", graph, "-ac", "1", "-ar", "48000",
         "-c:a", "libmp3lame", "-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0", chunk],
        check=True,
    )
    frames = chunk.read_bytes()
    inputs = {}
    for wanted in minutes:
        path = folder / f"{wanted}min.mp3"
        size = wanted * 60 * 8000 // 192 * 192
        with path.open("wb") as out:
            while size > 0:
                size -= out.write(frames[:size])
        inputs[wanted] = path
    return inputs


def tools(binary, path, folder):
    """(name, commands) of everything compared. What is written is deleted before each run, by `clean`."""
    wav = folder / "out.wav"
    loudnorm = "loudnorm=I=-16:TP=-1:LRA=11"
    plain = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", path, "-ar", "48000", "-ac", "1", wav]
    meter = ["ffmpeg", "-nostdin", "-i", path, "-af", "ebur128=peak=true", "-f", "null", "-"]
    rows = [
        ("aftercall process --no-transcript", [[binary, "process", path, "--no-transcript", "--out", folder / "out"]]),
        ("ffmpeg to WAV", [plain]),
        ("ffmpeg to WAV, and its ebur128=peak=true", [plain, meter]),
        ("ffmpeg loudnorm, two passes",
         [["ffmpeg", "-nostdin", "-i", path, "-af", loudnorm + ":print_format=json", "-f", "null", "-"],
          ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", path, "-af", loudnorm + ":linear=true", "-ar", "48000", wav]]),
    ]
    if shutil.which("sox"):
        rows.append(("sox to WAV, gain -n (peak only)", [["sox", path, "-r", "48000", "-c", "1", "-b", "16", wav, "gain", "-n", "-1"]]))
    if subprocess.run([sys.executable, "-c", "import pyloudnorm"], capture_output=True).returncode == 0:
        code = (
            "import sys,wave,numpy,pyloudnorm\n"
            "w=wave.open(sys.argv[1]);x=numpy.frombuffer(w.readframes(w.getnframes()),'<i2')/32768\n"
            "pyloudnorm.Meter(48000).integrated_loudness(x)"
        )
        rows.append(("ffmpeg to WAV, and pyloudnorm (no peak, nothing written)", [plain, [sys.executable, "-c", code, wav]]))
    return rows


def clean(folder):
    shutil.rmtree(folder / "out", ignore_errors=True)


def costs(binary, path, folder, rounds, light):
    """Median CPU seconds by tool, and the largest memory of ours."""
    rows = tools(binary, path, folder)[:3 if light else None]
    spent = {name: [] for name, _ in rows}
    memory = 0
    for _ in range(rounds):
        for name, commands in rows:
            clean(folder)
            total = 0
            for command in commands:
                # Each writes a new file; only the first command of a row may find an old one.
                if command is commands[0]:
                    (folder / "out.wav").unlink(missing_ok=True)
                cpu, _, peak = run(command)
                total += cpu
                if name.startswith("aftercall"):
                    memory = max(memory, peak)
            spent[name].append(total)
    return {name: statistics.median(values) for name, values in spent.items()}, memory


def folder_of(binary, path, folder, count):
    """Wall seconds for a folder of recordings on one core and on two."""
    source = folder / "recordings"
    source.mkdir(exist_ok=True)
    for number in range(count):
        shutil.copyfile(path, source / f"call{number:02}.mp3")
    walls = []
    cores = sorted(os.sched_getaffinity(0))
    for used in (cores[:1], cores[:2]):
        clean(folder)
        walls.append(run([binary, "process", source, "--no-transcript", "--out", folder / "out"], set(used))[1])
    shutil.rmtree(source)
    return walls


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", default=ROOT / "target/release/aftercall", type=Path)
    options.add_argument("--minutes", default="3,60", help="lengths compared with other tools")
    options.add_argument("--longest", default=180, type=int, help="a length for the memory alone, 0 for none")
    options.add_argument("--rounds", default=5, type=int)
    options.add_argument("--light", action="store_true", help="ffmpeg only, without loudnorm")
    options.add_argument("--recordings", default=40, type=int, help="in the folder for one core and two, 0 for none")
    given = options.parse_args()
    minutes = [int(part) for part in given.minutes.split(",")]
    longest = [given.longest] if given.longest else []
    # The given binary may be named from here: it is run from elsewhere.
    binary = given.binary.resolve()
    with tempfile.TemporaryDirectory(prefix="aftercall-compare-") as name:
        folder = Path(name)
        inputs = make_inputs(folder, minutes + longest)
        memories = []
        for length in minutes:
            spent, memory = costs(binary, inputs[length], folder, given.rounds, given.light)
            memories.append((length, memory))
            ours = next(iter(spent.values()))
            print(f"\n| {length} min of MP3, 48 kHz mono, 64 kbit/s | CPU s | CPU µs per s of audio | ours / it |")
            print("|---|---:|---:|---:|")
            for tool, cpu in spent.items():
                print(f"| {tool} | {cpu:.2f} | {cpu * 1e6 / length / 60:.0f} | {ours / cpu:.2f} |", flush=True)
        for length in longest:
            clean(folder)
            memories.append((length, run([binary, "process", inputs[length], "--no-transcript", "--out", folder / "out"])[2]))
        print("\n| length | peak memory, MB |\n|---|---:|")
        for length, memory in memories:
            print(f"| {length} min | {memory:.0f} |")
        if given.recordings and len(os.sched_getaffinity(0)) > 1:
            one, two = folder_of(binary, inputs[min(minutes)], folder, given.recordings)
            print(f"\n{given.recordings} recordings of {min(minutes)} min: {one:.1f} s on one core, {two:.1f} s on two: {one / two:.2f}×")


if __name__ == "__main__":
    main()
