"""Trains for a long time, with evaluation, sampling and checkpoints every few seconds and an interruption now and then, and says
whether memory, threads or open files grow. Linux.

    cargo build --release
    python tools/soak.py --minutes 60
    python tools/soak.py --minutes 15 --device wgpu          (built with --features wgpu)

Every process that is started is watched; an interrupted one must end with 130 and be resumed. Within a process the
growth is that of its resident memory from minute --settled on (by default 5): the largest of the last fifth of its
life beside the largest of the first fifth after settling.
"""

import argparse
import json
import pathlib
import signal
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
    """Resident memory in bytes, threads and open files of a process, None if it has ended."""
    folder = pathlib.Path(f"/proc/{process.pid}")
    try:
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return int(lines["VmRSS"].split()[0]) * 1024, int(lines["Threads"]), len(list((folder / "fd").iterdir()))
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
            samples = []
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
        last = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()][-1]
        names = sorted(path.name for path in (folder / "run").iterdir())
        checkpoints = [name for name in names if name.startswith("checkpoint-")]
        strays = [name for name in names if name.startswith(".") and name != ".lock"]
        if strays or len(checkpoints) > 3:
            failures.append(f"left in the run: {strays} {checkpoints}")
        print(json.dumps({"device": arguments.device, "steps": last["step"], "processes": processes, "in the run": names, "failures": failures}, indent=2))
    sys.exit(1 if failures else 0)


def describe(samples, arguments, failures):
    """Growth of one process, noted in `failures` where it is too much."""
    settled = [sample for sample in samples if sample[0] >= 60 * arguments.settled] or samples
    fifth = max(1, len(settled) // 5)
    first, last = settled[:fifth], settled[-fifth:]
    growth = {}
    for index, name in [(1, "memory"), (2, "threads"), (3, "files")]:
        before, after = (max(sample[index] for sample in part) for part in (first, last))
        growth[name] = [before, after]
        allowed = before * (1 + arguments.growth) if name == "memory" else before
        if after > allowed:
            failures.append(f"{name} grew from {before} to {after}")
    minutes = [round(samples[-1][0] / 60, 1)] if samples else []
    by_minute = {round(at / 60): memory for at, memory, _, _ in samples}
    return {"minutes": minutes, **growth, "memory by minute": by_minute}


if __name__ == "__main__":
    main()
