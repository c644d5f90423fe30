//! Products with a layer's matrix: plain ones, those of few rows, bound by the memory that the matrix is read from, and products with 8-bit matrices.

use super::math::{dot, vectorised};
use super::product::{Matrix, Store, product};
use super::share;
use crate::checkpoint::encoding::Q8_0_BLOCK;
use crate::ops::linear::{FEW_ROWS, QuantizedMatrix};

/// Outputs in a piece of shared work: rows of 256 bytes are read of each line of the matrix, 4 cache lines in a run.
const OUTPUTS: usize = 64;

/// Lines of a matrix read side by side: of 1, 2, 4, 8, 12, 16 and 24, 16 came nearest to the memory's speed.
const LINES: usize = 16;

/// Outputs whose sums are kept in the first-level cache while the matrix passes: 8 KiB.
const TILE: usize = 2048;

/// Numbers of a matrix that are worth another thread: 64 KiB, about as long to read as to hand over.
const WORTH_SHARING: usize = 16 * 1024;

/// # Shapes
/// - `x`: rows of `input`, `weight`: `[input, output]` -> rows of `output`
pub fn few_rows(x: &[f32], weight: &[f32], input: usize) -> Vec<f32> {
    let (rows, output) = (x.len() / input, weight.len() / input);
    if output > TILE {
        return few_rows_wide(x, weight, input);
    }
    let lines = share::lines_per_piece(input, output, LINES, WORTH_SHARING);
    let pieces: Vec<_> = weight.chunks(lines * output).enumerate().collect();
    let parts = share::map(pieces, |(piece, weight)| {
        let mut part = vec![0.0; rows * output];
        let first = piece * lines;
        vectorised!({
            for (x, part) in x.chunks_exact(input).zip(part.chunks_exact_mut(output)) {
                add_matrix(part, &x[first..], weight);
            }
        });
        part
    });
    let mut parts = parts.into_iter();
    let mut out = parts.next().unwrap_or_default();
    for part in parts {
        out.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    out
}

/// Adds `x[0] weight[0] + x[1] weight[1] + ..`, which reads the matrix from its beginning to its end.
#[inline(always)]
fn add_matrix(sums: &mut [f32], x: &[f32], weight: &[f32]) {
    let width = sums.len();
    let (x, rest) = x[..weight.len() / width].as_chunks::<LINES>();
    let mut blocks = weight.chunks_exact(LINES * width);
    for (x, block) in x.iter().zip(&mut blocks) {
        add_lines(sums, x, |i| &block[i * width..][..width]);
    }
    for (x, line) in rest.iter().zip(blocks.remainder().chunks_exact(width)) {
        sums.iter_mut().zip(line).for_each(|(sum, weight)| *sum += x * weight);
    }
}

/// The same for long lines: a piece is some columns of the matrix.
fn few_rows_wide(x: &[f32], weight: &[f32], input: usize) -> Vec<f32> {
    let (rows, output) = (x.len() / input, weight.len() / input);
    let columns = share::outputs_per_piece(output, input, OUTPUTS, WORTH_SHARING).min(TILE);
    let pieces: Vec<usize> = (0..output).step_by(columns).collect();
    let parts = share::map(pieces, |first| {
        let width = columns.min(output - first);
        let mut part = vec![0.0; rows * width];
        vectorised!({
            let line = |i: usize| &weight[i * output + first..][..width];
            for start in (0..input).step_by(LINES) {
                for (x, part) in x.chunks_exact(input).zip(part.chunks_exact_mut(width)) {
                    let x = &x[start..input.min(start + LINES)];
                    if let Some(x) = x.as_array::<LINES>() {
                        add_lines(part, x, |i| line(start + i));
                    } else {
                        for (i, x) in x.iter().enumerate() {
                            part.iter_mut().zip(line(start + i)).for_each(|(sum, weight)| *sum += x * weight);
                        }
                    }
                }
            }
        });
        part
    });
    interleaved(&parts, rows, output, columns)
}

/// Adds `x[0] line(0) + x[1] line(1) + ..`: each sum is loaded and stored once for all lines. (Loops rather than functions on
/// arrays: where the compiler leaves one of those a call of its own, it is not vectorised.)
#[inline(always)]
fn add_lines<'a>(sums: &mut [f32], x: &[f32; LINES], line: impl Fn(usize) -> &'a [f32]) {
    let mut lines: [&[f32]; LINES] = [&[]; LINES];
    for (i, slot) in lines.iter_mut().enumerate() {
        *slot = &line(i)[..sums.len()];
    }
    for (j, sum) in sums.iter_mut().enumerate() {
        let mut product = 0.0;
        for i in 0..LINES {
            product += x[i] * lines[i][j];
        }
        *sum += product;
    }
}

