//! The element-wise halves of Muon's rule for many matrices of one shape: their gradients into one batch, and the batch's directions back
//! into the weights. Between the two are products of the whole batch.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::multi_tensor::{groups_of, to_change};
use super::{Lazy, UNITS, a_cube_each, dense, empty, queue_any};
use crate::ops::update::MuonStep;

/// Numbers that a cube takes.
const NUMBERS_OF_A_CUBE: usize = 1024;

/// `m = beta m + g` of each matrix, and the batch of `g + beta m`, tall matrices transposed: `[n, rows, columns]`.
pub fn momentum(
    gradients: Vec<Lazy>,
    momenta: Vec<Lazy>,
    control: Lazy,
    tall: Vec<bool>,
    [rows, columns]: [usize; 2],
    beta: f32,
) -> (Vec<Lazy>, Lazy) {
    let matrices = gradients.len();
    let mut shapes: Vec<Shape> = momenta.iter().map(TensorMetadata::shape).collect();
    shapes.push(Shape::new([matrices, rows, columns]));
    let inputs = gradients.into_iter().zip(momenta).flat_map(|(gradient, momentum)| [gradient, momentum]);
    let inputs = inputs.chain([control]).collect();
    let mut outputs = queue_any("muon_momentum", inputs, shapes, move |mut tensors| {
        let control = dense(tensors.pop().expect("the control"));
        let batch = empty(&control, [matrices, rows, columns]);
        let mut pairs = Vec::with_capacity(matrices);
        let mut left = tensors.into_iter();
        while let (Some(gradient), Some(momentum)) = (left.next(), left.next()) {
            pairs.push([dense(gradient), to_change(momentum)]);
        }
        let outputs = pairs.iter().map(|[_, momentum]| momentum.clone()).chain([batch.clone()]).collect();
        let cubes = (rows * columns).div_ceil(NUMBERS_OF_A_CUBE);
        let mut first = 0;
        for pairs in groups_of(pairs, &control, 2) {
            let number = pairs.len();
            let (mut gradients, mut momenta, mut transposed) =
                (SequenceArg::new(), SequenceArg::new(), SequenceArg::new());
            for (index, [gradient, momentum]) in pairs.into_iter().enumerate() {
                gradients.push(gradient.into_buffer_arg());
                momenta.push(momentum.into_buffer_arg());
                transposed.push(u32::from(tall[first + index]));
            }
            let (count, dim) = a_cube_each(&control, number * cubes);
            momentum_kernel::launch(
                &control.client,
                count,
                dim,
                gradients,
                momenta,
                transposed,
                batch.clone().into_buffer_arg(),
                control.clone().into_buffer_arg(),
                beta,
                first,
                cubes,
                rows,
                columns,
            );
            first += number;
        }
        outputs
    });
    let batch = outputs.pop().unwrap_or_else(|| panic!("the batch is the last output"));
    (outputs, batch)
}

#[cube(launch)]
fn momentum_kernel(
    gradients: &Sequence<Box<[f32]>>,
    momenta: &mut Sequence<Box<[f32]>>,
    transposed: Sequence<u32>,
    batch: &mut [f32],
    control: &[f32],
    beta: f32,
    first: usize,
    cubes: usize,
    rows: usize,
    columns: usize,
) {
    let factor = control[2];
    let matrix = CUBE_POS as usize / cubes;
    let begin = CUBE_POS as usize % cubes * NUMBERS_OF_A_CUBE;
    let end = min(begin + NUMBERS_OF_A_CUBE, rows * columns);
    #[unroll]
    for index in 0..gradients.len() {
        if matrix == index {
            let mut place = begin + UNIT_POS as usize;
            while place < end {
                let gradient = gradients.index(index)[place] * factor;
                let mut momentum = momenta.index(index)[place];
                if factor >= 0.0f32 {
                    momentum = momentum * beta + gradient;
                    momenta.index_mut(index)[place] = momentum;
                }
                // A tall matrix, `[columns, rows]` here, lies transposed in the batch.
                let mut target = place;
                if *transposed.index(index) == 1 {
                    target = place % rows * columns + place / rows;
                }
                batch[(first + index) * rows * columns + target] = gradient + momentum * beta;
                place += UNITS;
            }
        }
    }
}

/// `W = keep W - rate O`, where O is each matrix's direction in the batch.
pub fn update(weights: Vec<Lazy>, batch: Lazy, control: Lazy, tall: Vec<bool>, step: MuonStep) -> Vec<Lazy> {
    let shapes = weights.iter().map(TensorMetadata::shape).collect();
    let [_, rows, columns] = batch.shape().dims();
    let inputs = weights.into_iter().chain([batch, control]).collect();
    queue_any("muon_update", inputs, shapes, move |mut tensors| {
        let control = dense(tensors.pop().expect("the control"));
        let batch = dense(tensors.pop().expect("the batch"));
        let weights: Vec<[CubeTensor; 1]> = tensors.into_iter().map(|weight| [to_change(weight)]).collect();
        let outputs = weights.iter().map(|[weight]| weight.clone()).collect();
        let cubes = (rows * columns).div_ceil(NUMBERS_OF_A_CUBE);
        let mut first = 0;
        for weights in groups_of(weights, &control, 2) {
            let number = weights.len();
            let (mut buffers, mut transposed) = (SequenceArg::new(), SequenceArg::new());
            for (index, [weight]) in weights.into_iter().enumerate() {
                buffers.push(weight.into_buffer_arg());
                transposed.push(u32::from(tall[first + index]));
            }
            let (count, dim) = a_cube_each(&control, number * cubes);
            update_kernel::launch(
                &control.client,
                count,
                dim,
                buffers,
                transposed,
                batch.clone().into_buffer_arg(),
                control.clone().into_buffer_arg(),
                step.keep as f32,
                step.rate as f32,
                first,
                cubes,
                rows,
                columns,
            );
            first += number;
        }
        outputs
    })
}

#[cube(launch)]
fn update_kernel(
    weights: &mut Sequence<Box<[f32]>>,
    transposed: Sequence<u32>,
    batch: &[f32],
    control: &[f32],
    keep: f32,
    rate: f32,
    first: usize,
    cubes: usize,
    rows: usize,
    columns: usize,
) {
    if control[2] >= 0.0f32 {
        let matrix = CUBE_POS as usize / cubes;
        let begin = CUBE_POS as usize % cubes * NUMBERS_OF_A_CUBE;
        let end = min(begin + NUMBERS_OF_A_CUBE, rows * columns);
        #[unroll]
        for index in 0..transposed.len() {
            if matrix == index {
                let mut place = begin + UNIT_POS as usize;
                while place < end {
                    let mut source = place;
                    if *transposed.index(index) == 1 {
                        source = place % rows * columns + place / rows;
                    }
                    let direction = batch[(first + index) * rows * columns + source];
                    let weight = weights.index(index)[place];
                    weights.index_mut(index)[place] = weight * keep - direction * rate;
                    place += UNITS;
                }
            }
        }
    }
}
