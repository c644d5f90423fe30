"""Loads Hugging Face directories in mlx-lm and compares the tokens of a prompt and 64 greedy ones with `minillm-infer`.

    pip install "mlx[cpu]" mlx-lm          on Linux; on a Mac plain mlx, which then computes on its GPU
    python tools/compare_mlx.py DIRECTORY...

A DIRECTORY holds config.json: a checkpoint, or what `minillm-infer export --to hf` wrote. mlx-lm knows llama, qwen2, qwen3 and gpt2.
Exits with 1 if a token differs. MINILLM_INFER names a built program; without it cargo builds one.
"""
import json
import os
import pathlib
import shlex
import subprocess
import sys

import mlx.core as mx
from mlx_lm import load

PROMPT = "Once upon a time"
NEW_TOKENS = 64
root = pathlib.Path(__file__).resolve().parent.parent
cargo = "cargo run --quiet --release --package minillm-infer --"
infer = shlex.split(os.environ.get("MINILLM_INFER", cargo))
if "MINILLM_INFER" in os.environ:
    infer[0] = str(pathlib.Path(infer[0]).resolve())


def ours(directory):
    options = ["--prompt", PROMPT, "--temperature", "0", "--max-new-tokens", str(NEW_TOKENS), "--json"]
    command = [*infer, "generate", str(directory), *options]
    return json.loads(subprocess.run(command, check=True, cwd=root, stdout=subprocess.PIPE).stdout)


failed = False
for name in sys.argv[1:]:
    directory = pathlib.Path(name).resolve()
    expected = ours(directory)
    model, tokenizer = load(str(directory))
    ids = tokenizer.encode(PROMPT)
    new = []
    for _ in expected["ids"]:
        logits = model(mx.array([ids + new]))[0, -1]
        new.append(int(mx.argmax(logits)))
    good = ids == expected["prompt_ids"] and new == expected["ids"]
    failed |= not good
    print(f"{'ok  ' if good else 'FAIL'} {name}  prompt {ids}, {len(new)} greedy tokens")
sys.exit(failed)
