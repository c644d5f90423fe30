"""Cuts difficult texts into tokens with transformers, llama.cpp and `minillm-infer`, and compares.

    pip install torch==2.9.0 transformers llama-cpp-python==0.3.36
    python tools/compare_tokenizers.py [--write-texts FILE] MODEL...

A MODEL is a directory with tokenizer.json (`runs/NAME/checkpoint-000500`) or a run, which stands for its best checkpoint. llama.cpp
reads the model's GGUF export. Texts are 40 difficult ones or, if each token is a character, 40 random ones of known characters.
If transformers knows the architecture, its 64 greedy tokens must be ours too. Prints a line per model and the first differences;
exits with 1 if there are any. `MINILLM_INFER` may name a program to use instead of `cargo run`.

A tokenizer trained on stories has few tokens with digits, line ends or symbols, so a text cut wrongly there can still give the same
tokens. --write-texts writes a file to train a tokenizer on (a run of one step will do) that has long tokens everywhere.
"""
import argparse
import json
import pathlib
import random
import sys
import tempfile

import torch
import transformers

sys.dont_write_bytecode = True  # of the other script
from compare_llama_cpp import NEW_TOKENS, LlamaCpp, generate

TEXTS = [
    "Once upon a time, there was a small fox named Nora.",
    "  leading spaces, trailing spaces   ",
    "\n\ttab first and line end last\t\n",
    "a  b   c    d     e\t\tf \t g\u3000h",
    "one\ntwo\r\nthree\rfour\n\n\nfive\r\n\r\n  six \n \n seven",
    " ",
    "\n",
    "\t \n \r\n \v\f ",
    "it's IT'S we'll WE'LL I'd I'D they've THEY'VE you're YOU'RE can't CAN'T i'm I'M it’s o'clock '' 'x",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 2024-02-29 -1e-10 0xFFee ½ ² ٣٤٥ Ⅷ ५६",
    "!!! ??? ... --- *** ### $%^&*()_+{}|:\"<>?-=[]\\;',./`~ «quoted» “quoted” ¿qué? ‽ …—–",
    "https://user:pass@example.com:8080/a/b%20c.html?q=1&r=%C3%A9#top mail+tag@example.co.uk C:\\Users\\x /usr/bin/env",
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
    "a" * 150,
    "=" * 70 + "\n" + "-" * 70,
    "def f(x: int) -> int:\n    return x**2  # square\n\n\nclass A:\n\tpass\n",
    "fn main() {\n    let v: Vec<u8> = b\"\\n\\\\\".to_vec();\n    println!(\"{v:?}\"); // 'a\n}\n",
    "#include <stdio.h>\r\nint main(void) { return printf(\"%d\\n\", 1 << 3 & ~0) ? 0 : 1; }\r\n",
    "SELECT \"a\", count(*) FROM t WHERE b <> 'it''s' GROUP BY 1; -- <b class='c'>&amp;&#233;</b>",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"\\u00e9\": \"\\\"\"}}",
    "今天天气很好,我们去公园。東京は日本の首都です。ｶﾀｶﾅ㍿",
    "안녕하세요, 세계! 각 \u1100\u1161\u11a8",
    "สวัสดีชาวโลก กำลังเรียนภาษาไทย",
    "नमस्ते दुनिया, क्षत्रिय हिन्दी",
    "مَرْحَبًا بِالعَالَمِ، كَيْفَ حَالُكَ؟",
    "שָׁלוֹם עולם\u200f \u202bright to left\u202c",
    "Привет, мир! Ёлка. Ελλάδα, άνθρωπος. Հայերեն ქართული",
    "Zażółć gęślą jaźń, Straße STRASSE, İstanbul ıI, ǅ ﬁ ŉ ß ſ K",
    "e\u0301 n\u0303 a\u0308\u0323 o\u0302\u0301 x\u0336y\u0336 Z\u0351\u036b\u0343\u036a\u0302 \u0301 alone é ñ",
    "👍🏽 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🧑🏿\u200d🚀 ❤\ufe0f 1\ufe0f\u20e3",
    "🇩🇪🇫🇷🇯🇵🇺🇸 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f ☺☹ ™ ©",
    "zero\u200bwidth\u200cnon\u200djoiner\u2060word\ufeffmark soft\u00adhyphen",
    "no\u00a0break\u202fnarrow\u2009thin\u2003em \u00a0 mixed\u205fmath\u1680ogham",
    "line\u2028separator\u2029paragraph\u0085next \u2028 \u2029\n\u0085",
    "𝐇𝐞𝐥𝐥𝐨 𝒲𝑜𝓇𝓁𝒹 𝟙𝟚𝟛 𝔘𝔫𝔦 ∀x∈ℝ: ∑ᵢ xᵢ² ≥ 0 ∴ √2≈1.41",
    "private \ue000\uf8ff \U000f0000\U0010fffd unassigned \u0378 noncharacter \ufffe\U0001ffff",
    "control \x01\x02\x07\x08\x1b[31m\x1c\x1d\x1e\x1f\x7f\x80\x9f end",
    b"broken \xff\xfe \xc3( \xe2\x82 \xf0\x9f\x92 end".decode(errors="replace"),
    "before<|endoftext|>after <|endoftext|> <|endoftext|><|endoftext|>\n<|endoftext|>",
    "<|endoftext| <|ENDOFTEXT|> <|im_start|>user <s></s> <unk> [INST] <0x0A> Ġthe Ċ ▁the",
]
PROMPT = "The end"
SHOWN = 3  # differences of a model
REPEATED = 20  # times a text stands in the file to train on
assert len(TEXTS) == 40
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def checkpoint(name):
    directory = pathlib.Path(name).resolve()
    best = directory / "best.json"
    return directory / f"checkpoint-{json.loads(best.read_text())['step']:06}" if best.exists() else directory


