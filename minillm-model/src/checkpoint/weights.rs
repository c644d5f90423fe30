//! `model.safetensors`: every tensor in the file is used and every parameter is filled, or the error lists both.
//!
//! Files keep the matrix of a linear layer as `[out, in]`, Burn as `[in, out]`: it is transposed on the way. A tied
//! model's file has no `lm_head.weight`. The metadata says `format: pt`, without which transformers refuses the file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use fs_err as fs;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::gpt2;
use super::hf_config::Family;
use crate::config::ModelConfig;
use crate::decoder::LanguageModel;
use crate::error::{Error, Result};
use crate::parameters::{self, ParameterMapper, ParameterVisitor, is_linear_weight};

/// A tensor on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// Tensors by their LLaMA name, matrices `[out, in]`.
pub type HostTensors = BTreeMap<String, HostTensor>;

/// Builds the model of `config` with the weights in the file at `path`.
pub fn load(path: &Path, config: &ModelConfig, device: &Device) -> Result<LanguageModel> {
    let mut tensors = read(path)?;
    // A config.json that claims more layers than the file has tensors must not make us build them.
    if config.num_hidden_layers > tensors.len() {
        return Err(Error::InvalidFile {
            path: path.to_owned(),
            problem: format!("has {} tensors; `num_hidden_layers` is {}", tensors.len(), config.num_hidden_layers),
            hint: "config.json and the weights must come from the same model".to_owned(),
        });
    }
    let model = LanguageModel::new(config, device)?;
    if Family::of(config) == Family::Gpt2 {
        tensors = gpt2::to_llama(tensors);
    }
    // Some files of tied models repeat the embedding; a different matrix there would be an error.
    if config.tie_word_embeddings && tensors.get("lm_head.weight") == tensors.get("model.embed_tokens.weight") {
        tensors.remove("lm_head.weight");
    }
    check(path, &model, &tensors)?;
    Ok(parameters::map(model, &mut Fill { tensors }))
}

/// Writes the weights of `model` to `path`, in f32.
pub fn save(path: &Path, config: &ModelConfig, model: &LanguageModel) -> Result<()> {
    let mut collect = Collect(Ok(HostTensors::new()));
    parameters::visit(model, &mut collect);
    let mut tensors = collect.0?;
    if Family::of(config) == Family::Gpt2 {
        tensors = gpt2::from_llama(tensors);
    }
    write(path, &tensors)
}

/// All tensors of a safetensors file, as f32.
pub fn read(path: &Path) -> Result<HostTensors> {
    let bytes = fs::read(path).map_err(|source| Error::Io { action: "read", what: "the weights", source })?;
    let damaged = |problem: String| Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "the file is damaged or incomplete; copy it again".to_owned(),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(format!("not a safetensors file: {error}")))?;
    let mut tensors = HostTensors::new();
    for (name, view) in file.iter() {
        let values = to_f32(&view)
            .ok_or_else(|| damaged(format!("tensor `{name}` is {:?}; supported: F32, F16, BF16", view.dtype())))?;
        tensors.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// Writes tensors as f32. The same tensors always give the same bytes. A value that is not finite is an error, and nothing
/// is written.
pub fn write(path: &Path, tensors: &HostTensors) -> Result<()> {
    if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !tensor.values.iter().all(|value| value.is_finite())) {
        return Err(Error::NotFinite { path: path.to_owned(), tensor: name.clone() });
    }
    let bytes: Vec<Vec<u8>> =
        tensors.values().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let malformed = |error: safetensors::SafeTensorError| Error::Io {
        action: "write",
        what: "the tensors",
        source: std::io::Error::other(error),
    };
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, tensor), bytes)| Ok((name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(malformed)?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(malformed)?;
    fs::write(path, file).map_err(|source| Error::Io { action: "write", what: "the tensors", source })
}

fn to_f32(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => return None,
    })
}

/// Compares the file's tensors with the model's parameters before any is loaded.
fn check(path: &Path, model: &LanguageModel, tensors: &HostTensors) -> Result<()> {
    let (mut missing, mut wrong_shape) = (Vec::new(), Vec::new());
    let mut unexpected: BTreeMap<_, _> = tensors.iter().collect();
    for (name, mut shape) in parameters::list(model) {
        if is_linear_weight(&name) {
            shape.reverse();
        }
        match unexpected.remove(&name) {
            None => missing.push(name),
            Some(tensor) if tensor.shape != shape => {
                wrong_shape.push(format!("{name}: file {:?}, model {shape:?}", tensor.shape));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() && unexpected.is_empty() && wrong_shape.is_empty() {
        return Ok(());
    }
    let unexpected = unexpected.into_keys().cloned().collect();
    Err(Error::TensorMismatch { path: path.to_owned(), missing, unexpected, wrong_shape })
}

struct Fill {
    tensors: HostTensors,
}

impl ParameterMapper for Fill {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // `check` has seen that every name is there with the right shape.
        let Some(HostTensor { shape, values }) = self.tensors.remove(name) else { return param };
        let (shape, values) = if is_linear_weight(name) { transpose(&shape, &values) } else { (shape, values) };
        Param::from_data(TensorData::new(values, shape), &param.lazy_device())
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
    let (shape, values) = if is_linear_weight(name) { transpose(&shape, &values) } else { (shape, values) };
    Ok(HostTensor { shape, values })
}

/// Rows to columns.
pub(super) fn transpose(shape: &[usize], values: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let &[rows, columns] = shape else { return (shape.to_vec(), values.to_vec()) };
    let transposed = (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect();
    (vec![columns, rows], transposed)
}
