"""Exports models to GGUF, runs them in llama.cpp, and compares with `minillm-infer`.

    pip install llama-cpp-python==0.3.36
    python tools/compare_llama_cpp.py MODEL... [--text FILE]

A MODEL is whatever `minillm-infer` reads. Prints a line per check; exits with 1 if one fails. In llama.cpp, the F32 file must give the
same tokens for prompts and the same 64 greedy tokens after them. With a text, the files' perplexities over its first 4000 tokens
or so must be close to the F32 file's: 0.1 % for F16 and BF16, 1 % for Q8_0. `MINILLM_INFER` may name a program to use instead of
`cargo run`.
"""
import argparse
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy

PROMPTS = [
    "The end", "Once upon a time, ", '"I will pay you one coin," said', "\n\n  12 + 345\t= ", "naïve: 東京 👍🏽 <|endoftext|>It",
]
PROMPT_IDS = [1, 5, 3]  # for a model without a tokenizer
NEW_TOKENS = 64
TEXT_TOKENS = 4000
TOLERANCES = {"f16": 0.001, "bf16": 0.001, "q8_0": 0.01}  # of the perplexity, relative to the F32 file's
root = pathlib.Path(__file__).resolve().parent.parent
log = []  # what llama.cpp would write to stderr


@llama_cpp.llama_log_callback
def keep(level, text, data):
    log.append(text.decode(errors="replace"))


llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))


def infer(*arguments):
    cargo = ["cargo", "run", "--quiet", "--release", "--package", "minillm-infer", "--"]
    program = [os.environ["MINILLM_INFER"]] if "MINILLM_INFER" in os.environ else cargo
    done = subprocess.run([*program, *map(str, arguments)], cwd=root, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"minillm-infer {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def generate(model, prompt, count=NEW_TOKENS):
    """Our tokens of a prompt, a text or ids, and those that follow greedily."""
    option = f"--prompt={prompt}" if isinstance(prompt, str) else f"--prompt-ids={','.join(map(str, prompt))}"
    answer = json.loads(infer("generate", model, option, "--max-new-tokens", count, "--temperature", "0", "--json"))
    return answer["prompt_ids"], answer["ids"]


def only_characters(pieces):
    """The characters that there are, if each token is one: llama.cpp drops others, or never returns."""
    try:
        characters = {piece.decode() for piece in pieces}
    except UnicodeDecodeError:
        return None
    return characters if max(map(len, characters)) == 1 else None


class LlamaCpp:
    """A model exported to GGUF and loaded in llama.cpp: 32-bit keys and values, no flash attention."""

    def __init__(self, model, folder, dtype="f32"):
        path = pathlib.Path(folder) / f"{dtype}.gguf"
        infer("export", model, "--to", "gguf", "--out", path, "--dtype", dtype)
        exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False}
        try:
            threads = {"n_threads": 2, "n_threads_batch": 2}
            self.llama = llama_cpp.Llama(str(path), n_ctx=0, logits_all=True, verbose=False, **exact, **threads)
        except ValueError as error:
            raise RuntimeError(f"{error}: {''.join(log[-3:])}") from None
        metadata = self.llama.metadata
        self.context = int(metadata[metadata["general.architecture"] + ".context_length"])
        self.has_tokenizer = metadata["tokenizer.ggml.model"] not in ("none", "no_vocab")
        self.characters = None
        if self.has_tokenizer:
            self.characters = only_characters([self.llama.detokenize([id]) for id in range(self.llama.n_vocab())])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.llama.close()

    def known(self, text):
        """The text without the characters that no token stands for."""
        return text if self.characters is None else "".join(c for c in text if c in self.characters)

    def tokens(self, text):
        add_bos = llama_cpp.llama_vocab_get_add_bos(self.llama._model.vocab)
        return self.llama.tokenize(text.encode(), add_bos=add_bos, special=True)

    def logits(self, ids):
        """Of every position of a new sequence."""
        self.llama.reset()
        self.llama.eval(ids)
        return self.llama.scores[: len(ids)]

    def greedy(self, prompt, count):
        """The likeliest tokens after a prompt, and the logits that each one was taken from."""
        ids, logits = [], [self.logits(prompt)[-1].copy()]
        while True:
            ids.append(int(logits[-1].argmax()))
            if len(ids) >= count or llama_cpp.llama_vocab_is_eog(self.llama._model.vocab, ids[-1]):
                return ids, logits
            self.llama.eval(ids[-1:])
            logits.append(self.llama.scores[self.llama.n_tokens - 1].copy())

    def perplexity(self, ids):
        """In windows of the context, as `minillm-infer score`: every token but the first is predicted once."""
        nats = 0.0
        for start in range(0, len(ids) - 1, self.context):
            targets = ids[start + 1 : start + 1 + self.context]
            logits = self.logits(ids[start : start + len(targets)]).astype(numpy.float64)
            logits -= logits.max(axis=1, keepdims=True)
            nats += (numpy.log(numpy.exp(logits).sum(axis=1)) - logits[range(len(targets)), targets]).sum()
        return float(numpy.exp(nats / (len(ids) - 1)))


