//! AdamW, and Muon beside it, with their state kept under the parameters' names.
//!
//! ```text
//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101):
//! m = beta1 m + (1 - beta1) g          running mean of the gradient
//! v = beta2 v + (1 - beta2) g^2        running mean of its square
//! w = w (1 - lr decay) - lr m' / (sqrt(v') + eps)      m', v': divided by 1 - beta^t
//!
//! Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), for a block's matrices:
//! m = 0.95 m + g
//! O = orthogonal(g + 0.95 m)           all singular values set to about 1, by five Newton-Schulz iterations
//! W = W (1 - lr decay) - lr 0.2 sqrt(max(rows, columns)) O       the factor of arXiv:2502.16982: AdamW's step size
//! ```
//!
//! AdamW moves every number by about the learning rate; Muon every *direction* of a matrix, also those in which the
//! gradient is weak. The rules are Burn's. What is ours is around them: decay touches only tensors of two or more
//! dimensions (matrices and embeddings; a norm's weight should stay near one), the gradients are clipped by their
//! *global* norm, the parameters are shared among the CPU cores, and the state is stored by parameter name, because Burn's
//! own optimiser knows it by random ids that no checkpoint of weights keeps.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumState;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::optim::{AdjustLrFn, Muon, MuonConfig, MuonState, RecordState, StateSink};
use burn::tensor::{Device, Gradients as Tape, Tensor, TensorData};
use minillm_model::checkpoint::durable::Disk;
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::decoder::LanguageModel;
use minillm_model::error::Error as ModelError;
use minillm_model::ops::{self, AdamWStep, Kernels};
use minillm_model::parameters::{self, ParameterMapper, ParameterVisitor};

use crate::config::{OptimizerConfig, OptimizerKind};
use crate::error::Result;
use crate::workers::Workers;

/// Gradients by parameter name, each flattened to one dimension.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// What a backward pass left for the parameters of `model`.
    pub fn collect(model: &LanguageModel, tape: Tape) -> Self {
        Self::collect_from(model, tape, None).1
    }

    /// [`Gradients::collect`], and what it left for the leaf `x`.
    pub fn collect_from(model: &LanguageModel, mut tape: Tape, x: Option<&Tensor<3>>) -> (Option<Tensor<3>>, Self) {
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
        let dx = x.and_then(|x| x.grad_remove(&mut tape));
        let mut collect = Collect { gradients: BTreeMap::new(), tape };
        parameters::visit(model, &mut collect);
        (dx, Self(collect.gradients))
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
    pub fn norm(&self, kernels: Kernels) -> Tensor<1> {
        let sum_of_squares = |gradient: &Tensor<1>| {
            if kernels.adam_w { ops::adam_w::sum_of_squares(gradient.clone()) } else { gradient.clone().square().sum() }
        };
        Tensor::cat(self.0.values().map(sum_of_squares).collect(), 0).sum().sqrt()
    }

    /// Multiplies all gradients by `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|(name, gradient)| (name, gradient * factor)).collect())
    }

    /// The first parameter whose gradient is not finite, or has squares whose sum is not.
    pub fn first_not_finite(&self) -> Option<&str> {
        let finite = |gradient: &Tensor<1>| gradient.clone().square().sum().into_scalar::<f32>().is_finite();
        self.0.iter().find(|(_, gradient)| !finite(gradient)).map(|(name, _)| name.as_str())
    }
}

/// The rules and their state for every parameter.
pub struct ModelOptimizer {
    /// For tensors of two or more dimensions.
    decayed: AdamW,
    /// For vectors.
    plain: AdamW,
    /// For the matrices of the blocks, if the configuration chose it.
    muon: Option<Muon>,
    /// The numbers of the two rules of `AdamW`.
    rule: AdamWRule,
    states: BTreeMap<String, ParameterState>,
}

/// What does not change during a run. `weight_decay` is for tensors of two or more dimensions.
#[derive(Clone, Copy)]
struct AdamWRule {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
}

/// What a rule remembers of one parameter. There are as many as parameters, so their size does not matter.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
enum ParameterState {
    /// Flattened: the rule works element by element.
    AdamW {
        shape: Vec<usize>,
        state: AdamWState<1>,
    },
    Muon {
        state: MuonState<2>,
    },
}

