//! What programs put before a tensor's name: the classes that a model was wrapped in when it was saved.
//!
//! | before the name | by |
//! |---|---|
//! | nothing, where `model.` or `transformer.` is usual | a model without its output matrix (`LlamaModel`, `GPT2Model`), as in embedding models |
//! | `_orig_mod.` | `torch.compile`, also within the name |
//! | `module.` | `DataParallel`, `DistributedDataParallel`, `DeepSpeed` |
//! | `_fsdp_wrapped_module.`, `_checkpoint_wrapped_module.`, `_forward_module.` | FSDP, activation checkpointing, Lightning |
//! | anything | a class of one's own that has the model as a field |
//!
//! Here the names become those of the family's plain files. Nothing is guessed by it: afterwards every tensor must have its
//! place and every parameter its tensor, as ever.

use super::tensor_files::TensorFiles;
use crate::error::Result;

/// What GPT-2's blocks begin with; their number follows.
pub(super) const GPT2_BLOCKS: &str = "h.";
const LLAMA_BLOCKS: &str = "layers.";

/// Steps of a name that wrappers add.
const WRAPPERS: [&str; 5] =
    ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

const HEAD: &str = "lm_head.weight";

/// The parts of which one family's names are built.
struct Names {
    /// What its blocks begin with.
    blocks: &'static str,
    /// What is in a block, of which one is in every file.
    in_block: &'static [&'static str],
    /// The parts of a model without its output matrix.
    parts: &'static [&'static str],
    /// What is before them in the files of a whole model.
    base: &'static str,
    /// What is before them in the names that are looked for.
    wanted: &'static str,
}

const FAMILIES: [Names; 2] = [
    Names {
        blocks: LLAMA_BLOCKS,
        in_block: &["input_layernorm", "self_attn", "mlp", "post_attention_layernorm"],
        parts: &["embed_tokens", "embed_positions", "layers", "norm", "rotary_emb"],
        base: "model.",
        wanted: "model.",
    },
    Names {
        blocks: GPT2_BLOCKS,
        in_block: &["ln_1", "attn", "mlp", "ln_2"],
        parts: &["wte", "wpe", "h", "ln_f"],
        base: "transformer.",
        wanted: "",
    },
];

/// The steps of the tensors' names that wrappers added.
pub(super) fn wrappers(files: &TensorFiles) -> Vec<&'static str> {
    let has = |wrapper: &&str| files.iter().any(|(name, _)| name.split('.').any(|step| step == *wrapper));
    WRAPPERS.into_iter().filter(has).collect()
}

/// The tensors under their family's plain names. Where two would get the same one, that is an error.
pub(super) fn without_wrappers(files: TensorFiles) -> Result<TensorFiles> {
    let files = files.renamed(unwrapped)?;
    let found = FAMILIES.iter().find_map(|names| names.prefix(&files).map(|prefix| (names, prefix)));
    match found {
        Some((names, prefix)) => files.renamed(|name| names.plain(name, &prefix)),
        None => Ok(files),
    }
}

fn unwrapped(name: &str) -> String {
    let steps: Vec<_> = name.split('.').filter(|step| !WRAPPERS.contains(step)).collect();
    steps.join(".")
}

impl Names {
    /// What is before the blocks in these files: `model.`, nothing, or another prefix. `None` if there is no block.
    fn prefix(&self, files: &TensorFiles) -> Option<String> {
        let first = format!("{}0.", self.blocks);
        let in_block = |rest: &str| rest.split('.').next().is_some_and(|step| self.in_block.contains(&step));
        files.iter().find_map(|(name, _)| {
            let (at, _) = name.match_indices(&first).find(|(at, _)| {
                let begins = *at == 0 || name.as_bytes()[at - 1] == b'.';
                begins && in_block(&name[at + first.len()..])
            })?;
            Some(name[..at].to_owned())
        })
    }

    /// A name as it is looked for, given as it is in a file with this prefix.
    fn plain(&self, name: &str, prefix: &str) -> String {
        let outer = prefix.strip_suffix(self.base).unwrap_or(prefix);
        if [outer, prefix].iter().any(|before| name.strip_prefix(before) == Some(HEAD)) {
            return HEAD.to_owned();
        }
        let part = name.strip_prefix(prefix).filter(|rest| {
            let first = rest.split('.').next().unwrap_or(rest);
            self.parts.contains(&first)
        });
        part.map_or_else(|| name.to_owned(), |part| format!("{}{part}", self.wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(names: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensor = |name: &&str| {
            let values = vec![0.0];
            ((*name).to_owned(), super::super::tensor_files::HostTensor { shape: vec![1], values })
        };
        super::super::weights::write(&super::super::durable::System, &path, &names.iter().map(tensor).collect())
            .unwrap();
        let files = without_wrappers(super::super::safetensors::open(&path).unwrap()).unwrap();
        files.iter().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn wrappers_are_taken_off() {
        let llama =
            ["lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"];
        assert_eq!(plain(&llama), llama);
        for prefix in ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "net.", "my.model.", "model."]
        {
            let wrapped: Vec<_> = llama.iter().map(|name| format!("{prefix}{name}")).collect();
            assert_eq!(plain(&wrapped.iter().map(String::as_str).collect::<Vec<_>>()), llama, "{prefix}");
        }
        let bare = [
            "embed_tokens.weight",
            "layers.0.mlp.up_proj.weight",
            "layers.0._orig_mod.mlp.down_proj.weight",
            "norm.weight",
        ];
        assert_eq!(
            plain(&bare),
            [
                "model.embed_tokens.weight",
                "model.layers.0.mlp.down_proj.weight",
                "model.layers.0.mlp.up_proj.weight",
                "model.norm.weight"
            ]
        );
        let gpt2 = ["h.0.attn.c_attn.weight", "lm_head.weight", "ln_f.bias", "wpe.weight", "wte.weight"];
        assert_eq!(plain(&gpt2), gpt2);
        for prefix in ["transformer.", "_orig_mod.transformer.", "net.transformer."] {
            let head = prefix.strip_suffix("transformer.").unwrap();
            let wrapped: Vec<_> = gpt2
                .iter()
                .map(|name| format!("{}{name}", if name.starts_with("lm_head") { head } else { prefix }))
                .collect();
            assert_eq!(plain(&wrapped.iter().map(String::as_str).collect::<Vec<_>>()), gpt2, "{prefix}");
        }
        // What has no place keeps its name, to be reported.
        let other = ["model.layers.0.mlp.up_proj.weight", "score.weight", "vision.layers.0.mlp.up_proj.weight"];
        assert_eq!(plain(&other), other);
    }

    #[test]
    fn one_name_for_two_tensors_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensor = super::super::tensor_files::HostTensor { shape: vec![1], values: vec![0.0] };
        let names = ["layers.0.mlp.up_proj.weight", "module.layers.0.mlp.up_proj.weight"];
        let tensors = names.map(|name| (name.to_owned(), tensor.clone())).into();
        super::super::weights::write(&super::super::durable::System, &path, &tensors).unwrap();
        let error = without_wrappers(super::super::safetensors::open(&path).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("model.safetensors") && error.contains("`module.layers.0.mlp.up_proj.weight`"),
            "{error}"
        );
    }
}
