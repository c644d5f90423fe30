"""Writes tiny random checkpoints and the logits transformers computes from them, for the tests of `minillm-infer`.

    pip install torch==2.9.0 transformers==5.23.0 safetensors
    python tools/make_models.py [OUT]

Each row of MODELS becomes a directory of OUT (default `minillm-infer/tests/models`) with config.json, model.safetensors (or shards and
model.safetensors.index.json) and golden.safetensors: `input_ids` and `logits_f64` [1, T, V], computed in float64 from the weights as
rounded to the file's dtype. A row with `stepwise` also has `stepwise_f64`: the same tokens one by one through transformers' cache.

Every directory is loaded again and must give the same logits; every feature of a row is switched off in turn and must change a logit by
more than VISIBLE.
"""
import json
import pathlib
import re
import sys
import zlib

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

VISIBLE = 2e-2  # the tests compare with 1e-4
SAME = 1e-12
root = pathlib.Path(__file__).resolve().parent.parent

COMMON = dict(vocab_size=48, bos_token_id=1, eos_token_id=2)
LLAMA = COMMON | dict(
    model_type="llama", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=64, tie_word_embeddings=True, rms_norm_eps=1e-5,
)
MISTRAL, QWEN2, QWEN3 = (LLAMA | dict(model_type=name) for name in ("mistral", "qwen2", "qwen3"))
GPT2 = COMMON | dict(model_type="gpt2", n_embd=16, n_head=2, n_layer=2, n_positions=32)


def rope(rope_type, rope_theta=1e3, **parameters):
    return dict(rope_parameters=dict(rope_type=rope_type, rope_theta=rope_theta, **parameters))


def window(kind, size):
    return {"use_sliding_window": True, "sliding_window": size, "layer_types": [f"{k}_attention" for k in kind]}


PLAIN = rope("default")
YARN = dict(factor=4.0, original_max_position_embeddings=16)
YARN_ALL = dict(factor=4.0, original_max_position_embeddings=64, attention_factor=1.3, beta_fast=8.0, beta_slow=2.0, truncate=False)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=24)


def without(parameters, *names):
    return rope("yarn", **{key: value for key, value in parameters.items() if key not in names})


# name: (configuration, how it is written, features switched off in turn).
# Written: `dtype`, `shards`, `tokens` (T), `stepwise`, `rename` and `extra` (change the tensors), `spell` (changes config.json).
# Off: other configuration values, or a pattern of tensors that become neutral (a bias 0, a norm's weight 1).
MODELS = {
    "llama_rope_linear": (LLAMA | rope("linear", factor=4.0), {}, [PLAIN]),
    "llama_rope_dynamic": (
        LLAMA | rope("dynamic", factor=2.0) | dict(max_position_embeddings=16, vocab_size=36), dict(tokens=30, stepwise=True),
        [PLAIN],
    ),
    "llama_rope_yarn": (
        LLAMA | dict(head_dim=16) | rope("yarn", **YARN), {},
        [PLAIN, rope("yarn", **YARN, attention_factor=1.0), rope("yarn", **YARN, truncate=False), rope("linear", factor=4.0)],
    ),
    "llama_rope_yarn_all": (
        LLAMA | dict(head_dim=16, max_position_embeddings=256) | rope("yarn", **YARN_ALL), {},
        [PLAIN, *(without(YARN_ALL, name) for name in ("attention_factor", "beta_fast", "beta_slow", "truncate"))],
    ),
    "llama_rope_yarn_mscale": (
        LLAMA | dict(head_dim=16) | rope("yarn", **YARN, mscale=0.8, mscale_all_dim=0.5), {},
        [PLAIN, rope("yarn", **YARN), rope("yarn", **YARN, attention_factor=1.0)],
    ),
    "mistral_window": (
        MISTRAL | PLAIN | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=8), {},
        [dict(sliding_window=None), dict(sliding_window=7), dict(sliding_window=9)],
    ),
    "qwen2_window": (
        QWEN2 | PLAIN | dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=6, max_window_layers=1, intermediate_size=20),
        dict(spell="transformers4"),
        [window(["full"] * 3, 6), window(["sliding"] * 3, 6), window(["full", "sliding", "full"], 6), dict(sliding_window=7), "bias"],
    ),
    "qwen3_window": (
        QWEN3 | PLAIN | window(["full", "sliding"], 8) | dict(head_dim=12, attention_bias=True, tie_word_embeddings=False), {},
        [
            window(["full"] * 2, 8), window(["sliding"] * 2, 8), window(["full", "sliding"], 7), dict(attention_bias=False),
            *("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias", "q_norm", "k_norm"),
        ],
    ),
    "llama_biases": (
        LLAMA | PLAIN | dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=False), {},
        [
            dict(attention_bias=False), dict(mlp_bias=False), dict(tie_word_embeddings=True),
            *(f"{name}_proj.bias" for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ],
    ),
    "llama_sharded_bf16": (
        LLAMA | PLAIN | dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2), dict(dtype="bfloat16", shards=3), ["norm"],
    ),
    "gpt2_f16": (
        GPT2 | dict(activation_function="gelu"), dict(dtype="float16", rename="transformer.", extra="masks", spell="openai"),
        [dict(activation_function="relu"), dict(activation_function="gelu_new"), "attn.*bias", "mlp.*bias", "ln_.*bias"],
    ),
    "gpt2_inner": (GPT2 | dict(n_inner=24, activation_function="gelu_new"), dict(shards=2), [dict(activation_function="relu")]),
    "llama_transformers4": (LLAMA | rope("linear", factor=2.0), dict(spell="transformers4"), [PLAIN]),
    "llama3_transformers4": (
        LLAMA | dict(max_position_embeddings=192) | rope("llama3", 1e4, **LLAMA3), dict(spell="transformers4"),
        [rope("default", 1e4), rope("linear", 1e4, factor=8.0)],
    ),
    "llama_mqa_head_dim": (
        LLAMA | PLAIN | dict(num_attention_heads=4, head_dim=8), dict(extra="head"), [rope("default", 1e6)],
    ),
    "qwen3_theta": (
        QWEN3 | rope("default", 1e6) | dict(head_dim=12, tie_word_embeddings=False, rms_norm_eps=1e-3), {},
        [rope("default", 1e4), dict(rms_norm_eps=1e-6), dict(tie_word_embeddings=True), "q_norm", "k_norm"],
    ),
}


