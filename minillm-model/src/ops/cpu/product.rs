//! Matrix products on slices, by the `gemm` crate, whose kernels Burn's own CPU backend uses.

/// A matrix in a slice: row r, column c is `data[r * row_stride + c * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` of `columns` numbers each, `row_stride` apart.
    ///
    /// # Panics
    /// If `data` is too short for them.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * row_stride + columns <= data.len(), "the slice is too short");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Its columns one after the other, if that is how they lie.
    pub fn columns(&self) -> Option<&'a [f32]> {
        let lie_so = self.row_stride == 1 && self.column_stride == self.rows;
        lie_so.then(|| &self.data[..self.rows * self.columns])
    }

    /// Rows and columns exchanged; nothing is copied.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Whether a product replaces what is in its place or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `out = a b`
    Replace,
    /// `out += a b`
    Add,
}

/// `factor * a b` into `out`, row-major with rows `out_stride` apart, on as many threads as the pool has if it is large.
///
/// # Panics
/// If the sizes do not fit.
pub fn product(out: &mut [f32], out_stride: usize, store: Store, factor: f32, a: Matrix, b: Matrix) {
    /// Multiplications below which handing work to another thread costs more than it saves (as in burn-flex).
    const WORTH_SHARING: usize = 192 * 192 * 192;

    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "columns of the left matrix and rows of the right one");
    assert!(n <= out_stride && (m == 0 || (m - 1) * out_stride + n <= out.len()), "the output is too short");
    let parallel = m * n * k >= WORTH_SHARING && rayon::current_num_threads() > 1;
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: every index that the product reads or writes lies inside its slice, by the assertions here and in
    // `Matrix::new`; `out` is borrowed mutably, so it overlaps neither input.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            store == Store::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0, // times what is in `out`
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // small whole numbers are exact
    fn products_of_strided_and_transposed_matrices() {
        // a = [1 2; 3 4; 5 6] inside rows of three, b = [1 0 2; 0 1 3]
        let a = [1.0, 2.0, -9.0, 3.0, 4.0, -9.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 3.0];
        let (a, b) = (Matrix::new(&a, 3, 2, 3), Matrix::new(&b, 2, 3, 3));
        let mut out = [7.0; 12];
        product(&mut out, 4, Store::Replace, 1.0, a, b);
        assert_eq!(out, [1.0, 2.0, 8.0, 7.0, 3.0, 4.0, 18.0, 7.0, 5.0, 6.0, 28.0, 7.0]);
        product(&mut out[..11], 4, Store::Add, 2.0, a, b);
        assert_eq!(out, [3.0, 6.0, 24.0, 7.0, 9.0, 12.0, 54.0, 7.0, 15.0, 18.0, 84.0, 7.0]);
        let mut square = [0.0; 4];
        product(&mut square, 2, Store::Replace, 1.0, a.transposed(), a);
        assert_eq!(square, [35.0, 44.0, 44.0, 56.0]);
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn a_slice_that_is_too_short_is_noticed() {
        Matrix::new(&[0.0; 5], 2, 3, 3);
    }
}