/// # Shapes
/// - `x`: rows of `input`, `weight`: `[output, input]` -> rows of `output`
pub fn few_rows_transposed(x: &[f32], weight: &[f32], input: usize) -> Vec<f32> {
    let (rows, output) = (x.len() / input, weight.len() / input);
    let columns = share::outputs_per_piece(output, input, OUTPUTS, WORTH_SHARING);
    let parts = share::map(weight.chunks(columns * input).collect(), |weight| {
        let width = weight.len() / input;
        let mut part = vec![0.0; rows * width];
        vectorised!({
            for (j, line) in weight.chunks_exact(input).enumerate() {
                for (row, x) in x.chunks_exact(input).enumerate() {
                    part[row * width + j] = dot(x, line);
                }
            }
        });
        part
    });
    interleaved(&parts, rows, output, columns)
}

/// # Shapes
/// - `x`: rows of `input`, `weight`: `[input, output]` -> rows of `output`
pub fn forward(x: &[f32], weight: &[f32], input: usize) -> Vec<f32> {
    let (rows, output) = (x.len() / input, weight.len() / input);
    let mut out = vec![0.0; rows * output];
    let (x, weight) = (Matrix::new(x, rows, input, input), Matrix::new(weight, input, output, output));
    product(&mut out, output, Store::Replace, 1.0, x, weight);
    out
}

/// # Shapes
/// - `x`: rows of `input`, `weight`: `[input, output]`, `grad`: rows of `output` -> gradients of `x` and of `weight`
pub fn backward(x: &[f32], weight: &[f32], grad: &[f32], input: usize) -> (Vec<f32>, Vec<f32>) {
    let (rows, output) = (x.len() / input, weight.len() / input);
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    let (x, weight) = (Matrix::new(x, rows, input, input), Matrix::new(weight, input, output, output));
    let grad = Matrix::new(grad, rows, output, output);
    product(&mut dx, input, Store::Replace, 1.0, grad, weight.transposed());
    product(&mut dweight, output, Store::Replace, 1.0, x.transposed(), grad);
    (dx, dweight)
}

/// # Shapes
/// - `x`: rows of `input` -> rows of `output`
pub fn quantized(x: &[f32], matrix: &QuantizedMatrix) -> Vec<f32> {
    let QuantizedMatrix { quants, scales, input, output } = matrix;
    let (rows, blocks) = (x.len() / input, input / Q8_0_BLOCK);
    if rows > FEW_ROWS {
        return quantized_product(x, matrix);
    }
    let columns = share::outputs_per_piece(*output, *input, OUTPUTS, WORTH_SHARING);
    let pieces = quants.chunks(columns * input).zip(scales.chunks(columns * blocks)).collect();
    let parts = share::map(pieces, |(quants, scales)| {
        let width = quants.len() / input;
        let mut part = vec![0.0; rows * width];
        vectorised!({
            for (j, (quants, scales)) in quants.chunks_exact(*input).zip(scales.chunks_exact(blocks)).enumerate() {
                for (row, x) in x.chunks_exact(*input).enumerate() {
                    part[row * width + j] = quantized_dot(x, quants, scales);
                }
            }
        });
        part
    });
    interleaved(&parts, rows, *output, columns)
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

/// Many rows: the matrix is turned into f32 a piece at a time, and each piece multiplied.
fn quantized_product(x: &[f32], matrix: &QuantizedMatrix) -> Vec<f32> {
    /// Outputs in a piece: enough columns for an efficient product.
    const PIECE: usize = 256;

    let QuantizedMatrix { quants, scales, input, output } = matrix;
    let rows = x.len() / input;
    let (mut out, mut weight) = (vec![0.0; rows * output], vec![0.0; PIECE * input]);
    for first in (0..*output).step_by(PIECE) {
        let width = PIECE.min(output - first);
        let weight = &mut weight[..width * input];
        let quants = &quants[first * input..][..width * input];
        let blocks = weight.chunks_mut(share::PIECE).zip(quants.chunks(share::PIECE)).enumerate().collect();
        let scales = &scales[first * input / Q8_0_BLOCK..];
        share::for_each(blocks, |(piece, (weight, quants))| {
            let scales = &scales[piece * share::PIECE / Q8_0_BLOCK..];
            let blocks = weight.as_chunks_mut::<Q8_0_BLOCK>().0.iter_mut().zip(quants.as_chunks::<Q8_0_BLOCK>().0);
            vectorised!({
                for ((weight, quants), scale) in blocks.zip(scales) {
                    for (weight, quant) in weight.iter_mut().zip(quants) {
                        *weight = scale * f32::from(*quant);
                    }
                }
            });
        });
        let weight = Matrix::new(weight, width, *input, *input).transposed();
        product(&mut out[first..], *output, Store::Replace, 1.0, Matrix::new(x, rows, *input, *input), weight);
    }
    out
}

/// Rows of `output` from pieces of `columns` each.
fn interleaved(parts: &[Vec<f32>], rows: usize, output: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * output);
    for row in 0..rows {
        for part in parts {
            let width = part.len() / rows;
            debug_assert!(width <= columns);
            out.extend_from_slice(&part[row * width..(row + 1) * width]);
        }
    }
    out
}
