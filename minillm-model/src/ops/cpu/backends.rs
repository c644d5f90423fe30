//! The operations of Burn's Rust backends: from a backend's tensors to slices and back.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;

use super::cross_entropy::Wanted;
use super::host::{HeadsIn, Host, MatrixIn};
use super::linear::QuantizedLines;
use super::product::Matrix;
use super::{attention, cross_entropy, layer_norm, linear, rms_norm, swiglu};
use crate::ops::activation::{Activation, ActivationBackward, ActivationOp};
use crate::ops::adam_w::{AdamWOp, AdamWStep};
use crate::ops::attention::{AttentionBackward, AttentionOp, Reach, SavedForBackward};
use crate::ops::cross_entropy::{CrossEntropyBackward, CrossEntropyOp};
use crate::ops::generation::GenerationOp;
use crate::ops::layer_norm::{LayerNormBackward, LayerNormOp};
use crate::ops::matmul::{MatmulBackward, MatmulOp};
use crate::ops::quantized::QuantizedMatmulOp;
use crate::ops::rms_norm::{RmsNormBackward, RmsNormOp};
use crate::ops::rotary::{Direction, RotaryOp};
use crate::ops::swiglu::{SwigluBackward, SwigluOp};

/// A tensor stored as `[B, T, heads, E]`, seen as `[B, heads, T, E]`.
fn from_tokens<B: Host>(values: Vec<f32>, [b, heads, t, e]: [usize; 4]) -> FloatTensor<B> {
    B::float_swap_dims(B::tensor(values, Shape::new([b, t, heads, e])), 1, 2)
}

impl<B: Host> RmsNormOp for B {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        B::tensor(rms_norm::forward(&B::as_slice(&x), &B::as_slice(&weight), eps as f32), x.shape())
    }
}

impl<B: Host> RmsNormBackward for B {
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> [FloatTensor<Self>; 2] {
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let [x, weight, grad] = [&x, &weight, &grad].map(B::as_slice);
        let (dx, dweight) = rms_norm::backward(&x, &weight, &grad, eps as f32);
        [B::tensor(dx, x_shape), B::tensor(dweight, weight_shape)]
    }
}

impl<B: Host> LayerNormOp for B {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let [numbers, weight, bias] = [&x, &weight, &bias].map(B::as_slice);
        B::tensor(layer_norm::forward(&numbers, &weight, &bias, eps as f32), x.shape())
    }
}

impl<B: Host> LayerNormBackward for B {
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> [FloatTensor<Self>; 3] {
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let [x, weight, grad] = [&x, &weight, &grad].map(B::as_slice);
        let (dx, dweight, dbias) = layer_norm::backward(&x, &weight, &grad, eps as f32);
        let [dweight, dbias] = [dweight, dbias].map(|numbers| B::tensor(numbers, weight_shape.clone()));
        [B::tensor(dx, x_shape), dweight, dbias]
    }
}

impl<B: Host> ActivationOp for B {
    fn activation(z: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self> {
        B::tensor(super::activation::forward(&B::as_slice(&z), kind), z.shape())
    }
}

impl<B: Host> ActivationBackward for B {
    fn activation_backward(z: FloatTensor<Self>, grad: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self> {
        B::tensor(super::activation::backward(&B::as_slice(&z), &B::as_slice(&grad), kind), z.shape())
    }
}

impl<B: Host> RotaryOp for B {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: Direction,
    ) -> FloatTensor<Self> {
        let heads = HeadsIn::of::<B>(&x);
        let (cos, sin) = (B::as_slice(&cos), B::as_slice(&sin));
        from_tokens::<B>(super::rotary::rotate(heads.view(), &cos, &sin, direction), x.shape().dims())
    }
}

impl<B: Host> SwigluOp for B {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        B::tensor(swiglu::forward(&B::as_slice(&gate), &B::as_slice(&up)), gate.shape())
    }
}

impl<B: Host> SwigluBackward for B {
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let shape = gate.shape();
        let [gate, up, grad] = [&gate, &up, &grad].map(B::as_slice);
        let (dgate, dup) = swiglu::backward(&gate, &up, &grad);
        [dgate, dup].map(|numbers| B::tensor(numbers, shape.clone()))
    }
}

impl<B: Host> MatmulOp for B {
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let [b, t, _] = x.shape().dims();
        let out = linear::forward(&B::as_slice(&x), MatrixIn::of::<B>(&weight).view());
        B::tensor(out, Shape::new([b, t, weight.shape()[1]]))
    }
}

impl<B: Host> MatmulBackward for B {
    fn matmul_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let (x, grad) = (B::as_slice(&x), B::as_slice(&grad));
        let (dx, dweight) = linear::backward(&x, MatrixIn::of::<B>(&weight).view(), &grad);
        [B::tensor(dx, x_shape), B::tensor(dweight, weight_shape)]
    }

    fn matmul_backward_x(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let [input, _] = weight.shape().dims();
        let mut shape = grad.shape();
        if let Some(last) = shape.last_mut() {
            *last = input;
        }
        B::tensor(linear::backward_x(MatrixIn::of::<B>(&weight).view(), &B::as_slice(&grad)), shape)
    }
}

impl<B: Host> GenerationOp for B {
    fn output_major(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if MatrixIn::of::<B>(&weight).view().columns().is_some() {
            return weight;
        }
        let transposed = B::float_swap_dims(weight, 0, 1);
        let numbers = B::as_slice(&transposed).into_owned();
        B::float_swap_dims(B::tensor(numbers, transposed.shape()), 0, 1)
    }
}

