//! How a parameter is updated, and what the rule remembers of its earlier gradients.

use std::collections::BTreeMap;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumState;
use burn::optim::{AdjustLrFn, Muon as BurnMuon, MuonConfig, MuonState, Optimizer};
use burn::tensor::{Device, Tensor};
use minillm_model::checkpoint::weights::{self, HostTensor};
use minillm_model::ops::multi_tensor;
use minillm_model::ops::update::MuonStep;
use minillm_model::ops::{self, AdamWStep};

use super::Update;
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

    /// Takes back that a step was counted which the device left out.
    pub(super) fn uncount(&mut self) {
        if let Self::AdamW(AdamW { moments: Some(moments), .. }) = self {
            moments.time -= 1;
        }
    }

    /// The parameter's shape.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::AdamW(rule) => rule.shape.clone(),
            Self::Muon(rule) => rule.shape.to_vec(),
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

/// One step for all of `updates`, clipped and maybe left out by `control`: those of `AdamW` together, those of Muon shape by shape.
pub(super) fn update_all(
    updates: Vec<Update>,
    control: &Tensor<1>,
    learning_rate: f64,
    fast: bool,
) -> Vec<(String, Tensor<1>, ParameterRule)> {
    let mut moved = Vec::with_capacity(updates.len());
    let (mut adam_w, mut muon) = (Vec::new(), BTreeMap::<[usize; 2], Vec<_>>::new());
    for Update { name, weight, gradient, rule } in updates {
        match rule {
            ParameterRule::AdamW(rule) => adam_w.push((name, weight, gradient, rule)),
            ParameterRule::Muon(rule) => {
                let [rows, columns] = rule.shape;
                let wide = [rows.min(columns), rows.max(columns)];
                muon.entry(wide).or_default().push((name, weight, gradient, rule));
            }
        }
    }

    let (mut names, mut tensors, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for (name, weight, gradient, rule) in adam_w {
        let (rule, Moments { time, mean, square }) = rule.at_next_step(&gradient);
        steps.push(rule.step_at(time, learning_rate, 1.0));
        tensors.push([weight, gradient, mean, square]);
        names.push((name, rule, time));
    }
    let results = multi_tensor::adam_w(tensors, control, steps, fast);
    for ((name, rule, time), [weight, mean, square]) in names.into_iter().zip(results) {
        let rule = AdamW { moments: Some(Moments { time, mean, square }), ..rule };
        moved.push((name, weight, ParameterRule::AdamW(rule)));
    }

    for (shape, matrices) in muon {
        let (mut names, mut tensors, mut tall) = (Vec::new(), Vec::new(), Vec::new());
        let mut step = None;
        for (name, weight, gradient, mut rule) in matrices {
            let momentum = rule.take_buffer().unwrap_or_else(|| gradient.zeros_like());
            tall.push(rule.shape != shape);
            step = Some(rule.step_at(learning_rate));
            tensors.push([weight, gradient, momentum]);
            names.push((name, rule));
        }
        let Some(step) = step else { continue };
        let results = multi_tensor::muon(tensors, &tall, shape, control, step, fast);
        for ((name, rule), [weight, momentum]) in names.into_iter().zip(results) {
            let rule = Muon { state: Some(MuonMemory::Buffer(momentum)), ..rule };
            moved.push((name, weight, ParameterRule::Muon(rule)));
        }
    }
    moved
}

/// Whether Muon is meant for the matrix `name`: it orthogonalises a matrix between two hidden states. Rows of an embedding
/// or of the output matrix are tokens, which have nothing to be orthogonal to; and of LoRA's two matrices neither is one between them.
fn is_between_hidden_states(name: &str) -> bool {
    name.contains(".layers.") && !name.contains(".lora.")
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
        let (rule, Moments { time, mean, square }) = self.at_next_step(&gradient);
        let step = rule.step_at(time, learning_rate, grad_factor);
        let [weight, mean, square] = form(weight, gradient, mean, square, step);
        (weight, Self { moments: Some(Moments { time, mean, square }), ..rule })
    }

    /// The rule without its moments, and the moments with the number of the step about to be taken.
    fn at_next_step(mut self, gradient: &Tensor<1>) -> (Self, Moments) {
        let moments = self.moments.take().unwrap_or_else(|| {
            // Adding to -0.0 changes nothing, not even the sign of a zero: the first means are the gradient's own, as Burn's are.
            let nothing = || gradient.full_like(-0.0);
            Moments { time: 0, mean: nothing(), square: nothing() }
        });
        (self, Moments { time: moments.time + 1, ..moments })
    }

    fn step_at(&self, time: usize, learning_rate: f64, grad_factor: f64) -> AdamWStep {
        let Self { beta1, beta2, epsilon, weight_decay, .. } = *self;
        AdamWStep { time, learning_rate, beta1, beta2, epsilon, weight_decay, grad_factor }
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

/// Muon on one matrix: Burn's, or many at once on a GPU.
#[derive(Clone)]
pub(super) struct Muon {
    rule: BurnMuon,
    weight_decay: f64,
    shape: [usize; 2],
    /// `None` before the first step.
    state: Option<MuonMemory>,
}

/// The running sum of a matrix's gradients.
#[derive(Clone)]
enum MuonMemory {
    /// Flat.
    Buffer(Tensor<1>),
    /// Inside Burn's own state.
    Burn(MuonState<2>),
}

impl Muon {
    fn new(config: &OptimizerConfig, shape: [usize; 2]) -> Self {
        let rule = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(config.weight_decay as f32)))
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
            .build();
        Self { rule, weight_decay: config.weight_decay, shape, state: None }
    }

    fn update(self, weight: Tensor<1>, gradient: Tensor<1>, learning_rate: f64) -> (Tensor<1>, Self) {
        let Self { rule, shape, state, .. } = self;
        let state = state.map(|state| match state {
            MuonMemory::Buffer(buffer) => MuonState::new(MomentumState::new(buffer.reshape(shape))),
            MuonMemory::Burn(state) => state,
        });
        let (weight, state) = rule.step(learning_rate, weight.reshape(shape), gradient.reshape(shape), state);
        (weight.reshape([-1]), Self { rule, state: state.map(MuonMemory::Burn), ..self })
    }

    /// How far many matrices of this shape move at once: as Burn's, with `AdamW`'s step size (arXiv:2502.16982).
    fn step_at(&self, learning_rate: f64) -> MuonStep {
        let [rows, columns] = self.shape;
        let rate = learning_rate * 0.2 * (rows.max(columns) as f64).sqrt();
        MuonStep { keep: 1.0 - learning_rate * f64::from(self.weight_decay as f32), rate }
    }

    /// The running sum, which nobody else holds then.
    fn take_buffer(&mut self) -> Option<Tensor<1>> {
        match self.state.take() {
            Some(MuonMemory::Buffer(buffer)) => Some(buffer),
            Some(MuonMemory::Burn(_)) | None => None,
        }
    }

    fn tensors(&self) -> Result<Vec<(&'static str, HostTensor)>> {
        let buffer = match &self.state {
            None => return Ok(Vec::new()),
            Some(MuonMemory::Burn(state)) => momentum_buffer(state)?,
            Some(MuonMemory::Buffer(buffer)) => {
                HostTensor { shape: self.shape.to_vec(), ..weights::to_host("", buffer)? }
            }
        };
        Ok(vec![("momentum_buffer", buffer)])
    }

    fn restored(self, mut take: impl FnMut(&'static str) -> Option<HostTensor>, device: &Device) -> Option<Self> {
        let tensor = take("momentum_buffer")?;
        let buffer = Tensor::<1>::from_data(tensor.values.as_slice(), device);
        Some(Self { state: Some(MuonMemory::Buffer(buffer)), ..self })
    }
}
