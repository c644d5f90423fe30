//! A model's matrices as generation reads them: stored as files store them, or in 8 bits, a quarter of the memory and of the
//! time to read it.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Device, Shape, Tensor};

use crate::checkpoint::weights::to_host;
use crate::decoder::{Decoder, LanguageModel};
use crate::encoding::Q8_0_BLOCK;
use crate::error::{Error, Result};
use crate::layers::linear::Linear;
use crate::ops::generation::output_major;
use crate::ops::quantized::QuantizedMatrix;

impl LanguageModel {
    /// The same model with its matrices as generation reads them, and as a model read from a file has them: both then compute
    /// the same bits. For a model without autodiff; a copy of its matrices where they are stored as in training.
    #[must_use]
    pub fn for_generation(mut self) -> Self {
        if self.compute.decode_matvec {
            for linear in self.model.linears().chain(&mut self.lm_head).filter(|linear| linear.quantized.is_none()) {
                linear.weight = Param::from_tensor(output_major(linear.weight.val()));
            }
        }
        self
    }

    /// The same model with every matrix of a linear layer and the output matrix in llama.cpp's `Q8_0`. It generates and
    /// scores; it can be neither trained nor saved. Fails on a device without the kernels (LibTorch's), and on a width that is
    /// not whole blocks.
    pub fn quantized(mut self) -> Result<Self> {
        if !self.compute.quantized {
            return Err(Error::InvalidConfig {
                field: "weights",
                problem: "cannot be in 8 bits on this device".to_owned(),
                hint: "choose `--device flex` or a GPU's, or leave the weights in f32".to_owned(),
            });
        }
        if self.lm_head.is_none() {
            let embedding = to_host("", &self.model.embed_tokens.weight.val())?; // [V, D]
            self.quantized = Some(Arc::new(matrix(&embedding.values, embedding.shape[1], &self.device())?));
        }
        for linear in self.model.linears().chain(&mut self.lm_head) {
            quantize(linear)?;
        }
        // A GPU's backend keeps freed memory for itself.
        let device = self.device();
        device.sync().map_err(|error| Error::Device(error.to_string()))?;
        device.memory_cleanup();
        Ok(self)
    }

    /// The memory that the weights take up, in bytes, however they are kept.
    pub fn weight_bytes(&self) -> usize {
        let mut model = self.clone();
        let head = model.quantized.take().map_or(0, |matrix| matrix.bytes());
        let linears = model.model.linears().chain(&mut model.lm_head);
        let quantized: usize =
            linears.filter_map(|linear| linear.quantized.as_ref()).map(|matrix| matrix.bytes()).sum();
        let numbers: usize =
            crate::parameters::list(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        head + quantized + numbers * size_of::<f32>()
    }
}

fn quantize(linear: &mut Linear) -> Result<()> {
    let weight = linear.weight.val();
    let device = weight.device();
    let transposed = to_host("", &weight.transpose())?; // [output, input]
    linear.quantized = Some(Arc::new(matrix(&transposed.values, transposed.shape[1], &device)?));
    linear.weight = Param::from_tensor(Tensor::empty(Shape::new([0, 0]), &device));
    Ok(())
}

fn matrix(weight: &[f32], input: usize, device: &Device) -> Result<QuantizedMatrix> {
    QuantizedMatrix::new(weight, input, device).ok_or_else(|| Error::InvalidConfig {
        field: "hidden_size",
        problem: format!("and `intermediate_size` must be multiples of {Q8_0_BLOCK} for 8-bit weights; {input} is not"),
        hint: "leave the weights in f32".to_owned(),
    })
}

impl Decoder {
    /// The matrices of all blocks.
    fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|block| block.linears().into_iter().map(|(_, linear)| linear))
    }
}
