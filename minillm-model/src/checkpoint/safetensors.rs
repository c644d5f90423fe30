//! safetensors, a header in JSON and the numbers behind it (<https://github.com/huggingface/safetensors>).
//!
//! ```text
//! 8 bytes   length of the header, little endian
//! header    { "__metadata__": { .. }, "name": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] }, .. }
//! data      the tensors, one after the other without gaps
//! ```
//!
//! Writing is the library's work. The header is read here, because an untrusted file may hold the same name twice, which
//! the library takes for one tensor, or a million names and dimensions, which it keeps. A model in several files has an
//! index, `model.safetensors.index.json`, that says which tensor is in which.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::durable::{self, Disk};
use super::file::{self, damaged, read_text};
use super::number_format::NumberFormat;
use super::other_files::no_weights;
use super::tensor_files::{HostTensor, HostTensors, MOST_TENSORS, Stored, TensorFiles, check_finite};
use super::{INDEX_FILE, WEIGHTS_FILE};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::json::{Extent, quote_non_finite};

/// The format's own limit.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;
/// An index has about 100 bytes a tensor.
const LARGEST_INDEX_BYTES: u64 = 16 << 20;
const MOST_DIMENSIONS: usize = 8;
const LONGEST_NAME_BYTES: usize = 1024;
/// In the header; what programs note in `__metadata__` has kilobytes.
const LONGEST_TEXT_BYTES: usize = 4 << 20;

/// Opens the weights in `directory`: one file, or several with an index. Where there is neither, the error says what is there.
pub fn open_directory(directory: &Path) -> Result<TensorFiles> {
    let single = directory.join(WEIGHTS_FILE);
    if single.exists() {
        return open(&single);
    }
    let index_path = directory.join(INDEX_FILE);
    if !index_path.exists() {
        return Err(no_weights(directory));
    }
    let mut tensors = TensorFiles::new();
    let index = read_index(&index_path)?;
    let shards: BTreeSet<_> = index.values().collect();
    let missing: Vec<_> = shards.iter().filter(|shard| !directory.join(shard).exists()).collect();
    if let [first, others @ ..] = &missing[..] {
        let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        return Err(Error::InvalidFile {
            path: index_path,
            problem: format!("names {} files, of which `{first}`{others} are not here", shards.len()),
            hint: "copy or download all files of the model".to_owned(),
        });
    }
    for shard in shards {
        add_file(&mut tensors, &directory.join(shard))?;
    }
    for (name, shard) in &index {
        if tensors.get(name).is_none() || tensors.path_of(name) != directory.join(shard) {
            return Err(damaged(&index_path, format!("`{name}` is not in `{shard}`")));
        }
    }
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !index.contains_key(*name)) {
        return Err(damaged(&index_path, format!("`weight_map` leaves `{name}` out")));
    }
    Ok(tensors)
}

/// Opens one file.
pub fn open(path: &Path) -> Result<TensorFiles> {
    let mut tensors = TensorFiles::new();
    add_file(&mut tensors, path)?;
    Ok(tensors)
}

fn add_file(tensors: &mut TensorFiles, path: &Path) -> Result<()> {
    let io = |source| Error::Io { action: "read", what: "the weights", source };
    let mut file = file::open(path, "the weights")?;
    let length = file.metadata().map_err(io)?.len();
    let stored = read_header(path, &mut file, length)?;
    tensors.add(file, stored)
}

/// Reads the header of a file of `length` bytes; `path` is for messages.
pub fn read_header(path: &Path, file: &mut impl Read, length: u64) -> Result<BTreeMap<String, Stored>> {
    let damaged = |problem: String| damaged(path, format!("is not a sound safetensors file: {problem}"));
    let io = |source| Error::Io { action: "read", what: "the weights", source };
    let mut header_length = [0; 8];
    if length < 8 {
        return Err(damaged(format!("it has {length} bytes")));
    }
    file.read_exact(&mut header_length).map_err(io)?;
    let header_length = u64::from_le_bytes(header_length);
    if header_length > length - 8 || header_length > LARGEST_HEADER_BYTES {
        return Err(damaged(format!("its header claims {header_length} bytes, and the file has {length}")));
    }
    let mut header = Vec::with_capacity(header_length as usize);
    file.take(header_length).read_to_end(&mut header).map_err(io)?;
    let longest = Extent::of(&header).longest_text;
    if longest > LONGEST_TEXT_BYTES {
        return Err(damaged(format!("its header has a text of {longest} bytes")));
    }
    let Header(mut entries) = serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    drop(header);

    let data = 8 + header_length;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let [begin, after] = entry.data_offsets;
        if begin != end || after < begin {
            return Err(damaged(format!(
                "`data_offsets` of `{name}` is [{begin}, {after}], which does not follow {end}"
            )));
        }
        end = after;
        let format = NumberFormat::of_safetensors(&entry.dtype).ok_or_else(|| entry.dtype.clone());
        let shape = entry.shape.0;
        let bytes = match &format {
            Ok(format) => format.bytes(&shape),
            Err(dtype) => {
                let width = other_width(dtype).ok_or_else(|| damaged(format!("`dtype` of `{name}` is `{dtype}`")))?;
                shape.iter().try_fold(width, |bytes, &size| bytes.checked_mul(size as u64))
            }
        };
        if bytes != Some(after - begin) {
            let span = after - begin;
            return Err(damaged(format!(
                "`shape` of `{name}` is {shape:?} in {}, but it has {span} bytes",
                entry.dtype
            )));
        }
        if tensors.insert(name.clone(), Stored { shape, format, offset: data + begin }).is_some() {
            return Err(damaged(format!("it holds `{name}` twice")));
        }
    }
    if end != length - data {
        return Err(damaged(format!("its tensors have {end} bytes, and {} follow the header", length - data)));
    }
    Ok(tensors)
}

