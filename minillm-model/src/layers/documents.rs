//! Several documents in one row, as if each stood alone: the conversations of a training batch.
//!
//! A row is filled with documents so that little of it is padding. None may look at another, so the mask is a causal triangle for each
//! (*block-diagonal*), and positions count from 0 in each:
//!
//! ```text
//! row        a0 a1 a2 b0 b1          a0 |x        who may look (x) at whom: a query of b sees nothing of a
//! starts      0  0  0  3  3          a1 |x x
//! positions   0  1  2  0  1          a2 |x x x
//!                                    b0 |      x
//!                                    b1 |      x x
//! ```
//!
//! Only learned positions have to be counted anew. With rotary embedding the difference of two positions is all that a score depends on,
//! and within a document it is the same wherever in the row the document lies.

use std::sync::Arc;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Where the document of every token of a batch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// `[B, T]`, row by row: the place in its row where the token's document begins.
    starts: Arc<[u32]>,
    /// T.
    context: usize,
}

impl Documents {
    /// From the place in its row where each token's document begins, row by row.
    ///
    /// # Panics
    /// If `starts` are not whole rows of `context` tokens, or a document begins behind one of its tokens.
    pub fn new(starts: Vec<u32>, context: usize) -> Self {
        assert!(starts.len().is_multiple_of(context), "{} tokens in rows of {context}", starts.len());
        assert!(starts.iter().enumerate().all(|(place, &start)| start as usize <= place % context));
        Self { starts: starts.into(), context }
    }

    /// Those of the tensor operations: `[B, T]`, row by row.
    pub fn starts(&self) -> Arc<[u32]> {
        Arc::clone(&self.starts)
    }

    /// Each token's place in its document.
    ///
    /// # Shapes
    /// - -> `[B, T]`
    pub fn positions(&self, device: &Device) -> Tensor<2, Int> {
        let place = |(index, &start): (usize, &u32)| (index % self.context - start as usize) as i32;
        self.tensor(self.starts.iter().enumerate().map(place).collect(), device)
    }

    /// True where a query may not look because the key belongs to an earlier document.
    ///
    /// # Shapes
    /// - -> `[B, 1, T, T]`
    pub fn mask(&self, device: &Device) -> Tensor<4, Bool> {
        let t = self.context as i64;
        let starts = self.tensor(self.starts.iter().map(|&start| start as i32).collect(), device); // [B, T]
        let [b, _] = starts.dims();
        let starts = starts.reshape([b, 1, self.context, 1]).repeat_dim(3, self.context); // [B, 1, T, T]
        let keys = Tensor::<1, Int>::arange(0..t, device).reshape([1, 1, 1, self.context]); // [1, 1, 1, T]
        keys.expand(starts.dims()).lower(starts)
    }

    fn tensor(&self, numbers: Vec<i32>, device: &Device) -> Tensor<2, Int> {
        let rows = numbers.len() / self.context;
        Tensor::from_data(TensorData::new(numbers, [rows, self.context]), device)
    }
}
