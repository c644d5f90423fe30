//! An operation with its inputs: run as often as one likes, forward alone or in both directions.

use burn::tensor::{Gradients, Tensor};

use super::inputs::random;

/// One tensor of what an operation gave, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Which: `value`, or "gradient of `x`".
    pub what: String,
    /// Row-major; none where a gradient is missing.
    pub values: Vec<f32>,
}

impl Part {
    /// Copies `tensor` from the device. Fails, in words, if the device does.
    pub fn read<const D: usize>(what: impl Into<String>, tensor: Tensor<D>) -> Result<Self, String> {
        let values = tensor.try_into_vec_as::<f32>().map_err(|error| error.to_string())?;
        Ok(Self { what: what.into(), values })
    }
}

/// What an operation gave, or why it gave nothing.
pub type Computed = Result<Vec<Part>, String>;

/// Something to differentiate by: its name, and its gradient after a backward pass, flattened.
pub type Leaf = (&'static str, Box<dyn Fn(&Gradients) -> Option<Tensor<1>>>);

/// `tensor` as a leaf.
pub fn to<const D: usize>(name: &'static str, tensor: &Tensor<D>) -> Leaf {
    let tensor = tensor.clone();
    (name, Box::new(move |gradients| tensor.grad(gradients).map(|gradient| gradient.reshape([-1]))))
}

/// An operation with its inputs.
pub struct Prepared {
    /// Outputs by name.
    forward: Box<dyn Fn() -> Vec<(&'static str, Tensor<1>)>>,
    /// None where nothing is differentiated.
    leaves: Vec<Leaf>,
}

impl Prepared {
    /// An operation that is differentiated by `leaves`.
    pub fn new<const D: usize>(leaves: Vec<Leaf>, forward: impl Fn() -> Tensor<D> + 'static) -> Self {
        Self { forward: Box::new(move || vec![("value", forward().reshape([-1]))]), leaves }
    }

    /// One that is not.
    pub fn forward_only(forward: impl Fn() -> Vec<(&'static str, Tensor<1>)> + 'static) -> Self {
        Self { forward: Box::new(forward), leaves: Vec::new() }
    }

    /// Runs it forward, and backward where it is differentiated: what a bench times. Returns what the device still computes.
    pub fn run(&self) -> Vec<Tensor<1>> {
        let outputs = (self.forward)().into_iter().map(|(_, tensor)| tensor);
        if self.leaves.is_empty() {
            return outputs.collect();
        }
        let gradients = outputs.map(Tensor::sum).reduce(|sum, part| sum + part).map(|sum| sum.backward());
        self.leaves.iter().filter_map(|(_, gradient)| gradient(gradients.as_ref()?)).collect()
    }

    /// The outputs, and the gradients of their sum with unequal weights. Fails, in words, if the device does.
    pub fn compute(&self) -> Computed {
        let mut parts = Vec::new();
        for (name, out) in (self.forward)() {
            if self.leaves.is_empty() {
                parts.push(Part::read(name, out)?);
                continue;
            }
            let weights = random(out.dims(), "output weights", &out.device());
            let gradients = (out.clone() * weights).sum().backward();
            parts.push(Part::read(name, out.inner())?);
            for (name, gradient) in &self.leaves {
                let what = format!("gradient of `{name}`");
                parts.push(match gradient(&gradients) {
                    Some(gradient) => Part::read(what, gradient)?,
                    None => Part { what, values: Vec::new() },
                });
            }
        }
        Ok(parts)
    }
}
