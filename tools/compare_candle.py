"""Runs Hugging Face directories in candle and compares 64 greedy tokens with `minillm-infer`.

    python tools/compare_candle.py DIRECTORY...

A DIRECTORY holds config.json and model.safetensors of a llama (with heads as wide as hidden_size says: candle ignores `head_dim`),
qwen2 or qwen3. Builds `tools/candle` first. Exits with 1 if a token differs. MINILLM_INFER names a built program; without it cargo
builds one.
"""
import json
import os
import pathlib
import subprocess
import sys

PROMPT = "Once upon a time"
NEW_TOKENS = 64
root = pathlib.Path(__file__).resolve().parent.parent


def run(*command):
    return subprocess.run(list(map(str, command)), check=True, cwd=root, stdout=subprocess.PIPE, encoding="utf-8").stdout


def ours(directory):
    program = ["cargo", "run", "--quiet", "--release", "--package", "minillm-infer", "--"]
    if "MINILLM_INFER" in os.environ:
        program = [pathlib.Path(os.environ["MINILLM_INFER"]).resolve()]
    options = ["--prompt", PROMPT, "--temperature", "0", "--max-new-tokens", NEW_TOKENS, "--json"]
    return json.loads(run(*program, "generate", directory, *options))


manifest = root / "tools/candle/Cargo.toml"
failed = False
for name in sys.argv[1:]:
    directory = pathlib.Path(name).resolve()
    expected = ours(directory)
    command = ["cargo", "run", "--quiet", "--release", "--manifest-path", manifest, "--", directory]
    theirs = run(*command, len(expected["ids"]), *expected["prompt_ids"]).split()
    good = list(map(int, theirs)) == expected["ids"]
    failed |= not good
    print(f"{'ok  ' if good else 'FAIL'} {name}  {len(theirs)} greedy tokens")
sys.exit(failed)
