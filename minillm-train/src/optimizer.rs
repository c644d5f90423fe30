//! AdamW, and Muon beside it, with their memories kept under the parameters' names.
//!
//! ```text
//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101):
//! m = beta1 m + (1 - beta1) g          running mean of the gradient
//! v = beta2 v + (1 - beta2) g^2        running mean of its square
//! w = w (1 - lr decay) - lr m' / (sqrt(v') + eps)      m', v': divided by 1 - beta^t
//!
//! Muon (Jordan et al. 2024), for a block's matrices:
//! m = beta m + g
//! W = W (1 - lr decay) - lr 0.2 sqrt(max(rows, columns)) orthogonal(m)      all singular values of m set to about 1
//! ```
//!
//! AdamW moves every number by about the learning rate; Muon every *direction* of a matrix, also those in which the
//! gradient is weak. The rules are Burn's. What is ours is around them: decay touches only tensors of two or more
//! dimensions (matrices and embeddings; a norm's weight should stay near one), the gradients are clipped by their
//! *global* norm, and the memories are stored by parameter name, because Burn's own optimiser knows them by random ids
//! that no checkpoint of weights keeps.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumState;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::optim::{AdjustLrFn, Muon, MuonConfig, MuonState, RecordState, StateSink};
use burn::tensor::{Device, Gradients as Tape, Tensor, TensorData};
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::decoder::LanguageModel;
use minillm_model::error::Error as ModelError;
use minillm_model::parameters::{self, ParameterMapper, ParameterVisitor};

use crate::config::{OptimizerConfig, OptimizerKind};
use crate::error::Result;

/// Gradients by parameter name, each flattened to one dimension.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// What a backward pass left for the parameters of `model`.
    pub fn collect(model: &LanguageModel, tape: Tape) -> Self {
        struct Collect {
            gradients: BTreeMap<String, Tensor<1>>,
            tape: Tape,
        }
        impl ParameterVisitor for Collect {
            fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
                if let Some(gradient) = param.val().grad_remove(&mut self.tape) {
                    self.gradients.insert(name.to_owned(), gradient.reshape([-1]));
                }
            }
        }
        let mut collect = Collect { gradients: BTreeMap::new(), tape };
        parameters::visit(model, &mut collect);
        Self(collect.gradients)
    }

    /// Adds those of other sequences.
    pub fn add(&mut self, others: Self) {
        for (name, gradient) in others.0 {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.0.insert(name, sum);
        }
    }

    /// The L2 norm of all gradients taken as one long vector: `[1]`.
    pub fn norm(&self) -> Tensor<1> {
        let squares: Vec<_> = self.0.values().map(|gradient| gradient.clone().square().sum()).collect();
        Tensor::cat(squares, 0).sum().sqrt()
    }

    /// Multiplies all gradients by `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|(name, gradient)| (name, gradient * factor)).collect())
    }

    /// The first parameter whose gradient is not finite.
    pub fn first_not_finite(&self) -> Option<&str> {
        let finite = |gradient: &Tensor<1>| gradient.clone().abs().sum().into_scalar::<f32>().is_finite();
        self.0.iter().find(|(_, gradient)| !finite(gradient)).map(|(name, _)| name.as_str())
    }
}

/// The rules and what they remember of every parameter.
pub struct ModelOptimizer {
    /// For tensors of two or more dimensions.
    decayed: AdamW,
    /// For vectors.
    plain: AdamW,
    /// For the matrices of the blocks, if the configuration chose it.
    muon: Option<Muon>,
    memories: BTreeMap<String, Memory>,
}

/// What a rule remembers of one parameter. There are as many as parameters, so their size does not matter.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
enum Memory {
    /// Flattened: the rule works element by element.
    AdamW {
        shape: Vec<usize>,
        state: AdamWState<1>,
    },
    Muon {
        state: MuonState<2>,
    },
}

impl Memory {
    /// The tensors in it, by the ends of their names in the file; each has the parameter's shape.
    fn tensors(&self) -> Vec<(&'static str, HostTensor)> {
        match self {
            Self::AdamW { shape, state } => {
                let host = |moment| HostTensor { shape: shape.clone(), ..weights::to_host("", moment) };
                vec![("exp_avg", host(&state.momentum.moment_1)), ("exp_avg_sq", host(&state.momentum.moment_2))]
            }
            Self::Muon { state } => {
                // Burn keeps this tensor private; flattening a state is its way out.
                let mut sink = StateSink::default();
                state.state_flatten("", &mut sink);
                let buffer = sink.tensors.into_iter().map(|(_, data)| {
                    let shape = data.shape().to_vec();
                    HostTensor { shape, values: data.try_into_vec::<f32>().expect("a float tensor reads back as f32") }
                });
                buffer.map(|tensor| ("momentum_buffer", tensor)).collect()
            }
        }
    }
}

