"""How fast PyTorch trains the LLaMA block that `minillm-train bench` trains: the other side of `compare_speed.py`.

    pip install torch==2.9.0                        `--compile` also needs a C++ compiler and Python.h
    python tools/pytorch_train.py --layers 4 --width 128 --heads 4 --context 64 --batch 12 --vocab 65 [--compile]

Takes full optimiser steps on random tokens (forward, cross-entropy, backward, clipping by the global norm, fused
AdamW), leaves out the first ones, and prints one JSON object with the keys of `minillm-train bench --json`. The peak
memory is that of the process, libraries included; with CUDA it is what PyTorch allocated on the GPU.
"""
import argparse
import json
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("layers", 4), ("width", 128), ("heads", 4), ("context", 64), ("batch", 12), ("vocab", 65)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kv-heads", type=int, default=0, help="0: as many as heads")
    parser.add_argument("--mlp", type=int, default=0, help="its width; 0: 8/3 of the width, down to a multiple of 32")
    parser.add_argument("--steps", type=int, default=50, help="measured steps")
    parser.add_argument("--warmup", type=int, default=5, help="steps before measuring")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32", help="bf16: autocast")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    options = parser.parse_args()
    options.kv_heads = options.kv_heads or options.heads
    options.mlp = options.mlp or options.width * 8 // 3 // 32 * 32
    return options


class Rotary(nn.Module):
    """Rotary positions: channel i of a head turns with channel i + half."""

    def __init__(self, head_width, context):
        super().__init__()
        frequencies = 10000.0 ** -(torch.arange(0, head_width, 2) / head_width)
        angles = torch.arange(context)[:, None] * frequencies
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x):
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.head_width = width // heads
        self.grouped = kv_heads < heads
        self.query = nn.Linear(width, heads * self.head_width, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.out = nn.Linear(heads * self.head_width, width, bias=False)

    def forward(self, x, rotary):
        layers = self.query, self.key, self.value
        query, key, value = (layer(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for layer in layers)
        query, key = rotary(query), rotary(key)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=self.grouped)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SwiGlu(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(o.width, eps=1e-5), nn.RMSNorm(o.width, eps=1e-5)
        self.attention = Attention(o.width, o.heads, o.kv_heads)
        self.mlp = SwiGlu(o.width, o.mlp)

    def forward(self, x, rotary):
        x = x + self.attention(self.attention_norm(x), rotary)
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.tokens = nn.Embedding(o.vocab, o.width)
        self.rotary = Rotary(o.width // o.heads, o.context)
        self.blocks = nn.ModuleList(Block(o) for _ in range(o.layers))
        self.norm = nn.RMSNorm(o.width, eps=1e-5)
        self.head = nn.Linear(o.width, o.vocab, bias=False)

    def forward(self, inputs, targets):
        x = self.tokens(inputs)
        for block in self.blocks:
            x = block(x, self.rotary)
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), targets.flatten())


def peak_memory(on_gpu):
    if on_gpu:
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main():
    o = options()
    on_gpu = o.device == "cuda"
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    if o.dtype == "tf32":
        torch.set_float32_matmul_precision("high")
    model = Llama(o).to(o.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if o.compile else model

    def step():
        inputs = torch.randint(o.vocab, (o.batch, o.context), device=o.device)
        targets = (7 * inputs + 3) % o.vocab  # what `minillm-train bench` lets its model learn
        with torch.autocast(o.device, torch.bfloat16, enabled=o.dtype == "bf16"):
            loss = loss_of(inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    def steps(count):
        """Seconds, and the last loss."""
        loss, start = None, time.perf_counter()
        for _ in range(count):
            loss = step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start, loss

    steps(o.warmup)
    seconds, loss = steps(o.steps)
    report = {
        "tokens_per_second": o.steps * o.batch * o.context / seconds,
        "ms_per_step": seconds * 1e3 / o.steps,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "peak_memory_bytes": peak_memory(on_gpu),
        "loss": loss.item(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
