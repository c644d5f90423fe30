"""Makes random models of 124 to 134 million parameters in bf16 and f16 and measures how `minillm-infer` loads them.

    pip install torch==2.9.0 transformers
    cargo build --release -p minillm-infer
    python tools/measure_loading.py [PROGRAM]          default target/release/minillm-infer

Prints seconds from start to end of a process that loads the model and generates nothing, and its peak memory as a multiple of the
weights in f32: best and median of five. Not for Windows, which has no `wait4`.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

RUNS = 5
root = pathlib.Path(__file__).resolve().parent.parent


def measure(program, directory):
    runs = []
    for _ in range(RUNS):
        start = time.perf_counter()
        command = [program, "generate", directory, "--prompt-ids", "1,2,3", "--max-new-tokens", "0", "--json"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        assert status == 0, status
        kilobyte = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
        runs.append((time.perf_counter() - start, usage.ru_maxrss * kilobyte))
    (best, _), (median, memory) = min(runs), sorted(runs)[RUNS // 2]
    print(best, median, memory)


def make_and_measure(program):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12)
    llama = LlamaConfig(**sizes, vocab_size=32000, max_position_embeddings=1024)
    for name, model in [("gpt2", GPT2LMHeadModel(GPT2Config())), ("llama", LlamaForCausalLM(llama))]:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        for dtype in [torch.bfloat16, torch.float16]:
            with tempfile.TemporaryDirectory() as directory:
                model.to(dtype).save_pretrained(directory)
                # From a process without torch: what a child's parent holds when it forks counts as the child's.
                command = [sys.executable, __file__, "--measure", program, directory]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
            best, median, memory = map(float, done.stdout.split())
            share = memory / (4 * parameters)
            print(f"{name} {dtype}: {parameters / 1e6:.0f} M parameters, {best:.2f} s (median {median:.2f}), {share:.2f} x f32")


if sys.argv[1:2] == ["--measure"]:
    measure(*sys.argv[2:])
else:
    make_and_measure(pathlib.Path(sys.argv[1] if sys.argv[1:] else root / "target/release/minillm-infer").resolve())
