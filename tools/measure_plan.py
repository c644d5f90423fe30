"""Compares what `minillm-train plan` predicts with what `minillm-train train` then needs: peak memory and time.

    python tools/measure_plan.py                    five sizes, 3 to 6 minutes on two cores
    python tools/measure_plan.py small medium       some of them
    python tools/measure_plan.py --memory           memory alone, of 40 configurations: `plan`'s own calibrating steps (Linux)

Nothing else should run meanwhile. Peak memory is the process's largest resident size. MINILLM_TRAIN may
name a built program; without it cargo builds and runs ours.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).resolve().parent.parent

# layers, width, heads, key/value heads, context, batch, vocabulary, steps
SIZES = {
    "small": (4, 128, 4, 4, 64, 12, 2048, 600),
    "large vocabulary": (4, 128, 4, 4, 64, 12, 8192, 400),
    "long context": (4, 128, 4, 4, 1024, 2, 2048, 150),
    "medium": (6, 384, 6, 6, 256, 4, 2048, 80),
    "wide": (8, 512, 8, 8, 256, 4, 4096, 40),
}
KEYS = ["model.num_hidden_layers", "model.hidden_size", "model.num_attention_heads", "model.num_key_value_heads"]
KEYS += ["train.context", "train.batch_size", "model.vocab_size"]
WAYS = [(kernels, recompute) for kernels in ("fast", "readable") for recompute in ("false", "true")]


def command(*arguments):
    built = os.environ.get("MINILLM_TRAIN")
    cargo = ["cargo", "run", "--quiet", "--release", "--package", "minillm-train", "--"]
    return [*([str(pathlib.Path(built).resolve())] if built else cargo), *map(str, arguments)]


def settings(size, steps, **others):
    values = dict(zip(KEYS, size)) | {"train.max_steps": steps, "eval.every_steps": steps, "optimizer.kind": "adamw"}
    values |= {"schedule.warmup_steps": 0, "train.micro_batch_size": size[5], "checkpoint.every_steps": steps}
    values |= {name.replace("__", "."): value for name, value in others.items()}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def run(*arguments):
    """What a program prints, its largest resident size in bytes, and its seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.time()
        child = subprocess.Popen(command(*arguments), cwd=root, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.time() - start
        out.seek(0), err.seek(0)
        if status != 0:
            sys.exit(f"{' '.join(map(str, arguments))}\n{err.read()}")
        return out.read(), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), seconds


def row(*cells):
    print("  ".join(str(cell).rjust(13) for cell in cells), flush=True)


def error(predicted, measured):
    return f"{100 * (predicted / measured - 1):+.0f} %"


def compare_runs(names):
    """Plans and trains each size: the text, its batches, an evaluation and a checkpoint are part of both."""
    row("size", "parameters", "predicted MB", "measured MB", "", "predicted s", "measured s", "")
    for name in names:
        *size, steps = SIZES[name]
        config = [root / "configs/quickstart.toml", *settings(size, steps, model__preset="llama")]
        plan = json.loads(run("plan", *config, "--json")[0])
        with tempfile.TemporaryDirectory() as folder:
            _, peak, seconds = run("train", *config, "--out", folder)
        memory = plan["peak_memory_bytes"]
        row(name, plan["parameters"], f"{memory / 1e6:.0f}", f"{peak / 1e6:.0f}", error(memory, peak),
            f"{plan['seconds']:.1f}", f"{seconds:.1f}", error(plan["seconds"], seconds))


def compare_memory(names):
    """Both forms of the layers, each with and without recomputing, of LLaMA's and GPT-2's choices."""
    row("size", "preset", "kernels", "recompute", "predicted MB", "measured MB", "")
    for name in names:
        *size, _ = SIZES[name]
        for preset in ("llama", "gpt2"):
            for kernels, recompute in WAYS:
                others = {"model__preset": preset, "train__kernels": kernels, "train__recompute": recompute}
                config = [root / "configs/quickstart.toml", *settings(size, 1000, **others)]
                plan = json.loads(run("plan", *config, "--json")[0])
                # The calibrating steps write no checkpoint.
                memory = max(sum(plan["memory"][kernels][at].values()) for at in ("forward", "backward"))
                peak = plan["calibrating_peak_memory_bytes"]
                row(name, preset, kernels, recompute, f"{memory / 1e6:.0f}", f"{peak / 1e6:.0f}", error(memory, peak))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", help=", ".join(SIZES))
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sizes if name not in SIZES]
    if unknown:
        parser.error(f"no size is called {unknown[0]}: {', '.join(SIZES)}")
    names = arguments.sizes or list(SIZES)
    compare_memory(names) if arguments.memory else compare_runs(names)
