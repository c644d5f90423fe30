//! Which parameters training changes: the one place that says so.
//!
//! What follows from it: a parameter that is not trained is no leaf of the graph, so that a backward pass computes no
//! gradient for it; without a gradient the optimiser neither changes it nor keeps a state for it; a checkpoint holds no state
//! for it and expects none; and `plan` counts neither. Its weights are part of every checkpoint all the same.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use minillm_model::adapter::LoraOptions;
use minillm_model::config::ModelConfig;
use minillm_model::parameters::{self, ParameterMapper};

use crate::config::RunConfig;

/// The parameters that are trained, by name. By default all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trainable {
    /// How the names of those that are not begin.
    frozen: Vec<String>,
    /// An adapter, of which alone the parameters are trained.
    adapter: Option<LoraOptions>,
}

impl Trainable {
    /// Those of a run: all, or with `[lora]` the adapter's.
    pub fn of(config: &RunConfig) -> Self {
        Self { adapter: config.lora.as_ref().map(|lora| lora.options(true)), ..Self::default() }
    }

    /// Those of an adapter.
    pub fn adapter(options: LoraOptions) -> Self {
        Self { adapter: Some(options), ..Self::default() }
    }

    /// All but those whose names begin with one of `prefixes`.
    pub fn all_but<S: Into<String>>(prefixes: impl IntoIterator<Item = S>) -> Self {
        Self { frozen: prefixes.into_iter().map(Into::into).collect(), adapter: None }
    }

    /// Names and shapes of all parameters of a model of `config` that are trained.
    pub fn parameters(&self, config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        let added = self.adapter.iter().flat_map(|adapter| adapter.added(config));
        parameters::expected(config).into_iter().chain(added).filter(|(name, _)| self.contains(name)).collect()
    }

    /// Whether the parameter `name` is trained.
    pub fn contains(&self, name: &str) -> bool {
        let is_frozen = self.frozen.iter().any(|prefix| name.starts_with(prefix));
        !is_frozen && self.adapter.as_ref().is_none_or(|adapter| adapter.trains(name))
    }

    /// `module`, whose parameters are leaves of a graph, with those that are not trained taken out of it.
    pub fn freeze_others<M: Module>(&self, module: M) -> M {
        if *self == Self::default() { module } else { parameters::map(module, &mut Freeze(self)) }
    }
}

struct Freeze<'a>(&'a Trainable);

impl ParameterMapper for Freeze<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0.contains(name) { param } else { param.set_require_grad(false) }
    }
}
