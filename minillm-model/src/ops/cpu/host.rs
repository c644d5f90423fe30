//! What a backend must offer for its tensors to be read and made here: nothing is copied unless the numbers of a
//! tensor's last dimension are apart in memory.

use std::borrow::Cow;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, TensorData};

use super::product::Matrix;
use super::view::Heads;

/// Why a tensor of another type is a bug of ours: [`Precision`](crate::ops::Precision) allows these backends no other.
const ONLY_F32: &str = "models are f32 on the CPU backends";

/// And of words: `ops::quantized` makes no others.
const WORDS: &str = "a matrix in 8 bits is words of 32 bits, row after row";

/// A backend whose tensors are slices of this process's memory.
pub trait Host: Backend {
    /// A tensor of these numbers, row-major.
    fn tensor(values: Vec<f32>, shape: Shape) -> FloatTensor<Self>;

    /// Its numbers, row-major.
    fn as_slice(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

    /// Its numbers, row-major, to keep; copied only if another tensor shares them.
    fn into_vec(tensor: FloatTensor<Self>) -> Vec<f32>;

    /// Its numbers as they are stored, the first one first, with the strides of each dimension; `None` where they are not in
    /// one slice.
    fn strided(tensor: &FloatTensor<Self>) -> Option<(&[f32], Vec<usize>)>;

    /// The ids in it, row-major.
    fn ids(tensor: &IntTensor<Self>) -> Vec<i32>;

    /// The bytes of a tensor of 32-bit words that is stored row-major.
    fn bytes(words: &IntTensor<Self>) -> &[i8];
}

/// A tensor of dimensions `[B, heads, T, E]`, borrowed where its last dimension is contiguous and copied where not.
pub struct HeadsIn<'a> {
    data: Cow<'a, [f32]>,
    shape: [usize; 4],
    strides: [usize; 3],
}

impl<'a> HeadsIn<'a> {
    /// The values of a tensor with four dimensions.
    pub fn of<B: Host>(tensor: &'a FloatTensor<B>) -> Self {
        let shape: [usize; 4] = tensor.shape().dims();
        let [_, heads, t, e] = shape;
        match B::strided(tensor) {
            Some((data, strides)) if strides[3] == 1 || e == 1 => {
                Self { data: Cow::Borrowed(data), shape, strides: [strides[0], strides[1], strides[2]] }
            }
            _ => Self { data: B::as_slice(tensor), shape, strides: [heads * t * e, t * e, e] },
        }
    }

    /// A view to read from.
    pub fn view(&self) -> Heads<'_> {
        Heads { data: &self.data, shape: self.shape, strides: self.strides }
    }
}

/// A tensor of two dimensions, borrowed where it or its transpose is stored row after row and copied where not.
pub struct MatrixIn<'a> {
    data: Cow<'a, [f32]>,
    shape: [usize; 2],
    transposed: bool,
}

impl<'a> MatrixIn<'a> {
    /// The values of a tensor with two dimensions.
    pub fn of<B: Host>(tensor: &'a FloatTensor<B>) -> Self {
        let shape: [usize; 2] = tensor.shape().dims();
        match B::strided(tensor) {
            Some((data, strides)) if strides == [1, shape[0]] => {
                Self { data: Cow::Borrowed(&data[..shape[0] * shape[1]]), shape, transposed: true }
            }
            _ => Self { data: B::as_slice(tensor), shape, transposed: false },
        }
    }

    /// A view to read from.
    pub fn view(&self) -> Matrix<'_> {
        let [rows, columns] = self.shape;
        if self.transposed {
            Matrix::new(&self.data, columns, rows, rows).transposed()
        } else {
            Matrix::new(&self.data, rows, columns, columns)
        }
    }
}

#[cfg(feature = "flex")]
impl Host for burn::backend::Flex {
    fn tensor(values: Vec<f32>, shape: Shape) -> FloatTensor<Self> {
        burn::backend::flex::FlexTensor::from_data(TensorData::new(values, shape))
    }

    fn as_slice(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        if let Some(numbers) = tensor.as_slice::<f32>() {
            return Cow::Borrowed(numbers);
        }
        Cow::Owned(Self::into_vec(tensor.to_contiguous()))
    }

    fn into_vec(tensor: FloatTensor<Self>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect(ONLY_F32)
    }

    fn strided(tensor: &FloatTensor<Self>) -> Option<(&[f32], Vec<usize>)> {
        let layout = tensor.layout();
        let strides = layout.strides().iter().map(|&stride| usize::try_from(stride));
        Some((&tensor.storage::<f32>()[layout.start_offset()..], strides.collect::<Result<_, _>>().ok()?))
    }

    fn ids(tensor: &IntTensor<Self>) -> Vec<i32> {
        tensor.to_contiguous().into_data().iter::<i32>().collect()
    }

    fn bytes(words: &IntTensor<Self>) -> &[i8] {
        bytemuck::cast_slice(words.as_slice::<i32>().expect(WORDS))
    }
}

#[cfg(feature = "ndarray")]
impl Host for burn::backend::NdArray {
    fn tensor(values: Vec<f32>, shape: Shape) -> FloatTensor<Self> {
        burn::backend::ndarray::NdArrayTensor::from_data(TensorData::new(values, shape))
    }

    fn as_slice(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        let burn::backend::ndarray::NdArrayTensor::F32(storage) = tensor else { panic!("{ONLY_F32}") };
        match storage.view().to_slice() {
            Some(numbers) => Cow::Borrowed(numbers),
            None => Cow::Owned(storage.view().iter().copied().collect()),
        }
    }

    fn into_vec(tensor: FloatTensor<Self>) -> Vec<f32> {
        let burn::backend::ndarray::NdArrayTensor::F32(storage) = tensor else { panic!("{ONLY_F32}") };
        let array = storage.into_owned().into_owned();
        if array.is_standard_layout() {
            let length = array.len();
            let (mut numbers, start) = array.into_raw_vec_and_offset();
            numbers.truncate(start.unwrap_or(0) + length);
            numbers.drain(..start.unwrap_or(0));
            return numbers;
        }
        array.iter().copied().collect()
    }

    fn strided(tensor: &FloatTensor<Self>) -> Option<(&[f32], Vec<usize>)> {
        let burn::backend::ndarray::NdArrayTensor::F32(storage) = tensor else { panic!("{ONLY_F32}") };
        let view = storage.view();
        let strides = view.strides().iter().map(|&stride| usize::try_from(stride));
        // With strides that are not negative, the first number in memory is the first of the tensor.
        let strides = strides.collect::<Result<_, _>>().ok()?;
        Some((view.to_slice_memory_order()?, strides))
    }

    fn ids(tensor: &IntTensor<Self>) -> Vec<i32> {
        use burn::backend::ndarray::NdArrayTensor;
        match tensor {
            NdArrayTensor::I64(storage) => storage.view().iter().map(|&id| id as i32).collect(),
            NdArrayTensor::I32(storage) => storage.view().iter().copied().collect(),
            _ => panic!("Burn's ndarray backend makes ids of 64 bits, and of 32 if told so"),
        }
    }

    fn bytes(words: &IntTensor<Self>) -> &[i8] {
        let burn::backend::ndarray::NdArrayTensor::I32(storage) = words else { panic!("{WORDS}") };
        bytemuck::cast_slice(storage.view().to_slice().expect(WORDS))
    }
}
