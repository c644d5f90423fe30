//! How a parameter is updated, and what the rule remembers of its earlier gradients.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumState;
use burn::optim::{AdjustLrFn, Muon as BurnMuon, MuonConfig, MuonState, Optimizer};
use burn::tensor::{Device, Tensor, TensorData};
use minillm_model::checkpoint::weights::{self, HostTensor};
use minillm_model::ops::{self, AdamWStep};

use crate::burn_compat::momentum_buffer;
use crate::config::{OptimizerConfig, OptimizerKind};
use crate::error::Result;

/// The rule of one parameter with its state. Chosen once, by [`ParameterRule::new`]. There are as many as parameters, so
/// their size does not matter.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
pub(super) enum ParameterRule {
    AdamW(AdamW),
    Muon(Muon),
}

impl ParameterRule {
    /// The rule of the parameter `name`, before its first step.
    pub(super) fn new(config: &OptimizerConfig, name: &str, shape: &[usize]) -> Self {
        match (config.kind, shape) {
            (OptimizerKind::Muon, &[rows, columns]) if is_between_hidden_states(name) => {
                Self::Muon(Muon::new(config, [rows, columns]))
            }
            // Muon is for matrices between hidden states; AdamW has the rest.
            (OptimizerKind::AdamW | OptimizerKind::Muon, _) => Self::AdamW(AdamW::new(config, shape)),
        }
    }

    /// One step by tensor operations along the gradient times `grad_factor`. Weight and gradient are flat and without autodiff.
    pub(super) fn update(
        self,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        grad_factor: f64,
        learning_rate: f64,
    ) -> (Tensor<1>, Self) {
        match self {
            Self::AdamW(rule) => {
                let (weight, rule) = rule.step(ops::adam_w::readable, weight, gradient, grad_factor, learning_rate);
                (weight, Self::AdamW(rule))
            }
            Self::Muon(rule) => {
                let (weight, rule) = rule.update(weight, gradient * grad_factor, learning_rate);
                (weight, Self::Muon(rule))
            }
        }
    }

    /// The tensors of the state, by the ends of their names in the file; each has the parameter's shape.
    pub(super) fn tensors(&self) -> Result<Vec<(&'static str, HostTensor)>> {
        match self {
            Self::AdamW(rule) => rule.tensors(),
            Self::Muon(rule) => rule.tensors(),
        }
    }

    /// The rule as it was after `steps` steps, from the tensors that `take` finds by the ends of their names; `None` if it
    /// does not find them all.
    pub(super) fn restored(
        self,
        take: impl FnMut(&'static str) -> Option<HostTensor>,
        device: &Device,
        steps: usize,
    ) -> Option<Self> {
        match self {
            Self::AdamW(rule) => rule.restored(take, device, steps).map(Self::AdamW),
            Self::Muon(rule) => rule.restored(take, device).map(Self::Muon),
        }
    }
}

/// Whether Muon is meant for the matrix `name`: it orthogonalises a matrix between two hidden states. Rows of an embedding
/// or of the output matrix are tokens, which have nothing to be orthogonal to.
fn is_between_hidden_states(name: &str) -> bool {
    name.contains(".layers.")
}

/// `AdamW`, on the parameter as one long vector: the rule works element by element.
#[derive(Clone)]
pub(super) struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// Zero for vectors.
    weight_decay: f64,
    shape: Vec<usize>,
    /// `None` before the first step.
    moments: Option<Moments>,
}

/// The running means of a parameter's gradient and of its square.
#[derive(Clone)]
struct Moments {
    /// The number of gradients in them.
    time: usize,
    mean: Tensor<1>,
    square: Tensor<1>,
}

/// The readable or the fast form of the rule.
type Form = fn(Tensor<1>, Tensor<1>, Tensor<1>, Tensor<1>, AdamWStep) -> [Tensor<1>; 3];

impl AdamW {
    fn new(config: &OptimizerConfig, shape: &[usize]) -> Self {
        Self {
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            weight_decay: if shape.len() >= 2 { config.weight_decay } else { 0.0 },
            shape: shape.to_vec(),
            moments: None,
        }
    }

    /// The fast form: one pass over everything, in place if the caller holds the only handle on it. The gradient is multiplied
    /// by `grad_factor` first.
    pub(super) fn update_in_place(
        self,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        grad_factor: f64,
        learning_rate: f64,
    ) -> (Tensor<1>, Self) {
        self.step(ops::adam_w::adam_w, weight, gradient, grad_factor, learning_rate)
    }

    fn step(
        self,
        form: Form,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        grad_factor: f64,
        learning_rate: f64,
    ) -> (Tensor<1>, Self) {
        let Moments { time, mean, square } = self.moments.unwrap_or_else(|| {
            // Adding to -0.0 changes nothing, not even the sign of a zero: the first means are the gradient's own, as Burn's are.
            let nothing = || gradient.full_like(-0.0);
            Moments { time: 0, mean: nothing(), square: nothing() }
        });
        let Self { beta1, beta2, epsilon, weight_decay, .. } = self;
        let time = time + 1;
        let step = AdamWStep { time, learning_rate, beta1, beta2, epsilon, weight_decay, grad_factor };
        let [weight, mean, square] = form(weight, gradient, mean, square, step);
        (weight, Self { moments: Some(Moments { time, mean, square }), ..self })
    }

    fn tensors(&self) -> Result<Vec<(&'static str, HostTensor)>> {
        let Some(Moments { mean, square, .. }) = &self.moments else { return Ok(Vec::new()) };
        let host = |moment| weights::to_host("", moment).map(|flat| HostTensor { shape: self.shape.clone(), ..flat });
        Ok(vec![("exp_avg", host(mean)?), ("exp_avg_sq", host(square)?)])
    }

    fn restored(
        self,
        mut take: impl FnMut(&'static str) -> Option<HostTensor>,
        device: &Device,
        steps: usize,
    ) -> Option<Self> {
        let (mean, square) = (take("exp_avg"), take("exp_avg_sq")); // both, so that both are named if both are missing
        let flat = |tensor: HostTensor| Tensor::<1>::from_data(tensor.values.as_slice(), device);
        let moments = Moments { time: steps, mean: flat(mean?), square: flat(square?) };
        Some(Self { moments: Some(moments), ..self })
    }
}

/// Burn's Muon, on one matrix.
#[derive(Clone)]
pub(super) struct Muon {
    rule: BurnMuon,
    shape: [usize; 2],
    /// `None` before the first step.
    state: Option<MuonState<2>>,
}

impl Muon {
    fn new(config: &OptimizerConfig, shape: [usize; 2]) -> Self {
        let rule = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(config.weight_decay as f32)))
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
            .build();
        Self { rule, shape, state: None }
    }

    fn update(self, weight: Tensor<1>, gradient: Tensor<1>, learning_rate: f64) -> (Tensor<1>, Self) {
        let Self { rule, shape, state } = self;
        let (weight, state) = rule.step(learning_rate, weight.reshape(shape), gradient.reshape(shape), state);
        (weight.reshape([-1]), Self { rule, shape, state })
    }

    fn tensors(&self) -> Result<Vec<(&'static str, HostTensor)>> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        Ok(vec![("momentum_buffer", momentum_buffer(state)?)])
    }

    fn restored(self, mut take: impl FnMut(&'static str) -> Option<HostTensor>, device: &Device) -> Option<Self> {
        let tensor = take("momentum_buffer")?;
        let buffer = Tensor::from_data(TensorData::new(tensor.values, self.shape), device);
        Some(Self { state: Some(MuonState::new(MomentumState::new(buffer))), ..self })
    }
}
