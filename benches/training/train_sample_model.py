#!/usr/bin/env python3
"""Trains the sample model: a small convolutional CTC network that knows the sample calls' sentences and nothing else.

    OPENBLAS_NUM_THREADS=1 python3 benches/training/train_sample_model.py [--epochs N] [--out DIR]

Needs Python 3.11, torch 1.13 or later (a CPU build; Debian's python3-torch with OpenBLAS will do), numpy, onnx,
onnxruntime, libespeak-ng and ffmpeg with libmp3lame. Writes model.onnx (int8 MatMul) and model.json beside this file
and prints what was measured. README.md says what the model is and is not.
"""
import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import sample_clips as made

OUT = Path(__file__).resolve().parents[2] / "src/transcript/sample_model"
BINS, WIDTH, BLOCKS, KERNEL, SUBSAMPLING, STEP = 80, 208, 8, 11, 4, 0.04


def mel_filters():
    """Slaney mel scale, Slaney norm, 0 to 8000 Hz, 512-point FFT at 16 kHz."""

    def to_mel(hz):
        return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1e-9) / 1000) * 27 / np.log(6.4))

    def to_hz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    edges = to_hz(np.linspace(to_mel(np.array(0.0)), to_mel(np.array(8000.0)), BINS + 2))
    at = np.linspace(0, 8000, 257)
    up = (at[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - at[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)) * (2 / (edges[2:] - edges[:-2]))[:, None]


FILTERS = mel_filters().astype(np.float32)
WINDOW = np.zeros(512, np.float32)
WINDOW[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)


def features(samples):
    """The recipe of NeMo's front end, [80, frames]; src/transcript/engine/features.rs is the same in Rust."""
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    padded = np.pad(emphasised, 256)
    count = len(samples) // 160
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::160][:count]
    power = np.abs(np.fft.rfft(frames * WINDOW, axis=1)).astype(np.float32) ** 2
    mel = np.log(FILTERS @ power.T + 2.0**-24)
    mean, std = mel.mean(1, keepdims=True), mel.std(1, ddof=1, keepdims=True)
    return ((mel - mean) / (std + 1e-5)).astype(np.float32)


class Block(nn.Module):
    """Depthwise over time, then two matrix products per frame: the shape int8 MatMul is quickest at."""

    def __init__(self):
        super().__init__()
        self.depth = nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.05)

    def forward(self, x, mask):
        y = self.norm(self.depth(x.transpose(1, 2)).transpose(1, 2))
        y = x + self.drop(self.down(F.relu(self.up(y))))
        return y if mask is None else y * mask


class Net(nn.Module):
    """[batch, 80, frames] to log probabilities [batch, frames / 4, tokens]."""

    def __init__(self, tokens):
        super().__init__()
        self.first = nn.Conv1d(BINS, WIDTH, 5, stride=2, padding=2)
        self.second = nn.Conv1d(WIDTH, WIDTH, 5, stride=2, padding=2, groups=WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, tokens)

    def forward(self, audio_signal, mask=None):
        x = F.relu(self.first(audio_signal))
        x = self.mix(F.relu(self.second(x)).transpose(1, 2))
        x = x if mask is None else x * mask
        for block in self.blocks:
            x = block(x, mask)
        return F.log_softmax(self.head(self.norm(x)), -1)