impl<B: Host> QuantizedMatmulOp for B {
    fn quantized_matmul(x: FloatTensor<Self>, words: IntTensor<Self>, scales: FloatTensor<Self>) -> FloatTensor<Self> {
        let [b, t, input] = x.shape().dims();
        let matrix = QuantizedLines { quants: B::bytes(&words), scales: &B::as_slice(&scales), input };
        let output = matrix.outputs();
        B::tensor(linear::quantized(&B::as_slice(&x), matrix), Shape::new([b, t, output]))
    }
}

impl<B: Host> AttentionOp for B {
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        reach: Reach,
    ) -> FloatTensor<Self> {
        B::attention_forward([query, key, value], reach).out
    }
}

impl<B: Host> AttentionBackward for B {
    fn attention_forward(qkv: [FloatTensor<Self>; 3], reach: Reach) -> SavedForBackward<Self> {
        let shape @ [b, h, t, _] = qkv[0].shape().dims();
        let [query, key, value] = qkv.each_ref().map(HeadsIn::of::<B>);
        let (out, logsumexp) = attention::forward(query.view(), key.view(), value.view(), &reach);
        let (out, logsumexp) = (from_tokens::<B>(out, shape), B::tensor(logsumexp, Shape::new([b, h, t, 1])));
        SavedForBackward { qkv, out, logsumexp, reach }
    }

    fn attention_backward(saved: SavedForBackward<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        let [query_shape, key_shape, value_shape] = saved.qkv.each_ref().map(|tensor| tensor.shape().dims());
        let [query, key, value] = saved.qkv.each_ref().map(HeadsIn::of::<B>);
        let [out, grad] = [&saved.out, &grad].map(HeadsIn::of::<B>);
        let host = attention::SavedForBackward {
            query: query.view(),
            key: key.view(),
            value: value.view(),
            out: out.view(),
            logsumexp: &B::as_slice(&saved.logsumexp),
            grad: grad.view(),
        };
        let [dquery, dkey, dvalue] = attention::backward(host, &saved.reach);
        [
            from_tokens::<B>(dquery, query_shape),
            from_tokens::<B>(dkey, key_shape),
            from_tokens::<B>(dvalue, value_shape),
        ]
    }
}

/// The output matrix as `[D, V]`.
fn output_matrix<'a>(output: &'a MatrixIn, tied: bool) -> Matrix<'a> {
    if tied { output.view().transposed() } else { output.view() }
}

impl<B: Host> CrossEntropyOp for B {
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> FloatTensor<Self> {
        let (matrix, targets) = (MatrixIn::of::<B>(&output), B::ids(&targets));
        let matrix = output_matrix(&matrix, tied);
        let (loss, _) = cross_entropy::cross_entropy(&B::as_slice(&hidden), matrix, tied, &targets, Wanted::Loss);
        B::tensor(vec![loss], Shape::new([1]))
    }
}

impl<B: Host> CrossEntropyBackward for B {
    fn cross_entropy_with_gradients(
        [hidden, output]: [FloatTensor<Self>; 2],
        targets: IntTensor<Self>,
        tied: bool,
    ) -> (FloatTensor<Self>, [FloatTensor<Self>; 2]) {
        let (matrix, targets) = (MatrixIn::of::<B>(&output), B::ids(&targets));
        let matrix = output_matrix(&matrix, tied);
        let (loss, gradients) =
            cross_entropy::cross_entropy(&B::as_slice(&hidden), matrix, tied, &targets, Wanted::Both);
        let (dhidden, doutput) = gradients.map_or_else(Default::default, |all| (all.hidden, all.output));
        let gradients = [B::tensor(dhidden, hidden.shape()), B::tensor(doutput, output.shape())];
        (B::tensor(vec![loss], Shape::new([1])), gradients)
    }

    fn cross_entropy_with_hidden_gradient(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> [FloatTensor<Self>; 2] {
        let (matrix, targets) = (MatrixIn::of::<B>(&output), B::ids(&targets));
        let matrix = output_matrix(&matrix, tied);
        let (loss, gradients) =
            cross_entropy::cross_entropy(&B::as_slice(&hidden), matrix, tied, &targets, Wanted::Hidden);
        let dhidden = gradients.map_or_else(Vec::new, |gradients| gradients.hidden);
        [B::tensor(vec![loss], Shape::new([1])), B::tensor(dhidden, hidden.shape())]
    }

    fn scale_gradient(gradient: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = gradient.shape();
        let mut numbers = B::into_vec(gradient);
        cross_entropy::scale(&mut numbers, B::as_slice(&factor)[0]);
        B::tensor(numbers, shape)
    }
}

impl<B: Host> AdamWOp for B {
    fn adam_w(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let shape = weight.shape();
        let [mut weight, mut mean, mut square] = [weight, mean, square].map(B::into_vec);
        super::adam_w::adam_w(&mut weight, &B::as_slice(&grad), &mut mean, &mut square, &step);
        let tensor = |numbers| B::tensor(numbers, shape.clone());
        (tensor(weight), tensor(mean), tensor(square))
    }

    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        B::tensor(vec![super::adam_w::sum_of_squares(&B::as_slice(&x))], Shape::new([1]))
    }
}
