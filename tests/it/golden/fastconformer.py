#!/usr/bin/env python3
"""A network of the shape of NeMo's FastConformer-CTC with random weights, and what ONNX Runtime makes of it.

    python3 tests/it/golden/fastconformer.py                       the golden files of tests/it/engine.rs, beside this
    python3 tests/it/golden/fastconformer.py --full DIR [--int8]   the true 110M shape, for `cargo bench --bench speech`
    python3 tests/it/golden/fastconformer.py --time DIR            ONNX Runtime's CPU time on 30 s, one thread

Needs Python 3.11, torch 1.13 or later (CPU), numpy, onnx and onnxruntime. Weights are random: what is compared is
arithmetic, not speech.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "benches" / "training"))
import train_sample_model as front  # noqa: E402  the front end, in numpy

SMALL = {"width": 32, "layers": 2, "heads": 4, "channels": 16, "tokens": 40, "longest": 200}
# nvidia/parakeet-tdt_ctc-110m: 17 layers of 512, 8 heads, 256 channels of subsampling, 1024 pieces and the blank.
FULL = {"width": 512, "layers": 17, "heads": 8, "channels": 256, "tokens": 1025, "longest": 1000}


class Subsampling(nn.Module):
    """Eightfold: one full and two depthwise-separable convolutions of stride 2."""

    def __init__(self, width, channels):
        super().__init__()
        steps = [nn.Conv2d(1, channels, 3, 2, 1), nn.ReLU()]
        for _ in range(2):
            steps += [nn.Conv2d(channels, channels, 3, 2, 1, groups=channels), nn.Conv2d(channels, channels, 1), nn.ReLU()]
        self.convs, self.out = nn.Sequential(*steps), nn.Linear(channels * 10, width)

    def forward(self, picture):
        x = self.convs(picture.transpose(1, 2).unsqueeze(1))
        return self.out(x.transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """Multi-head attention with relative positions (Transformer-XL)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.depth = heads, width // heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.place = nn.Linear(width, width, bias=False)
        self.u = nn.Parameter(torch.randn(heads, self.depth) * 0.1)
        self.w = nn.Parameter(torch.randn(heads, self.depth) * 0.1)

    def split(self, x):
        return x.reshape(x.shape[0], -1, self.heads, self.depth)

    def forward(self, x, places, mask):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)).transpose(1, 2), self.split(self.v(x)).transpose(1, 2)
        p = self.split(self.place(places)).transpose(1, 2)
        content = (q + self.u).transpose(1, 2) @ k.transpose(2, 3)
        by_place = (q + self.w).transpose(1, 2) @ p.transpose(2, 3)
        batch, heads, steps, span = by_place.shape
        shifted = F.pad(by_place, (1, 0)).reshape(batch, heads, span + 1, steps)[:, :, 1:].reshape(batch, heads, steps, span)
        scores = (content + shifted[:, :, :, :steps]) / math.sqrt(self.depth)
        weights = torch.softmax(scores.masked_fill(mask, -10000.0), -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    def __init__(self, width, kernel=9):
        super().__init__()
        self.into, self.out = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depth = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x, padded):
        x = F.glu(self.into(x.transpose(1, 2)), 1).masked_fill(padded, 0.0)
        return self.out(F.silu(self.norm(self.depth(x)))).transpose(1, 2)


def feed_forward(width):
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.first, self.second = feed_forward(width), feed_forward(width)
        self.attention, self.convolution = Attention(width, heads), Convolution(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, places, mask, padded):
        x = x + 0.5 * self.first(x)
        x = x + self.attention(self.norms[0](x), places, mask)
        x = x + self.convolution(self.norms[1](x), padded)
        return self.norms[2](x + 0.5 * self.second(x))


class FastConformer(nn.Module):
    def __init__(self, width, layers, heads, channels, tokens, longest):
        super().__init__()
        self.longest = longest
        self.subsampling = Subsampling(width, channels)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.head = nn.Conv1d(width, tokens, 1)
        at = torch.arange(longest - 1, -longest, -1.0)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * -(math.log(10000.0) / width))
        table = torch.stack([torch.sin(at * rate), torch.cos(at * rate)], 2).flatten(1)
        self.register_buffer("table", table[None])

    def forward(self, audio_signal, length):
        x = self.subsampling(audio_signal)
        for _ in range(3):
            length = torch.div(length - 1, 2, rounding_mode="floor") + 1
        steps = x.shape[1]
        padded = torch.arange(steps)[None] >= length[:, None]
        places = self.table[:, self.longest - steps : self.longest + steps - 1]
        mask = (padded[:, None, None, :] | padded[:, None, :, None])
        for layer in self.layers:
            x = layer(x, places, mask, padded[:, None])
        return F.log_softmax(self.head(x.transpose(1, 2)).transpose(1, 2), -1)


