//! Products with a layer's matrix: in training, in generation, and with the matrix in 8 bits.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use super::Place;
use super::inputs::{leaf, random, values};
use super::prepared::{Prepared, to};
use crate::encoding::Encoding;
use crate::layers::context::ForwardContext;
use crate::layers::linear::Linear;
use crate::layers::product::tied_head;
use crate::ops::generation::output_major;
use crate::ops::quantized::QuantizedMatrix;

/// Rows, inputs and outputs: all remainders of the CPU's tiles.
pub const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (3, 7, 5), (8, 33, 65), (1, 256, 700), (2, 260, 130), (13, 40, 200), (70, 96, 301)];

/// Rows, inputs and outputs with the matrix in 8 bits: a single row and the GPU's tiles of 8 rows and 32 outputs, with all that may be
/// left over of them, blocks of 32 inputs that are not whole steps of a GPU's cube (128), and as many outputs as GPT-2 has tokens.
pub const IN_8_BITS: [(usize, usize, usize); 9] = [
    (1, 32, 1),
    (1, 64, 7),
    (1, 96, 130),
    (1, 1056, 65),
    (1, 32, 50_257),
    (2, 32, 7),
    (17, 64, 65),
    (17, 1024, 1),
    (64, 1056, 65),
];

/// `x`: `[B 2, T, input]` -> output, with a bias
pub fn linear((t, input, output): (usize, usize, usize), place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let x = leaf([2, t, input], "x", &device);
    let mut linear = Linear::new(input, output, true, &device);
    let bias = Param::from_tensor(random([output], "bias", &device));
    linear.weight = Param::from_tensor(random([input, output], "weight", &device));
    let leaves = vec![to("x", &x), to("weight", &linear.weight.val()), to("bias", &bias.val())];
    linear.bias = Some(bias);
    Prepared::new(leaves, move || linear.forward(x.clone(), &context))
}

/// `x`: `[1, rows, input]` -> output, with the matrix as generation stores it, and as a tied embedding is.
pub fn few_rows((rows, input, output): (usize, usize, usize), place: &Place) -> Prepared {
    let Place { plain, compute, .. } = place.clone();
    let context = ForwardContext::new(compute);
    let x = random([1, rows, input], "x", &plain);
    let mut linear = Linear::new(input, output, false, &plain);
    linear.weight = Param::from_tensor(random([input, output], "weight", &plain));
    if compute.decode_matvec {
        linear.weight = Param::from_tensor(output_major(linear.weight.val()));
    }
    let embedding = random([output, input], "embedding", &plain);
    Prepared::forward_only(move || {
        vec![
            ("value", linear.forward(x.clone(), &context).reshape([-1])),
            ("value with a tied matrix", tied_head(x.clone(), embedding.clone(), None, &context).reshape([-1])),
        ]
    })
}

/// `x`: `[1, rows, input]` -> output. The readable form multiplies with the rounded matrix.
pub fn in_8_bits((rows, input, output): (usize, usize, usize), place: &Place) -> Prepared {
    let Place { plain, compute, .. } = place.clone();
    let context = ForwardContext::new(compute);
    let x = random([1, rows, input], "x", &plain);
    let weight = values(output * input, "weight"); // [output, input]
    let mut linear = Linear::new(input, output, false, &plain);
    if compute.quantized {
        let matrix = QuantizedMatrix::new(&weight, input, &plain).expect("an input of whole blocks");
        linear.quantized = Some(Arc::new(matrix));
    } else {
        let rounded = TensorData::new(Encoding::Q8_0.round(&weight), [output, input]);
        linear.weight = Param::from_tensor(Tensor::<2>::from_data(rounded, &plain).transpose());
    }
    Prepared::forward_only(move || vec![("value", linear.forward(x.clone(), &context).reshape([-1]))])
}
