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
//! AdamW changes every number by about the learning rate; Muon every *direction* of a matrix, also those in which the
//! gradient is weak. `rules.rs` has both; Muon's arithmetic is Burn's. Decay is applied only to tensors of two or more
//! dimensions (matrices and embeddings; a norm's weight should stay near one), the gradients are clipped by their *global*
//! norm, the parameters are shared among the CPU cores, and the state is stored by parameter name, because Burn's own
//! optimiser knows it by random ids that no checkpoint of weights keeps.

mod rules;
mod state_file;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;
use minillm_model::checkpoint::durable::Disk;
use minillm_model::checkpoint::weights::{self, HostTensors};
use minillm_model::decoder::LanguageModel;
use minillm_model::parameters::{self, ParameterMapper};

use self::rules::ParameterRule;
use self::state_file::StateFile;
use crate::config::OptimizerConfig;
use crate::error::Result;
use crate::gradients::Gradients;
use crate::trainable::Trainable;
use crate::workers::Workers;

/// The rule and the state of every parameter that is trained.
pub struct ModelOptimizer {
    config: OptimizerConfig,
    trainable: Trainable,
    /// By parameter name, from the parameter's first step on.
    rules: BTreeMap<String, ParameterRule>,
}

impl ModelOptimizer {
    /// For all parameters, before the first step.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self { config: config.clone(), trainable: Trainable::default(), rules: BTreeMap::new() }
    }

    /// The same for the parameters of `trainable` alone.
    #[must_use]
    pub fn training(self, trainable: Trainable) -> Self {
        Self { trainable, ..self }
    }

    /// Which parameters are trained.
    pub fn trainable(&self) -> &Trainable {
        &self.trainable
    }

    /// Moves every parameter that has a gradient by one step along it, times `grad_factor`. With the fast form of `AdamW` the
    /// weights change in place, if `model` holds the only handle on them.
    pub fn step(
        &mut self,
        model: LanguageModel,
        gradients: Gradients,
        grad_factor: f64,
        learning_rate: f64,
        workers: &Workers,
    ) -> LanguageModel {
        let compute = model.compute();
        let in_place = compute.adam_w;
        let mut walk =
            ApplyRules { optimizer: self, gradients, in_place, grad_factor, learning_rate, updates: Vec::new() };
        let model = compute.run(|| parameters::map(model, &mut walk));

        // Updates made of many tensor operations are shared among the workers, parameter by parameter.
        let computed = workers.map(walk.updates, |Update { name, weight, gradient, rule }| {
            let (weight, rule) = rule.update(weight, gradient, grad_factor, learning_rate);
            (name, weight, rule)
        });
        let mut weights = BTreeMap::new();
        for (name, weight, rule) in computed {
            weights.insert(name.clone(), (rule.shape(), weight));
            self.rules.insert(name, rule);
        }
        if weights.is_empty() { model } else { parameters::map(model, &mut ApplyUpdates(weights)) }
    }

    /// [`ModelOptimizer::step`] where the device knows by how much the gradients are clipped and whether the step is taken: all parameters
    /// together, in few launches. `control`: as of [`step_control`](minillm_model::ops::multi_tensor::step_control).
    pub fn step_on_device(
        &mut self,
        model: LanguageModel,
        gradients: Gradients,
        control: &Tensor<1>,
        learning_rate: f64,
    ) -> LanguageModel {
        let fast = model.compute().multi_tensor;
        let mut taken = TakeParameters { optimizer: self, gradients, updates: Vec::new() };
        let model = parameters::map(model, &mut taken);
        let updates = std::mem::take(&mut taken.updates);
        let mut weights = BTreeMap::new();
        for (name, weight, rule) in rules::update_all(updates, control, learning_rate, fast) {
            weights.insert(name.clone(), (rule.shape(), weight));
            self.rules.insert(name, rule);
        }
        parameters::map(model, &mut ApplyUpdates(weights))
    }

    /// Takes back the count of the last [`ModelOptimizer::step_on_device`], which turned out to have been left out.
    pub fn uncount_step(&mut self) {
        self.rules.values_mut().for_each(ParameterRule::uncount);
    }

    /// Takes out the rule of a parameter with its state, or makes it.
    fn take_rule(&mut self, name: &str, shape: &[usize]) -> ParameterRule {
        self.rules.remove(name).unwrap_or_else(|| ParameterRule::new(&self.config, name, shape))
    }

    /// Writes `NAME.exp_avg` and `NAME.exp_avg_sq` (`AdamW`'s m and v) or `NAME.momentum_buffer` (Muon's), as PyTorch
    /// names them.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let mut tensors = HostTensors::new();
        for (name, rule) in &self.rules {
            let named = rule.tensors()?.into_iter().map(|(suffix, tensor)| (format!("{name}.{suffix}"), tensor));
            tensors.extend(named);
        }
        Ok(weights::write(disk, path, &tensors)?)
    }

    /// Reads what was remembered of `model` after `steps` steps.
    pub fn load(&mut self, path: &Path, model: &LanguageModel, steps: usize) -> Result<()> {
        let device = model.device().without_autodiff();
        let mut file = StateFile::read(path)?;
        for (name, shape) in parameters::list(model).into_iter().filter(|(name, _)| self.trainable.contains(name)) {
            let rule = ParameterRule::new(&self.config, &name, &shape);
            let restored = rule.restored(|suffix| file.take(&name, suffix, &shape), &device, steps);
            self.rules.extend(restored.map(|rule| (name, rule)));
        }
        file.finish(path)
    }
}

