//! Number formats of weights: those that are written here ([`Encoding`]), and others that are only read.

use half::f16;

use crate::encoding::Encoding;

/// A number format that is read. All become f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFormat {
    /// One that is written, too.
    Encoding(Encoding),
    /// IEEE 754 double precision, 8 bytes; rounded to the nearest f32.
    F64,
    /// One byte: 4 bits of exponent, 3 of mantissa, no infinity (OCP 8-bit floating point, E4M3).
    F8E4M3,
    /// One byte, the upper half of an f16 (OCP 8-bit floating point, E5M2).
    F8E5M2,
}

impl NumberFormat {
    /// A format by its name in safetensors.
    pub(super) fn of_safetensors(dtype: &str) -> Option<Self> {
        Some(match dtype {
            "F32" => Self::Encoding(Encoding::F32),
            "F16" => Self::Encoding(Encoding::F16),
            "BF16" => Self::Encoding(Encoding::Bf16),
            "F64" => Self::F64,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            _ => return None,
        })
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoding(encoding) => encoding.name(),
            Self::F64 => "F64",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
        }
    }

    /// The bytes of a tensor of this shape; `None` where [`Encoding::bytes`] gives none.
    pub fn bytes(self, shape: &[usize]) -> Option<u64> {
        let width = match self {
            Self::Encoding(encoding) => return encoding.bytes(shape),
            Self::F64 => 8,
            Self::F8E4M3 | Self::F8E5M2 => 1,
        };
        shape.iter().try_fold(width, |bytes: u64, &size| bytes.checked_mul(size as u64))
    }

    /// The numbers of whole blocks, added to `values`.
    pub fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::Encoding(encoding) => encoding.decode(bytes, values),
            Self::F64 => values.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32)),
            Self::F8E4M3 => values.extend(bytes.iter().map(|&byte| e4m3(byte))),
            Self::F8E5M2 => values.extend(bytes.iter().map(|&byte| f16::from_bits(u16::from(byte) << 8).to_f32())),
        }
    }
}

/// Sign, 4 bits of exponent with a bias of 7, 3 bits of mantissa; all ones are the only NaN.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = ((byte >> 3) & 0xf, f32::from(byte & 7));
    let size = match exponent {
        0xf if byte & 7 == 7 => f32::NAN,
        0 => mantissa / 512.0, // 2^-6 * mantissa / 8
        _ => (1.0 + mantissa / 8.0) * 2_f32.powi(i32::from(exponent) - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(format: NumberFormat, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::new();
        format.decode(bytes, &mut values);
        values
    }

    #[test]
    fn doubles_are_rounded_to_the_nearest() {
        let doubles = [1.0, -0.1, 1.0 + f64::from(f32::EPSILON) * 0.75, 1e-300, f64::MAX];
        let bytes: Vec<u8> = doubles.iter().flat_map(|value| value.to_le_bytes()).collect();
        let values = decoded(NumberFormat::F64, &bytes);
        assert_eq!(values, [1.0, -0.1, 1.0 + f32::EPSILON, 0.0, f32::INFINITY]);
        assert_eq!(NumberFormat::F64.bytes(&[3, 5]), Some(120));
        assert_eq!(NumberFormat::F64.bytes(&[1 << 61, 1]), None);
    }

    /// Values of the table in the OCP specification (2023), section 5.
    #[test]
    fn bytes_are_the_specifications_numbers() {
        let values = decoded(NumberFormat::F8E4M3, &[0, 1, 7, 8, 0x38, 0x7e, 0xb8, 0x80]);
        assert_eq!(values, [0.0, 2_f32.powi(-9), 7.0 / 512.0, 2_f32.powi(-6), 1.0, 448.0, -1.0, 0.0]);
        assert!(decoded(NumberFormat::F8E4M3, &[0x7f, 0xff]).iter().all(|value| value.is_nan()));
        let values = decoded(NumberFormat::F8E5M2, &[0, 1, 4, 0x3c, 0x7b, 0xbc, 0x7c]);
        assert_eq!(values, [0.0, 2_f32.powi(-16), 2_f32.powi(-14), 1.0, 57_344.0, -1.0, f32::INFINITY]);
    }
}
