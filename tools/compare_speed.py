"""Measures `minillm-train` and `minillm-infer` in turns with PyTorch, llama.cpp and transformers; prints the ratios.

    pip install torch==2.9.0 matplotlib transformers llama-cpp-python==0.3.36
    python tools/compare_speed.py train                      training steps: ours, PyTorch eager, PyTorch compiled
    python tools/compare_speed.py scale --picture speed.png  training over context and over model size
    python tools/compare_speed.py memory                     our peak memory over context
    python tools/compare_speed.py random-model DIRECTORY     134 M random parameters (125 M with --kv-heads 4), for:
    python tools/compare_speed.py decode DIRECTORY           reading a prompt and writing after it

Nothing else should run meanwhile. Each number is the median of the rounds; in a round everyone gets a turn. All ratios
are ours / theirs: of speed, more than 1 is good for us; of memory, less. PyTorch's peak memory has its libraries in it,
some 300 MB. On a GPU it is what each one's allocator took of the device, kernels not counted. `train` needs a C++
compiler and Python.h, or `--no-compile`. MINILLM_TRAIN and MINILLM_INFER may name built programs; without them cargo
builds and runs ours. PyTorch's side, `pytorch_train.py`, does not run on Windows.
"""
import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from statistics import median

Shape = namedtuple("Shape", "layers width heads context batch vocab")

