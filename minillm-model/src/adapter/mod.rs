//! Adapters: a few numbers that change a model, in the files of Hugging Face's PEFT.
//!
//! LoRA (Hu et al. 2021, arXiv:2106.09685) leaves a matrix W alone and learns two thin ones beside it:
//!
//! ```text
//! W' = W + s B A        A: [r, in], B: [out, r], s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv:2312.03732)
//! ```
//!
//! An adapter is a directory: `adapter_config.json` and `adapter_model.safetensors`. Here it is merged into the weights as they are read, so
//! everything that takes a model takes one with its adapter.

mod config;
#[cfg(test)]
mod tests;
mod train;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use self::config::AdapterConfig;
pub use self::train::{LoraOptions, MATRICES, restore, save};
use crate::checkpoint::naming::Naming;
use crate::checkpoint::safetensors;
use crate::checkpoint::tensor_files::{Change, TensorFiles};
use crate::checkpoint::{self, CONFIG_FILE, Checkpoint};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The name of an adapter's weights.
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// An adapter as it was found.
#[derive(Debug)]
struct Adapter {
    directory: PathBuf,
    config: AdapterConfig,
    tensors: TensorFiles,
}

/// What an adapter's tensors do to one module of the model.
#[derive(Default)]
struct Parts {
    /// The module's name in the adapter, as patterns in its configuration mean it.
    own_name: String,
    a: Option<String>,
    b: Option<String>,
    /// Whether A and B are those of an embedding, `[r, V]` and `[D, r]`.
    is_embedding: bool,
    /// Tensors in place of the model's: `weight` or `bias`, and the adapter's tensor.
    whole: Vec<(&'static str, String)>,
}

/// Reads the model in the Hugging Face directory at `path` with the adapter in the directory `adapter` merged into it.
pub fn load(path: &Path, adapter: &Path, device: &Device) -> Result<Checkpoint> {
    let adapter = Adapter::open(adapter)?;
    if path.is_file() {
        return Err(adapter.refuse(
            WEIGHTS_FILE,
            format!("cannot be applied to `{}`: tensors of a GGUF file have other names", path.display()),
        ));
    }
    let mut checkpoint =
        checkpoint::load_changed(path, device, |files, naming, config| adapter.apply(files, naming, config))?;
    // What was learned with the adapter: tokens for turns, how a conversation is written, where an answer ends.
    let text = checkpoint::load_side_files(&adapter.directory)?;
    checkpoint.tokenizer = text.tokenizer.or(checkpoint.tokenizer);
    checkpoint.tokenizer_config = text.tokenizer_config.or(checkpoint.tokenizer_config);
    checkpoint.chat_template = text.chat_template.or(checkpoint.chat_template);
    checkpoint.end_ids = text.end_ids.unwrap_or(checkpoint.end_ids);
    checkpoint.warnings.extend(adapter.config.warnings);
    Ok(checkpoint)
}

/// Where the model lies that a path means, and the adapter for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// A Hugging Face directory, or a GGUF file.
    pub model: PathBuf,
    /// An adapter's directory.
    pub adapter: Option<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Located {
    /// Reads the model, with the adapter merged into it.
    pub fn load(&self, device: &Device) -> Result<Checkpoint> {
        match &self.adapter {
            Some(adapter) => load(&self.model, adapter, device),
            None => checkpoint::load(&self.model, device),
        }
    }
}

/// Finds the model at `path`: a model directory, a GGUF file, a checkpoint, a run, or an adapter (or the run of one) whose model is on this
/// machine.
pub fn locate(path: &Path) -> Result<Located> {
    let (directory, mut warnings) = match base_of(path) {
        Some(_) => (path.to_owned(), Vec::new()),
        None => checkpoint::locate::model_dir(path)?,
    };
    let Some(base) = base_of(&directory) else { return Ok(Located { model: directory, adapter: None, warnings }) };
    let (model, more) = checkpoint::locate::model_dir(&base)?;
    warnings.extend(more);
    Ok(Located { model, adapter: Some(directory), warnings })
}

/// The model that an adapter's directory names, if it is one without a model beside it and the model is on this machine: from here, or from
/// the adapter's directory.
pub fn base_of(directory: &Path) -> Option<PathBuf> {
    if directory.join(CONFIG_FILE).exists() {
        return None;
    }
    let base = PathBuf::from(config::base_model(directory)?);
    [base.clone(), directory.join(base)].into_iter().find(|path| path.exists())
}

impl Adapter {
    /// Reads the adapter in `directory`. One that is more than is computed here is an error that names it.
    fn open(directory: &Path) -> Result<Self> {
        let config = AdapterConfig::read(directory)?;
        let file = directory.join(WEIGHTS_FILE);
        let tensors = safetensors::open(&file)?;
        Ok(Self { directory: directory.to_owned(), config, tensors })
    }

