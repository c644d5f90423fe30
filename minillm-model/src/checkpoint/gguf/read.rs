//! Reading untrusted GGUF files: every count and length is compared with the bytes that are left before memory is spent on
//! it, and a value of the wrong type is an error that names its key.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::file::{self, damaged};
use super::super::number_format::NumberFormat;
use super::super::tensor_files::{MOST_TENSORS, Stored, TensorFiles};
use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, Texts, VERSION, Value, tensor_type, value_type};
use crate::encoding::Encoding;
use crate::error::{Error, Result};

/// Files of real models have some dozens.
const MOST_KEYS: u64 = 65_536;
const MOST_DIMENSIONS: u32 = 4;
const LONGEST_TEXT_BYTES: u64 = 16 << 20;
/// In all lists of a file together: token texts, their types and the merges of the largest vocabularies.
const MOST_ELEMENTS: u64 = 4 << 20;
/// The most bytes in all texts of a file together.
const MOST_TEXT_BYTES: u64 = 64 << 20;
const LARGEST_ALIGNMENT: i128 = 65_536;
/// ggml's number for tensors in double precision, which are read but not written.
const F64_TENSOR: u32 = 28;

/// A file's keys.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

/// Opens a file: its keys, and its tensors ready to be read.
pub fn open(path: &Path) -> Result<(Keys, TensorFiles)> {
    let io = |source| Error::Io { action: "read", what: "the model", source };
    let mut file = file::open(path, "the model")?;
    let length = file.metadata().map_err(io)?.len();
    let (keys, stored) = read_header(path, &mut file, length)?;
    let mut tensors = TensorFiles::new();
    tensors.add(file, stored)?;
    Ok((keys, tensors))
}

/// Reads everything but the data of a file of `length` bytes; `path` is for messages.
pub fn read_header(
    path: &Path,
    file: &mut (impl Read + Seek),
    length: u64,
) -> Result<(Keys, BTreeMap<String, Stored>)> {
    let mut cursor =
        Cursor { path, reader: BufReader::with_capacity(1 << 16, file), at: 0, length, elements: 0, text_bytes: 0 };
    if cursor.bytes::<4>("the magic bytes")? != MAGIC {
        return Err(cursor.damaged("does not begin with `GGUF`"));
    }
    let version = cursor.u32("the version")?;
    if version != VERSION && version != 2 {
        let problem = format!("is GGUF version {version}; versions 2 and 3 are read");
        return Err(Error::InvalidFile {
            path: path.to_owned(),
            problem,
            hint: "convert the model again with a current llama.cpp".to_owned(),
        });
    }
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of keys")?;
    if tensor_count > MOST_TENSORS as u64 || key_count > MOST_KEYS {
        return Err(cursor.damaged(format!("claims {tensor_count} tensors and {key_count} keys")));
    }
    let mut values = BTreeMap::new();
    for _ in 0..key_count {
        let key = cursor.text("a key")?;
        let kind = cursor.u32(&key)?;
        let value = cursor.value(&key, kind)?;
        if values.insert(key.clone(), value).is_some() {
            return Err(cursor.damaged(format!("holds the key `{key}` twice")));
        }
    }
    let alignment = match values.get(ALIGNMENT_KEY) {
        None => ALIGNMENT,
        Some(Value::Int(alignment)) if (1..=LARGEST_ALIGNMENT).contains(alignment) && alignment.count_ones() == 1 => {
            *alignment as u64
        }
        Some(other) => return Err(cursor.damaged(format!("`{ALIGNMENT_KEY}` is {other:?}, not a power of two"))),
    };
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(cursor.tensor()?);
    }
    let data = cursor.at.next_multiple_of(alignment);
    let stored = place(path, tensors, data, alignment, length)?;
    let seek = cursor.reader.seek(SeekFrom::Start(0));
    seek.map_err(|source| Error::Io { action: "read", what: "the model", source })?;
    Ok((Keys { path: path.to_owned(), values }, stored))
}

/// A tensor as the header describes it.
struct Described {
    name: String,
    shape: Vec<usize>,
    format: Result<NumberFormat, String>,
    offset: u64,
}

