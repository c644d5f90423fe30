//! Writing GGUF: keys in the order given, then tensors, each encoded when its turn comes.

use std::io::{BufWriter, Write};
use std::path::Path;

use fs_err as fs;

use super::super::tensor_files::{HostTensor, HostTensors, check_finite};
use super::{ALIGNMENT, MAGIC, VERSION, Value, tensor_type, value_type};
use crate::encoding::Encoding;
use crate::error::{Error, Result};

/// Keys with their values, in the order in which they are written.
pub type KeyList = Vec<(String, Value)>;

/// In which encoding a tensor, by GGUF's name or ours, is written when the file's is `encoding`: what has one dimension
/// stays f32 (it is small, and llama.cpp adds it to f32), and so do learned positions; rows that are not whole blocks of
/// `Q8_0` become f16.
pub fn encoding_of(name: &str, tensor: &HostTensor, encoding: Encoding) -> Encoding {
    if tensor.shape.len() < 2 || name.contains("position") {
        return Encoding::F32;
    }
    if encoding.bytes(&tensor.shape).is_some() { encoding } else { Encoding::F16 }
}

/// Writes a file of these keys and tensors. Values that are not finite are an error, and nothing is written.
pub fn write(path: &Path, keys: &KeyList, tensors: &HostTensors, encoding: Encoding) -> Result<()> {
    for (name, tensor) in tensors {
        check_finite(path, name, tensor, encoding_of(name, tensor, encoding))?;
    }
    write_unchecked(path, keys, tensors, encoding).map_err(|source| Error::Io {
        action: "write",
        what: "the model",
        source,
    })
}

fn write_unchecked(path: &Path, keys: &KeyList, tensors: &HostTensors, encoding: Encoding) -> std::io::Result<()> {
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut header, key);
        typed_value(&mut header, value);
    }
    let mut offset = 0;
    for (name, tensor) in tensors {
        let encoding = encoding_of(name, tensor, encoding);
        text(&mut header, name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        for &size in tensor.shape.iter().rev() {
            header.extend((size as u64).to_le_bytes()); // the fastest first
        }
        header.extend(tensor_type(encoding).to_le_bytes());
        header.extend(u64::to_le_bytes(offset));
        offset = (offset + encoding.bytes(&tensor.shape).unwrap_or_default()).next_multiple_of(ALIGNMENT);
    }
    let mut file = BufWriter::new(fs::File::create(path)?);
    pad(&mut header);
    file.write_all(&header)?;
    for (name, tensor) in tensors {
        let mut bytes = encoding_of(name, tensor, encoding).encode(&tensor.values);
        pad(&mut bytes);
        file.write_all(&bytes)?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Whole numbers are u32, lists of them i32, numbers f32: the types that llama.cpp expects for the keys we write.
fn typed_value(bytes: &mut Vec<u8>, value: &Value) {
    let list = |bytes: &mut Vec<u8>, kind: u32, count: usize| {
        bytes.extend(value_type::ARRAY.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend((count as u64).to_le_bytes());
    };
    match value {
        Value::Int(int) => {
            bytes.extend(value_type::U32.to_le_bytes());
            bytes.extend((*int as u32).to_le_bytes());
        }
        Value::Float(float) => {
            bytes.extend(value_type::F32.to_le_bytes());
            bytes.extend((*float as f32).to_le_bytes());
        }
        Value::Bool(flag) => {
            bytes.extend(value_type::BOOL.to_le_bytes());
            bytes.push(u8::from(*flag));
        }
        Value::Text(value) => {
            bytes.extend(value_type::STRING.to_le_bytes());
            text(bytes, value);
        }
        Value::Texts(texts) => {
            list(bytes, value_type::STRING, texts.len());
            texts.iter().for_each(|value| text(bytes, value));
        }
        Value::Ints(ints) => {
            list(bytes, value_type::I32, ints.len());
            bytes.extend(ints.iter().flat_map(|int| (*int as i32).to_le_bytes()));
        }
        Value::Floats(floats) => {
            list(bytes, value_type::F32, floats.len());
            bytes.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
        }
        Value::Bools(flags) => {
            list(bytes, value_type::BOOL, flags.len());
            bytes.extend(flags.iter().map(|flag| u8::from(*flag)));
        }
    }
}
