//! Gradients by parameter name.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Gradients as Tape, Tensor};
use minillm_model::decoder::LanguageModel;
use minillm_model::ops::ComputeOptions;
use minillm_model::ops::adam_w::{readable_sum_of_squares, sum_of_squares};
use minillm_model::parameters::{self, ParameterVisitor};

/// Gradients by parameter name, each flattened to one dimension. A parameter that is not trained has none.
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

    /// Whether a backward pass leaves a gradient for a parameter of `module`.
    pub fn are_required_by(module: &impl Module) -> bool {
        struct Any(bool);
        impl ParameterVisitor for Any {
            fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<D>>) {
                self.0 |= param.val().is_require_grad();
            }
        }
        let mut any = Any(false);
        parameters::visit(module, &mut any);
        any.0
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

    /// All of them, in the order of their names.
    pub fn all(&self) -> Vec<Tensor<1>> {
        self.0.values().cloned().collect()
    }

    /// Takes out the gradient of a parameter, flat.
    pub fn take(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name)
    }

    /// The L2 norm of all gradients taken as one long vector: `[1]`.
    pub fn norm(&self, compute: ComputeOptions) -> Tensor<1> {
        let sum_of_squares = |gradient: &Tensor<1>| {
            if compute.adam_w { sum_of_squares(gradient.clone()) } else { readable_sum_of_squares(gradient) }
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
        let finite = |gradient: &Tensor<1>| readable_sum_of_squares(gradient).into_scalar::<f32>().is_finite();
        self.0.iter().find(|(_, gradient)| !finite(gradient)).map(|(name, _)| name.as_str())
    }
}
