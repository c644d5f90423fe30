//! Which parameters training changes: the one place that says so.
//!
//! What follows from it: a parameter that is not trained is no leaf of the graph, so that a backward pass computes no
//! gradient for it; without a gradient the optimiser neither changes it nor keeps a state for it; a checkpoint holds no state
//! for it and expects none; and `plan` counts neither. Its weights are part of every checkpoint all the same.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use minillm_model::parameters::{self, ParameterMapper};

use crate::config::RunConfig;

/// The parameters that are trained, by name. By default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trainable {
    /// How the names of those that are not begin.
    frozen: Vec<String>,
}

impl Trainable {
    /// Those of a run: all, as there is no key of the configuration yet that freezes any.
    pub fn of(_config: &RunConfig) -> Self {
        Self::default()
    }

    /// All but those whose names begin with one of `prefixes`.
    pub fn all_but<S: Into<String>>(prefixes: impl IntoIterator<Item = S>) -> Self {
        Self { frozen: prefixes.into_iter().map(Into::into).collect() }
    }

    /// Whether the parameter `name` is trained.
    pub fn contains(&self, name: &str) -> bool {
        !self.frozen.iter().any(|prefix| name.starts_with(prefix))
    }

    /// `module`, whose parameters are leaves of a graph, with those that are not trained taken out of it.
    pub fn freeze_others<M: Module>(&self, module: M) -> M {
        if self.frozen.is_empty() { module } else { parameters::map(module, &mut Freeze(self)) }
    }
}

struct Freeze<'a>(&'a Trainable);

impl ParameterMapper for Freeze<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0.contains(name) { param } else { param.set_require_grad(false) }
    }
}
