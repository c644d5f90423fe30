//! From a backend's tensors to slices and back.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;

use super::attention::Kept;
use super::host::{HeadsIn, Host, MatrixIn};
use super::rotary::Direction;
use crate::ops::activation::{ActivationOp, Curve};
use crate::ops::adam_w::{AdamWOp, AdamWStep};
use crate::ops::attention::AttentionOp;
use crate::ops::cross_entropy::CrossEntropyOp;
use crate::ops::layer_norm::LayerNormOp;
use crate::ops::linear::{LinearOp, QuantizedMatrix};
use crate::ops::rms_norm::RmsNormOp;
use crate::ops::rotary::RotaryOp;
use crate::ops::swiglu::SwigluOp;

/// A tensor that lies as `[B, T, heads, E]`, seen as `[B, heads, T, E]`.
fn from_tokens<B: Host>(values: Vec<f32>, [b, heads, t, e]: [usize; 4]) -> FloatTensor<B> {
    B::float_swap_dims(B::tensor(values, Shape::new([b, t, heads, e])), 1, 2)
}

/// A matrix of `[input, output]` that lies as `[output, input]`; copied only if it does not yet.
fn by_output<B: Host>(weight: FloatTensor<B>) -> FloatTensor<B> {
    if MatrixIn::of::<B>(&weight).view().columns().is_some() {
        return weight;
    }
    let turned = B::float_swap_dims(weight, 0, 1);
    let numbers = B::numbers(&turned).into_owned();
    B::float_swap_dims(B::tensor(numbers, turned.shape()), 0, 1)
}

