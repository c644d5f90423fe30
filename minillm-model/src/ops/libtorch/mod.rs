//! For LibTorch: its own kernel where it has one for a whole operation, and fewer passes over memory than the layers' lines make
//! where it has none. The loss is the portable one.

mod adam_w;
mod attention;
mod element_wise;
mod matmul;
mod norm;

use burn::backend::LibTorch;

use super::cross_entropy::{CrossEntropyBackward, CrossEntropyOp};

impl CrossEntropyOp for LibTorch {}
impl CrossEntropyBackward for LibTorch {}