impl ModelOptimizer {
    /// Before the first step, with nothing to remember.
    pub fn new(config: &OptimizerConfig) -> Self {
        let adam_w = AdamWConfig::new()
            .with_beta_1(config.beta1 as f32)
            .with_beta_2(config.beta2 as f32)
            .with_epsilon(config.epsilon as f32);
        let decay = config.weight_decay as f32;
        let muon = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(decay)))
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW);
        Self {
            decayed: adam_w.clone().with_weight_decay(decay).build(),
            plain: adam_w.with_weight_decay(0.0).build(),
            muon: (config.kind == OptimizerKind::Muon).then(|| muon.build()),
            memories: BTreeMap::new(),
        }
    }

    /// Moves every parameter by one step.
    pub fn step(&mut self, model: LanguageModel, gradients: Gradients, learning_rate: f64) -> LanguageModel {
        parameters::map(model, &mut Update { optimizer: self, gradients: gradients.0, learning_rate })
    }

    /// Whether Muon moves the parameter. It orthogonalises a matrix between two hidden states; rows of an embedding or of
    /// the output matrix are tokens, which have nothing to be orthogonal to.
    fn is_muons(&self, name: &str, dimensions: usize) -> bool {
        self.muon.is_some() && dimensions == 2 && name.contains(".layers.")
    }

    /// Writes `NAME.exp_avg` and `NAME.exp_avg_sq` (`AdamW`'s m and v) or `NAME.momentum_buffer` (Muon's), as PyTorch
    /// names them.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors = self.memories.iter().flat_map(|(name, memory)| {
            memory.tensors().into_iter().map(move |(suffix, tensor)| (format!("{name}.{suffix}"), tensor))
        });
        Ok(weights::write(path, &tensors.collect())?)
    }

    /// Reads what was remembered of `model` after `steps` steps.
    pub fn load(&mut self, path: &Path, model: &LanguageModel, device: &Device, steps: usize) -> Result<()> {
        let mut file = MemoryFile { tensors: weights::read(path)?, missing: Vec::new(), wrong_shape: Vec::new() };
        for (name, shape) in parameters::list(model) {
            let memory = if self.is_muons(&name, shape.len()) {
                file.take(&name, "momentum_buffer", &shape).map(|tensor| {
                    let velocity = Tensor::from_data(TensorData::new(tensor.values, shape), device);
                    Memory::Muon { state: MuonState::new(MomentumState::new(velocity)) }
                })
            } else {
                let moments = (file.take(&name, "exp_avg", &shape), file.take(&name, "exp_avg_sq", &shape));
                let flat = |tensor: HostTensor| Tensor::<1>::from_data(tensor.values.as_slice(), device);
                if let (Some(moment_1), Some(moment_2)) = moments {
                    let (moment_1, moment_2) = (flat(moment_1), flat(moment_2));
                    let momentum = AdaptiveMomentumState { time: steps, moment_1, moment_2, max_moment_2: None };
                    Some(Memory::AdamW { shape, state: AdamWState { momentum } })
                } else {
                    None
                }
            };
            self.memories.extend(memory.map(|memory| (name, memory)));
        }
        file.finish(path)
    }
}

/// A file of memories from which every tensor must be taken, and no other asked for.
struct MemoryFile {
    tensors: HostTensors,
    missing: Vec<String>,
    wrong_shape: Vec<String>,
}

impl MemoryFile {
    fn take(&mut self, name: &str, suffix: &str, shape: &[usize]) -> Option<HostTensor> {
        let full_name = format!("{name}.{suffix}");
        match self.tensors.remove(&full_name) {
            None => self.missing.push(full_name),
            Some(tensor) if tensor.shape != shape => {
                self.wrong_shape.push(format!("{full_name}: file {:?}, model {shape:?}", tensor.shape));
            }
            Some(tensor) => return Some(tensor),
        }
        None
    }

    fn finish(self, path: &Path) -> Result<()> {
        let Self { tensors, missing, wrong_shape } = self;
        if missing.is_empty() && wrong_shape.is_empty() && tensors.is_empty() {
            return Ok(());
        }
        let unexpected = tensors.into_keys().collect();
        Err(ModelError::TensorMismatch { path: path.to_owned(), missing, unexpected, wrong_shape }.into())
    }
}

struct Update<'a> {
    optimizer: &'a mut ModelOptimizer,
    gradients: BTreeMap<String, Tensor<1>>,
    learning_rate: f64,
}

impl Update<'_> {
    fn by_adam_w(&mut self, name: &str, weight: Tensor<1>, gradient: Tensor<1>, shape: &[usize]) -> Tensor<1> {
        let rule = if shape.len() >= 2 { &self.optimizer.decayed } else { &self.optimizer.plain };
        let state = match self.optimizer.memories.remove(name) {
            Some(Memory::AdamW { state, .. }) => Some(state),
            _ => None,
        };
        let (weight, state) = rule.step(self.learning_rate, weight, gradient, state);
        let memory = state.map(|state| Memory::AdamW { shape: shape.to_vec(), state });
        self.optimizer.memories.extend(memory.map(|memory| (name.to_owned(), memory)));
        weight
    }

    fn by_muon(&mut self, name: &str, weight: Tensor<1>, gradient: Tensor<1>, shape: &[usize]) -> Tensor<1> {
        let (Some(muon), &[rows, columns]) = (&self.optimizer.muon, shape) else { return weight };
        let state = match self.optimizer.memories.remove(name) {
            Some(Memory::Muon { state }) => Some(state),
            _ => None,
        };
        let matrix = |flat: Tensor<1>| flat.reshape([rows, columns]);
        let (weight, state) = muon.step(self.learning_rate, matrix(weight), matrix(gradient), state);
        let memory = state.map(|state| Memory::Muon { state });
        self.optimizer.memories.extend(memory.map(|memory| (name.to_owned(), memory)));
        weight.reshape([rows * columns])
    }
}

impl ParameterMapper for Update<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove(name) else { return param };
        let (id, weight, mapper) = param.consume();
        let shape = weight.dims();
        let weight = weight.inner().reshape([-1]);
        let weight = if self.optimizer.is_muons(name, D) {
            self.by_muon(name, weight, gradient, &shape)
        } else {
            self.by_adam_w(name, weight, gradient, &shape)
        };
        let weight = Tensor::from_inner(weight.reshape(shape)).require_grad();
        Param::from_mapped_value(id, weight, mapper)
    }
}
