//! How numbers are written in weight files: f32, two halves of it, and blocks of 8-bit integers with a scale.

use half::{bf16, f16};

/// A number format of safetensors or GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// IEEE 754 single precision, 4 bytes.
    F32,
    /// IEEE 754 half precision, 2 bytes: 11 bits of mantissa, nothing above 65,504.
    F16,
    /// The upper half of an f32, 2 bytes: its whole range, 8 bits of mantissa.
    Bf16,
    /// llama.cpp's blocks of 32 numbers: an f16 scale, then 32 signed bytes. 34 bytes a block.
    Q8_0,
}

/// Numbers in a block of [`Encoding::Q8_0`].
pub const Q8_0_BLOCK: usize = 32;
const Q8_0_BYTES: usize = 2 + Q8_0_BLOCK;

impl Encoding {
    /// How many numbers are written together, and in how many bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (Q8_0_BLOCK, Q8_0_BYTES),
        }
    }

    /// The bytes of a tensor of this shape, slowest dimension first. `None` if a row is not whole blocks, or if the count
    /// does not fit in 64 bits.
    pub fn bytes(self, shape: &[usize]) -> Option<u64> {
        let (numbers, bytes) = self.block();
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(numbers) {
            return None;
        }
        let count = shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64))?;
        (count / numbers as u64).checked_mul(bytes as u64)
    }

    /// The numbers of whole blocks, added to `values`.
    pub fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::F32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Self::F16 => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            Self::Q8_0 => {
                for [low, high, quants @ ..] in bytes.as_chunks::<Q8_0_BYTES>().0 {
                    let scale = f16::from_le_bytes([*low, *high]).to_f32();
                    values.extend(quants.iter().map(|&quant| scale * f32::from(quant.cast_signed())));
                }
            }
        }
    }

    /// The bytes of `values`, which are whole blocks. Halves are rounded to the nearest, as everywhere.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            Self::Q8_0 => values.chunks(Q8_0_BLOCK).flat_map(q8_0_block).collect(),
        }
    }

    /// What reading gives back of `values` after writing.
    pub fn round(self, values: &[f32]) -> Vec<f32> {
        let mut rounded = Vec::with_capacity(values.len());
        self.decode(&self.encode(values), &mut rounded);
        rounded
    }

    /// As it is called in file names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
        }
    }
}

/// As ggml's `quantize_row_q8_0_ref`: the largest number becomes 127, the others are rounded to the same scale.
fn q8_0_block(values: &[f32]) -> [u8; Q8_0_BYTES] {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = [0; Q8_0_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (quant, value) in block[2..].iter_mut().zip(values) {
        *quant = ((value * inverse).round() as i8).cast_unsigned();
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_values_survive() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32 - 32.0) / 8.0).collect();
        for encoding in [Encoding::F32, Encoding::F16, Encoding::Bf16] {
            assert_eq!(encoding.round(&values), values, "{encoding:?}");
        }
    }

    #[test]
    fn rounding_errors_are_those_of_the_formats() {
        let values: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.37).sin()).collect();
        // Half a unit of the last place: 2^-11 and 2^-8 relative. Q8_0: half a step of the block's largest / 127, and the
        // f16 scale's own 2^-11.
        for (encoding, relative, absolute) in [
            (Encoding::F16, 1.0 / 2048.0, 3e-8),
            (Encoding::Bf16, 1.0 / 256.0, 0.0),
            (Encoding::Q8_0, 1.0 / 2048.0, 0.5 / 127.0 + 1e-6),
        ] {
            for (value, rounded) in values.iter().zip(encoding.round(&values)) {
                let bound = relative * value.abs() + absolute;
                assert!((value - rounded).abs() <= bound, "{encoding:?}: {value} became {rounded}");
            }
        }
    }

    /// Bytes of ggml's reference for the numbers 0, 1, .. 31: scale 31/127 = 0.2441 (f16 0x33d0), then round(i * 127/31).
    #[test]
    fn q8_0_is_ggmls() {
        let values: Vec<f32> = (0..32_u8).map(f32::from).collect();
        let bytes = Encoding::Q8_0.encode(&values);
        assert_eq!(bytes[..2], [0xd0, 0x33]);
        let expected: Vec<u8> = (0..32).map(|i| (f64::from(i) * 127.0 / 31.0).round() as u8).collect();
        assert_eq!(bytes[2..], expected);
        assert_eq!(Encoding::Q8_0.encode(&[0.0; 32]), [0; 34]);
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(Encoding::Q8_0.bytes(&[3, 64]), Some(3 * 68));
        assert_eq!(Encoding::Q8_0.bytes(&[64, 3]), None);
        assert_eq!(Encoding::F16.bytes(&[]), Some(2));
        assert_eq!(Encoding::F32.bytes(&[0, 5]), Some(0));
        assert_eq!(Encoding::F32.bytes(&[usize::MAX, 2]), None);
        assert_eq!(Encoding::F32.bytes(&[1 << 32, 1 << 30]), None);
    }
}
