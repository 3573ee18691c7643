#!/usr/bin/env python3
"""Makes the sample recordings in `src/demo/recordings` and the sheet that says who spoke when.

Run by hand when a dialogue changes; the results are committed, so that nobody needs the tools to build or to run
the demo. Needs Python 3.9, libespeak-ng and ffmpeg with libmp3lame:

    python3 benches/training/sample_recordings.py

Times in `sheet.json` are measured, not planned: an utterance starts at its first audible sample and ends at its last;
a word starts where the synthesiser reports it and ends where the next one starts; words it reports together share
their stretch by length.
"""
import array
import ctypes
import json
import math
import random
import re
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "src/demo/recordings"
AGENT, CALLER = "agent", "caller"
VOICES = {  # voice, words a minute, pitch, gain
    AGENT: (b"en-us+f2", 172, 52, 0.80),
    CALLER: (b"en+m3", 158, 42, 0.45),
}
AUDIBLE = 160  # of 32768, about -46 dBFS: what counts as the first and last sample of speech
KNEE = 11000  # of 32768: peaks bend towards this, as the line's own levelling would bend them
NOISE = 13  # of 32768, about -68 dBFS: the line is never digitally silent

# One entry: (who, pause in ms before it — negative: they start before the other has finished, words).
DIALOGUES = {
    "delivery": [
        (AGENT, 600, "Good morning, Harbour Couriers. How can I help you today?"),
        (CALLER, 700, "Hi, I am calling about a parcel that should have come yesterday."),
        (AGENT, 500, "I am sorry about that. May I have the order number, please?"),
        (CALLER, 900, "Yes, it is seven four one nine two."),
        (AGENT, 1100, "Thank you. The driver was delayed by the flood and will be with you before noon."),
        (CALLER, 600, "Before noon is fine. Can he leave it with the neighbour?"),
        (AGENT, 450, "Of course. I have added a note for the driver."),
        (CALLER, 500, "Wonderful, thank you very much. Goodbye."),
        (AGENT, 400, "Thank you for calling. Goodbye."),
    ],
    "reminder": [
        (CALLER, 500, "Hello?"),
        (AGENT, 600, "Hello, this is Ada from Lagoon Dental Clinic, with a reminder of your visit on Thursday at ten."),
        (CALLER, 800, "Oh, I had forgotten. Could we move it to the afternoon?"),
        (AGENT, 900, "There is a place free at half past three. Shall I book it?"),
        (CALLER, 500, "Yes please, half past three is perfect."),
        (AGENT, 500, "It is booked. See you on Thursday."),
    ],
    "booking": [
        (AGENT, 700, "Welcome to Palm Court Hotel. This call is recorded. What can I do for you?"),
        (CALLER, 800, "I would like a double room for two nights from Friday."),
        (AGENT, 700, "A double room with breakfast is ninety thousand naira a night. Is that all right?"),
        (CALLER, 1200, "That is fine. Do you have parking?"),
        (AGENT, 450, "We do, and it is free for guests. May I take your name?"),
        (CALLER, 600, "Bisi Adeyemi."),
        (AGENT, 700, "Thank you. Your room is reserved and a message is on its way to you."),
        (CALLER, 500, "Great, see you on Friday."),
    ],
    "clinic": [
        (AGENT, 500, "Riverside Clinic, you are speaking with the night desk. What is happening?"),
        (CALLER, 600, "My son has had a fever since this morning and he will not drink anything."),
        (AGENT, 500, "I understand. How old is he, and what is his temperature"),
        (CALLER, -700, "He is four. It was thirty nine two at six o'clock."),
        (AGENT, 600, "Please give him small sips of water every few minutes. A nurse will call you back within the hour."),
        (CALLER, 700, "All right. And if it gets worse?"),
        (AGENT, 400, "Then come straight to the emergency entrance. We are open all night."),
        (CALLER, 500, "Thank you so much."),
    ],
    "late": [
        (AGENT, 500, "Hello, you have reached Northline Energy. How may I help?"),
        (CALLER, 700, "My meter shows an error since the power came back."),
        (AGENT, 600, "Please hold the blue button for five seconds and tell me what you see."),
        (CALLER, 2600, "It says ready. That was easy."),
        (AGENT, 500, "Great. Anything else I can do for you?"),
        (CALLER, 400, "No, that is all. Bye."),
    ],
    "wordless": [
        (AGENT, 500, "Thank you for calling the ticket office. How many seats would you like?"),
        (CALLER, 700, "Two seats for the late show, please."),
        (AGENT, 600, "Two seats in row six. They are waiting for you at the desk."),
        (CALLER, 500, "Thanks, we will be there."),
    ],
    "damaged": [
        (AGENT, 500, "Good evening, Bright Insurance. Whom am I speaking with?"),
        (CALLER, 600, "This is Tunde. Somebody drove into my car."),
        (AGENT, 600, "I am sorry to hear that. Is everybody all right?"),
        (CALLER, 500, "Yes, only the door is broken. What do I have to send you?"),
        (AGENT, 600, "Two pictures of the door and the number of the other car are enough."),
        (CALLER, 500, "I will send them tonight."),
    ],
    "tiny": [(AGENT, 60, "Hello.")],
}


