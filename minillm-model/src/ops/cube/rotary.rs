//! [`ops::rotary`](crate::ops::rotary) on a GPU: a unit for each number. The result lies as the projections leave queries and keys, and as
//! the gradients of the projections want them: token after token, heads side by side.

use burn::backend::{Cube, TensorMetadata};
use cubecl::prelude::*;

use super::attention::swapped;
use super::{Lazy, a_unit_each, dense, empty, queue};
use crate::ops::rotary::{Direction, RotaryOp};

impl RotaryOp for Cube {
    fn rotate(x: Lazy, cos: Lazy, sin: Lazy, direction: Direction) -> Lazy {
        let shape = x.shape();
        let [out] = queue("rotate", [x, cos, sin], [shape], move |[x, cos, sin]| {
            let [x, cos, sin] = [swapped(x), cos, sin].map(dense); // [B, T, heads, E]
            let [_, tokens, heads, width] = x.shape().dims();
            let out = empty(&x, x.shape());
            let (client, (count, dim)) = (x.client.clone(), a_unit_each(&x, x.shape().num_elements()));
            let turn = if direction == Direction::Forward { 1.0f32 } else { -1.0f32 };
            rotate_kernel::launch(
                &client,
                count,
                dim,
                x.into_buffer_arg(),
                cos.into_buffer_arg(),
                sin.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                turn,
                tokens,
                heads,
                width,
            );
            [swapped(out)]
        });
        out
    }
}

/// `x cos + partner sin`, where the partner is half a row away and the table has the sines' signs.
#[cube(launch)]
fn rotate_kernel(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
    turn: f32,
    tokens: usize,
    heads: usize,
    #[comptime] width: usize,
) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        let column = index % width;
        let angle = index / width / heads % tokens * width + column;
        let partner = x[index - column + (column + comptime!(width / 2)) % width];
        out[index] = x[index] * cos[angle] + partner * sin[angle] * turn;
    }
}
