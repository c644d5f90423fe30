"""nanoGPT's CPU recipe for tiny Shakespeare in plain PyTorch, to be compared with `configs/shakespeare-gpt-cpu.toml`.

    pip install torch==2.9.0
    python tools/nanogpt_recipe.py input.txt [--seed 1] [--init 0.02] [--threads 2]

Prints the loss over the whole validation split, in windows of 64 side by side as `minillm-train` scores it. (nanoGPT prints an
estimate from random crops.) The numbers are those of nanoGPT's README and config/train_shakespeare_char.py.
"""
import argparse
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("text")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--init", type=float, default=0.02, help="standard deviation of the initial weights; nanoGPT's is 0.02")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(args.threads)

WIDTH, HEADS, LAYERS, CONTEXT, BATCH, STEPS, WARMUP, PEAK, FLOOR = 128, 4, 4, 64, 12, 2000, 100, 1e-3, 1e-4
text = open(args.text, encoding="utf-8").read()
alphabet = {character: index for index, character in enumerate(sorted(set(text)))}
ids = torch.tensor([alphabet[character] for character in text])
training, validation = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.o_proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down_proj = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (part.view(b, t, HEADS, d // HEADS).transpose(1, 2) for part in self.qkv(self.norm_1(x)).split(d, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.o_proj(mixed)
        return x + self.down_proj(F.gelu(self.up(self.norm_2(x))))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(len(alphabet), WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, 0, args.init / math.sqrt(2 * LAYERS) if "_proj" in name else args.init)

    def forward(self, inputs, targets):
        x = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy((self.norm(x) @ self.tokens.weight.T).flatten(0, 1), targets.flatten())


def rows(source, starts):
    pick = lambda shift: torch.stack([source[start + shift : start + shift + CONTEXT] for start in starts])
    return pick(0), pick(1)


def learning_rate(step):
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    return FLOOR + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) * (PEAK - FLOOR)


model = Gpt()
matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
vectors = [weight for weight in model.parameters() if weight.dim() < 2]
groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99), fused=True)
for step in range(STEPS):
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step)
    loss = model(*rows(training, torch.randint(len(training) - CONTEXT, (BATCH,))))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

model.eval()
with torch.no_grad():
    windows = torch.arange((len(validation) - 1) // CONTEXT) * CONTEXT
    losses = [(model(*rows(validation, part)).item(), len(part)) for part in windows.split(128)]
print(f"seed {args.seed}: {sum(loss * count for loss, count in losses) / len(windows):.4f} nats per character")