def spell_transformers4(config):
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    key = "rope_type" if kind == "llama3" else "type"  # the older name of the two that transformers 4 wrote
    config["rope_scaling"] = None if kind == "default" else {key: kind, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.43.0"
    for name in ("head_dim", "layer_types"):
        config.pop(name, None)


def spell_openai(config):
    for name in ("dtype", "transformers_version", "tie_word_embeddings", "add_cross_attention", "n_inner", "use_cache", "pad_token_id"):
        config.pop(name, None)
    config["n_ctx"] = config["n_positions"]


def random_tensor(name, shape, generator, gelu):
    noise = torch.randn(shape, generator=generator)
    if gelu and "mlp.c_fc.bias" in name:
        return 0.2 * noise - 2.2  # where the exact GELU and the one with tanh differ by 4e-4
    if gelu and "mlp.c_proj.weight" in name:
        return 4 * noise
    if name.endswith("bias"):
        return 0.2 * noise
    if "norm" in name or "ln_" in name:
        return 1 + 0.2 * noise
    return 0.3 * noise


def neutral(name, tensor):
    return torch.zeros_like(tensor) if name.endswith("bias") else torch.ones_like(tensor)


def build(values, state):
    config = AutoConfig.for_model(**values)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float64).eval()
    missing = model.load_state_dict({key: value.double() for key, value in state.items()}, strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"} and (not missing or config.tie_word_embeddings), missing
    return model


def logits(model, ids):
    return model(ids, use_cache=False).logits


def one_by_one(model, ids):
    cache, steps = None, []
    for token in ids.split(1, dim=1):
        output = model(token, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    return torch.cat(steps, dim=1)


def write_weights(directory, state, shards):
    names = list(state)
    cuts = [len(names) * i // shards for i in range(shards + 1)]
    weight_map = {}
    for i in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: state[name].contiguous() for name in names[cuts[i] : cuts[i + 1]]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        size = sum(tensor.nbytes for tensor in state.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_config(directory, model, dtype, spell):
    model.config.dtype = dtype
    model.config.architectures = [type(model).__name__]
    config = json.loads(model.config.to_json_string())
    if spell:
        {"transformers4": spell_transformers4, "openai": spell_openai}[spell](config)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make(directory, values, off, dtype="float32", shards=1, tokens=28, stepwise=False, rename="", extra=None, spell=None):
    generator = torch.Generator().manual_seed(zlib.crc32(directory.name.encode()))
    shapes = {name: tensor.shape for name, tensor in AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)).state_dict().items()}
    tied = AutoConfig.for_model(**values).tie_word_embeddings
    state = {
        name: random_tensor(name, shape, generator, values.get("activation_function") == "gelu").to(getattr(torch, dtype))
        for name, shape in shapes.items() if not (tied and name == "lm_head.weight")
    }
    ids = torch.randint(values["vocab_size"], (1, tokens), generator=generator)
    model = build(values, state)
    golden = {"input_ids": ids.int(), "logits_f64": logits(model, ids)}
    if stepwise:
        golden["stepwise_f64"] = one_by_one(build(values, state), ids)  # a fresh model: dynamic RoPE keeps the longest length seen

    written = {name.removeprefix(rename): tensor for name, tensor in state.items()}
    if extra == "head":
        written["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    if extra == "masks":
        mask = torch.ones(values["n_positions"], values["n_positions"], dtype=getattr(torch, dtype)).tril()[None, None]
        written |= {f"h.{i}.attn.bias": mask.clone() for i in range(values["n_layer"])}
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.iterdir():
        file.unlink()
    write_config(directory, model, dtype, spell)
    write_weights(directory, written, shards)
    save_file(golden, directory / "golden.safetensors")

    again, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    difference = (logits(again, ids) - golden["logits_f64"]).abs().max().item()
    changes = {}
    for switch in off:
        if isinstance(switch, str):
            other = build(values, {k: neutral(k, v) if re.search(switch, k) else v for k, v in state.items()})
        else:
            other = build(values | switch, state)
        changes[str(switch)] = (logits(other, ids) - golden["logits_f64"]).abs().max().item()
    if stepwise:
        changes["stepwise"] = (golden["stepwise_f64"] - golden["logits_f64"]).abs().max().item()
    good = difference <= SAME and all(change > VISIBLE for change in changes.values())
    size = sum(file.stat().st_size for file in directory.iterdir())
    problems = {key: value for key, value in report.items() if value}
    largest = golden["logits_f64"].abs().max().item()
    print(f"{'ok  ' if good else 'FAIL'} {directory.name}: {size} bytes, logits to {largest:.1f}, again {difference:.1e} {problems or ''}")
    for switch, change in changes.items():
        print(f"       {change:.1e} {switch}")
    return good


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1]) if sys.argv[1:] else root / "minillm-infer" / "tests" / "models"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with torch.no_grad():
        results = []
        for name, (values, written, off) in MODELS.items():
            results.append(make(out / name, values, off, **written))
    sys.exit(not all(results))
