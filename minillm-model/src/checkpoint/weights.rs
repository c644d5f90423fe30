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
use super::naming::{Naming, Place};
use super::safetensors;
pub use super::tensor_files::{HostTensor, HostTensors, TensorFiles};
use super::tensor_files::{damaged, transpose};
use crate::config::ModelConfig;
use crate::decoder::LanguageModel;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::ops::ComputeOptions;
use crate::parameters::{self, ParameterMapper, ParameterVisitor, is_linear_weight};

/// Builds the model of `config` with the weights at `path`: a safetensors file, or a directory with one or several.
pub fn load(path: &Path, config: &ModelConfig, device: &Device) -> Result<LanguageModel> {
    let files = if path.is_dir() { safetensors::open_directory(path)? } else { safetensors::open(path)? };
    load_from(&files, Naming::found(config, &files), config, device)
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
    let places = naming.places(&parameters::expected(config));
    check(files, naming, config, &places)?;
    let mut by_parameter = HashMap::new();
    for (index, place) in places.iter().enumerate() {
        by_parameter.extend(place.parameters.iter().map(|(name, row)| (name.as_str(), (index, *row))));
    }
    let for_generation = ComputeOptions::fastest(device).decode_matvec && !device.is_autodiff();
    let mut fill = Fill { files, places: &places, by_parameter, open: HashMap::new(), for_generation, failed: None };
    let model = parameters::map(LanguageModel::new(config, device)?, &mut fill);
    fill.failed.map_or(Ok(model), Err)
}

/// Writes the weights of `model` to the safetensors file `path`, in f32.
pub fn save(disk: &dyn Disk, path: &Path, config: &ModelConfig, model: &LanguageModel) -> Result<()> {
    write(disk, path, &Naming::written(config).to_foreign(collect(model)?))
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
fn check(files: &TensorFiles, naming: Naming, config: &ModelConfig, places: &[Place]) -> Result<()> {
    let (mut missing, mut wrong_shape) = (Vec::new(), Vec::new());
    let mut unexpected: BTreeMap<_, _> = files.iter().filter(|(name, _)| !naming.is_no_parameter(name)).collect();
    for place in places {
        match unexpected.remove(place.tensor.as_str()) {
            None => missing.push(place.tensor.clone()),
            Some(stored) if stored.shape != place.shape => {
                wrong_shape.push(format!("{}: file {:?}, model {:?}", place.tensor, stored.shape, place.shape));
            }
            Some(_) => {}
        }
    }
    // Some files of tied models repeat the embedding; a different matrix there would be an error.
    let [output, embedding] = naming.tied();
    if config.tie_word_embeddings
        && unexpected.contains_key(output.as_str())
        && missing.is_empty()
        && files.read(&output)? == files.read(&embedding)?
    {
        unexpected.remove(output.as_str());
    }
    if missing.is_empty() && unexpected.is_empty() && wrong_shape.is_empty() {
        return Ok(());
    }
    let path = files.path_of(unexpected.keys().next().copied().unwrap_or_default());
    let unexpected = unexpected.into_keys().map(str::to_owned).collect();
    Err(Error::TensorMismatch { path, missing, unexpected, wrong_shape })
}

/// Puts the files' tensors into a model, one after the other, until reading one fails.
struct Fill<'a> {
    files: &'a TensorFiles,
    places: &'a [Place],
    /// The place of each parameter, and its first row there.
    by_parameter: HashMap<&'a str, (usize, usize)>,
    /// Fused tensors of which some parameters are still to come, by place, with how many.
    open: HashMap<usize, (HostTensor, usize)>,
    for_generation: bool,
    failed: Option<Error>,
}

impl Fill<'_> {
    fn read(&mut self, name: &str, rows: usize) -> Result<HostTensor> {
        let Some(&(index, first)) = self.by_parameter.get(name) else {
            return Err(damaged(&self.files.path_of(name), format!("lacks `{name}`")));
        };
        let place = &self.places[index];
        let read = || Ok(place.restore(self.files.read(&place.tensor)?));
        let tensor = if let [_] = place.parameters[..] {
            read()?
        } else {
            let (fused, left) = match self.open.remove(&index) {
                Some(open) => open,
                None => (read()?, place.parameters.len()),
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

impl ParameterMapper for Fill<'_> {
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