class Event(ctypes.Structure):
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
    """Speaks one utterance at a time into memory and notes where each word began."""

    def __init__(self):
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(2, 0, None, 0)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self.callback = kind(self.receive)  # kept: the library holds only a pointer
        self.lib.espeak_SetSynthCallback(self.callback)

    def receive(self, samples, count, events):
        if samples and count > 0:
            self.samples.extend(samples[:count])
        index = 0
        while events[index].type != 0:
            if events[index].type == 1:
                self.words.append((events[index].text_position - 1, events[index].audio_position))
            index += 1
        return 0

    def speak(self, who, text):
        """Samples, their audible bounds, and (word, start, end) triples, all counted in samples."""
        voice, speed, pitch, gain = VOICES[who]
        self.samples, self.words = array.array("h"), []
        if self.lib.espeak_SetVoiceByName(voice) != 0:
            sys.exit(f"no voice {voice}")
        self.lib.espeak_SetParameter(1, speed, 0)
        self.lib.espeak_SetParameter(3, pitch, 0)
        data = text.encode()
        self.lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        samples = array.array("h", (int(KNEE * math.tanh(s * gain / KNEE)) for s in self.samples))
        audible = [i for i, s in enumerate(samples) if abs(s) >= AUDIBLE]
        starts = {at: start * self.rate // 1000 for at, start in self.words}
        return samples, audible[0], audible[-1] + 1, word_bounds(text, starts, audible[0], audible[-1] + 1)


def word_bounds(text, starts, first, last):
    """(word, start, end) of every word. Small words the synthesiser joins ("I am") share their stretch by length."""
    groups, at = [], 0
    for word in text.split(" "):
        if at in starts or not groups:
            groups.append((max(first, starts.get(at, first)), []))
        groups[-1][1].append(word)
        at += len(word) + 1
    bounds = []
    for index, (start, words) in enumerate(groups):
        end = groups[index + 1][0] if index + 1 < len(groups) else last
        letters, spoken = sum(map(len, words)), 0
        for word in words:
            left = start + (end - start) * spoken // letters
            spoken += len(word)
            bounds.append((word, left, start + (end - start) * spoken // letters))
    return bounds


def lay_out(synthesiser, lines):
    """Places the utterances on one timeline per speaker; returns both tracks and the turns with true times."""
    rate, placed, end = synthesiser.rate, [], 0
    for who, pause, text in lines:
        samples, first, last, words = synthesiser.speak(who, text)
        offset = end + pause * rate // 1000 - first
        placed.append((who, text, samples, offset, offset + first, offset + last, words))
        end = offset + last
    length = end + rate * 6 // 10
    tracks = {who: array.array("h", bytes(2 * length)) for who in VOICES}
    turns = []
    for who, text, samples, offset, start, stop, words in placed:
        for i, sample in enumerate(samples):
            if 0 <= offset + i < length:
                tracks[who][offset + i] = sample
        turns.append({
            "role": who,
            "text": text,
            "start_ms": start * 1000 // rate,
            "end_ms": stop * 1000 // rate,
            "words": [[word, (offset + left) * 1000 // rate, (offset + right) * 1000 // rate] for word, left, right in words],
        })
    return tracks, turns, length * 1000 // rate


def write_wav(path, rate, channels):
    noise = random.Random(7)
    frames = array.array("h")
    for frame in zip(*channels):
        frames.extend(max(-32768, min(32767, s + int(noise.gauss(0, NOISE)))) for s in frame)
    with wave.open(str(path), "wb") as out:
        out.setparams((len(channels), 2, rate, 0, "NONE", None))
        out.writeframes(frames.tobytes())


def encode(wav, name, *arguments):
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(wav), "-map_metadata", "-1", "-fflags", "+bitexact"]
    subprocess.run([*command, "-flags:a", "+bitexact", *arguments, str(OUT / name)], check=True)


def mp3(wav, name, bit_rate):
    encode(wav, name, "-ar", "48000", "-c:a", "libmp3lame", "-b:a", bit_rate, "-joint_stereo", "0")


def ruin(name):
    """Keeps the header that promises the whole call and the first fifth; the rest becomes bytes no frame starts in."""
    path = OUT / name
    data = bytearray(path.read_bytes())
    junk = random.Random(11)
    keep = len(data) // 5
    data[keep:] = bytes(junk.randrange(0, 0xE0) for _ in range(len(data) - keep))
    path.write_bytes(data)


def main():
    synthesiser = Synthesiser()
    sheet = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, lines in DIALOGUES.items():
            tracks, turns, duration_ms = lay_out(synthesiser, lines)
            sheet[name] = {"duration_ms": duration_ms, "turns": turns}
            mixed = array.array("h", (max(-32768, min(32767, a + b)) for a, b in zip(tracks[AGENT], tracks[CALLER])))
            wav = Path(scratch) / f"{name}.wav"
            write_wav(wav, synthesiser.rate, [mixed])
            if name == "booking":
                encode(wav, "booking.mp4", "-ar", "44100", "-c:a", "aac", "-b:a", "32k", "-movflags", "+faststart")
            else:
                mp3(wav, f"{name}.mp3", "32k")
            if name == "clinic":  # caller left, agent right
                write_wav(wav, synthesiser.rate, [tracks[CALLER], tracks[AGENT]])
                mp3(wav, "clinic-dual.mp3", "64k")
    ruin("damaged.mp3")
    text = json.dumps(sheet, ensure_ascii=False, indent=1)
    (OUT / "sheet.json").write_text(compact(text) + "\n")


def compact(text):
    """One line per word list: the sheet is read by people, too."""
    text = re.sub(r"\[\s+(\"[^\"]*\"),\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2, \3]", text)
    return re.sub(r"\],\s+\[", "], [", text)


if __name__ == "__main__":
    main()