/// Applies the rule of every parameter that has a gradient: the fast form, which shares the numbers of one
/// parameter among the cores, at once and in place; the others are collected, to be shared among the workers.
struct ApplyRules<'a> {
    optimizer: &'a mut ModelOptimizer,
    gradients: Gradients,
    /// Whether `AdamW` has its fast form.
    in_place: bool,
    grad_factor: f64,
    learning_rate: f64,
    updates: Vec<Update>,
}

/// An update about to be computed; weight and gradient are flat.
struct Update {
    name: String,
    weight: Tensor<1>,
    gradient: Tensor<1>,
    rule: ParameterRule,
}

impl ParameterMapper for ApplyRules<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.take(name) else { return param }; // not trained
        match self.optimizer.take_rule(name, &param.dims()) {
            ParameterRule::AdamW(rule) if self.in_place => {
                let (factor, rate) = (self.grad_factor, self.learning_rate);
                let (param, rule) = with_value(param, |weight| rule.update_in_place(weight, gradient, factor, rate));
                self.optimizer.rules.insert(name.to_owned(), ParameterRule::AdamW(rule));
                param
            }
            rule => {
                let weight = param.val().inner().reshape([-1]);
                self.updates.push(Update { name: name.to_owned(), weight, gradient, rule });
                param
            }
        }
    }
}

/// Takes the weights that have a gradient out of the model, which is left with something in their place, so that nobody else holds them
/// when they are changed.
struct TakeParameters<'a> {
    optimizer: &'a mut ModelOptimizer,
    gradients: Gradients,
    updates: Vec<Update>,
}

impl ParameterMapper for TakeParameters<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.take(name) else { return param }; // not trained
        let shape = param.dims();
        let rule = self.optimizer.take_rule(name, &shape);
        let (id, weight, mapper) = param.consume();
        let nothing = Tensor::empty([1; D], &weight.device().without_autodiff());
        let weight = weight.inner().reshape([-1]);
        self.updates.push(Update { name: name.to_owned(), weight, gradient, rule });
        Param::from_mapped_value(id, Tensor::from_inner(nothing).require_grad(), mapper)
    }
}

/// Replaces the weights by those that were computed.
struct ApplyUpdates(BTreeMap<String, (Vec<usize>, Tensor<1>)>);

impl ParameterMapper for ApplyUpdates {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((shape, weight)) = self.0.remove(name) else { return param };
        let (id, _, mapper) = param.consume();
        let shape: [usize; D] = std::array::from_fn(|dim| shape[dim]);
        Param::from_mapped_value(id, Tensor::from_inner(weight.reshape(shape)).require_grad(), mapper)
    }
}

/// The parameter with a new value, which `update` makes of the old one, both flat and without autodiff.
fn with_value<const D: usize, T>(
    param: Param<Tensor<D>>,
    update: impl FnOnce(Tensor<1>) -> (Tensor<1>, T),
) -> (Param<Tensor<D>>, T) {
    let (id, weight, mapper) = param.consume();
    let shape = weight.dims();
    let (weight, more) = update(weight.inner().reshape([-1]));
    let weight = Tensor::from_inner(weight.reshape(shape)).require_grad();
    (Param::from_mapped_value(id, weight, mapper), more)
}

#[cfg(test)]
mod tests;
