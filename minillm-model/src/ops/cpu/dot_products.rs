//! Rows times the lines of a matrix stored output after output, as files have it: every result is the dot product of two runs
//! of memory. One row takes as long as the matrix takes to be read, three lines at a time, because a core that follows one line
//! only leaves the memory idle; with more rows, what was read is used for several at once.

use pulp::{Arch, Simd, WithSimd};

/// Rows and lines in a tile: its 12 sums, a vector of each line and one of a row fill the 16 registers of AVX2.
const ROWS: usize = 4;
const LINES: usize = 3;

/// # Shapes
/// - `x`: rows of `input`, `lines`: `[lines, input]` -> `out`: rows of `lines`
pub fn dot_products(x: &[f32], lines: &[f32], input: usize, out: &mut [f32]) {
    Arch::new().dispatch(Tiles { x, lines, input, out });
}

struct Tiles<'a> {
    x: &'a [f32],
    lines: &'a [f32],
    input: usize,
    out: &'a mut [f32],
}

impl WithSimd for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, lines, input, out } = self;
        let width = lines.len() / input;
        for (x, out) in x.chunks(ROWS * input).zip(out.chunks_mut(ROWS * width)) {
            match x.len() / input {
                4 => pass::<S, 4>(simd, x, lines, input, out),
                3 => pass::<S, 3>(simd, x, lines, input, out),
                2 => pass::<S, 2>(simd, x, lines, input, out),
                _ => pass::<S, 1>(simd, x, lines, input, out),
            }
        }
    }
}

/// R rows past all lines.
#[inline(always)]
fn pass<S: Simd, const R: usize>(simd: S, x: &[f32], lines: &[f32], input: usize, out: &mut [f32]) {
    let width = lines.len() / input;
    let whole = width / LINES * LINES;
    for first in (0..whole).step_by(LINES) {
        let sums = tile::<S, R, LINES>(simd, x, &lines[first * input..], input);
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(width)) {
            out[first..][..LINES].copy_from_slice(sums);
        }
    }
    for first in whole..width {
        let sums = tile::<S, R, 1>(simd, x, &lines[first * input..], input);
        for ([sum], out) in sums.iter().zip(out.chunks_exact_mut(width)) {
            out[first] = *sum;
        }
    }
}

/// The first R rows times the first C lines.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(simd: S, x: &[f32], lines: &[f32], input: usize) -> [[f32; C]; R] {
    let (x_vectors, line_vectors) = (vectors::<S, R>(x, input), vectors::<S, C>(lines, input));
    let whole = input / S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    for i in 0..whole {
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = simd.mul_add_e_f32s(x_vectors[r][i], line_vectors[c][i], sums[r][c]);
            }
        }
    }
    let mut out = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            out[r][c] = simd.reduce_sum_f32s(sums[r][c]);
        }
    }
    let rest = whole * S::F32_LANES..input;
    if !rest.is_empty() {
        for (r, out) in out.iter_mut().enumerate() {
            for (c, out) in out.iter_mut().enumerate() {
                let (x, line) = (&x[r * input..][rest.clone()], &lines[c * input..][rest.clone()]);
                *out += x.iter().zip(line).map(|(x, number)| x * number).sum::<f32>();
            }
        }
    }
    out
}

/// The first N runs of `input` numbers, without those that do not fill a vector.
#[inline(always)]
fn vectors<S: Simd, const N: usize>(numbers: &[f32], input: usize) -> [&[S::f32s]; N] {
    let mut vectors: [&[S::f32s]; N] = [&[]; N];
    for (vectors, numbers) in vectors.iter_mut().zip(numbers.chunks_exact(input)) {
        *vectors = &S::as_simd_f32s(numbers).0[..input / S::F32_LANES];
    }
    vectors
}
