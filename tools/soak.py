"""Trains for a long time, with evaluation, sampling and checkpoints every few seconds and an interruption now and then, and says
whether memory, threads or open files grow. Linux.

    cargo build --release
    python tools/soak.py --minutes 60
    python tools/soak.py --minutes 15 --device wgpu          (built with --features wgpu)

Every process that is started is watched; an interrupted one must end with 130 and be resumed. From minute --settled on
(by default 5) its life is cut into fifths. The mean resident memory of each may lie 2 percent above that of the first, and
the peak at the end 2 percent above that at the beginning; there may never be more threads than in the first fifth. Of open
files the fewest of every fifth may not grow: one that is never closed raises them, while a checkpoint being written raises
the most for a moment. (Resident memory, too, goes up and down with what is evaluated, sampled and saved just then. Lowest
and highest are printed of both.)
"""

import argparse
import json
import math
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

CONFIG = """
seed = 3
[data]
source = "tales"
[tokenizer]
kind = "char"
[model]
preset = "qwen3"
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
dropout = 0.1
[train]
max_steps = 100000000
batch_size = 8
context = 64
skip_spikes = true
[schedule]
kind = "constant"
[eval]
every_steps = {every}
sample_tokens = 40
[checkpoint]
every_steps = {every}
[log]
every_steps = 10
"""


def status(process):
    """Resident memory now and at most, in bytes, threads and open files of a process, None if it has ended."""
    folder = pathlib.Path(f"/proc/{process.pid}")
    try:
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        memory, peak = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return memory, peak, int(lines["Threads"]), len(list((folder / "fd").iterdir()))
    except (OSError, KeyError):
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/minillm-train")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--settled", type=float, default=5, help="minutes of a process that do not count")
    parser.add_argument("--interrupt", type=float, default=0, help="minutes after which a process is interrupted and resumed; 0 = once, at the end")
    parser.add_argument("--every", type=int, default=200, help="steps between evaluations and between checkpoints")
    parser.add_argument("--growth", type=float, default=0.02, help="share of memory that a process may grow by")
    arguments = parser.parse_args()
    program = str(pathlib.Path(arguments.program).resolve())

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "soak.toml").write_text(CONFIG.format(every=arguments.every))
        command = [program, "train", "soak.toml", "--out", "run", "--device", arguments.device]
        end = time.monotonic() + 60 * arguments.minutes
        failures, processes = [], []
        while time.monotonic() < end:
            with open(folder / "log.txt", "a") as log:
                more = ["--resume"] if processes else []
                process = subprocess.Popen(command + more, cwd=folder, stderr=log, env={"MINILLM_CACHE": str(folder / "cache"), "HOME": str(folder)})
            begin = time.monotonic()
            life = 60 * arguments.interrupt if arguments.interrupt else float("inf")
            samples = []  # (seconds, memory, peak, threads, files)
            while time.monotonic() < min(end, begin + life):
                time.sleep(2)
                now = status(process)
                if now is None or process.poll() is not None:
                    break
                samples.append((time.monotonic() - begin, *now))
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            code = process.wait(timeout=120)
            if code != 130:
                sys.exit(f"ended with {code}\n{(folder / 'log.txt').read_text()[-3000:]}")
            processes.append(describe(samples, arguments, failures))
        if not any("peak memory, first and last" in process for process in processes):
            failures.append(f"no process lived for more than {arguments.settled} minutes")
        last = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()][-1]
        names = sorted(path.name for path in (folder / "run").iterdir())
        checkpoints = [name for name in names if name.startswith("checkpoint-")]
        strays = [name for name in names if name.startswith(".") and name != ".lock"]
        if strays or len(checkpoints) > 3:
            failures.append(f"left in the run: {strays} {checkpoints}")
        print(json.dumps({"device": arguments.device, "steps": last["step"], "processes": processes, "in the run": names, "failures": failures}, indent=2))
    sys.exit(1 if failures else 0)


def describe(samples, arguments, failures):
    """What one process took, with what grew noted in `failures`."""
    settled = [sample for sample in samples if sample[0] >= 60 * arguments.settled]
    if not settled:
        return {"minutes": round(samples[-1][0] / 60, 1) if samples else 0, "settled": False}
    size = max(1, math.ceil(len(settled) / 5))
    fifths = [list(zip(*settled[start : start + size])) for start in range(0, len(settled), size)]
    memory = [round(statistics.mean(fifth[1])) for fifth in fifths]
    peak = [settled[0][2], settled[-1][2]]
    threads = [max(fifth[3]) for fifth in fifths]
    files = [min(fifth[4]) for fifth in fifths]
    share = 1 + arguments.growth
    for name, values, allowed in [("memory", memory, share), ("peak memory", peak, share), ("threads", threads, 1), ("open files", files, 1)]:
        if max(values) > values[0] * allowed:
            failures.append(f"{name}: {values}")
    all_of = [sample[1] for sample in settled]
    return {
        "minutes": round(samples[-1][0] / 60, 1),
        "mean memory by fifth": memory,
        "lowest and highest memory": [min(all_of), max(all_of)],
        "peak memory, first and last": peak,
        "most threads by fifth": threads,
        "fewest open files by fifth": files,
        "most open files": max(sample[4] for sample in settled),
    }


if __name__ == "__main__":
    main()