/// Bytes of a number in the formats that a file may hold but no parameter has.
fn other_width(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "I64" | "U64" | "C64" => 8,
        "I32" | "U32" => 4,
        "I16" | "U16" => 2,
        "BOOL" | "U8" | "I8" | "F8_E8M0" | "F8_E5M2FNUZ" | "F8_E4M3FNUZ" => 1,
        _ => return None,
    })
}

/// Writes tensors in `encoding`; `Q8_0`, which the format does not have, is an error. The same tensors always give the
/// same bytes. A value that is not finite, or that `encoding` cannot hold, is an error, and nothing is written.
pub fn write(disk: &dyn Disk, path: &Path, tensors: &HostTensors, encoding: Encoding) -> Result<()> {
    write_some(disk, path, &tensors.iter(), encoding)
}

fn write_some<'a>(
    disk: &dyn Disk,
    path: &Path,
    tensors: &(impl Iterator<Item = (&'a String, &'a HostTensor)> + Clone),
    encoding: Encoding,
) -> Result<()> {
    if encoding == Encoding::Q8_0 {
        return Err(Error::InvalidFile {
            path: path.to_owned(),
            problem: "cannot be in Q8_0, which is a format of GGUF".to_owned(),
            hint: "write F32, F16 or BF16".to_owned(),
        });
    }
    for (name, tensor) in tensors.clone() {
        check_finite(path, name, tensor, encoding)?;
    }
    // transformers refuses a file that does not say so.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let written = disk.write(path, &mut |path| {
        let views = tensors.clone().map(|(name, tensor)| (name, Encoded { tensor, encoding }));
        safetensors::serialize_to_file(views, Some(metadata.clone()), path).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(error) => {
                io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
            }
            other => io::Error::other(other),
        })
    });
    written.map_err(|source| Error::Io { action: "write", what: "the tensors", source })
}

/// Writes tensors into several files of at most `largest` bytes (one tensor at least), with an index.
pub fn write_shards(
    disk: &dyn Disk,
    directory: &Path,
    tensors: &HostTensors,
    encoding: Encoding,
    largest: u64,
) -> Result<()> {
    let mut shards: Vec<Vec<(&String, &HostTensor)>> = Vec::new();
    let (mut in_shard, mut total) = (0, 0);
    for (name, tensor) in tensors {
        let bytes = encoding.bytes(&tensor.shape).unwrap_or_default();
        if shards.is_empty() || in_shard > 0 && in_shard + bytes > largest {
            shards.push(Vec::new());
            in_shard = 0;
        }
        in_shard += bytes;
        total += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push((name, tensor));
        }
    }
    let mut weight_map = serde_json::Map::new();
    let count = shards.len();
    for (index, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
        write_some(disk, &directory.join(&file), &shard.iter().copied(), encoding)?;
        weight_map.extend(shard.iter().map(|(name, _)| ((*name).clone(), file.clone().into())));
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    durable::write_file(disk, &directory.join(INDEX_FILE), format!("{index:#}\n").as_bytes())
        .map_err(|source| Error::Io { action: "write", what: "the list of weight files", source })
}

/// A tensor that is encoded when it is written, one at a time.
struct Encoded<'a> {
    tensor: &'a HostTensor,
    encoding: Encoding,
}

impl View for Encoded<'_> {
    fn dtype(&self) -> Dtype {
        match self.encoding {
            Encoding::F16 => Dtype::F16,
            Encoding::Bf16 => Dtype::BF16,
            Encoding::F32 | Encoding::Q8_0 => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.encoding.encode(&self.tensor.values).into()
    }

    fn data_len(&self) -> usize {
        self.tensor.values.len() * self.encoding.block().1
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: WeightMap,
    }
    let text = read_text(path, LARGEST_INDEX_BYTES, "the list of weight files")?;
    let index: Index = serde_json::from_str(&quote_non_finite(&text))
        .map_err(|error| damaged(path, format!("is no index: {error}")))?;
    let map = index.weight_map.0;
    let is_plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
    if let Some((name, shard)) = map.iter().find(|(_, shard)| !is_plain(shard)) {
        return Err(damaged(path, format!("`{name}` is in `{shard}`, which is not a file of this directory")));
    }
    if map.is_empty() {
        return Err(damaged(path, "`weight_map` is empty".to_owned()));
    }
    Ok(map)
}

/// Name to file, without repetitions.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = BTreeMap::new();
        for (name, file) in entries::<String, D>(deserializer)? {
            if map.insert(name.clone(), file).is_some() {
                return Err(D::Error::custom(format!("`weight_map` holds `{name}` twice")));
            }
        }
        Ok(Self(map))
    }
}

/// The entries of a header in the file's order, `__metadata__` left out.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        entries(deserializer).map(Self)
    }
}

/// The entries of a JSON object, no more than a model has tensors.
fn entries<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, T)>, D::Error> {
    struct Entries<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with a key for each tensor")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                if name == "__metadata__" {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                if name.len() > LONGEST_NAME_BYTES {
                    return Err(A::Error::custom(format!("a tensor's name has {} bytes", name.len())));
                }
                if entries.len() == MOST_TENSORS {
                    return Err(A::Error::custom(format!("it has more than {MOST_TENSORS} tensors")));
                }
                let entry = map.next_value().map_err(|error| A::Error::custom(format!("`{name}`: {error}")))?;
                entries.push((name.into_owned(), entry));
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries(std::marker::PhantomData))
}

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;

        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() == MOST_DIMENSIONS {
                        return Err(A::Error::custom(format!("`shape` has more than {MOST_DIMENSIONS} dimensions")));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }

        deserializer.deserialize_seq(Sizes)
    }
}