def compare_prompt(llama, model, prompt):
    ours, continued = generate(model, prompt)
    if llama.has_tokenizer:
        theirs = llama.tokens(prompt)
        yield theirs == ours, f"prompt {prompt!r}", f"{len(ours)} tokens" if theirs == ours else f"{theirs} there, {ours} here"
    continued = continued[: llama.context - len(ours)]  # as far as nothing is forgotten
    theirs, logits = llama.greedy(ours, len(continued))
    details = f"{len(continued)} tokens"
    if theirs != continued:
        same = next((i for i, (there, here) in enumerate(zip(theirs, continued)) if there != here), len(theirs))
        details = f"the first {same} of {len(continued)} tokens are the same"
        for where, ids in ("there", theirs), ("here", continued):
            details += f", then {ids[same]} (logit {logits[same][ids[same]]:.6f}) {where}" if same < len(theirs) else ""
    yield theirs == continued, f"greedy {prompt!r}", details


def compare_text(llama, model, text, folder):
    """Perplexities of the files of all types; `llama` has the F32 file."""
    text = llama.known(text)
    text = text[: TEXT_TOKENS * len(text) // len(llama.tokens(text))]
    ids = llama.tokens(text)
    file = pathlib.Path(folder) / "text.txt"
    file.write_text(text, encoding="utf-8", newline="")
    ours = json.loads(infer("score", model, "--file", file, "--json"))
    exact = llama.perplexity(ids)
    there, here = f"{exact:.5f} of {len(ids) - 1} tokens there", f"{ours['perplexity']:.5f} of {ours['tokens']} here"
    print(f"     {model}  perplexity f32: {there}, {here}", flush=True)
    for dtype, tolerance in TOLERANCES.items():
        with LlamaCpp(model, folder, dtype) as rounded:
            theirs = rounded.perplexity(ids)
        difference = theirs / exact - 1
        yield abs(difference) <= tolerance, f"perplexity {dtype}", f"{theirs:.5f}, {difference:+.4%}"


def compare(model, text):
    with tempfile.TemporaryDirectory() as folder, LlamaCpp(model, folder) as llama:
        prompts = dict.fromkeys(filter(None, map(llama.known, PROMPTS))) if llama.has_tokenizer else [PROMPT_IDS]
        for prompt in prompts:
            if llama.has_tokenizer and len(llama.tokens(prompt)) >= llama.context:
                continue
            yield from compare_prompt(llama, model, prompt)
        if text and llama.has_tokenizer:
            yield from compare_text(llama, model, text, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", type=lambda name: pathlib.Path(name).resolve())
    parser.add_argument("--text", metavar="FILE", type=lambda name: pathlib.Path(name).read_text(encoding="utf-8"))
    arguments = parser.parse_args()
    failed = False
    for model in arguments.models:
        try:
            for good, what, details in compare(model, arguments.text):
                failed |= not good
                print(f"{'ok  ' if good else 'FAIL'} {model}  {what}: {details}", flush=True)
        except RuntimeError as error:
            failed = True
            print(f"FAIL {model}  {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
