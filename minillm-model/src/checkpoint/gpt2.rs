//! GPT-2's tensor names and layouts.
//!
//! GPT-2 keeps query, key and value in one matrix, `c_attn`, and its linear layers (`Conv1D`) as `[in, out]`: the
//! opposite of every other family.
//!
//! | GPT-2, under `transformer.` | here |
//! |---|---|
//! | `wte`, `wpe` | `model.embed_tokens`, `model.embed_positions` |
//! | `h.N.ln_1`, `h.N.ln_2`, `ln_f` | `input_layernorm`, `post_attention_layernorm`, `model.norm` |
//! | `h.N.attn.c_attn` | `self_attn.q_proj`, `k_proj`, `v_proj`, side by side |
//! | `h.N.attn.c_proj` | `self_attn.o_proj` |
//! | `h.N.mlp.c_fc`, `h.N.mlp.c_proj` | `mlp.up_proj`, `mlp.down_proj` |

use super::weights::{HostTensor, HostTensors, transpose};

const TOP: [(&str, &str); 3] =
    [("wte", "model.embed_tokens"), ("wpe", "model.embed_positions"), ("ln_f", "model.norm")];

const BLOCK: [(&str, &str); 5] = [
    ("ln_1", "input_layernorm"),
    ("ln_2", "post_attention_layernorm"),
    ("attn.c_proj", "self_attn.o_proj"),
    ("mlp.c_fc", "mlp.up_proj"),
    ("mlp.c_proj", "mlp.down_proj"),
];

const FUSED: &str = "attn.c_attn";
const SPLIT: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

/// GPT-2's tensors under our names. Names that are not GPT-2's are kept, to be reported by whoever checks.
pub fn to_llama(tensors: HostTensors) -> HostTensors {
    let mut renamed = HostTensors::new();
    for (name, tensor) in tensors {
        // Older files leave the prefix out; some hold the causal mask as `attn.bias`, which is no parameter.
        let short = name.strip_prefix("transformer.").unwrap_or(&name);
        if short.ends_with(".attn.bias") || short.ends_with(".attn.masked_bias") {
            continue;
        }
        let (module, kind) = short.rsplit_once('.').unwrap_or((short, ""));
        if let Some((_, ours)) = TOP.iter().find(|(theirs, _)| *theirs == module) {
            renamed.insert(format!("{ours}.{kind}"), tensor);
            continue;
        }
        let Some((block, module)) = module.strip_prefix("h.").and_then(|rest| rest.split_once('.')) else {
            renamed.insert(name, tensor);
            continue;
        };
        let tensor = if tensor.shape.len() == 2 { transposed(&tensor) } else { tensor };
        if module == FUSED && tensor.shape[0].is_multiple_of(3) {
            for (ours, part) in SPLIT.iter().zip(split_rows(&tensor)) {
                renamed.insert(format!("model.layers.{block}.{ours}.{kind}"), part);
            }
        } else if let Some((_, ours)) = BLOCK.iter().find(|(theirs, _)| *theirs == module) {
            renamed.insert(format!("model.layers.{block}.{ours}.{kind}"), tensor);
        } else {
            renamed.insert(name, tensor);
        }
    }
    renamed
}

/// Our tensors under GPT-2's names. The model must be one that GPT-2 can express.
pub fn from_llama(tensors: HostTensors) -> HostTensors {
    let mut renamed = HostTensors::new();
    for (name, tensor) in tensors {
        let (module, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
        if let Some((theirs, _)) = TOP.iter().find(|(_, ours)| *ours == module) {
            renamed.insert(format!("transformer.{theirs}.{kind}"), tensor);
            continue;
        }
        let Some((block, module)) = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
            renamed.insert(name, tensor);
            continue;
        };
        let theirs = match BLOCK.iter().find(|(_, ours)| *ours == module) {
            Some((theirs, _)) => theirs,
            None => FUSED,
        };
        let target = renamed
            .entry(format!("transformer.h.{block}.{theirs}.{kind}"))
            .or_insert_with(|| HostTensor { shape: [&[0], &tensor.shape[1..]].concat(), values: Vec::new() });
        // The map is sorted, so k, q, v arrive in this order: q goes before k, v after both.
        let at = if module == SPLIT[0] { 0 } else { target.values.len() };
        target.values.splice(at..at, tensor.values);
        target.shape[0] += tensor.shape[0];
    }
    for (name, tensor) in &mut renamed {
        if name.contains(".h.") && tensor.shape.len() == 2 {
            *tensor = transposed(tensor);
        }
    }
    renamed
}

fn transposed(tensor: &HostTensor) -> HostTensor {
    let (shape, values) = transpose(&tensor.shape, &tensor.values);
    HostTensor { shape, values }
}

/// Cuts a tensor into three of a third of the rows.
fn split_rows(tensor: &HostTensor) -> impl Iterator<Item = HostTensor> {
    let mut shape = tensor.shape.clone();
    shape[0] /= 3;
    let size = tensor.values.len() / 3;
    (0..3).map(move |part| HostTensor {
        shape: shape.clone(),
        values: tensor.values[part * size..(part + 1) * size].to_vec(),
    })
}