    /// Notes in `files` what the adapter changes, and unties `config` where only one use of a tied matrix is changed.
    fn apply(&self, files: &mut TensorFiles, naming: Naming, config: &mut ModelConfig) -> Result<()> {
        let mut modules = BTreeMap::<String, Parts>::new();
        for (name, _) in self.tensors.iter() {
            let (module, role) = self.part(name)?;
            let parts = modules.entry(self.module_in(files, &module, name)?).or_default();
            parts.own_name = module;
            let earlier = match role {
                Role::A | Role::EmbeddingA => parts.a.replace(name.to_owned()),
                Role::B | Role::EmbeddingB => parts.b.replace(name.to_owned()),
                Role::Whole(of) => {
                    let earlier = parts.whole.iter().find(|(other, _)| *other == of).map(|(_, name)| name.clone());
                    parts.whole.push((of, name.to_owned()));
                    earlier
                }
            };
            if let Some(earlier) = earlier {
                let problem = format!("has `{earlier}` and `{name}`, of which only one can be used");
                return Err(self.refuse(WEIGHTS_FILE, problem));
            }
            parts.is_embedding |= matches!(role, Role::EmbeddingA | Role::EmbeddingB);
        }
        if modules.is_empty() {
            return Err(self.refuse(WEIGHTS_FILE, "holds no tensors".to_owned()));
        }

        let [head, embedding] = naming.tied();
        let changes_weight = |module: &str| {
            let parts = modules.get(module.trim_end_matches(".weight"));
            parts.is_some_and(|parts| parts.a.is_some() || parts.whole.iter().any(|(of, _)| *of == "weight"))
        };
        if config.tie_word_embeddings && (changes_weight(&head) || changes_weight(&embedding)) {
            // One matrix is read twice: the adapter changes what one of the readers sees.
            config.tie_word_embeddings = false;
            files.add_copy(&embedding, &head);
        }
        for (module, parts) in modules {
            self.change(files, naming, config, &module, parts)?;
        }
        Ok(())
    }

    /// The module that a tensor is for, and what it is to it.
    fn part(&self, name: &str) -> Result<(String, Role)> {
        let plain = name.strip_prefix("base_model.model.").unwrap_or(name);
        // Files that were saved by hand have the adapter's own name, too.
        let plain = plain.replace(".default.", ".");
        let endings = [
            (".lora_A.weight", Role::A),
            (".lora_B.weight", Role::B),
            (".lora_embedding_A", Role::EmbeddingA),
            (".lora_embedding_B", Role::EmbeddingB),
            (".base_layer.weight", Role::Whole("weight")),
            (".base_layer.bias", Role::Whole("bias")),
            (".weight", Role::Whole("weight")),
            (".bias", Role::Whole("bias")),
        ];
        for (ending, role) in endings {
            match plain.strip_suffix(ending) {
                Some(module) if !module.contains(".lora_") => return Ok((module.to_owned(), role)),
                _ => {}
            }
        }
        let what = match plain.rsplit('.').next() {
            Some("lora_magnitude_vector") => "DoRA's magnitudes, which are not computed here",
            _ if plain.contains(".lora_B.bias") => "a bias of LoRA's own (`lora_bias`), which is not computed here",
            _ => "of a kind that is not known",
        };
        Err(self.refuse(WEIGHTS_FILE, format!("has the tensor `{name}`, {what}")))
    }