impl ParameterState {
    /// The tensors in it, by the ends of their names in the file; each has the parameter's shape.
    fn tensors(&self) -> Result<Vec<(&'static str, HostTensor)>> {
        match self {
            Self::AdamW { shape, state } => {
                let host =
                    |moment| weights::to_host("", moment).map(|flat| HostTensor { shape: shape.clone(), ..flat });
                let AdaptiveMomentumState { moment_1, moment_2, .. } = &state.momentum;
                Ok(vec![("exp_avg", host(moment_1)?), ("exp_avg_sq", host(moment_2)?)])
            }
            Self::Muon { state } => {
                // Burn keeps this tensor private; flattening a state is its way out.
                let mut sink = StateSink::default();
                state.state_flatten("", &mut sink);
                let buffer = sink.tensors.into_iter().map(|(_, data)| {
                    let shape = data.shape().to_vec();
                    let values = data.try_into_vec::<f32>().map_err(|error| ModelError::Device(error.to_string()))?;
                    Ok(("momentum_buffer", HostTensor { shape, values }))
                });
                buffer.collect()
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
            rule: AdamWRule {
                beta1: config.beta1,
                beta2: config.beta2,
                epsilon: config.epsilon,
                weight_decay: config.weight_decay,
            },
            states: BTreeMap::new(),
        }
    }

    /// Moves every parameter by one step along its gradient times `grad_factor`. With the fast form of `AdamW` the weights
    /// change where they lie, if `model` holds the only handle on them.
    pub fn step(
        &mut self,
        model: LanguageModel,
        gradients: Gradients,
        grad_factor: f64,
        learning_rate: f64,
        workers: &Workers,
    ) -> LanguageModel {
        let in_place = model.kernels().adam_w;
        let mut gradients = gradients.0;

        // What moves by Burn's rules, one tensor operation after the other; the parameters are shared among the workers.
        let has_muon = self.muon.is_some();
        let takes = |name: &str, dimensions| !in_place || (has_muon && is_hidden_matrix(name, dimensions));
        let mut updates = Vec::new();
        let mut gather = Gather { takes, gradients: &mut gradients, states: &mut self.states, updates: &mut updates };
        parameters::visit(&model, &mut gather);
        let moved = workers.map(updates, |mut update| {
            if grad_factor < 1.0 {
                update.gradient = update.gradient * grad_factor;
            }
            self.moved(update, learning_rate)
        });
        let mut weights = BTreeMap::new();
        for (name, weight, state) in moved {
            self.states.extend(state.map(|state| (name.clone(), state)));
            weights.insert(name, weight);
        }
        let model = parameters::map(model, &mut Replace(weights));

        // What moves in place: everything else.
        let mut in_place = InPlace { gradients, states: &mut self.states, rule: self.rule, grad_factor, learning_rate };
        model.kernels().run(|| parameters::map(model, &mut in_place))
    }

    /// The parameter's name, its new value (flat) and its new state.
    fn moved(&self, update: Update, learning_rate: f64) -> (String, Tensor<1>, Option<ParameterState>) {
        let Update { name, shape, weight, gradient, state } = update;
        if let (Some(muon), &[rows, columns], true) = (&self.muon, &shape[..], self.uses_muon(&name, shape.len())) {
            let matrix = |flat: Tensor<1>| flat.reshape([rows, columns]);
            let state = match state {
                Some(ParameterState::Muon { state }) => Some(state),
                _ => None,
            };
            let (weight, state) = muon.step(learning_rate, matrix(weight), matrix(gradient), state);
            return (name, weight.reshape([-1]), state.map(|state| ParameterState::Muon { state }));
        }
        let rule = if shape.len() >= 2 { &self.decayed } else { &self.plain };
        let state = match state {
            Some(ParameterState::AdamW { state, .. }) => Some(state),
            _ => None,
        };
        let (weight, state) = rule.step(learning_rate, weight, gradient, state);
        (name, weight, state.map(|state| ParameterState::AdamW { shape, state }))
    }

    /// Whether Muon moves the parameter.
    fn uses_muon(&self, name: &str, dimensions: usize) -> bool {
        self.muon.is_some() && is_hidden_matrix(name, dimensions)
    }

    /// Writes `NAME.exp_avg` and `NAME.exp_avg_sq` (`AdamW`'s m and v) or `NAME.momentum_buffer` (Muon's), as PyTorch
    /// names them.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let mut tensors = HostTensors::new();
        for (name, state) in &self.states {
            let named = state.tensors()?.into_iter().map(|(suffix, tensor)| (format!("{name}.{suffix}"), tensor));
            tensors.extend(named);
        }
        Ok(weights::write(disk, path, &tensors)?)
    }

