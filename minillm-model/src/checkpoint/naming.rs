//! What other formats call our tensors, and how they lay them out.
//!
//! A parameter's name here is its name in a Hugging Face LLaMA file, so LLaMA, Mistral, Qwen2 and Qwen3 need no table.
//! Two formats do:
//!
//! | here | GPT-2 | GGUF |
//! |---|---|---|
//! | `model.embed_tokens`, `model.embed_positions` | `wte`, `wpe` | `token_embd`, `position_embd` |
//! | `model.norm`, `lm_head` | `ln_f` | `output_norm`, `output` |
//! | `input_layernorm`, `post_attention_layernorm` | `h.N.ln_1`, `h.N.ln_2` | `blk.N.attn_norm`, `blk.N.ffn_norm` |
//! | `self_attn.{q,k,v}_proj` | `h.N.attn.c_attn`, one under the other | `blk.N.attn_{q,k,v}`; for GPT-2 `blk.N.attn_qkv` |
//! | `self_attn.o_proj` | `h.N.attn.c_proj` | `blk.N.attn_output` |
//! | `self_attn.{q,k}_norm` | | `blk.N.attn_{q,k}_norm` |
//! | `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj` | `h.N.mlp.c_fc`, `h.N.mlp.c_proj` | `blk.N.ffn_gate`, `ffn_up`, `ffn_down` |
//!
//! GPT-2's linear layers (`Conv1D`) are `[in, out]`, the opposite of every other family. And GGUF's architecture `llama`
//! turns neighbouring values (2i, 2i + 1) where everyone else turns halves (i, i + E/2), so the rows of its query and key
//! matrices are in another order.
//!
//! What programs put before these names, `transformer.` for one, `prefixes` takes away.

use std::collections::HashMap;

use super::family::Family;
use super::prefixes;
use super::tensor_files::{HostTensor, HostTensors, TensorFiles, transpose};
use crate::config::ModelConfig;
use crate::parameters::is_linear_weight;

/// A format's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Ours.
    Llama,
    /// GPT-2's, without `transformer.`, as in OpenAI's own files. All readers take these, mlx-lm no others: so we write them.
    Gpt2,
    /// llama.cpp's.
    Gguf {
        /// Query heads whose rows pair neighbours; 0 if they pair halves, as here.
        query_heads: usize,
        /// The same for key heads.
        key_heads: usize,
        /// Query, key and value in one matrix, as GPT-2 has them.
        fused: bool,
    },
}

/// How a tensor of a file differs from ours, which are `[out, in]` with pairs of halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Same,
    Transposed,
    /// The rows of so many heads, each with the two values of a pair side by side.
    Neighbours(usize),
}

/// A tensor of a file and the parameters in it, one under the other.
#[derive(Clone, Debug)]
pub(crate) struct TensorMapping {
    /// Its name in the file.
    pub tensor: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Our names, each with its first row.
    pub parameters: Vec<(String, usize)>,
    layout: Layout,
}

type Table<'a> = &'a [(&'a str, &'a str)];

const GPT2: (Table, Table) = (
    &[("wte", "model.embed_tokens"), ("wpe", "model.embed_positions"), ("ln_f", "model.norm")],
    &[
        ("ln_1", "input_layernorm"),
        ("ln_2", "post_attention_layernorm"),
        ("attn.c_attn", "self_attn.q_proj"),
        ("attn.c_attn", "self_attn.k_proj"),
        ("attn.c_attn", "self_attn.v_proj"),
        ("attn.c_proj", "self_attn.o_proj"),
        ("mlp.c_fc", "mlp.up_proj"),
        ("mlp.c_proj", "mlp.down_proj"),
    ],
);