/// Checks that the tensors lie within the file and apart from one another. (How long one of an unknown format is, nobody
/// can say; it only must begin within.)
fn place(
    path: &Path,
    mut tensors: Vec<Described>,
    data: u64,
    alignment: u64,
    length: u64,
) -> Result<BTreeMap<String, Stored>> {
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut stored = BTreeMap::new();
    let mut end = data;
    for Described { name, shape, format, offset } in tensors {
        let begin = data.checked_add(offset).filter(|begin| *begin <= length && offset.is_multiple_of(alignment));
        let Some(begin) = begin else {
            return Err(damaged(
                path,
                format!("the tensor `{name}` has the offset {offset}, outside or between places"),
            ));
        };
        if begin < end {
            return Err(damaged(path, format!("the tensor `{name}` overlaps another")));
        }
        end = begin;
        if let Ok(format) = &format {
            let bytes = format.bytes(&shape).filter(|bytes| *bytes <= length - begin);
            let Some(bytes) = bytes else {
                let problem = format!("the tensor `{name}` of {shape:?} in {} does not fit in the file", format.name());
                return Err(damaged(path, problem));
            };
            end += bytes;
        }
        if stored.insert(name.clone(), Stored { shape, format, offset: begin }).is_some() {
            return Err(damaged(path, format!("holds the tensor `{name}` twice")));
        }
    }
    Ok(stored)
}

/// Reads forward and never past the end.
struct Cursor<'a, R> {
    path: &'a Path,
    reader: BufReader<&'a mut R>,
    at: u64,
    length: u64,
    /// Elements of lists read so far.
    elements: u64,
    /// Bytes of texts read so far.
    text_bytes: u64,
}