    /// Reads what was remembered of `model` after `steps` steps.
    pub fn load(&mut self, path: &Path, model: &LanguageModel, device: &Device, steps: usize) -> Result<()> {
        let mut file = StateFile { tensors: weights::read(path)?, missing: Vec::new(), wrong_shape: Vec::new() };
        for (name, shape) in parameters::list(model) {
            let state = if self.uses_muon(&name, shape.len()) {
                file.take(&name, "momentum_buffer", &shape).map(|tensor| {
                    let velocity = Tensor::from_data(TensorData::new(tensor.values, shape), device);
                    ParameterState::Muon { state: MuonState::new(MomentumState::new(velocity)) }
                })
            } else {
                let moments = (file.take(&name, "exp_avg", &shape), file.take(&name, "exp_avg_sq", &shape));
                let flat = |tensor: HostTensor| Tensor::<1>::from_data(tensor.values.as_slice(), device);
                if let (Some(moment_1), Some(moment_2)) = moments {
                    let (moment_1, moment_2) = (flat(moment_1), flat(moment_2));
                    let momentum = AdaptiveMomentumState { time: steps, moment_1, moment_2, max_moment_2: None };
                    Some(ParameterState::AdamW { shape, state: AdamWState { momentum } })
                } else {
                    None
                }
            };
            self.states.extend(state.map(|state| (name, state)));
        }
        file.finish(path)
    }
}

/// Whether Muon is meant for the parameter: it orthogonalises a matrix between two hidden states. Rows of an embedding or
/// of the output matrix are tokens, which have nothing to be orthogonal to.
fn is_hidden_matrix(name: &str, dimensions: usize) -> bool {
    dimensions == 2 && name.contains(".layers.")
}

/// A file of states from which every tensor must be taken, and no other asked for.
struct StateFile {
    tensors: HostTensors,
    missing: Vec<String>,
    wrong_shape: Vec<String>,
}

impl StateFile {
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
        let hint = "the optimiser's state must be that of the model beside it; use another checkpoint";
        Err(ModelError::TensorMismatch { path: path.to_owned(), missing, unexpected, wrong_shape, hint }.into())
    }
}

/// One parameter about to move; weight and gradient flattened.
struct Update {
    name: String,
    shape: Vec<usize>,
    weight: Tensor<1>,
    gradient: Tensor<1>,
    state: Option<ParameterState>,
}

/// Takes the parameters that `takes` names by name and dimensions, with their gradients and states.
struct Gather<'a, F> {
    takes: F,
    gradients: &'a mut BTreeMap<String, Tensor<1>>,
    states: &'a mut BTreeMap<String, ParameterState>,
    updates: &'a mut Vec<Update>,
}

impl<F: Fn(&str, usize) -> bool> ParameterVisitor for Gather<'_, F> {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        if !(self.takes)(name, D) {
            return;
        }
        let Some(gradient) = self.gradients.remove(name) else { return };
        let weight = param.val().inner();
        self.updates.push(Update {
            name: name.to_owned(),
            shape: weight.dims().to_vec(),
            weight: weight.reshape([-1]),
            gradient,
            state: self.states.remove(name),
        });
    }
}

/// Moves every parameter that has a gradient by the fast form of `AdamW`.
struct InPlace<'a> {
    gradients: BTreeMap<String, Tensor<1>>,
    states: &'a mut BTreeMap<String, ParameterState>,
    rule: AdamWRule,
    grad_factor: f64,
    learning_rate: f64,
}

impl ParameterMapper for InPlace<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove(name) else { return param };
        let (id, weight, mapper) = param.consume();
        let shape = weight.dims();
        let (time, mean, square) = match self.states.remove(name) {
            Some(ParameterState::AdamW { state: AdamWState { momentum }, .. }) => {
                (momentum.time + 1, momentum.moment_1, momentum.moment_2)
            }
            _ => (1, gradient.zeros_like(), gradient.zeros_like()),
        };
        let AdamWRule { beta1, beta2, epsilon, weight_decay } = self.rule;
        let weight_decay = if D >= 2 { weight_decay } else { 0.0 };
        let (learning_rate, grad_factor) = (self.learning_rate, self.grad_factor);
        let step = AdamWStep { time, learning_rate, beta1, beta2, epsilon, weight_decay, grad_factor };
        let weight = weight.inner().reshape([-1]);
        let [weight, moment_1, moment_2] = ops::adam_w::adam_w(weight, gradient, mean, square, step);
        let momentum = AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2: None };
        let state = ParameterState::AdamW { shape: shape.to_vec(), state: AdamWState { momentum } };
        self.states.insert(name.to_owned(), state);
        Param::from_mapped_value(id, Tensor::from_inner(weight.reshape(shape)).require_grad(), mapper)
    }
}

/// Puts the moved parameters back.
struct Replace(BTreeMap<String, Tensor<1>>);

impl ParameterMapper for Replace {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(weight) = self.0.remove(name) else { return param };
        let (id, old, mapper) = param.consume();
        let weight = Tensor::from_inner(weight.reshape(old.dims())).require_grad();
        Param::from_mapped_value(id, weight, mapper)
    }
}
