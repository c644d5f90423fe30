"""Compares `minillm-infer inspect --json` with what transformers computes from the same checkpoint.

    pip install torch==2.9.0 transformers safetensors
    python tools/compare_inspect.py CHECKPOINT...

A CHECKPOINT is a directory with config.json (`runs/NAME/checkpoint-000500`). Compared are the attention of every head, the logit lens at
every depth (the probabilities of its likeliest tokens and of the token that follows, and that no likelier one was left out) and the
norms of the residual stream, relative to their size. Prints the largest difference of each; exits with 1 if one is above 1e-4.
`MINILLM_INFER` may name a program to use instead of `cargo run`.
"""
import json
import os
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

PROMPT = "The end of the story is near, said the king."
TOLERANCE = 1e-4
root = pathlib.Path(__file__).resolve().parent.parent


def inspect(directory, config):
    program = ["cargo", "run", "--quiet", "--release", "--package", "minillm-infer", "--"]
    if "MINILLM_INFER" in os.environ:
        program = [pathlib.Path(os.environ["MINILLM_INFER"]).resolve()]
    prompt = ["--prompt", PROMPT]
    if not (directory / "tokenizer.json").exists():
        context = config.get("max_position_embeddings") or config["n_positions"]
        ids = [(7 * i * i + 3 * i + 1) % config["vocab_size"] for i in range(min(64, context))]
        prompt = ["--prompt-ids", ",".join(map(str, ids))]
    command = [*program, "inspect", str(directory), *prompt, "--json"]
    return json.loads(subprocess.run(command, check=True, cwd=root, stdout=subprocess.PIPE).stdout)


def final_norm(model):
    return model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm


def largest(values):
    return max(values, default=0.0)


def compare(directory):
    config = json.loads((directory / "config.json").read_text())
    ours = inspect(directory, config)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    ids = ours["ids"]
    # The last of their hidden states is normed already: what entered the final norm is the stream after the last block.
    stream = []
    final_norm(model).register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0]))
    with torch.no_grad():
        theirs = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
        residual = [*theirs.hidden_states[:-1], stream[0]]
        lens = [model.lm_head(final_norm(model)(x))[0].double().softmax(-1) for x in residual]
    assert len(ours["attention"]) == len(theirs.attentions) == len(residual) - 1 == len(ours["logit_lens"]) - 1

    attention = largest(
        (torch.tensor(row) - theirs.attentions[block][0, head, query, : query + 1]).abs().max().item()
        for block, heads in enumerate(ours["attention"])
        for head, rows in enumerate(heads)
        for query, row in enumerate(rows)
    )
    # A row ends at its own token: what they give later ones must be nothing.
    attention = max(attention, *(weights[0].triu(1).abs().max().item() for weights in theirs.attentions))
    assert all(len(heads) == model.config.num_attention_heads for heads in ours["attention"])
    assert all([len(row) for row in rows] == list(range(1, len(ids) + 1)) for heads in ours["attention"] for rows in heads)

    probabilities = []
    for row, expected in zip(ours["logit_lens"], lens, strict=True):
        for position, prediction in enumerate(row):
            there = expected[position]
            best = there.topk(len(prediction["top"])).values
            for choice, value in zip(prediction["top"], best.tolist(), strict=True):
                probabilities += [abs(choice["probability"] - there[choice["id"]].item()), abs(choice["probability"] - value)]
            if position + 1 < len(ids):
                probabilities.append(abs(prediction["next"]["probability"] - there[ids[position + 1]].item()))
    for position in range(1, len(ids)):
        probabilities.append(abs(ours["probabilities"][position] - lens[-1][position - 1, ids[position]].item()))

    norms = torch.tensor(ours["norms"])
    expected = torch.stack([x[0].norm(dim=-1) for x in residual])
    differences = {
        "attention": attention,
        "logit lens": largest(probabilities),
        "norms": ((norms - expected).abs() / expected).max().item(),
    }
    return type(model).__name__, len(ids), differences


failed = False
for name in sys.argv[1:]:
    kind, tokens, differences = compare(pathlib.Path(name).resolve())
    good = all(difference <= TOLERANCE for difference in differences.values())
    failed |= not good
    numbers = "  ".join(f"{what} {difference:.1e}" for what, difference in differences.items())
    print(f"{'ok  ' if good else 'FAIL'} {numbers}  {tokens} tokens  {kind}  {name}", flush=True)
sys.exit(failed)