impl<R: Read + Seek> Cursor<'_, R> {
    fn damaged(&self, problem: impl Into<String>) -> Error {
        damaged(self.path, problem.into())
    }

    /// `what` is for messages.
    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<()> {
        let count = bytes.len() as u64;
        if count > self.length - self.at {
            return Err(self.damaged(format!("ends in the middle of `{what}`")));
        }
        self.at += count;
        self.reader.read_exact(bytes).map_err(|source| Error::Io { action: "read", what: "the model", source })
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        self.text_bytes = self.text_bytes.saturating_add(length);
        if length > LONGEST_TEXT_BYTES || length > self.length - self.at || self.text_bytes > MOST_TEXT_BYTES {
            return Err(self.damaged(format!("`{what}` claims a text of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| self.damaged(format!("`{what}` has a text that is not UTF-8")))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value> {
        Ok(match kind {
            value_type::STRING => Value::Text(self.text(key)?),
            value_type::ARRAY => self.list(key)?,
            value_type::F32 => Value::Float(f32::from_le_bytes(self.bytes(key)?).into()),
            value_type::F64 => Value::Float(f64::from_le_bytes(self.bytes(key)?)),
            value_type::BOOL => Value::Bool(self.bool(key)?),
            _ => Value::Int(self.int(key, kind)?),
        })
    }

    fn bool(&mut self, key: &str) -> Result<bool> {
        match self.bytes::<1>(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.damaged(format!("`{key}` is {other}, neither true nor false"))),
        }
    }

    fn int(&mut self, key: &str, kind: u32) -> Result<i128> {
        Ok(match kind {
            value_type::U8 => u8::from_le_bytes(self.bytes(key)?).into(),
            value_type::I8 => i8::from_le_bytes(self.bytes(key)?).into(),
            value_type::U16 => u16::from_le_bytes(self.bytes(key)?).into(),
            value_type::I16 => i16::from_le_bytes(self.bytes(key)?).into(),
            value_type::U32 => u32::from_le_bytes(self.bytes(key)?).into(),
            value_type::I32 => i32::from_le_bytes(self.bytes(key)?).into(),
            value_type::U64 => u64::from_le_bytes(self.bytes(key)?).into(),
            value_type::I64 => i64::from_le_bytes(self.bytes(key)?).into(),
            other => return Err(self.damaged(format!("`{key}` has a value of the unknown type {other}"))),
        })
    }

    fn list(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        self.elements = self.elements.saturating_add(count);
        // Every element has a byte at least, a text eight.
        let least = if kind == value_type::STRING { 8 } else { 1 };
        if self.elements > MOST_ELEMENTS || count.saturating_mul(least) > self.length - self.at {
            return Err(self.damaged(format!("`{key}` claims a list of {count} elements")));
        }
        let mut elements = 0..count;
        Ok(match kind {
            value_type::STRING => {
                let mut texts = Texts::default();
                for _ in elements {
                    texts.push(&self.text(key)?);
                }
                Value::Texts(texts)
            }
            value_type::F32 | value_type::F64 => {
                let float = |_| match self.value(key, kind)? {
                    Value::Float(value) => Ok(value as f32),
                    _ => Err(self.damaged(key)),
                };
                Value::Floats(elements.map(float).collect::<Result<_>>()?)
            }
            value_type::BOOL => Value::Bools(elements.map(|_| self.bool(key)).collect::<Result<_>>()?),
            value_type::ARRAY => return Err(self.damaged(format!("`{key}` is a list of lists"))),
            _ => {
                let int = |_| {
                    let value = self.int(key, kind)?;
                    i64::try_from(value).map_err(|_| self.damaged(format!("`{key}` holds {value}")))
                };
                Value::Ints(elements.by_ref().map(int).collect::<Result<_>>()?)
            }
        })
    }

    fn tensor(&mut self) -> Result<Described> {
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32(&name)?;
        if dimensions > MOST_DIMENSIONS {
            return Err(self.damaged(format!("the tensor `{name}` has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64(&name)?;
            let size = usize::try_from(size);
            shape.push(size.map_err(|_| self.damaged(format!("the tensor `{name}` is too large")))?);
        }
        shape.reverse(); // the file has the fastest first
        let kind = self.u32(&name)?;
        let known = [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Q8_0];
        let known = known.into_iter().find(|encoding| tensor_type(*encoding) == kind).map(NumberFormat::Encoding);
        let double = (kind == F64_TENSOR).then_some(NumberFormat::F64);
        let format = known.or(double).ok_or_else(|| format!("of ggml's type {kind}"));
        Ok(Described { name: name.clone(), shape, format, offset: self.u64(&name)? })
    }
}

impl Keys {
    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys with their values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An error about a key.
    pub fn refuse(&self, key: &str, problem: &str, hint: &str) -> Error {
        let problem = format!("`{key}` {problem}");
        Error::InvalidFile { path: self.path.clone(), problem, hint: hint.to_owned() }
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let refuse = || self.refuse(key, &format!("is not {expected}"), "convert the model again");
        read(value).map(Some).ok_or_else(refuse)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.refuse(key, "is missing", "convert the model again"))
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", |value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// A text that must be there.
    pub fn required_text(&self, key: &str) -> Result<&str> {
        let text = self.text(key)?;
        self.required(key, text)
    }

    /// A whole number, not negative.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| if let Value::Int(int) = value { usize::try_from(*int).ok() } else { None };
        self.typed(key, "a whole number", read)
    }

    /// A whole number that must be there.
    pub fn required_count(&self, key: &str) -> Result<usize> {
        let count = self.count(key)?;
        self.required(key, count)
    }

    /// A whole number, or a list of the same one for every block.
    pub fn uniform_count(&self, key: &str) -> Result<Option<usize>> {
        match self.values.get(key) {
            Some(Value::Ints(ints)) => {
                let first = ints.first().copied().filter(|first| ints.iter().all(|int| int == first));
                let count = first.and_then(|count| usize::try_from(count).ok());
                let refuse = || self.refuse(key, "is not the same for every block", "such models are not supported");
                count.map(Some).ok_or_else(refuse)
            }
            _ => self.count(key),
        }
    }

    /// The same, which must be there.
    pub fn required_uniform_count(&self, key: &str) -> Result<usize> {
        let count = self.uniform_count(key)?;
        self.required(key, count)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let read = |value: &Value| match value {
            Value::Float(float) => Some(*float),
            Value::Int(int) => Some(*int as f64),
            _ => None,
        };
        self.typed(key, "a number", read)
    }

    /// A number that must be there.
    pub fn required_number(&self, key: &str) -> Result<f64> {
        let number = self.number(key)?;
        self.required(key, number)
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| if let Value::Bool(flag) = value { Some(*flag) } else { None })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&Texts>> {
        self.typed(key, "a list of texts", |value| if let Value::Texts(texts) = value { Some(texts) } else { None })
    }

    /// A list of whole numbers.
    pub fn ints(&self, key: &str) -> Result<Option<&[i64]>> {
        self.typed(key, "a list of whole numbers", |value| match value {
            Value::Ints(ints) => Some(ints.as_slice()),
            _ => None,
        })
    }

    /// A list of numbers.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "a list of numbers", |value| match value {
            Value::Floats(floats) => Some(floats.as_slice()),
            _ => None,
        })
    }
}
