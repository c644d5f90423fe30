//! Adapters that are trained: LoRA's matrices beside a model's, and the files they are saved in.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use serde_json::{Map, Value, json};

use super::config::ADAPTER_CONFIG_FILE;
use super::{WEIGHTS_FILE, refuse};
use crate::checkpoint::durable::{self, Disk};
use crate::checkpoint::naming::{Naming, TensorMapping};
use crate::checkpoint::safetensors;
use crate::checkpoint::tensor_files::{HostTensor, HostTensors, transpose};
use crate::checkpoint::weights::{self, to_host};
use crate::config::ModelConfig;
use crate::decoder::LanguageModel;
use crate::error::{Error, Result};
use crate::layers::lora::Lora;
use crate::parameters::{self, ParameterMapper, ParameterVisitor};
use crate::random::stream;

/// The matrices that can be adapted.
pub const MATRICES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// What an adapter is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// r.
    pub rank: usize,
    /// The size of the change: s = alpha / r.
    pub alpha: f64,
    /// Whether s = alpha / sqrt(r) instead.
    pub is_rank_stabilized: bool,
    /// Some of [`MATRICES`].
    pub targets: Vec<String>,
    /// Modules that are trained whole: `embed_tokens`, `lm_head`, `norm`.
    pub modules_to_save: Vec<String>,
}

impl LoraOptions {
    /// s, what the product of the two matrices is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / if self.is_rank_stabilized { (self.rank as f64).sqrt() } else { self.rank as f64 }
    }

    /// Whether a parameter of an adapted model is trained.
    pub fn trains(&self, name: &str) -> bool {
        name.contains(".lora.") || self.is_saved_whole(name)
    }

    fn is_saved_whole(&self, name: &str) -> bool {
        let module = name.rsplit('.').nth(1).unwrap_or_default();
        self.modules_to_save.iter().any(|saved| saved == module)
    }

    /// Names and shapes, as kept in memory, of the matrices that it adds to a model of `config`, in the model's order.
    pub fn added(&self, config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        let expected = parameters::expected(config).into_iter();
        let adapted = expected.filter_map(|(name, shape)| {
            let module = name.strip_suffix(".weight")?.to_owned();
            let is_target = self.targets.iter().any(|target| module.rsplit('.').next() == Some(target));
            is_target.then_some((module, shape))
        });
        let matrices = adapted.flat_map(|(module, shape)| {
            let (output, input) = (shape[0], shape[1]); // as in files
            [("a", vec![input, self.rank]), ("b", vec![self.rank, output])]
                .map(|(name, shape)| (format!("{module}.lora.{name}"), shape))
        });
        matrices.collect()
    }
}

impl LanguageModel {
    /// The same model with LoRA's matrices beside those of `options`: A uniform in +-1/sqrt(input), as PEFT draws it, a pure function of
    /// `seed` and the matrix's name; B zero, so that the model computes what it did. Fails if a target is none of the model's matrices.
    pub fn with_lora(mut self, options: &LoraOptions, seed: u64) -> Result<Self> {
        let device = self.device();
        let added = options.added(self.config());
        for target in &options.targets {
            if !added.iter().any(|(name, _)| name.contains(&format!(".{target}.lora."))) {
                return Err(Error::InvalidConfig {
                    field: "lora.targets",
                    problem: format!("names `{target}`, which the model does not have"),
                    hint: "name matrices of the model, or `all-linear`".to_owned(),
                });
            }
        }
        for (index, block) in self.model.layers.iter_mut().enumerate() {
            for (name, linear) in block.linears() {
                let place = format!("model.layers.{index}.{name}.lora.a");
                if !added.iter().any(|(name, _)| *name == place) {
                    continue;
                }
                let [input, output] = linear.weight.dims();
                let a = uniform(&place, seed, [input, options.rank], &device);
                let b = Tensor::zeros([options.rank, output], &device);
                linear.lora = Some(Lora { a: Param::from_tensor(a), b: Param::from_tensor(b), scale: options.scale() });
            }
        }
        Ok(self)
    }

    /// The same model with what its adapter adds merged into its matrices. For a model without autodiff.
    #[must_use]
    pub fn merged(mut self) -> Self {
        for (_, linear) in self.model.layers.iter_mut().flat_map(|block| block.linears()) {
            if let Some(lora) = linear.lora.take() {
                linear.weight = Param::from_tensor(linear.weight.val() + lora.product()); // [input, output]
            }
        }
        self
    }
}

fn uniform(name: &str, seed: u64, [input, rank]: [usize; 2], device: &Device) -> Tensor<2> {
    let bound = 1.0 / (input as f64).sqrt();
    let mut rng = stream(seed, name);
    let values: Vec<f32> = (0..input * rank).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect();
    Tensor::from_data(TensorData::new(values, [input, rank]), device)
}

