//! Products with a layer's matrix: in training, in generation, and with the matrix in 8 bits.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use minillm_model::checkpoint::encoding::Encoding;
use minillm_model::layers::linear::Linear;
use minillm_model::ops::linear::{QuantizedMatrix, product, quantized};

use crate::doctor::check::{Computed, Part, Setting};
use crate::doctor::inputs::{both_ways, leaf, random, to, values};

/// `x`: `[B 2, T 40, input 96]` -> 72: enough rows and columns for the tiles of a GPU's matrix product.
pub fn linear(Setting { device, kernels, .. }: &Setting) -> Computed {
    let x = leaf([2, 40, 96], "x", device);
    let mut linear = Linear::new(96, 72, true, device);
    let bias = Param::from_tensor(random([72], "bias", device));
    linear.weight = Param::from_tensor(random([96, 72], "weight", device));
    (linear.kernels, linear.bias) = (*kernels, Some(bias.clone()));
    let weight = linear.weight.val();
    both_ways(linear.forward(x.clone()), &[to("x", &x), to("weight", &weight), to("bias", &bias.val())])
}

/// `x`: `[1, 3, 33]` -> 65, with the matrix as a layer has it and as a tied embedding has it.
pub fn few_rows(Setting { plain, kernels, .. }: &Setting) -> Computed {
    let x = random([1, 3, 33], "x", plain);
    let mut linear = Linear::new(33, 65, false, plain);
    linear.weight = Param::from_tensor(random([33, 65], "weight", plain));
    linear.kernels = *kernels;
    let embedding = random([65, 33], "embedding", plain);
    let logits = if kernels.product {
        product(x.clone(), embedding.transpose())
    } else {
        x.clone().matmul(embedding.transpose().unsqueeze())
    };
    Ok(vec![Part::read("value", linear.forward(x))?, Part::read("value with a tied matrix", logits)?])
}

/// `x`: `[1, 3, 64]` -> 37. The readable form multiplies with the rounded matrix.
pub fn in_8_bits(Setting { plain, kernels, .. }: &Setting) -> Computed {
    let x = random([1, 3, 64], "x", plain);
    let weight = values(37 * 64, "weight"); // [output, input]
    let out = if kernels.linear {
        let matrix = QuantizedMatrix::new(&weight, 64).ok_or("64 is not whole blocks")?;
        quantized(x, &Arc::new(matrix))
    } else {
        let rounded = TensorData::new(Encoding::Q8_0.round(&weight), [37, 64]);
        x.matmul(Tensor::<2>::from_data(rounded, plain).transpose().unsqueeze())
    };
    Ok(vec![Part::read("value", out)?])
}