def texts_of_characters(characters, context):
    draw = random.Random(0)
    return ["".join(draw.choices(characters, k=draw.randint(1, context))) for _ in TEXTS]


def ours(directory, text):
    try:
        return generate(directory, text, 0)[0]
    except RuntimeError as error:
        return str(error)


def compare(directory):
    """How many texts and greedy tokens are the same, and the differences in words."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    config = json.loads((directory / "config.json").read_text())
    context = config.get("max_position_embeddings") or config["n_positions"]
    texts = TEXTS
    if model["type"] == "WordLevel":
        texts = texts_of_characters([c for c in model["vocab"] if c != "\0"], context)
    counts, differences = [], []

    with tempfile.TemporaryDirectory() as folder, LlamaCpp(directory, folder) as llama:
        peers = {"transformers": lambda text: tokenizer(text)["input_ids"], "llama.cpp": llama.tokens}
        same = dict.fromkeys(peers, 0)
        for text in texts:
            while len(tokenizer(text)["input_ids"]) > context:
                text = text[: len(text) // 2]
            here = ours(directory, text)
            for name, tokens in peers.items():
                there = tokens(text)
                same[name] += there == here
                if there != here:
                    differences.append(f"{text!r}\n       {name}: {there}\n       here: {here}")
        counts += [f"{count} of {len(texts)} texts as {name}" for name, count in same.items()]

    if config["model_type"] in transformers.CONFIG_MAPPING:
        network = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        prompt = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
        length = prompt["input_ids"].shape[1]
        count = min(NEW_TOKENS, context - length)
        there = network.generate(**prompt, do_sample=False, max_new_tokens=count)[0, length:].tolist()
        here = generate(directory, PROMPT, count)[1]
        counts.append(f"{len(here)} greedy tokens as transformers")
        if there != here:
            counts[-1] = "other greedy tokens than transformers"
            differences.append(f"greedy {PROMPT!r}\n       transformers: {there}\n       here: {here}")
    return counts, differences


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", nargs="*", metavar="MODEL")
parser.add_argument("--write-texts", metavar="FILE", type=pathlib.Path)
arguments = parser.parse_args()
if arguments.write_texts:
    arguments.write_texts.write_text("\n".join(TEXTS * REPEATED), encoding="utf-8", newline="")
failed = False
for name in arguments.models:
    try:
        counts, differences = compare(checkpoint(name))
    except (OSError, RuntimeError, ValueError) as error:
        counts, differences = [str(error)], [""]
    failed |= bool(differences)
    print(f"{'FAIL' if differences else 'ok  '} {name}  {', '.join(counts)}", flush=True)
    for difference in filter(None, differences[:SHOWN]):
        print(f"     {difference}", flush=True)
sys.exit(failed)
