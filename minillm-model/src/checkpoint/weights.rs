//! Weights into a model and out of it: every tensor of the files is used and every parameter is filled, or the error lists
//! both.
//!
//! Files keep the matrix of a linear layer as `[out, in]`, Burn as `[in, out]`. For training its numbers are transposed on the
//! way; for generation on a CPU they stay where they are, and only the dimensions change places. A tied model's file has no
//! `lm_head.weight`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use super::durable::Disk;
use super::file::damaged;
use super::naming::{Naming, TensorMapping};
use super::tensor_files::transpose;
pub use super::tensor_files::{HostTensor, HostTensors, TensorFiles};
use super::{prefixes, safetensors};
use crate::config::ModelConfig;
use crate::decoder::LanguageModel;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::ops::ComputeOptions;
use crate::parameters::{self, ParameterMapper, ParameterVisitor, is_linear_weight};

/// Builds the model of `config` with the weights at `path`: a safetensors file, or a directory with one or several.
pub fn load(path: &Path, config: &ModelConfig, device: &Device) -> Result<LanguageModel> {
    let opened = WeightFiles::open(path, config)?;
    load_from(&opened.files, opened.naming, config, device)
}

/// A model's weights as they are found.
pub(super) struct WeightFiles {
    /// The tensors, under plain names.
    pub files: TensorFiles,
    /// Whose names these are.
    pub naming: Naming,
    /// Whether there is an output matrix of its own although the configuration says that it is tied.
    pub has_own_head: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl WeightFiles {
    /// Opens the weights at `path`, a safetensors file or a directory with one or several, of a model of `config`.
    pub(super) fn open(path: &Path, config: &ModelConfig) -> Result<Self> {
        let files = if path.is_dir() { safetensors::open_directory(path)? } else { safetensors::open(path)? };
        let mut warnings = Vec::new();
        let wrappers: Vec<_> = prefixes::wrappers(&files).iter().map(|step| format!("`{step}.`")).collect();
        if !wrappers.is_empty() {
            let (path, wrappers) = (files.path_of(""), wrappers.join(" and "));
            warnings.push(format!(
                "`{}` was saved inside a wrapper; hint: other programs want the names without {wrappers}, so save the \
                 wrapped model itself",
                path.display()
            ));
        }
        let mut files = prefixes::without_wrappers(files)?;
        let naming = Naming::found(config, &files);
        let [head, embedding] = naming.tied();
        let mut has_own_head = false;
        if config.tie_word_embeddings && files.get(&head).is_some() {
            if files.get(&embedding).is_none() {
                // One matrix under two names: safetensors keeps the first.
                files = files.renamed(|name| if name == head { embedding.clone() } else { name.to_owned() })?;
            } else if files.read(&head)? == files.read(&embedding)? {
                files = files.without(&head);
            } else {
                has_own_head = true;
                warnings.push(format!(
                    "`tie_word_embeddings` is true, but `{head}` is another matrix than `{embedding}`: it is used, as in \
                     transformers 5"
                ));
            }
        }
        Ok(Self { files, naming, has_own_head, warnings })
    }
}

/// Builds the model of `config` with the weights in `files`.
pub fn load_from(files: &TensorFiles, naming: Naming, config: &ModelConfig, device: &Device) -> Result<LanguageModel> {
    // A config that claims more than the files hold must not make us build it.
    if config.num_hidden_layers > files.len() {
        let problem = format!("has {} tensors; `num_hidden_layers` is {}", files.len(), config.num_hidden_layers);
        return Err(Error::InvalidFile {
            path: files.path_of(""),
            problem,
            hint: "config and weights must come from the same model".to_owned(),
        });
    }
    config.validate()?;
    let mappings = naming.mappings(&parameters::expected(config));
    check(files, naming, config, &mappings)?;
    let mut by_parameter = HashMap::new();
    for (index, mapping) in mappings.iter().enumerate() {
        by_parameter.extend(mapping.parameters.iter().map(|(name, row)| (name.as_str(), (index, *row))));
    }
    let for_generation = ComputeOptions::fastest(device).decode_matvec && !device.is_autodiff();
    let mappings = &mappings[..];
    let mut load = LoadWeights { files, mappings, by_parameter, open: HashMap::new(), for_generation, failed: None };
    let model = parameters::map(LanguageModel::new(config, device)?, &mut load);
    load.failed.map_or(Ok(model), Err)
}

/// Writes the weights of `model` to the safetensors file `path`, in f32.
pub fn save(disk: &dyn Disk, path: &Path, model: &LanguageModel) -> Result<()> {
    write(disk, path, &Naming::written(model.config()).to_foreign(collect(model)?))
}

/// All parameters of a model, under their names, `[out, in]`.
pub fn collect(model: &LanguageModel) -> Result<HostTensors> {
    let mut collect = Collect(Ok(HostTensors::new()));
    parameters::visit(model, &mut collect);
    collect.0
}

/// All tensors of a safetensors file, as f32.
pub fn read(path: &Path) -> Result<HostTensors> {
    safetensors::open(path)?.read_all()
}

/// Writes tensors to a safetensors file as f32. The same tensors always give the same bytes. A value that is not finite
/// is an error, and nothing is written.
pub fn write(disk: &dyn Disk, path: &Path, tensors: &HostTensors) -> Result<()> {
    safetensors::write(disk, path, tensors, Encoding::F32)
}

/// Compares the files' tensors with the model's parameters before anything is read.
fn check(files: &TensorFiles, naming: Naming, config: &ModelConfig, mappings: &[TensorMapping]) -> Result<()> {
    let (mut missing, mut wrong_shape) = (Vec::new(), Vec::new());
    let mut unexpected: BTreeMap<_, _> = files.iter().filter(|(name, _)| !naming.is_no_parameter(name)).collect();
    for mapping in mappings {
        match unexpected.remove(mapping.tensor.as_str()) {
            None => missing.push(mapping.tensor.clone()),
            Some(stored) if stored.shape != mapping.shape => {
                wrong_shape.push(format!("{}: file {:?}, model {:?}", mapping.tensor, stored.shape, mapping.shape));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() && unexpected.is_empty() && wrong_shape.is_empty() {
        return Ok(());
    }
    let path = files.path_of(unexpected.keys().next().copied().unwrap_or_default());
    let unexpected: Vec<_> = unexpected.into_keys().map(str::to_owned).collect();
    let hint = hint(naming, config, &missing, &unexpected);
    Err(Error::TensorMismatch { path, missing, unexpected, wrong_shape, hint })
}

/// What the names tell about files that are not the model's.
fn hint(naming: Naming, config: &ModelConfig, missing: &[String], unexpected: &[String]) -> &'static str {
    // GPTQ and AWQ; FP8 and compressed-tensors; bitsandbytes; mlx.
    const QUANTIZED: [&str; 10] = [
        ".qweight",
        ".qzeros",
        ".g_idx",
        ".weight_scale",
        ".weight_scale_inv",
        ".weight_packed",
        ".SCB",
        ".absmax",
        ".scales",
        ".biases",
    ];
    let any = |is: &dyn Fn(&str) -> bool| unexpected.iter().any(|name| is(name));
    if any(&|name| name.contains(".lora_")) {
        "these are the weights of a LoRA adapter: give the model that it is for, and the adapter's directory with --adapter"
    } else if any(&|name| QUANTIZED.iter().any(|ending| name.ends_with(ending))) {
        "these weights are quantized, which is not supported: use the model as it was before, or a GGUF file"
    } else if any(&|name| name.starts_with("tok_embeddings.")) {
        "these are the names of Meta's or Mistral's own files: use the same model's files for transformers"
    } else if let ([head], []) = (missing, unexpected)
        && head == &naming.tied()[0]
    {
        "the file has no output matrix; if the model uses the embedding for it, set `tie_word_embeddings` to true in config.json"
    } else if let ([], [head]) = (missing, unexpected)
        && config.tie_word_embeddings
        && head == &naming.tied()[0]
    {
        "`tie_word_embeddings` is true, but this is another matrix than the embedding: set it to false in config.json"
    } else if matches!(naming, Naming::Gguf { .. }) {
        "the file is incomplete, or not of the architecture that it names; convert the model again"
    } else {
        "config.json and the weights must come from the same model; see that neither was edited or replaced"
    }
}

/// Puts the files' tensors into a model, one after the other, until reading one fails.
struct LoadWeights<'a> {
    files: &'a TensorFiles,
    mappings: &'a [TensorMapping],
    /// The mapping of each parameter, and its first row in the file's tensor.
    by_parameter: HashMap<&'a str, (usize, usize)>,
    /// Fused tensors of which some parameters are still to come, by mapping, with how many.
    open: HashMap<usize, (HostTensor, usize)>,
    for_generation: bool,
    failed: Option<Error>,
}

impl LoadWeights<'_> {
    fn read(&mut self, name: &str, rows: usize) -> Result<HostTensor> {
        let Some(&(index, first)) = self.by_parameter.get(name) else {
            return Err(damaged(&self.files.path_of(name), format!("lacks `{name}`")));
        };
        let mapping = &self.mappings[index];
        let read = || Ok(mapping.restore(self.files.read(&mapping.tensor)?));
        let tensor = if let [_] = mapping.parameters[..] {
            read()?
        } else {
            let (fused, left) = match self.open.remove(&index) {
                Some(open) => open,
                None => (read()?, mapping.parameters.len()),
            };
            let width = fused.shape[1..].iter().product::<usize>();
            let values = fused.values[first * width..(first + rows) * width].to_vec();
            let shape = [&[rows], &fused.shape[1..]].concat();
            if left > 1 {
                self.open.insert(index, (fused, left - 1));
            }
            HostTensor { shape, values }
        };
        Ok(tensor)
    }
}

impl ParameterMapper for LoadWeights<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        let shape = param.lazy_shape();
        let rows = if is_linear_weight(name) { shape[1] } else { shape[0] };
        let device = param.lazy_device();
        let tensor = |tensor: HostTensor| Tensor::from_data(TensorData::new(tensor.values, tensor.shape), &device);
        match self.read(name, rows) {
            Ok(read) if !is_linear_weight(name) => Param::from_tensor(tensor(read)),
            // One row at a time is multiplied fastest with the file's rows as they lie.
            Ok(read) if self.for_generation => Param::from_tensor(tensor(read).swap_dims(0, 1)),
            Ok(read) => Param::from_tensor(tensor(transpose(read))),
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

/// All parameters, until reading one fails.
struct Collect(Result<HostTensors>);

impl ParameterVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        let Ok(tensors) = &mut self.0 else { return };
        match to_host(name, &param.val()) {
            Ok(tensor) => {
                tensors.insert(name.to_owned(), tensor);
            }
            Err(error) => self.0 = Err(error),
        }
    }
}

/// Copies a parameter, or a tensor of its shape, from the device into the file's layout. Fails if the device does.
pub fn to_host<const D: usize>(name: &str, tensor: &Tensor<D>) -> Result<HostTensor> {
    let shape = tensor.dims().to_vec();
    let values = tensor.try_to_vec_as::<f32>().map_err(|error| Error::Device(error.to_string()))?;
    let tensor = HostTensor { shape, values };
    Ok(if is_linear_weight(name) { transpose(tensor) } else { tensor })
}