def frames_out(frames):
    """What two convolutions of stride 2 leave."""
    return ((frames + 1) // 2 + 1) // 2


def batches(rng, prepared, per_batch_frames):
    """Clips of like length together; the order of the batches is random."""
    order = sorted(range(len(prepared)), key=lambda i: prepared[i][0].shape[1] + rng.uniform(-40, 40))
    groups, open_group, longest = [], [], 0
    for index in order:
        longest = max(longest, prepared[index][0].shape[1])
        if open_group and longest * (len(open_group) + 1) > per_batch_frames:
            groups.append(open_group)
            open_group, longest = [], prepared[index][0].shape[1]
        open_group.append(index)
    groups.append(open_group)
    rng.shuffle(groups)
    return groups


def warped(rng, feats):
    """Another vocal tract: the mel bins pulled together or apart by up to an eighth."""
    at = np.clip(np.arange(BINS) * rng.uniform(0.9, 1.12), 0, BINS - 1.001)
    low, part = at.astype(int), (at % 1)[:, None].astype(np.float32)
    return feats[low] * (1 - part) + feats[low + 1] * part


def collate(rng, group):
    longest = max(feats.shape[1] for feats, _ in group)
    signal = np.zeros((len(group), BINS, longest), np.float32)
    for row, (feats, _) in enumerate(group):
        bent = warped(rng, feats) if rng.random() < 0.4 else feats
        bent = bent + rng.normal(0, 0.1, (BINS, 1)).astype(np.float32)
        if rng.random() < 0.5:  # SpecAugment, mildly
            low = rng.integers(0, BINS - 8)
            bent[low : low + rng.integers(1, 8)] = 0
        signal[row, :, : feats.shape[1]] = bent
    lengths = torch.tensor([frames_out(feats.shape[1]) for feats, _ in group])
    mask = (torch.arange(frames_out(longest))[None] < lengths[:, None]).float()[:, :, None]
    return torch.from_numpy(signal), mask, lengths, [torch.tensor(tokens) for _, tokens in group]


def train(net, prepared, args):
    rng, epochs = np.random.default_rng(args.seed), args.epochs
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    step, steps = 0, epochs * len(batches(np.random.default_rng(0), prepared, 4800))
    for epoch in range(epochs):
        started, total, count = time.time(), 0.0, 0
        for group in batches(rng, prepared, 4800):
            rate = min(1, (step + 1) / 150) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))
            optimiser.param_groups[0]["lr"] = args.peak * max(rate, 0.01)
            signal, mask, lengths, tokens = collate(rng, [prepared[i] for i in group])
            log_probs = net(signal, mask)
            loss = F.ctc_loss(log_probs.transpose(0, 1), torch.cat(tokens), lengths, torch.tensor([len(t) for t in tokens]), zero_infinity=True)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            total, count, step = total + loss.item(), count + 1, step + 1
        torch.save(net.state_dict(), args.out / "checkpoint.pt")
        print(f"epoch {epoch + 1}/{epochs}: loss {total / count:.4f}, {time.time() - started:.0f} s", flush=True)


def greedy(log_probs, tokens):
    """(character, frame) of every emission."""
    best, out, last = log_probs.argmax(1), [], 0
    for frame, token in enumerate(best):
        if token != last and token != 0:
            out.append((tokens[token], frame))
        last = token
    return out


def plain(text):
    return "".join(c for c in text.lower() if c.isalnum() or c in " '").split()


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def measure(run, clips, tokens):
    """Word error rate, and the lateness in ms of the first letter of each word that came out right."""
    errors, words, late = 0, 0, []
    for samples, truth in clips:
        heard = greedy(run(features(samples)), tokens)
        said = "".join(c for c, _ in heard)
        reference = plain(" ".join(word for word, _, _ in truth))
        errors, words = errors + distance(reference, plain(said)), words + len(reference)
        if plain(said) == reference:
            firsts = [frame for i, (c, frame) in enumerate(heard) if c != " " and (i == 0 or heard[i - 1][0] == " ")]
            if len(firsts) == len(truth):
                late += [1000 * (frame * STEP - start) for frame, (_, start, _) in zip(firsts, truth)]
    return errors / words, np.array(late)