/// One of PEFT's modules: a tensor of the model's files, and the adapted matrices in it, each with its first row. GPT-2 has queries, keys and
/// values in one; together they are an adapter of the sum of their ranks.
struct Module {
    /// As in PEFT's file, without `base_model.model.` before it.
    name: String,
    /// Rows of the whole matrix.
    outputs: usize,
    /// Our names, without `.weight`.
    parts: Vec<(String, usize)>,
}

fn modules(config: &ModelConfig, options: &LoraOptions) -> Vec<Module> {
    let naming = Naming::written(config);
    let expected = parameters::expected(config);
    let added = options.added(config);
    let is_adapted = |module: &str| added.iter().any(|(name, _)| name.strip_suffix(".lora.a") == Some(module));
    let module = |mapping: TensorMapping| {
        let parts =
            mapping.parameters.iter().filter_map(|(name, row)| Some((name.strip_suffix(".weight")?.to_owned(), *row)));
        let parts: Vec<_> = parts.filter(|(name, _)| is_adapted(name)).collect();
        let outputs = expected.iter().filter(|(name, _)| mapping.parameters.iter().any(|(part, _)| part == name));
        let outputs = outputs.map(|(_, shape)| shape[0]).sum();
        let name = in_peft(naming, mapping.tensor.strip_suffix(".weight")?);
        (!parts.is_empty()).then_some(Module { name, outputs, parts })
    };
    naming.mappings(&expected).into_iter().filter_map(module).collect()
}

/// A tensor's name as transformers' class has it.
fn in_peft(naming: Naming, tensor: &str) -> String {
    if naming == Naming::Gpt2 && !tensor.starts_with("lm_head") {
        format!("transformer.{tensor}")
    } else {
        tensor.to_owned()
    }
}

/// Writes the adapter of `model`, which has one of `options`, into `directory` as PEFT does. `base` is the model that it is for.
pub fn save(disk: &dyn Disk, directory: &Path, model: &LanguageModel, options: &LoraOptions, base: &str) -> Result<()> {
    let config = model.config();
    let naming = Naming::written(config);
    let trained = trained(model, options)?;
    let mut tensors = HostTensors::new();
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    let mut targets: Vec<String> = Vec::new();
    for Module { name, outputs, parts } in modules(config, options) {
        let rank = options.rank * parts.len();
        let (mut a, mut b) = (Vec::new(), vec![0.0; outputs * rank]);
        let mut inputs = 0;
        for (index, (part, first_row)) in parts.iter().enumerate() {
            let [part_a, part_b] =
                ["a", "b"].map(|matrix| transpose(trained[&format!("{part}.lora.{matrix}")].clone()));
            inputs = part_a.shape[1];
            a.extend(part_a.values); // [r, input] each, one under the other
            for (row, values) in part_b.values.chunks_exact(options.rank).enumerate() {
                let place = (first_row + row) * rank + index * options.rank;
                b[place..place + options.rank].copy_from_slice(values); // a block of its rows and its columns
            }
        }
        let tensor = |matrix: &str| format!("base_model.model.{name}.lora_{matrix}.weight");
        tensors.insert(tensor("A"), HostTensor { shape: vec![rank, inputs], values: a });
        tensors.insert(tensor("B"), HostTensor { shape: vec![outputs, rank], values: b });
        // `attn.c_proj` and `mlp.c_proj` need both parts of their names.
        let parts_of_name: Vec<&str> = name.rsplit('.').take(if naming == Naming::Gpt2 { 2 } else { 1 }).collect();
        let target = parts_of_name.into_iter().rev().collect::<Vec<_>>().join(".");
        if parts.len() > 1 {
            let count = parts.len() as f64;
            let alpha = options.alpha * if options.is_rank_stabilized { count.sqrt() } else { count };
            ranks.insert(target.replace('.', "\\."), json!(rank));
            alphas.insert(target.replace('.', "\\."), json!(alpha));
        }
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let mut saved = Vec::new();
    for (name, tensor) in &trained {
        if name.contains(".lora.") {
            continue;
        }
        let mut names = vec![name.clone()];
        if config.tie_word_embeddings && name == "model.embed_tokens.weight" {
            names.push("lm_head.weight".to_owned()); // PEFT knows no tied modules: each has its copy
        }
        for name in names {
            let theirs = in_peft(naming, &naming.name_of(&name));
            // PEFT looks for names that end so: `norm` alone would be every norm of the blocks, too.
            let last = theirs.rsplit('.').nth(1).unwrap_or_default();
            let module = if last == "norm" { "model.norm".to_owned() } else { last.to_owned() };
            if !saved.contains(&module) {
                saved.push(module);
            }
            tensors.insert(format!("base_model.model.{theirs}"), tensor.clone());
        }
    }
    weights::write(disk, &directory.join(WEIGHTS_FILE), &tensors)?;
    let text = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "use_rslora": options.is_rank_stabilized,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": targets,
        "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "fan_in_fan_out": naming == Naming::Gpt2,
        "inference_mode": true,
    });
    let written = durable::write_file(disk, &directory.join(ADAPTER_CONFIG_FILE), format!("{text:#}\n").as_bytes());
    written.map_err(|source| Error::Io { action: "write", what: "the adapter", source })
}

