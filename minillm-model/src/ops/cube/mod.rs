//! Kernels of our own for GPUs, written in `CubeCL`: one source for wgpu, Vulkan, Metal, CUDA and `ROCm`.
//!
//! A kernel is a Rust function under `#[cube]`. On the device it runs in *cubes* (CUDA's blocks, wgpu's workgroups) of
//! *units* (threads); the units of a cube share a little fast memory ([`Shared`](cubecl::prelude::Shared)) and wait for each
//! other at `sync_cube`. Nothing here uses planes (warps, subgroups), whose size differs between devices and which some do
//! not have.
//!
//! On a GPU most of Burn's operations are only noted down and run later, several in one kernel (`burn-fusion`). [`queue`]
//! notes down one of ours among them.

// A kernel's lines are translated for the device. Some of what Clippy would write instead has no translation, positions are of another
// type there than Clippy sees, and a kernel is not cut where its shared memory and its registers are one.
#![allow(
    clippy::assign_op_pattern,
    clippy::manual_div_ceil,
    clippy::needless_pass_by_value,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_cast
)]

mod activation;
pub(super) mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod join;
mod layer_norm;
pub(super) mod multi_tensor;
pub(super) mod muon;
mod quantized;
mod reduce;
mod rms_norm;
mod rotary;
mod swiglu;

use burn::backend::fusion::custom::{CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_cubecl::fusion::CubeFusionHandle;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::{CubeCount, CubeDim};
use cubecl::server::CubeCountSelection;

/// A tensor whose values may not be computed yet.
pub type Lazy = FloatTensor<Cube>;

/// Units in a cube where a cube has one row, or any piece of an element-wise operation: a whole number of planes on every
/// device, and no more than any device allows.
const UNITS: usize = 64;

/// Notes down an operation called `name`. When its turn comes, `run` is given the inputs and launches kernels that fill the
/// outputs, f32 tensors of the shapes `outputs`. Inputs have any strides; [`dense`] copies where a kernel needs rows.
fn queue<const N: usize, const M: usize>(
    name: &'static str,
    inputs: [Lazy; N],
    outputs: [Shape; M],
    run: impl Fn([CubeTensor; N]) -> [CubeTensor; M] + Send + Sync + 'static,
) -> [Lazy; M] {
    let run = move |inputs: Vec<CubeTensor>| {
        let inputs = inputs.try_into().unwrap_or_else(|_| panic!("{name} has {N} inputs"));
        run(inputs).to_vec()
    };
    let outputs = queue_any(name, Vec::from(inputs), Vec::from(outputs), run);
    outputs.try_into().unwrap_or_else(|_| panic!("{name} has {M} outputs"))
}

/// [`queue`] for a number of tensors that is known only when it is called.
fn queue_any(
    name: &'static str,
    inputs: Vec<Lazy>,
    outputs: Vec<Shape>,
    run: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
) -> Vec<Lazy> {
    let client = inputs[0].client.clone();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(Lazy::into_ir).collect();
    let outputs: Vec<TensorIr> =
        outputs.into_iter().map(|shape| TensorIr::uninit(client.create_empty_handle(), shape, DType::F32)).collect();
    let description =
        CustomOpIr { id: name.into(), inputs: inputs.clone(), outputs: outputs.clone(), scalars: Vec::new() };
    let operation = OperationFn(move |handles: &mut HandleContainer<CubeFusionHandle>| {
        let inputs = inputs.iter().map(|input| handles.get_float_tensor::<CubeBackend>(input)).collect();
        for (output, tensor) in outputs.iter().zip(run(inputs)) {
            debug_assert_eq!(tensor.shape(), output.shape, "{name}");
            handles.register_float_tensor::<CubeBackend>(&output.id, tensor);
        }
        Ok(())
    });
    client.register(StreamId::current(), OperationIr::Custom(description), operation)
}

/// `tensor` row after row in memory, copied only if it is not.
fn dense(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// An f32 tensor with whatever was in memory.
fn empty(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), DType::F32)
}

/// Enough cubes of [`UNITS`] for a unit for each of `count` numbers. A kernel asks `ABSOLUTE_POS < count`.
fn a_unit_each(like: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS as u32);
    (calculate_cube_count_elemwise(&like.client, count, dim), dim)
}

/// At least `count` cubes of [`UNITS`], in as many dimensions as the device needs. A kernel asks `CUBE_POS < count`.
fn a_cube_each(like: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    (CubeCountSelection::new(&like.client, count as u32).cube_count(), CubeDim::new_1d(UNITS as u32))
}