SIZES = {"small": Shape(4, 128, 4, 64, 12, 0), "medium": Shape(6, 384, 6, 256, 4, 0)}
STEPS = {"small": (150, 40), "medium": (12, 10)}  # some 4 seconds on two cores, with a vocabulary below and from 1024
CONTEXTS = [Shape(6, 256, 8, context, 2048 // context, 512) for context in (64, 128, 256, 512, 1024)]
WIDTHS = [(4, 128, 4), (5, 192, 6), (6, 256, 8), (6, 384, 6), (8, 448, 7), (9, 512, 8)]
MODELS = [Shape(*sizes, 256, 4, 512) for sizes in WIDTHS]
FLOPS = 6e11  # of the measured steps of `scale`: also some 4 seconds
root = pathlib.Path(__file__).resolve().parent.parent


def program(name):
    built = os.environ.get(name.upper().replace("-", "_"))
    cargo = ["cargo", "run", "--quiet", "--release", "--package", name, "--"]
    return [str(pathlib.Path(built).resolve())] if built else cargo


def run(*command, **environment):
    """What a program prints."""
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=root, env=os.environ | environment, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout


def in_turns(contestants, rounds):
    """The answers of each of the named functions, called in turns."""
    answers = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            answers[name].append(contestant())
    return answers


class Table:
    """Prints a row as soon as it is known."""

    def __init__(self, *headings):
        self.widths = [max(len(heading), 7) for heading in headings]
        print()
        self.row(*headings)

    def row(self, *cells):
        print("  ".join(self.text(cell).rjust(width) for cell, width in zip(cells, self.widths)), flush=True)

    @staticmethod
    def text(cell):
        if isinstance(cell, float):
            return f"{cell:.2f}" if cell < 100 else f"{cell:,.0f}"
        return "-" if cell is None else str(cell)


def ratio(ours, theirs):
    return ours / theirs if ours and theirs else None


def megabytes(count):
    return f"{count / 1e6:,.0f}" if count else None


# Training


def parameters(shape):
    width, mlp = shape.width, shape.width * 8 // 3 // 32 * 32
    return 2 * shape.vocab * width + shape.layers * (4 * width**2 + 3 * width * mlp + 2 * width) + width


def on_gpu(arguments):
    return arguments.device.split(":")[0] not in ("flex", "ndarray", "tch")


def memory_of(report):
    """Of the device, where a backend reports it, else of the process."""
    return report.get("device_memory_bytes") or report["peak_memory_bytes"]


def train_here(shape, steps, device, *settings, warmup=5):
    settings = [
        f"model.vocab_size={shape.vocab}", f"model.num_hidden_layers={shape.layers}",
        f"model.hidden_size={shape.width}", f"model.num_attention_heads={shape.heads}",
        f"model.num_key_value_heads={shape.heads}",
        f"train.context={shape.context}", f"train.batch_size={shape.batch}", *settings,
    ]
    options = ["--json", "--device", device, "--steps", steps, "--warmup", warmup]
    options += [part for setting in settings for part in ("--set", setting)]
    return json.loads(run(*program("minillm-train"), "bench", "configs/shakespeare-llama-cpu.toml", *options))


def train_in_pytorch(shape, steps, arguments, *options):
    sizes = [part for name, value in shape._asdict().items() for part in (f"--{name}", value)]
    options = ["--device", "cuda" if on_gpu(arguments) else "cpu", "--dtype", arguments.dtype, *options]
    options += ["--threads", arguments.threads, "--steps", steps]
    return json.loads(run(sys.executable, root / "tools/pytorch_train.py", *sizes, *options))


def compare_training(shape, steps, arguments, peers):
    """Ours and each of the peers, which are names and options of PyTorch."""
    steps *= arguments.longer
    contestants = {"ours": lambda: train_here(shape, steps, arguments.device)}
    for name, options in peers.items():
        contestants[name] = lambda options=options: train_in_pytorch(shape, steps, arguments, *options)
    result = {**shape._asdict(), "parameters": parameters(shape), "steps": steps}
    for name, runs in in_turns(contestants, arguments.rounds).items():
        if {run["parameters"] for run in runs} != {result["parameters"]}:
            raise RuntimeError(f"{name}: {runs[0]['parameters']} parameters instead of {result['parameters']}")
        rates, memory = [run["tokens_per_second"] for run in runs], [memory_of(run) for run in runs]
        peak = median(memory) if all(memory) else None
        result[name] = {"tokens_per_second": median(rates), "peak_memory_bytes": peak, "rounds": rates}
    return result


def training_headings(peers):
    headings = ["ours tok/s"] + [text for peer in peers for text in (f"{peer} tok/s", f"ours/{peer}")]
    return headings + ["ours MB"] + [text for peer in peers for text in (f"{peer} MB", "ratio")]


def training_cells(result, peers):
    rates, memory = (
        {name: result[name][key] for name in ("ours", *peers)} for key in ("tokens_per_second", "peak_memory_bytes")
    )
    yield rates["ours"]
    for peer in peers:
        yield from (rates[peer], ratio(rates["ours"], rates[peer]))
    yield megabytes(memory["ours"])
    for peer in peers:
        yield from (megabytes(memory[peer]), ratio(memory["ours"], memory[peer]))


def train(arguments):
    peers = {"eager": []} | ({} if arguments.no_compile else {"compiled": ["--compile"]})
    table = Table("size", "vocab", "params", *training_headings(peers))
    results = []
    for size in arguments.sizes:
        for vocab in arguments.vocab:
            shape = SIZES[size]._replace(vocab=vocab)
            result = compare_training(shape, STEPS[size][vocab >= 1024], arguments, peers)
            results.append({"size": size, **result})
            table.row(size, vocab, f"{result['parameters'] / 1e6:.2f} M", *training_cells(result, peers))
    return results


def scale(arguments):
    if arguments.picture:
        import matplotlib  # to miss it now, not after the measurements
    peers = {"eager": []}
    parts = []
    for shapes in CONTEXTS, MODELS:
        table = Table("context", "batch", "layers", "width", "params", *training_headings(peers))
        results = []
        for shape in shapes:
            steps = max(4, round(FLOPS / (6 * parameters(shape) * shape.batch * shape.context)))
            result = compare_training(shape, steps, arguments, peers)
            results.append(result)
            sizes = shape.context, shape.batch, shape.layers, shape.width, f"{result['parameters'] / 1e6:.2f} M"
            table.row(*sizes, *training_cells(result, peers))
        parts.append(results)
    if arguments.picture:
        draw(arguments.picture, *parts)
    return {"context": parts[0], "size": parts[1]}


def draw(path, contexts, sizes):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    panels = [
        (contexts, "context", f"Over context: {contexts[0]['parameters'] / 1e6:.1f} M parameters, 2048 tokens a step",
         "context, tokens", str),
        (sizes, "parameters", "Over model size: 4 sequences of 256 tokens a step",
         "parameters, millions", lambda count: f"{count / 1e6:.2g}"),
    ]
    for axis, (results, key, title, label, text) in zip(axes, panels):
        places = [result[key] for result in results]
        lines = [("ours", "MiniLLM", "#c2410c", "o"), ("eager", "PyTorch eager", "#475569", "s")]
        for name, words, color, marker in lines:
            rates = [result[name]["tokens_per_second"] for result in results]
            axis.plot(places, rates, color=color, marker=marker, markersize=6, linewidth=2, label=words)
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_xticks(places, [text(place) for place in places])
        rates = [result[name]["tokens_per_second"] for result in results for name in ("ours", "eager")]
        low, high = min(rates) / 1.25, max(rates) * 1.25
        axis.set_ylim(low, high)
        digits = (1, 2, 5) if high > 10 * low else (1, 2, 3, 4, 5, 6, 8)
        ticks = [digit * 10**power for power in range(9) for digit in digits if low <= digit * 10**power <= high]
        axis.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(color="#e2e8f0", linewidth=0.8)
    axes[0].set_ylabel("tokens per second, training")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def memory(arguments):
    """Of ours with the fast kernels and with the layers as written: of 4096 tokens a step, and of one sequence."""
    table = Table("kernels", "context", "batch", "tokens", "peak MB", "above base", "x the last")
    results, notes = [], []
    for kernels in "fast", "readable":

        def peak(context, batch):
            shape = Shape(4, 128, 4, context, batch, 65)
            found = memory_of(train_here(shape, 2, arguments.device, f"train.kernels={kernels}", warmup=1))
            results.append({"kernels": kernels, **shape._asdict(), "peak_memory_bytes": found})
            return found

        base = peak(16, 1)  # the program, and the model with its optimiser
        table.row(kernels, 16, 1, 16, megabytes(base))
        for batches in (8, 4, 2), (1, 1, 1):
            above = []
            for context, batch in zip((512, 1024, 2048), batches):
                above.append(peak(context, batch) - base)
                growth = above[-1] / above[-2] if len(above) > 1 else None
                row = kernels, context, batch, context * batch
                table.row(*row, megabytes(above[-1] + base), megabytes(above[-1]), growth)
            power = math.log(above[-1] / above[0], 2048 / 512)
            step = "one sequence" if batches[-1] == 1 else "4096 tokens"
            notes.append(f"{kernels}, {step} a step: above the base it grows as context ** {power:.2f}")
    print("", *notes, sep="\n")
    return results


# Generation


class LlamaCpp:
    def __init__(self, path, prompt, new, threads):
        import llama_cpp

        sizes = {"n_ctx": len(prompt) + new, "n_batch": 512, "n_threads": threads, "n_threads_batch": threads}
        self.llama = llama_cpp.Llama(str(path), logits_all=False, verbose=False, **sizes)
        self.synchronize = lambda: llama_cpp.llama_synchronize(self.llama.ctx)
        self.prompt, self.new = prompt, new

    def __call__(self):
        """Tokens per second of the prompt, and of those after it, which cost the same whatever they are."""
        self.llama.reset()
        start = time.perf_counter()
        self.llama.eval(self.prompt)
        self.synchronize()
        middle = time.perf_counter()
        for id in self.prompt[: self.new]:
            self.llama.eval([id])
        self.synchronize()
        return len(self.prompt) / (middle - start), self.new / (time.perf_counter() - middle)


class Transformers:
    def __init__(self, model, prompt, new, threads):
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.prompt, self.new = torch.tensor([prompt]), new

    def seconds(self, count):
        exactly = {"do_sample": False, "min_new_tokens": count, "max_new_tokens": count, "pad_token_id": 0}
        start = time.perf_counter()
        ids = self.model.generate(self.prompt, attention_mask=self.prompt**0, **exactly)
        seconds = time.perf_counter() - start
        assert ids.shape[1] == self.prompt.shape[1] + count
        return seconds

    def __call__(self):
        """The first token comes with the prompt; with one more, as many as elsewhere come one by one."""
        first = self.seconds(1)
        return self.prompt.shape[1] / first, self.new / (self.seconds(self.new + 1) - first)


def generate_here(model, weights, arguments):
    options = ["--prompt-tokens", arguments.prompt, "--new-tokens", arguments.new, "--weights", weights, "--json"]
    command = [*program("minillm-infer"), "bench", model, *options]
    answer = json.loads(run(*command, RAYON_NUM_THREADS=str(arguments.threads)))
    return answer["prefill_tokens_per_second"], answer["decode_tokens_per_second"]


def decode(arguments):
    model = arguments.model.resolve()
    vocab = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    prompt = random.Random(0).choices(range(vocab), k=arguments.prompt)
    sizes = prompt, arguments.new, arguments.threads
    if arguments.new > arguments.prompt:
        raise RuntimeError("--new may not be more than --prompt")
    headings = ["llama.cpp tok/s", "ours/llama.cpp", "transformers tok/s", "ours/transformers"]
    table = Table("weights", "phase", "ours tok/s", *headings)
    results = []
    for weights in arguments.types:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / f"{weights}.gguf"
            run(*program("minillm-infer"), "export", model, "--to", "gguf", "--dtype", weights, "--out", file)
            peers = {"llama.cpp": LlamaCpp(file, *sizes)}
            if weights == "f32":
                peers["transformers"] = Transformers(model, *sizes)
            for peer in peers.values():
                peer()  # ours warms up by itself
            contestants = {"ours": lambda: generate_here(model, weights, arguments)} | peers
            answers = in_turns(contestants, arguments.rounds)
            peers["llama.cpp"].llama.close()
        for phase, which in ("prefill", 0), ("decode", 1):
            rounds = {name: [answer[which] for answer in given] for name, given in answers.items()}
            rates = {name: median(given) for name, given in rounds.items()}
            results.append({"weights": weights, "phase": phase, "tokens_per_second": rates, "rounds": rounds})
            ours, llama, transformers = (rates.get(name) for name in ("ours", "llama.cpp", "transformers"))
            table.row(weights, phase, ours, llama, ratio(ours, llama), transformers, ratio(ours, transformers))
    return results


def random_model(arguments):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
    more = {"num_key_value_heads": arguments.kv_heads, "vocab_size": 32000, "max_position_embeddings": 1024}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **more)).float()
    model.save_pretrained(arguments.directory)
    print(f"{model.num_parameters() / 1e6:.1f} M parameters in {arguments.directory}")