/// The parameters of an adapted model that are trained, as the files of models have them; LoRA's own as kept in memory.
fn trained(model: &LanguageModel, options: &LoraOptions) -> Result<HostTensors> {
    struct Collect<'a>(&'a LoraOptions, Result<HostTensors>);
    impl ParameterVisitor for Collect<'_> {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            if let (true, Ok(tensors)) = (self.0.trains(name), &mut self.1) {
                match to_host(name, &param.val()) {
                    Ok(tensor) => {
                        tensors.insert(name.to_owned(), tensor);
                    }
                    Err(error) => self.1 = Err(error),
                }
            }
        }
    }
    let mut collect = Collect(options, Ok(HostTensors::new()));
    parameters::visit(model, &mut collect);
    collect.1
}

/// The same model, which has an adapter of `options`, with the values of the one that [`save`] wrote into `directory`.
pub fn restore(model: LanguageModel, options: &LoraOptions, directory: &Path) -> Result<LanguageModel> {
    struct Restore<'a> {
        tensors: &'a HostTensors,
        missing: Option<String>,
    }
    impl ParameterMapper for Restore<'_> {
        fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.tensors.get(name) {
                None => param,
                Some(tensor) if tensor.shape[..] == param.lazy_shape()[..] => {
                    let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
                    param.map(|old| Tensor::from_data(data, &old.device()))
                }
                Some(_) => {
                    self.missing.get_or_insert_with(|| name.to_owned());
                    param
                }
            }
        }
    }
    let path = directory.join(WEIGHTS_FILE);
    let mut file = safetensors::open(&path)?.read_all()?;
    let naming = Naming::written(model.config());
    let mut ours = HostTensors::new();
    let mut take = |name: &str| {
        let tensor = file.remove(&format!("base_model.model.{name}"));
        tensor.ok_or_else(|| refuse(&path, format!("has no tensor `base_model.model.{name}`")))
    };
    for Module { name, outputs, parts } in modules(model.config(), options) {
        let (a, b) = (take(&format!("{name}.lora_A.weight"))?, take(&format!("{name}.lora_B.weight"))?);
        let rank = options.rank * parts.len();
        let inputs = a.values.len() / rank.max(1);
        if a.shape != [rank, inputs] || b.shape != [outputs, rank] {
            return Err(refuse(&path, format!("has matrices of another rank for `{name}`")));
        }
        for (index, (part, first_row)) in parts.iter().enumerate() {
            let of_rank = index * options.rank..(index + 1) * options.rank;
            let part_a = a.values[of_rank.start * inputs..of_rank.end * inputs].to_vec();
            let rows = outputs_of(model.config(), part);
            let lines = b.values.chunks_exact(rank).skip(*first_row).take(rows);
            let part_b: Vec<f32> = lines.flat_map(|line| &line[of_rank.clone()]).copied().collect();
            let tensor = |rows: usize, values: Vec<f32>| HostTensor { shape: vec![rows, values.len() / rows], values };
            ours.insert(format!("{part}.lora.a"), transpose(tensor(options.rank, part_a)));
            ours.insert(format!("{part}.lora.b"), transpose(tensor(rows, part_b)));
        }
    }
    for (name, _) in parameters::list(&model).into_iter().filter(|(name, _)| options.is_saved_whole(name)) {
        let tensor = take(&in_peft(naming, &naming.name_of(&name)))?;
        ours.insert(name.clone(), if parameters::is_linear_weight(&name) { transpose(tensor) } else { tensor });
    }
    let mut restore = Restore { tensors: &ours, missing: None };
    let model = parameters::map(model, &mut restore);
    restore.missing.map_or(Ok(model), |name| Err(refuse(&path, format!("has another shape than the model's `{name}`"))))
}

fn outputs_of(config: &ModelConfig, module: &str) -> usize {
    let expected = parameters::expected(config).into_iter();
    expected.filter(|(name, _)| name.strip_suffix(".weight") == Some(module)).map(|(_, shape)| shape[0]).sum()
}