macro_rules! implement {
    ($backend:ty) => {
        impl RmsNormOp for $backend {
            fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
                let y = super::rms_norm::forward(&Self::numbers(&x), &Self::numbers(&weight), eps as f32);
                Self::tensor(y, x.shape())
            }

            fn rms_norm_backward(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                eps: f64,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let (numbers, scale) = (Self::numbers(&x), Self::numbers(&weight));
                let (dx, dweight) = super::rms_norm::backward(&numbers, &scale, &Self::numbers(&grad), eps as f32);
                (Self::tensor(dx, x.shape()), Self::tensor(dweight, weight.shape()))
            }
        }

        impl LayerNormOp for $backend {
            fn layer_norm_forward(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f64,
            ) -> FloatTensor<Self> {
                let [numbers, weight, bias] = [&x, &weight, &bias].map(Self::numbers);
                Self::tensor(super::layer_norm::forward(&numbers, &weight, &bias, eps as f32), x.shape())
            }

            fn layer_norm_backward(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                eps: f64,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let (x_shape, weight_shape) = (x.shape(), weight.shape());
                let [x, weight, grad] = [&x, &weight, &grad].map(Self::numbers);
                let (dx, dweight, dbias) = super::layer_norm::backward(&x, &weight, &grad, eps as f32);
                let [dweight, dbias] = [dweight, dbias].map(|numbers| Self::tensor(numbers, weight_shape.clone()));
                (Self::tensor(dx, x_shape), dweight, dbias)
            }
        }

        impl ActivationOp for $backend {
            fn activation(z: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self> {
                Self::tensor(super::activation::forward(&Self::numbers(&z), curve), z.shape())
            }

            fn activation_backward(z: FloatTensor<Self>, grad: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self> {
                let (numbers, grad) = (Self::numbers(&z), Self::numbers(&grad));
                Self::tensor(super::activation::backward(&numbers, &grad, curve), z.shape())
            }
        }

        impl RotaryOp for $backend {
            fn rotate(
                x: FloatTensor<Self>,
                cos: FloatTensor<Self>,
                sin: FloatTensor<Self>,
                back: bool,
            ) -> FloatTensor<Self> {
                let direction = if back { Direction::Back } else { Direction::Forth };
                let heads = HeadsIn::of::<Self>(&x);
                let (cos, sin) = (Self::numbers(&cos), Self::numbers(&sin));
                from_tokens::<Self>(super::rotary::rotate(heads.view(), &cos, &sin, direction), x.shape().dims())
            }
        }

        impl SwigluOp for $backend {
            fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::tensor(super::swiglu::forward(&Self::numbers(&gate), &Self::numbers(&up)), gate.shape())
            }

            fn swiglu_backward(
                gate: FloatTensor<Self>,
                up: FloatTensor<Self>,
                grad: FloatTensor<Self>,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let shape = gate.shape();
                let [gate, up, grad] = [&gate, &up, &grad].map(Self::numbers);
                let (dgate, dup) = super::swiglu::backward(&gate, &up, &grad);
                (Self::tensor(dgate, shape.clone()), Self::tensor(dup, shape))
            }
        }

        impl LinearOp for $backend {
            fn by_output(weight: FloatTensor<Self>) -> FloatTensor<Self> {
                by_output::<Self>(weight)
            }

            fn product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
                let [b, t, _] = x.shape().dims();
                let out = super::linear::forward(&Self::numbers(&x), MatrixIn::of::<Self>(&weight).view());
                Self::tensor(out, Shape::new([b, t, weight.shape()[1]]))
            }

            fn product_backward(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                grad: FloatTensor<Self>,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let (x_shape, weight_shape) = (x.shape(), weight.shape());
                let (x, grad) = (Self::numbers(&x), Self::numbers(&grad));
                let (dx, dweight) = super::linear::backward(&x, MatrixIn::of::<Self>(&weight).view(), &grad);
                (Self::tensor(dx, x_shape), Self::tensor(dweight, weight_shape))
            }

            fn quantized(x: FloatTensor<Self>, matrix: Arc<QuantizedMatrix>) -> FloatTensor<Self> {
                let [b, t, _] = x.shape().dims();
                let out = super::linear::quantized(&Self::numbers(&x), &matrix);
                Self::tensor(out, Shape::new([b, t, matrix.output]))
            }
        }

        impl AttentionOp for $backend {
            fn attention_forward(
                query: FloatTensor<Self>,
                key: FloatTensor<Self>,
                value: FloatTensor<Self>,
                window: Option<usize>,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let shape @ [b, h, t, _] = query.shape().dims();
                let [q, key, value] = [&query, &key, &value].map(HeadsIn::of::<Self>);
                let (out, logs) = super::attention::forward(q.view(), key.view(), value.view(), window);
                (from_tokens::<Self>(out, shape), Self::tensor(logs, Shape::new([b, h, t, 1])))
            }

            fn attention_backward(
                query: FloatTensor<Self>,
                key: FloatTensor<Self>,
                value: FloatTensor<Self>,
                out: FloatTensor<Self>,
                logs: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                window: Option<usize>,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let (query_shape, key_shape) = (query.shape().dims(), key.shape().dims());
                let [query, key, value, out, grad] = [&query, &key, &value, &out, &grad].map(HeadsIn::of::<Self>);
                let kept = Kept {
                    query: query.view(),
                    key: key.view(),
                    value: value.view(),
                    out: out.view(),
                    logs: &Self::numbers(&logs),
                    grad: grad.view(),
                };
                let [dquery, dkey, dvalue] = super::attention::backward(kept, window);
                (
                    from_tokens::<Self>(dquery, query_shape),
                    from_tokens::<Self>(dkey, key_shape),
                    from_tokens::<Self>(dvalue, key_shape),
                )
            }
        }

        impl CrossEntropyOp for $backend {
            fn cross_entropy(
                hidden: FloatTensor<Self>,
                output: FloatTensor<Self>,
                targets: IntTensor<Self>,
                tied: bool,
            ) -> FloatTensor<Self> {
                let matrix = MatrixIn::of::<Self>(&output);
                let matrix = if tied { matrix.view().transposed() } else { matrix.view() };
                let (numbers, targets) = (Self::numbers(&hidden), Self::ids(&targets));
                let (loss, _) = super::cross_entropy::cross_entropy(&numbers, matrix, tied, &targets, false);
                Self::tensor(vec![loss], Shape::new([1]))
            }

            fn cross_entropy_with_gradients(
                hidden: FloatTensor<Self>,
                output: FloatTensor<Self>,
                targets: IntTensor<Self>,
                tied: bool,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let matrix = MatrixIn::of::<Self>(&output);
                let matrix = if tied { matrix.view().transposed() } else { matrix.view() };
                let (numbers, targets) = (Self::numbers(&hidden), Self::ids(&targets));
                let (loss, gradients) = super::cross_entropy::cross_entropy(&numbers, matrix, tied, &targets, true);
                let (dhidden, doutput) = gradients.map_or_else(Default::default, |all| (all.hidden, all.output));
                (
                    Self::tensor(vec![loss], Shape::new([1])),
                    Self::tensor(dhidden, hidden.shape()),
                    Self::tensor(doutput, output.shape()),
                )
            }

            fn scale_gradient(gradient: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
                let shape = gradient.shape();
                let mut numbers = Self::into_numbers(gradient);
                super::cross_entropy::scale(&mut numbers, Self::numbers(&factor)[0]);
                Self::tensor(numbers, shape)
            }
        }

        impl AdamWOp for $backend {
            fn adam_w(
                weight: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                mean: FloatTensor<Self>,
                square: FloatTensor<Self>,
                step: AdamWStep,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let shape = weight.shape();
                let [mut weight, mut mean, mut square] = [weight, mean, square].map(Self::into_numbers);
                super::adam_w::adam_w(&mut weight, &Self::numbers(&grad), &mut mean, &mut square, &step);
                let tensor = |numbers| Self::tensor(numbers, shape.clone());
                (tensor(weight), tensor(mean), tensor(square))
            }

            fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
                let sum = super::adam_w::sum_of_squares(&Self::numbers(&x));
                Self::tensor(vec![sum], Shape::new([1]))
            }
        }
    };
}

#[cfg(feature = "flex")]
implement!(burn::backend::Flex);
#[cfg(feature = "ndarray")]
implement!(burn::backend::NdArray);
