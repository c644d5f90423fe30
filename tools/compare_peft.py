"""Does an adapter that `minillm-train` saved give the same logits in Hugging Face's PEFT?

    pip install torch==2.9.0 transformers peft safetensors numpy
    python tools/compare_peft.py ADAPTER [--program target/release/minillm-infer]

ADAPTER is a checkpoint of a run with [lora]; its model is the one that its adapter_config.json names. A tokenizer with more tokens than
that model has needs its embedding grown first, as `resize_token_embeddings` does.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("adapter", type=Path)
parser.add_argument("--program", default="target/release/minillm-infer")
args = parser.parse_args()

base = json.loads((args.adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
tokens = len(AutoTokenizer.from_pretrained(args.adapter))
if tokens > model.config.vocab_size:
    model.resize_token_embeddings(tokens, mean_resizing=False)
plain = model.config.vocab_size
model = PeftModel.from_pretrained(model, args.adapter).eval()

ids = [(7 * i * i + 3 * i + 1) % plain for i in range(24)]
with torch.no_grad():
    adapted = model(torch.tensor([ids])).logits[0]
    with model.disable_adapter():
        before = model(torch.tensor([ids])).logits[0]
    merged = model.merge_and_unload()(torch.tensor([ids])).logits[0]

with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "logits.safetensors"
    command = [args.program, "logits", args.adapter, "--ids", ",".join(map(str, ids)), "--out", out]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    ours = torch.from_numpy(load_file(out)["logits"])

difference = (ours - adapted).abs().max().item()
effect = (adapted - before).abs().max().item()
print(f"largest difference from peft {difference:.2e}, from its merged model {(ours - merged).abs().max():.2e}")
print(f"the adapter changes logits by up to {effect:.2e}")
assert difference < 1e-4 and effect > 1e-4