    /// The module's name in the model's files. PEFT's begin as transformers' classes do.
    fn module_in(&self, files: &TensorFiles, module: &str, tensor: &str) -> Result<String> {
        let short = module.strip_prefix("transformer.").unwrap_or(module);
        let candidates = [module.to_owned(), short.to_owned(), format!("model.{module}")];
        let is_there = |name: &&String| files.get(&format!("{name}.weight")).is_some();
        // A tied model's files have no output matrix.
        let found =
            candidates.iter().find(is_there).cloned().or_else(|| (short == "lm_head").then(|| short.to_owned()));
        found.ok_or_else(|| {
            let problem = format!("has the tensor `{tensor}`, and the model no `{module}`: it is for another model");
            self.refuse(WEIGHTS_FILE, problem)
        })
    }

    /// Notes what `parts` do to a module.
    fn change(
        &self,
        files: &mut TensorFiles,
        naming: Naming,
        config: &mut ModelConfig,
        module: &str,
        parts: Parts,
    ) -> Result<()> {
        for (of, tensor) in parts.whole {
            let target = format!("{module}.{of}");
            let new = self.tensors.read(&tensor)?;
            // New tokens are new rows of the embedding and the output matrix.
            let is_grown = naming.tied().contains(&target)
                && matches!((files.get(&target).map(|stored| &stored.shape[..]), &new.shape[..]),
                    (Some(&[rows, width]), &[more, same]) if more > rows && width == same);
            if is_grown {
                config.vocab_size = new.shape[0];
            } else {
                self.check_shape(files, &target, &new.shape, &tensor)?;
            }
            files.change(target, Change::Replace(new));
        }
        let (a, b) = match (parts.a, parts.b) {
            (None, None) => return Ok(()),
            (Some(a), Some(b)) => (a, b),
            (a, b) => {
                let [there, missing] = if a.is_some() { ["A", "B"] } else { ["B", "A"] };
                let name = a.or(b).unwrap_or_default();
                let problem = format!("has LoRA's {there} as `{name}`, and no {missing}");
                return Err(self.refuse(WEIGHTS_FILE, problem));
            }
        };
        let (a, b) = (self.tensors.read(&a)?, self.tensors.read(&b)?);
        let (&[rank, inputs], &[outputs, columns]) = (&a.shape[..], &b.shape[..]) else {
            return Err(self.refuse(WEIGHTS_FILE, format!("has matrices of `{module}` that are none")));
        };
        if rank != columns || rank == 0 {
            let problem = format!("has an A of rank {rank} and a B of rank {columns} for `{module}`");
            return Err(self.refuse(WEIGHTS_FILE, problem));
        }
        // An embedding's rows are its inputs; GPT-2's `Conv1D` has them so, too.
        let is_transposed = parts.is_embedding || naming == Naming::Gpt2 && module.starts_with("h.");
        let target = format!("{module}.weight");
        let shape = if is_transposed { [inputs, outputs] } else { [outputs, inputs] };
        self.check_shape(files, &target, &shape, &target)?;
        let scale = self.config.scale(&parts.own_name, rank);
        files.change(target, Change::Add { a, b, scale, is_transposed });
        Ok(())
    }

    fn check_shape(&self, files: &TensorFiles, target: &str, shape: &[usize], tensor: &str) -> Result<()> {
        match files.get(target) {
            Some(stored) if stored.shape == shape => Ok(()),
            Some(stored) => {
                let problem =
                    format!("has `{tensor}` for a tensor of shape {shape:?}; the model's is {:?}", stored.shape);
                Err(self.refuse(WEIGHTS_FILE, problem))
            }
            None => {
                let problem = format!("has `{tensor}`, and the model no `{target}`");
                Err(self.refuse(WEIGHTS_FILE, problem))
            }
        }
    }

    fn refuse(&self, file: &str, problem: String) -> Error {
        refuse(&self.directory.join(file), problem)
    }
}

fn refuse(path: &Path, problem: String) -> Error {
    Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "an adapter is LoRA as PEFT writes it, for this very model".to_owned(),
    }
}

/// What a tensor of an adapter is.
#[derive(Clone, Copy, Debug)]
enum Role {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    /// The whole `weight` or `bias`.
    Whole(&'static str),
}
