"""Loads checkpoints in transformers and compares logits with `minillm-infer logits`.

    pip install torch==2.9.0 transformers safetensors
    python tools/compare_transformers.py CHECKPOINT...

A CHECKPOINT is a directory with config.json (`runs/NAME/checkpoint-000500`). Prints the largest difference of any logit; exits with 1
if one is above 1e-4, or if transformers reports a weight that is missing or unused.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4  # f32 noise is below 2e-5 on small models
root = pathlib.Path(__file__).resolve().parent.parent


def ours(directory, ids):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        command = ["cargo", "run", "--quiet", "--release", "--package", "minillm-infer", "--", "logits"]
        subprocess.run(command + [str(directory), "--ids", ",".join(map(str, ids)), "--out", str(out)], check=True, cwd=root)
        return load_file(out)["logits"]


failed = False
for name in sys.argv[1:]:
    directory = pathlib.Path(name).resolve()
    model, report = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    config = json.loads((directory / "config.json").read_text())
    context = config.get("max_position_embeddings") or config["n_positions"]
    ids = [(7 * i * i + 3 * i + 1) % config["vocab_size"] for i in range(min(64, context))]
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0]
    difference = (ours(directory, ids) - theirs).abs().max().item()
    problems = {key: value for key, value in report.items() if value}
    good = difference <= TOLERANCE and not problems
    failed |= not good
    print(f"{'ok  ' if good else 'FAIL'} {difference:.2e}  {type(model).__name__}  {name}  {problems or ''}")
sys.exit(failed)
