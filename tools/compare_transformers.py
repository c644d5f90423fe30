"""Loads checkpoints in transformers and compares logits and the tokens of a prompt with `minillm-infer`.

    pip install torch==2.9.0 transformers safetensors
    python tools/compare_transformers.py CHECKPOINT...

A CHECKPOINT is a directory with config.json (`runs/NAME/checkpoint-000500`). Prints the largest difference of any logit; exits with 1
if one is above 1e-4, if the prompt's tokens differ, or if transformers reports a weight that is missing or unused. `MINILLM_INFER`
may name a program to use instead of `cargo run`.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "The end"
TOLERANCE = 1e-4  # f32 noise is below 2e-5 on small models
root = pathlib.Path(__file__).resolve().parent.parent


def infer(*arguments):
    program = ["cargo", "run", "--quiet", "--release", "--package", "minillm-infer", "--"]
    if "MINILLM_INFER" in os.environ:
        program = [pathlib.Path(os.environ["MINILLM_INFER"]).resolve()]
    return subprocess.run([*program, *arguments], check=True, cwd=root, stdout=subprocess.PIPE).stdout


def our_logits(directory, ids):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        infer("logits", str(directory), "--ids", ",".join(map(str, ids)), "--out", str(out))
        return load_file(out)["logits"]


def our_prompt(directory, text):
    return json.loads(infer("generate", str(directory), "--prompt", text, "--max-new-tokens", "0", "--json"))["prompt_ids"]


failed = False
for name in sys.argv[1:]:
    directory = pathlib.Path(name).resolve()
    model, report = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    config = json.loads((directory / "config.json").read_text())
    context = config.get("max_position_embeddings") or config["n_positions"]
    ids = [(7 * i * i + 3 * i + 1) % config["vocab_size"] for i in range(min(64, context))]
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0]
    difference = (our_logits(directory, ids) - theirs).abs().max().item()
    problems = {key: value for key, value in report.items() if value}
    if (directory / "tokenizer.json").exists():
        tokens = AutoTokenizer.from_pretrained(directory)(PROMPT)["input_ids"]
        if tokens != our_prompt(directory, PROMPT):
            problems["prompt"] = f"{tokens} there, {our_prompt(directory, PROMPT)} here"
    good = difference <= TOLERANCE and not problems
    failed |= not good
    print(f"{'ok  ' if good else 'FAIL'} {difference:.2e}  {type(model).__name__}  {name}  {problems or ''}")
sys.exit(failed)