# Command line


def machine():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return f"{cores()} cores, {cpu}, {platform.system()}"


def cores():
    """As many as ours uses."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def versions():
    for name in "torch", "transformers", "llama-cpp-python":
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass


def split(kind, choices=None):
    def values(text):
        values = [kind(part) for part in text.split(",")]
        if choices and not set(values) <= set(choices):
            raise argparse.ArgumentTypeError(f"choose from {', '.join(choices)}")
        return values

    return values


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name, function, rounds=None, device=False, threads=None):
        added = verbs.add_parser(name)
        added.set_defaults(function=function)
        added.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there")
        if rounds:
            added.add_argument("--rounds", type=int, default=rounds)
        if device:
            added.add_argument("--device", default="flex", help="of ours; not `auto`")
        if threads:
            help = "of everyone" if name == "decode" else "of PyTorch; as many as there are cores, which ours uses too"
            added.add_argument("--threads", type=int, default=threads, help=help)
        return added

    for name, function, rounds in ("train", train, 5), ("scale", scale, 3):
        added = verb(name, function, rounds, device=True, threads=cores())
        added.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32", help="of PyTorch")
        added.add_argument("--longer", type=int, default=1, metavar="N", help="N times the steps, for fast machines")
        if name == "train":
            added.add_argument("--sizes", type=split(str, SIZES), default=list(SIZES))
            added.add_argument("--vocab", type=split(int), default=[65, 8192])
            added.add_argument("--no-compile", action="store_true", help="without PyTorch compiled")
        else:
            added.add_argument("--picture", type=pathlib.Path, metavar="FILE.png")
    verb("memory", memory, device=True)
    added = verb("decode", decode, 5, threads=2)
    added.add_argument("model", type=pathlib.Path, metavar="MODEL", help="a Hugging Face directory")
    added.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    added.add_argument("--new", type=int, default=64, help="tokens after it")
    added.add_argument("--types", type=split(str, ["f32", "q8_0"]), default=["f32", "q8_0"])
    added = verb("random-model", random_model)
    added.add_argument("directory", type=pathlib.Path, metavar="DIRECTORY")
    added.add_argument("--kv-heads", type=int, default=12)
    return parser.parse_args()


def main():
    arguments = parse()
    known = dict(versions())
    print("; ".join([machine(), *(f"{name} {version}" for name, version in known.items())]))
    try:
        results = arguments.function(arguments)
    except RuntimeError as error:
        sys.exit(str(error))
    if arguments.json and results is not None:
        options = {key: value for key, value in vars(arguments).items() if key not in ("function", "json", "picture")}
        report = {"machine": machine(), "versions": known, "options": options, "results": results}
        arguments.json.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