const GGUF: (Table, Table) = (
    &[
        ("token_embd", "model.embed_tokens"),
        ("position_embd", "model.embed_positions"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
    ],
    &[
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
);

impl Naming {
    /// The names under which a Hugging Face directory of this model is written.
    pub fn written(config: &ModelConfig) -> Self {
        if Family::of(config) == Family::Gpt2 { Self::Gpt2 } else { Self::Llama }
    }

    /// The names in files of this model. A GPT-2 with an output matrix of its own is written under our names, but by others
    /// under GPT-2's.
    pub(super) fn found(config: &ModelConfig, files: &TensorFiles) -> Self {
        let tied = ModelConfig { tie_word_embeddings: true, ..config.clone() };
        let is_gpt2 = || files.iter().any(|(name, _)| name.starts_with(prefixes::GPT2_BLOCKS));
        match Self::written(&tied) {
            Self::Gpt2 if is_gpt2() => Self::Gpt2,
            _ => Self::written(config),
        }
    }

    /// llama.cpp's names for a model of this architecture, `llama`, `qwen2`, `qwen3` or `gpt2`.
    pub fn gguf(architecture: &str, config: &ModelConfig) -> Self {
        let neighbours = architecture == "llama";
        let heads = |count: usize| if neighbours { count } else { 0 };
        Self::Gguf {
            query_heads: heads(config.num_attention_heads),
            key_heads: heads(config.num_key_value_heads),
            fused: architecture == "gpt2",
        }
    }

    /// Whether a file may hold this tensor though no parameter is made from it: what older programs stored beside the
    /// weights (causal masks, rotary frequencies), and the frequency factors that GGUF's config is read from.
    pub(super) fn is_no_parameter(self, tensor: &str) -> bool {
        match self {
            Self::Llama => ["inv_freq", "cos_cached", "sin_cached"]
                .iter()
                .any(|table| tensor.strip_suffix(table).is_some_and(|module| module.ends_with(".rotary_emb."))),
            Self::Gpt2 => tensor.ends_with(".attn.bias") || tensor.ends_with(".attn.masked_bias"),
            Self::Gguf { .. } => tensor == "rope_freqs.weight",
        }
    }

    /// The output matrix's name, and that of the embedding it repeats in some files of tied models.
    pub(crate) fn tied(self) -> [String; 2] {
        ["lm_head.weight", "model.embed_tokens.weight"].map(|name| self.foreign(name).0)
    }

    /// Where the parameters are, given with their shapes (`[out, in]`).
    pub(crate) fn mappings(self, parameters: &[(String, Vec<usize>)]) -> Vec<TensorMapping> {
        let mut mappings: Vec<TensorMapping> = Vec::new();
        let mut by_tensor = HashMap::new();
        for (name, shape) in parameters {
            let (tensor, layout) = self.foreign(name);
            if let Some(&index) = by_tensor.get(&tensor) {
                let mapping: &mut TensorMapping = &mut mappings[index];
                let row = mapping.shape[0];
                mapping.parameters.push((name.clone(), row));
                mapping.shape[0] += shape[0];
            } else {
                by_tensor.insert(tensor.clone(), mappings.len());
                let parameters = vec![(name.clone(), 0)];
                mappings.push(TensorMapping { tensor, shape: shape.clone(), parameters, layout });
            }
        }
        for mapping in &mut mappings {
            if mapping.layout == Layout::Transposed {
                mapping.shape.reverse();
            }
        }
        mappings
    }

    /// Our tensors as the format has them. They are those of a model, complete.
    pub fn to_foreign(self, mut tensors: HostTensors) -> HostTensors {
        let shapes: Vec<_> = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
        let mut foreign = HostTensors::new();
        for mut mapping in self.mappings(&shapes) {
            // Sorted by name they come as k, q, v.
            mapping.parameters.sort_by_key(|(name, _)| (name.contains("v_proj"), name.contains("k_proj")));
            let parts = mapping.parameters.iter().filter_map(|(name, _)| tensors.remove(name));
            let joined = parts.reduce(|mut joined, part| {
                joined.shape[0] += part.shape[0];
                joined.values.extend(part.values);
                joined
            });
            foreign.extend(joined.map(|tensor| (mapping.tensor.clone(), mapping.layout.to_file(tensor))));
        }
        foreign
    }

    /// The name in the format's files of the tensor that the parameter `name` is in.
    pub(crate) fn name_of(self, name: &str) -> String {
        self.foreign(name).0
    }

    fn foreign(self, name: &str) -> (String, Layout) {
        let (tables, blocks) = match self {
            Self::Llama => return (name.to_owned(), Layout::Same),
            Self::Gpt2 => (GPT2, prefixes::GPT2_BLOCKS),
            Self::Gguf { .. } => (GGUF, "blk."),
        };
        let find = |table: Table, ours: &str| {
            table.iter().find(|(_, name)| *name == ours).map(|(theirs, _)| (*theirs).to_owned())
        };
        let (module, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let block = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let is_part_of_qkv = |ours: &str| ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&ours);
        let theirs = match (block, self) {
            (Some((index, ours)), Self::Gguf { fused: true, .. }) if is_part_of_qkv(ours) => {
                Some(format!("{blocks}{index}.attn_qkv"))
            }
            (Some((index, ours)), _) => find(tables.1, ours).map(|theirs| format!("{blocks}{index}.{theirs}")),
            (None, _) => find(tables.0, module),
        };
        // A name that the table does not have (`lm_head` in GPT-2) keeps itself.
        let foreign = theirs.map_or_else(|| name.to_owned(), |theirs| format!("{theirs}.{kind}"));
        (foreign, self.layout(name, module))
    }

    fn layout(self, name: &str, module: &str) -> Layout {
        match self {
            // GPT-2's output matrix is an ordinary linear layer.
            Self::Gpt2 if is_linear_weight(name) && module != "lm_head" => Layout::Transposed,
            Self::Gguf { query_heads, .. } if query_heads > 0 && module.ends_with("q_proj") => {
                Layout::Neighbours(query_heads)
            }
            Self::Gguf { key_heads, .. } if key_heads > 0 && module.ends_with("k_proj") => {
                Layout::Neighbours(key_heads)
            }
            _ => Layout::Same,
        }
    }
}

impl TensorMapping {
    /// The file's tensor in our layout.
    pub(super) fn restore(&self, tensor: HostTensor) -> HostTensor {
        match self.layout {
            Layout::Same => tensor,
            Layout::Transposed => transpose(tensor),
            Layout::Neighbours(heads) => {
                reorder(tensor, heads, |pair, half, pairs| (half * pairs + pair, 2 * pair + half))
            }
        }
    }
}

impl Layout {
    fn to_file(self, tensor: HostTensor) -> HostTensor {
        match self {
            Self::Same => tensor,
            Self::Transposed => transpose(tensor),
            Self::Neighbours(heads) => {
                reorder(tensor, heads, |pair, half, pairs| (2 * pair + half, half * pairs + pair))
            }
        }
    }
}

/// Puts the rows of each head in another order: `rows` says to which row which one comes, for one half of a pair.
fn reorder(tensor: HostTensor, heads: usize, rows: impl Fn(usize, usize, usize) -> (usize, usize)) -> HostTensor {
    let width = tensor.shape[1..].iter().product::<usize>();
    let head = tensor.shape[0] / heads; // rows of a head: E
    let mut values = vec![0.0; tensor.values.len()];
    for first in (0..heads).map(|index| index * head) {
        for pair in 0..head / 2 {
            for half in [0, 1] {
                let (to, from) = rows(pair, half, head / 2);
                let (to, from) = ((first + to) * width, (first + from) * width);
                values[to..to + width].copy_from_slice(&tensor.values[from..from + width]);
            }
        }
    }
    HostTensor { values, ..tensor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(rows: usize, columns: usize, first: f32) -> HostTensor {
        let values = (0..rows * columns).map(|i| first + i as f32).collect();
        HostTensor { shape: vec![rows, columns], values }
    }

    fn block() -> HostTensors {
        let name = |part: &str| format!("model.layers.3.self_attn.{part}_proj.weight");
        HostTensors::from([
            (name("q"), tensor(8, 2, 0.0)),
            (name("k"), tensor(4, 2, 100.0)),
            (name("v"), tensor(4, 2, 200.0)),
        ])
    }

    fn first_column(tensor: &HostTensor) -> Vec<f32> {
        tensor.values.chunks(tensor.shape[1]).map(|row| row[0]).collect()
    }

    #[test]
    fn ggufs_llama_pairs_neighbours() {
        let naming = Naming::Gguf { query_heads: 2, key_heads: 1, fused: false };
        let foreign = naming.to_foreign(block());
        // Rows 0, 1 | 2, 3 of a head of four become 0, 2, 1, 3.
        assert_eq!(first_column(&foreign["blk.3.attn_q.weight"]), [0.0, 4.0, 2.0, 6.0, 8.0, 12.0, 10.0, 14.0]);
        assert_eq!(first_column(&foreign["blk.3.attn_k.weight"]), [100.0, 104.0, 102.0, 106.0]);
        assert_eq!(first_column(&foreign["blk.3.attn_v.weight"]), [200.0, 202.0, 204.0, 206.0]);
    }

    #[test]
    fn gpt2_fuses_q_k_v_and_turns_them() {
        let foreign = Naming::Gpt2.to_foreign(block());
        let fused = &foreign["h.3.attn.c_attn.weight"];
        assert_eq!((foreign.len(), &fused.shape[..]), (1, &[2, 16][..]));
        let row: Vec<f32> =
            (0..8).map(|i| 2.0 * i as f32).chain([100.0, 102.0, 104.0, 106.0, 200.0, 202.0, 204.0, 206.0]).collect();
        assert_eq!(fused.values[..16], row);
    }

    #[test]
    fn mappings_lead_back() {
        let namings = [
            Naming::Llama,
            Naming::Gpt2,
            Naming::Gguf { query_heads: 2, key_heads: 1, fused: false },
            Naming::Gguf { query_heads: 0, key_heads: 0, fused: true },
        ];
        let ours = block();
        // The order of the model: q, k, v.
        let shapes: Vec<_> = ["q", "k", "v"]
            .map(|part| format!("model.layers.3.self_attn.{part}_proj.weight"))
            .map(|name| (name.clone(), ours[&name].shape.clone()))
            .into();
        for naming in namings {
            let foreign = naming.to_foreign(ours.clone());
            for mapping in naming.mappings(&shapes) {
                assert_eq!(foreign[&mapping.tensor].shape, mapping.shape, "{naming:?}");
                let restored = mapping.restore(foreign[&mapping.tensor].clone());
                for (name, row) in &mapping.parameters {
                    let part = &restored.values[row * 2..][..ours[name].values.len()];
                    assert_eq!(part, ours[name].values, "{naming:?} {name}");
                }
            }
        }
    }
}
