//! Products with a layer's matrix, and with one in 8 bits.

use std::ops::Range;

use super::dot_products::dot_products;
use super::math::vectorised;
use super::parallel;
use super::product::{Matrix, Store, product};
use crate::encoding::Q8_0_BLOCK;
use crate::ops::generation::QuantizedMatrix;

/// # Shapes
/// - `x`: rows of `input`, `weight`: `[input, output]` -> rows of `output`
pub fn forward(x: &[f32], weight: Matrix) -> Vec<f32> {
    let [input, output] = weight.shape();
    let rows = x.len() / input;
    if let Some(lines) = weight.columns() {
        return in_pieces([rows, input, output], |outputs, out| {
            dot_products(x, &lines[outputs.start * input..outputs.end * input], input, out);
        });
    }
    let mut out = vec![0.0; rows * output];
    product(&mut out, output, Store::Replace, 1.0, Matrix::new(x, rows, input, input), weight);
    out
}

/// # Shapes
/// - `x`: rows of `input`, `weight`: `[input, output]`, `grad`: rows of `output` -> gradients of `x` and of `weight`
pub fn backward(x: &[f32], weight: Matrix, grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let [input, output] = weight.shape();
    let rows = x.len() / input;
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; input * output]);
    let (x, grad) = (Matrix::new(x, rows, input, input), Matrix::new(grad, rows, output, output));
    product(&mut dx, input, Store::Replace, 1.0, grad, weight.transposed());
    product(&mut dweight, output, Store::Replace, 1.0, x.transposed(), grad);
    (dx, dweight)
}

/// # Shapes
/// - `x`: rows of `input` -> rows of `output`
pub fn quantized(x: &[f32], matrix: &QuantizedMatrix) -> Vec<f32> {
    let QuantizedMatrix { quants, scales, input, output } = matrix;
    let (rows, blocks) = (x.len() / input, input / Q8_0_BLOCK);
    in_pieces([rows, *input, *output], |outputs, out| {
        let quants = &quants[outputs.start * input..outputs.end * input];
        let scales = &scales[outputs.start * blocks..outputs.end * blocks];
        if rows > 1 {
            return dot_products(x, &in_f32(quants, scales), *input, out);
        }
        vectorised!({
            let lines = quants.chunks_exact(*input).zip(scales.chunks_exact(blocks));
            for (out, (quants, scales)) in out.iter_mut().zip(lines) {
                *out = quantized_dot(x, quants, scales);
            }
        });
    })
}

#[inline(always)]
fn quantized_dot(x: &[f32], quants: &[i8], scales: &[f32]) -> f32 {
    const HALF: usize = Q8_0_BLOCK / 2;
    let mut sums = [0.0; HALF];
    let (x, quants) = (x.as_chunks::<Q8_0_BLOCK>().0, quants.as_chunks::<Q8_0_BLOCK>().0);
    for ((x, quants), scale) in x.iter().zip(quants).zip(scales) {
        for lane in 0..HALF {
            let pair = x[lane] * f32::from(quants[lane]) + x[lane + HALF] * f32::from(quants[lane + HALF]);
            sums[lane] += scale * pair;
        }
    }
    sums.iter().sum()
}

/// What the 8 bits stand for.
fn in_f32(quants: &[i8], scales: &[f32]) -> Vec<f32> {
    let mut numbers = vec![0.0; quants.len()];
    let blocks = quants.as_chunks::<Q8_0_BLOCK>().0.iter().zip(scales);
    vectorised!({
        for (numbers, (quants, scale)) in numbers.as_chunks_mut::<Q8_0_BLOCK>().0.iter_mut().zip(blocks) {
            for (number, quant) in numbers.iter_mut().zip(quants) {
                *number = scale * f32::from(*quant);
            }
        }
    });
    numbers
}

/// Rows of `output`, shared among threads by outputs: `compute` fills `out` with all rows of a range of them. No result
/// depends on the ranges.
fn in_pieces([rows, input, output]: [usize; 3], compute: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let columns = outputs_per_piece(rows, input, output);
    let mut out = vec![0.0; rows * output];
    let pieces = (0..output).step_by(columns).map(|start| start..(start + columns).min(output));
    if rows == 1 {
        parallel::for_each(pieces.zip(out.chunks_mut(columns)).collect(), |(outputs, out)| compute(outputs, out));
        return out;
    }
    let parts = parallel::map(pieces.collect(), |outputs: Range<usize>| {
        let mut part = vec![0.0; rows * outputs.len()];
        compute(outputs, &mut part);
        part
    });
    let rows_per_piece = parallel::rows_per_piece(output);
    parallel::for_each(out.chunks_mut(rows_per_piece * output).enumerate().collect(), |(piece, out)| {
        for (row, out) in (piece * rows_per_piece..).zip(out.chunks_exact_mut(output)) {
            for (out, part) in out.chunks_mut(columns).zip(&parts) {
                out.copy_from_slice(&part[row * out.len()..][..out.len()]);
            }
        }
    });
    out
}

/// Outputs in a piece of the work on a matrix stored output after output.
fn outputs_per_piece(rows: usize, input: usize, output: usize) -> usize {
    /// Pieces for each thread, so that one that is held up leaves work to the others.
    const PIECES: usize = 8;
    /// Numbers of a matrix that are worth another thread: 64 KiB, about as long to read as to hand over.
    const WORTH_SHARING: usize = 16 * 1024;
    /// Whole steps of these, as [`dot_products`] takes them.
    const STEP: usize = 48;
    /// Numbers of a matrix that stay in a core's second-level cache while rows pass: 256 KiB.
    const CACHED: usize = 64 * 1024;

    let pieces = (output * input / WORTH_SHARING).clamp(1, PIECES * rayon::current_num_threads());
    let columns = output.div_ceil(pieces).next_multiple_of(STEP);
    if rows == 1 { columns } else { columns.min((CACHED / input).next_multiple_of(STEP)) }
}
