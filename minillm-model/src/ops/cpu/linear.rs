//! Products with a layer's matrix, and with one in 8 bits.

use std::ops::Range;

use super::dot_products::dot_products;
use super::math::vectorised;
use super::parallel;
use super::product::{Matrix, Store, product};
use crate::encoding::Q8_0_BLOCK;

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
    let (dx, mut dweight) = (backward_x(weight, grad), vec![0.0; input * output]);
    let (x, grad) = (Matrix::new(x, rows, input, input), Matrix::new(grad, rows, output, output));
    product(&mut dweight, output, Store::Replace, 1.0, x.transposed(), grad);
    (dx, dweight)
}

/// The gradient of `x` alone.
///
/// # Shapes
/// - `weight`: `[input, output]`, `grad`: rows of `output` -> rows of `input`
pub fn backward_x(weight: Matrix, grad: &[f32]) -> Vec<f32> {
    let [input, output] = weight.shape();
    let rows = grad.len() / output;
    let mut dx = vec![0.0; rows * input];
    product(&mut dx, input, Store::Replace, 1.0, Matrix::new(grad, rows, output, output), weight.transposed());
    dx
}

/// A matrix in 8 bits, `[output, input]`: a line for each output.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedLines<'a> {
    /// Of all lines.
    pub quants: &'a [i8],
    /// One for each block of 32.
    pub scales: &'a [f32],
    /// Numbers in a line: whole blocks.
    pub input: usize,
}

impl QuantizedLines<'_> {
    /// Lines.
    pub fn outputs(self) -> usize {
        self.quants.len() / self.input
    }
}

/// # Shapes
/// - `x`: rows of `input` -> rows of `output`
pub fn quantized(x: &[f32], matrix: QuantizedLines) -> Vec<f32> {
    let QuantizedLines { quants, scales, input } = matrix;
    let (rows, blocks) = (x.len() / input, input / Q8_0_BLOCK);
    in_pieces([rows, input, matrix.outputs()], |outputs, out| {
        let quants = &quants[outputs.start * input..outputs.end * input];
        let scales = &scales[outputs.start * blocks..outputs.end * blocks];
        if rows > 1 {
            return dot_products(x, &in_f32(quants, scales), input, out);
        }
        vectorised!(quantized_row(x, quants, scales, out));
    })
}

/// One row past some lines of 8-bit numbers. On x86 four lines at a time, from four places of memory: a core that reads one line
/// after the other mostly waits for memory. Elsewhere one: on aarch64 the compiler (Rust 1.95) makes scalar instructions of
/// more, as it does of three on x86.
#[inline(always)]
fn quantized_row(x: &[f32], quants: &[i8], scales: &[f32], out: &mut [f32]) {
    const LINES: usize = if cfg!(target_arch = "x86_64") { 4 } else { 1 };
    let blocks = x.len() / Q8_0_BLOCK;
    let line =
        |at: usize| (&quants.as_chunks::<Q8_0_BLOCK>().0[at * blocks..][..blocks], &scales[at * blocks..][..blocks]);
    let apart = out.len() / LINES;
    for first in 0..apart {
        let places: [usize; LINES] = std::array::from_fn(|n| n * apart + first);
        for (at, sum) in places.into_iter().zip(quantized_dots(x, places.map(line))) {
            out[at] = sum;
        }
    }
    for (at, out) in out.iter_mut().enumerate().skip(LINES * apart) {
        [*out] = quantized_dots(x, [line(at)]);
    }
}

/// Blocks of a line, and the scale of each.
type QuantizedLine<'a> = (&'a [[i8; Q8_0_BLOCK]], &'a [f32]);

#[inline(always)]
fn quantized_dots<const N: usize>(x: &[f32], lines: [QuantizedLine; N]) -> [f32; N] {
    const HALF: usize = Q8_0_BLOCK / 2;
    let x = x.as_chunks::<Q8_0_BLOCK>().0;
    let lines = lines.map(|(quants, scales)| (&quants[..x.len()], &scales[..x.len()]));
    let mut sums = [[0.0; HALF]; N];
    for block in 0..x.len() {
        for n in 0..N {
            let (x, quants, scale) = (&x[block], &lines[n].0[block], lines[n].1[block]);
            for lane in 0..HALF {
                let pair = x[lane] * f32::from(quants[lane]) + x[lane + HALF] * f32::from(quants[lane + HALF]);
                sums[n][lane] += scale * pair;
            }
        }
    }
    sums.map(|sums| sums.iter().sum())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// However many lines there are, and whatever is left over when they are taken several at a time.
    #[test]
    fn one_row_times_lines_in_8_bits() {
        for (input, outputs) in [(32, 1), (64, 3), (64, 4), (96, 9), (160, 51)] {
            let x: Vec<f32> = (0..input).map(|i| (i % 7) as f32 - 3.0).collect();
            let quants: Vec<i8> = (0..outputs * input).map(|i| (i * 37 % 255) as i8).collect();
            let scales: Vec<f32> = (0..outputs * input / Q8_0_BLOCK).map(|i| 1.0 + (i % 4) as f32).collect();
            let mut out = vec![0.0; outputs];
            vectorised!(quantized_row(&x, &quants, &scales, &mut out));
            // Small whole numbers: every sum is exact, in any order.
            let lines = in_f32(&quants, &scales);
            let expected = lines.chunks(input).map(|line| line.iter().zip(&x).map(|(w, x)| w * x).sum());
            assert_eq!(out, expected.collect::<Vec<f32>>(), "{input} x {outputs}");
        }
    }
}