def export(net, out):
    """ONNX, then int8 for the matrix products only: quantised convolutions cost accuracy. Seven-bit weights, so that
    processors without VNNI do not saturate."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    net.eval()
    float_file = out / "model.fp32.onnx"
    axes = {"audio_signal": {2: "frames"}, "logprobs": {1: "steps"}}
    torch.onnx.export(net, torch.zeros(1, BINS, 203), str(float_file), input_names=["audio_signal"], output_names=["logprobs"], dynamic_axes=axes, opset_version=14)
    quantize_dynamic(str(float_file), str(out / "model.onnx"), op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    float_file.unlink()


def resume(net, path):
    """Takes the weights of an exported model, eight bits or not: a start for another round on other clips."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    products = []
    for node in graph.node:  # the linear layers, in the order in which the network calls them
        if node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            scale, zero = values[name + "_scale"], values[name + "_zero_point"].astype(np.float32)
            products.append((values[name + "_quantized"].astype(np.float32) - zero) * scale)
    linear = [net.mix] + [layer for block in net.blocks for layer in (block.up, block.down)] + [net.head]
    assert len(linear) == len(products)
    with torch.no_grad():
        for layer, product in zip(linear, products):
            layer.weight.copy_(torch.from_numpy(product.T.copy()))
        for name, parameter in net.named_parameters():
            if name in values:
                parameter.copy_(torch.from_numpy(values[name].copy()))
    missing = [n for n, p in net.named_parameters() if n not in values and not any(p is layer.weight for layer in linear)]
    assert not missing, missing


def session(path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    inner = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feats: inner.run(None, {"audio_signal": feats[None]})[0][0]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--epochs", type=int, default=14)
    args.add_argument("--per-text", type=int, default=45)
    args.add_argument("--seed", type=int, default=20)
    args.add_argument("--peak", type=float, default=2e-3, help="largest step size")
    args.add_argument("--resume", type=Path, help="a model.onnx to go on from")
    args.add_argument("--out", type=Path, default=OUT)
    args = args.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    tokens = [""] + sorted({c for text in made.texts() for c in text} | set("abcdefghijklmnopqrstuvwxyz' "))
    number = {c: i for i, c in enumerate(tokens)}
    started = time.time()
    clips = made.training(args.seed, args.per_text)
    prepared = [(features(samples), [number[c] for c in " ".join(word for word, _, _ in words)]) for samples, words in clips]
    seconds = sum(len(samples) for samples, _ in clips) / made.RATE
    print(f"{len(clips)} clips, {seconds:.0f} s of audio, made in {time.time() - started:.0f} s", flush=True)
    del clips
    net = Net(len(tokens))
    if args.resume:
        resume(net, args.resume)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {len(tokens)} tokens", flush=True)
    train(net, prepared, args)
    export(net, args.out)
    (args.out / "checkpoint.pt").unlink()
    run = session(args.out / "model.onnx")
    seen, late = measure(run, made.unheard(1, made.KNOWN), tokens)
    strange, _ = measure(run, made.unheard(2, made.UNSEEN), tokens)
    offset = float(np.median(late))
    apart = np.abs(late - offset)
    spread = {q: round(float(np.percentile(apart, q)), 1) for q in (50, 90, 95)}
    print(f"WER: known voices {100 * seen:.2f} %, unseen voices {100 * strange:.2f} %; words {offset:.0f} ms late, then off by {spread}")
    data = (args.out / "model.onnx").read_bytes()
    manifest = {
        "name": "sample",
        "description": "Knows the sentences of this project's sample calls and nothing else; for the demo, the self-test and tests.",
        "languages": ["en"],
        "licence": "MIT OR Apache-2.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "sample_rate_hz": made.RATE,
        "features": "nemo_log_mel",
        "bins": BINS,
        "normalization": "per_feature",
        "subsampling": SUBSAMPLING,
        "time_offset_ms": round(offset),
        "blank": 0,
        "tokens": tokens,
        "phrases": made.texts(),
        "measured": {"wer_known_voices": round(seen, 4), "wer_unseen_voices": round(strange, 4), "word_start_error_ms": spread},
    }
    (args.out / "model.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
