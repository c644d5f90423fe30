//! AdamW with its state kept under the parameters' names.
//!
//! ```text
//! m = beta1 m + (1 - beta1) g          running mean of the gradient
//! v = beta2 v + (1 - beta2) g^2        running mean of its square
//! w = w (1 - lr decay) - lr m' / (sqrt(v') + eps)      m', v': divided by 1 - beta^t
//! ```
//!
//! The rule is Burn's (Loshchilov & Hutter 2019, arXiv:1711.05101). What is ours is around it: decay touches only
//! tensors of two or more dimensions (matrices and embeddings; a norm's weight should stay near one), the gradients are
//! clipped by their *global* norm, and the moments are stored by parameter name, because Burn's own optimiser knows
//! them by random ids that no checkpoint of weights keeps.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::optim::{AdamW as Rule, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{Device, Gradients as Tape, Tensor, TensorData};
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::decoder::LanguageModel;
use minillm_model::error::Error as ModelError;
use minillm_model::parameters::{self, ParameterMapper, ParameterVisitor};

use crate::config::OptimizerConfig;
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

/// `AdamW` and its moments.
pub struct AdamW {
    /// For tensors of two or more dimensions.
    decayed: Rule,
    /// For vectors.
    plain: Rule,
    moments: BTreeMap<String, Moments>,
}

/// The running means of one parameter.
#[derive(Clone)]
struct Moments {
    /// Of the parameter, as kept in memory.
    shape: Vec<usize>,
    state: AdamWState<1>,
}

impl AdamW {
    /// With moments at zero.
    pub fn new(config: &OptimizerConfig) -> Self {
        let rule = AdamWConfig::new()
            .with_beta_1(config.beta1 as f32)
            .with_beta_2(config.beta2 as f32)
            .with_epsilon(config.epsilon as f32);
        Self {
            decayed: rule.clone().with_weight_decay(config.weight_decay as f32).build(),
            plain: rule.with_weight_decay(0.0).build(),
            moments: BTreeMap::new(),
        }
    }

    /// Moves every parameter by one step.
    pub fn step(&mut self, model: LanguageModel, gradients: Gradients, learning_rate: f64) -> LanguageModel {
        parameters::map(model, &mut Update { optimizer: self, gradients: gradients.0, learning_rate })
    }

    /// Writes the moments: `NAME.exp_avg` (m) and `NAME.exp_avg_sq` (v), named as PyTorch names them.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = HostTensors::new();
        for (name, Moments { shape, state }) in &self.moments {
            let AdaptiveMomentumState { moment_1, moment_2, .. } = &state.momentum;
            for (suffix, moment) in [("exp_avg", moment_1), ("exp_avg_sq", moment_2)] {
                let HostTensor { values, .. } = weights::to_host("", moment);
                tensors.insert(format!("{name}.{suffix}"), HostTensor { shape: shape.clone(), values });
            }
        }
        Ok(weights::write(path, &tensors)?)
    }

    /// Reads the moments of `model` as they were after `steps` steps.
    pub fn load(&mut self, path: &Path, model: &LanguageModel, device: &Device, steps: usize) -> Result<()> {
        let mut tensors = weights::read(path)?;
        let (mut missing, mut wrong_shape) = (Vec::new(), Vec::new());
        for (name, shape) in parameters::list(model) {
            let mut take = |suffix: &str| {
                let full_name = format!("{name}.{suffix}");
                match tensors.remove(&full_name) {
                    None => missing.push(full_name),
                    Some(tensor) if tensor.shape != shape => {
                        wrong_shape.push(format!("{full_name}: file {:?}, model {shape:?}", tensor.shape));
                    }
                    Some(tensor) => {
                        let length = tensor.values.len();
                        return Some(Tensor::<1>::from_data(TensorData::new(tensor.values, [length]), device));
                    }
                }
                None
            };
            if let (Some(moment_1), Some(moment_2)) = (take("exp_avg"), take("exp_avg_sq")) {
                let momentum = AdaptiveMomentumState { time: steps, moment_1, moment_2, max_moment_2: None };
                self.moments.insert(name, Moments { shape, state: AdamWState { momentum } });
            }
        }
        if missing.is_empty() && wrong_shape.is_empty() && tensors.is_empty() {
            return Ok(());
        }
        let unexpected = tensors.into_keys().collect();
        Err(ModelError::TensorMismatch { path: path.to_owned(), missing, unexpected, wrong_shape }.into())
    }
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    gradients: BTreeMap<String, Tensor<1>>,
    learning_rate: f64,
}

impl ParameterMapper for Update<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove(name) else { return param };
        let (id, weight, mapper) = param.consume();
        let shape = weight.dims();
        // The rule works element by element, so it need not know the shape.
        let weight = weight.inner().reshape([-1]);
        let rule = if D >= 2 { &self.optimizer.decayed } else { &self.optimizer.plain };
        let state = self.optimizer.moments.remove(name).map(|moments| moments.state);
        let (weight, state) = rule.step(self.learning_rate, weight, gradient, state);
        if let Some(state) = state {
            self.optimizer.moments.insert(name.to_owned(), Moments { shape: shape.to_vec(), state });
        }
        let weight = Tensor::from_inner(weight.reshape(shape)).require_grad();
        Param::from_mapped_value(id, weight, mapper)
    }
}