def export(shape, path):
    torch.manual_seed(7)
    net = FastConformer(**shape)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    net.eval()
    with torch.no_grad():  # scores that follow the sound, sharp enough that the likeliest token is no tie
        picture = torch.from_numpy(front.features(sound(2.53).astype(np.float32) / 32768))[None]
        net.head.bias.zero_()
        scores = net(picture, torch.tensor([picture.shape[2]]))
        spread = scores - scores.mean(2, keepdim=True)
        gain = 4 / (spread - spread.mean(1, keepdim=True)).std()
        net.head.weight *= gain
        net.head.bias -= gain * spread.mean((0, 1))
        net.head.bias[-1] += 3
    inputs = (torch.zeros(1, 80, 250), torch.tensor([250]))
    axes = {"audio_signal": {0: "batch", 2: "frames"}, "length": {0: "batch"}, "logprobs": {0: "batch", 1: "steps"}}
    torch.onnx.export(net, inputs, str(path), input_names=["audio_signal", "length"], output_names=["logprobs"], dynamic_axes=axes, opset_version=14)


def run(path, picture):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"audio_signal": picture[None], "length": np.array([picture.shape[1]])}
    session.run(None, feed)
    started = time.process_time()
    out = session.run(None, feed)[0][0]
    return out, time.process_time() - started


def tokens_of(count):
    pieces = [("\u2581" if n % 3 == 0 else "") + chr(97 + n % 26) * (1 + n // 26) for n in range(count - 1)]
    return "".join(f"{piece} {n}\n" for n, piece in enumerate([*pieces, "<blk>"]))


def sound(seconds):
    """Sweeps and noise with pauses: something in every bin, nothing steady."""
    rng, t = np.random.default_rng(3), np.arange(int(16000 * seconds)) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (200 * t + 900 * t**2 % 3000)) * (np.sin(2 * np.pi * 1.7 * t) > -0.3)
    wave += 0.1 * rng.standard_normal(len(t)) * np.abs(np.sin(2 * np.pi * 0.9 * t)) ** 3
    return np.round(np.clip(wave, -1, 1) * 32767).astype("<i2")


def golden():
    samples = sound(2.53)
    (HERE / "sound.pcm").write_bytes(samples.tobytes())
    picture = front.features(samples.astype(np.float32) / 32768)
    (HERE / "features.f32").write_bytes(picture.astype("<f4").tobytes())
    export(SMALL, HERE / "model.onnx")
    (HERE / "tokens.txt").write_text(tokens_of(SMALL["tokens"]))
    scores, _ = run(HERE / "model.onnx", picture)
    (HERE / "logprobs.f32").write_bytes(scores.astype("<f4").tobytes())
    best, words, last = scores.argmax(1), "", SMALL["tokens"] - 1
    pieces = [line.rsplit(" ", 1)[0] for line in tokens_of(SMALL["tokens"]).splitlines()]
    for token in best:
        if token != last and token != SMALL["tokens"] - 1:
            words += pieces[token].replace("\u2581", " ")
        last = token
    (HERE / "text.txt").write_text(" ".join(words.split()) + "\n")
    print(picture.shape, scores.shape, words)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--full", type=Path)
    args.add_argument("--int8", action="store_true")
    args.add_argument("--time", type=Path)
    args = args.parse_args()
    if args.time:
        _, seconds = run(args.time / "model.onnx", front.features(sound(30).astype(np.float32) / 32768))
        print(json.dumps({"cpu_seconds": round(seconds, 3)}))
    elif args.full:
        args.full.mkdir(parents=True, exist_ok=True)
        (args.full / "tokens.txt").write_text(tokens_of(FULL["tokens"]))
        export(FULL, args.full / "model.onnx")
        if args.int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            whole = args.full / "float.onnx"
            (args.full / "model.onnx").rename(whole)
            quantize_dynamic(str(whole), str(args.full / "model.onnx"), op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
            whole.unlink()
    else:
        golden()


if __name__ == "__main__":
    main()
