//! Strangers' files: one table of crafted ones, each with the verdict that its loader must give. A verdict names the file
//! and the field, and takes neither much time nor memory, whatever the file claims; a panic is never one.
//!
//! `MINILLM_SEEDS=DIR cargo test --release -p minillm-train --test hostile` also writes the sound files and the crafted
//! ones to `DIR/LOADER/`, where the fuzzers start from (`fuzz/run.sh`).

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(unsafe_code)] // the allocator below, which only counts

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use minillm_model::checkpoint::encoding::Encoding;
use minillm_model::checkpoint::gguf::{self, Texts, Value as GgufValue};
use minillm_model::checkpoint::locate::with_causes;
use minillm_model::checkpoint::manifest::{MANIFEST_FILE, Manifest, verify_checkpoint};
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::checkpoint::{self, CONFIG_FILE, Contents, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE, safetensors};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::tokenizer::Tokenizer;
use minillm_train::data::Part;
use minillm_train::data::token_file::{Identity, TokenFile, TokenFileWriter};
use serde_json::{Value, json};

/// Above this a verdict has cost too much memory.
const MOST_BYTES: usize = 256 << 20;
/// Above this it hangs. (What is promised is a second; a test must not fail because the machine is slow.)
const LONGEST: Duration = Duration::from_secs(10);
/// Larger files are of no use to a fuzzer.
const LARGEST_SEED: usize = 64 << 10;
/// The verdict on a file that is odd, but can be read.
const SOUND: &str = "(it loads)";

/// Counts what is allocated, so that a file's price can be told.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    MOST.fetch_max(NOW.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came; beside it two counters change, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Large blocks are not copied by the system; their pages move.
        NOW.fetch_sub(layout.size(), Relaxed);
        count(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Who reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loader {
    Safetensors,
    /// Of several safetensors files.
    Index,
    Gguf,
    ConfigJson,
    TokenizerJson,
    Tokens,
    /// The manifest of a checkpoint.
    Listing,
}

/// The identity of the sound token file.
const IDENTITY: Identity =
    Identity { text: [1; 32], tokenizer: [2; 32], validation_fraction: 0.1, part: Part::Training };

impl Loader {
    const ALL: [Self; 7] = [
        Self::Safetensors,
        Self::Index,
        Self::Gguf,
        Self::ConfigJson,
        Self::TokenizerJson,
        Self::Tokens,
        Self::Listing,
    ];

    /// Its file in the directory of sound files.
    fn file(self, directory: &Path) -> PathBuf {
        match self {
            Self::Safetensors => directory.join("model").join(WEIGHTS_FILE),
            Self::Index => directory.join("shards").join(INDEX_FILE),
            Self::Gguf => directory.join("model.gguf"),
            Self::ConfigJson => directory.join("model").join(CONFIG_FILE),
            Self::TokenizerJson => directory.join("model").join(TOKENIZER_FILE),
            Self::Tokens => IDENTITY.path(directory),
            Self::Listing => directory.join("model").join(MANIFEST_FILE),
        }
    }

    /// Reads it, with all that it leads to.
    fn load(self, directory: &Path) -> Result<(), String> {
        let (device, model) = (Device::flex(), directory.join("model"));
        let file = self.file(directory);
        let result = match self {
            Self::Safetensors => safetensors::open(&file)
                .and_then(|tensors| tensors.read_all())
                .and_then(|_| checkpoint::load(&model, &device).map(drop)),
            Self::Index => safetensors::open_directory(&directory.join("shards")).and_then(|t| t.read_all().map(drop)),
            Self::Gguf => checkpoint::load(&file, &device).map(drop),
            Self::ConfigJson => checkpoint::load(&model, &device).map(drop),
            Self::TokenizerJson => Tokenizer::from_file(&file).and_then(|read| {
                let ids = read.encode_prompt("and a \u{e9}")?;
                read.decode(&ids).and_then(|_| checkpoint::load(&model, &device)).map(drop)
            }),
            Self::Tokens => {
                return TokenFile::open(&file, &IDENTITY)
                    .map(|tokens| tokens.copy(0..tokens.len(), &mut Vec::new()))
                    .map_err(|problem| format!("`{}`: {problem}", file.display()));
            }
            Self::Listing => verify_checkpoint(&model),
        };
        result.map_err(|error| with_causes(&error))
    }

    /// Other files that its error may be about.
    fn leads_to(self) -> &'static [&'static str] {
        match self {
            Self::Index => &["nowhere.safetensors", CONFIG_FILE],
            Self::ConfigJson => &[WEIGHTS_FILE, TOKENIZER_FILE],
            Self::Listing => &[CONFIG_FILE, "model/f"],
            _ => &[],
        }
    }

    /// The fuzzer's name.
    fn fuzzer(self) -> &'static str {
        match self {
            Self::Safetensors | Self::Index => "safetensors",
            Self::Gguf => "gguf",
            Self::ConfigJson => "config_json",
            Self::TokenizerJson => "tokenizer_json",
            Self::Tokens => "token_file",
            Self::Listing => "manifest",
        }
    }
}

type Make = dyn Fn(&[u8]) -> Vec<u8>;

/// A file and the verdict on it.
struct Case {
    loader: Loader,
    name: &'static str,
    /// Part of the message, which also names the file.
    verdict: &'static str,
    /// From the sound file.
    make: Box<Make>,
    /// The file is as long as this, with a hole at the end.
    length: u64,
}

impl Case {
    fn of_length(self, length: u64) -> Self {
        Self { length, ..self }
    }
}

use Loader::{ConfigJson, Gguf, Index, Listing, Safetensors, TokenizerJson, Tokens};

fn case(loader: Loader, name: &'static str, verdict: &'static str, make: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Case {
    Case { loader, name, verdict, make: Box::new(make), length: 0 }
}

/// Every crafted file.
fn table() -> Vec<Case> {
    [
        safetensors_lengths(),
        safetensors_headers(),
        safetensors_models(),
        indexes(),
        gguf_headers(),
        gguf_tensors(),
        gguf_architectures(),
        gguf_vocabularies(),
        configs(),
        config_sizes(),
        tokenizers(),
        tokenizer_parts(),
        token_files(),
        manifests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

// --- safetensors ---

fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

/// The sound file with another header.
fn header(change: impl Fn(&mut Value) + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let end = 8 + u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&sound[8..end]).unwrap();
        change(&mut header);
        [&with_header(&header.to_string(), 0), &sound[end..]].concat()
    }
}

/// The sound file with another value in the header entry of a parameter.
fn entry(pointer: &'static str, value: Value) -> impl Fn(&[u8]) -> Vec<u8> {
    header(move |header| *header["model.norm.weight"].pointer_mut(pointer).unwrap() = value.clone())
}

fn fixed(bytes: impl AsRef<[u8]>) -> impl Fn(&[u8]) -> Vec<u8> {
    let bytes = bytes.as_ref().to_vec();
    move |_| bytes.clone()
}

/// The sound file up to this share of it.
fn cut(numerator: usize, denominator: usize) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| sound[..sound.len() * numerator / denominator].to_vec()
}

/// The sound file with other bytes at a place.
fn patch<const N: usize>(at: usize, bytes: [u8; N]) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| [&sound[..at], &bytes, &sound[at + N..]].concat()
}

/// A JSON array in arrays in arrays.
fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn safetensors_lengths() -> Vec<Case> {
    let claims = |bytes: u64| move |sound: &[u8]| [&bytes.to_le_bytes(), &sound[8..]].concat();
    vec![
        case(Safetensors, "empty", "it has 0 bytes", fixed([])),
        case(Safetensors, "seven-bytes", "it has 7 bytes", fixed([2, 0, 0, 0, 0, 0, 0])),
        case(Safetensors, "no-header", "EOF while parsing", fixed([0; 8])),
        case(Safetensors, "header-of-2-to-64", "header claims 18446744073709551615 bytes", claims(u64::MAX)),
        case(Safetensors, "header-to-the-last-address", "header claims 9223372036854775807", claims(i64::MAX as u64)),
        case(Safetensors, "header-longer-than-the-file", "its header claims 900000 bytes", claims(900_000)),
        case(Safetensors, "header-over-the-limit", "its header claims 100000001", fixed(100_000_001_u64.to_le_bytes()))
            .of_length(200_000_000),
        case(Safetensors, "header-of-100-mb-of-nothing", "expected value", fixed(100_000_000_u64.to_le_bytes()))
            .of_length(100_000_008),
        case(Safetensors, "header-of-100-mb-in-a-name", "its header has a text of 99000000 bytes", |_| {
            with_header(&format!("{{\"{}\":{{", "a".repeat(99_000_000)), 0)
        }),
        case(Safetensors, "header-of-100-mb-in-a-field", "its header has a text of 99000000 bytes", |_| {
            with_header(&format!("{{\"a\":{{\"{}\":1}}}}", "a".repeat(99_000_000)), 0)
        }),
        case(Safetensors, "header-of-100-mb-in-a-dtype", "its header has a text of 99000000 bytes", |_| {
            let dtype = "F".repeat(99_000_000);
            with_header(&format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":[],\"data_offsets\":[0,0]}}}}"), 0)
        }),
        case(Safetensors, "header-of-100-mb-of-dimensions", "more than 8 dimensions", |_| {
            with_header(&format!("{{\"a\":{{\"shape\":[{}1]}}}}", "1,".repeat(49_000_000)), 0)
        }),
        case(Safetensors, "header-of-100-mb-of-metadata", "its tensors have 0 bytes, and 1", |_| {
            with_header(&format!("{{\"__metadata__\":[{}1]}}", "1,".repeat(49_000_000)), 1)
        }),
        case(Safetensors, "cut-in-the-header", "its header claims", cut(1, 10)),
        case(Safetensors, "cut-in-the-data", "its tensors have", cut(9, 10)),
        case(Safetensors, "longer-than-its-tensors", "its tensors have", |sound| [sound, &[0; 4]].concat()),
    ]
}

fn safetensors_headers() -> Vec<Case> {
    let one = |entry: &str| fixed(with_header(&format!("{{\"a\":{entry}}}"), 8));
    let offsets = |offsets: Value| entry("/data_offsets", offsets);
    let tensors = |count: usize| {
        let mut header = "{".to_owned();
        for index in 0..count {
            write!(header, "\"{index}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},").unwrap();
        }
        header.pop();
        fixed(with_header(&(header + "}"), 0))
    };
    vec![
        case(Safetensors, "not-utf8", "invalid unicode", fixed(b"\x04\0\0\0\0\0\0\0{\"\xff\"")),
        case(Safetensors, "not-json", "expected value", fixed(with_header("GGUF", 0))),
        case(Safetensors, "an-array", "expected an object", fixed(with_header("[]", 0))),
        case(Safetensors, "nested-in-a-shape", "`a`", one(&format!("{{\"shape\":{}}}", nested(10_000)))),
        case(Safetensors, "nested-in-an-entry", "`a`", one(&nested(10_000))),
        case(Safetensors, "a-gap", "which does not follow", offsets(json!([4, 20]))),
        case(Safetensors, "an-overlap", "`data_offsets` of", offsets(json!([0, 16]))),
        case(Safetensors, "backwards", "`data_offsets` of", offsets(json!([16, 0]))),
        case(Safetensors, "offsets-at-2-to-64", "[18446744073709551615, 18446744073709551615]", {
            offsets(json!([u64::MAX, u64::MAX]))
        }),
        case(Safetensors, "span-of-2-to-64", "has 18446744073709551615 bytes", {
            one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}"#)
        }),
        case(Safetensors, "negative-offset", "invalid value: integer `-4`", offsets(json!([-4, 12]))),
        case(Safetensors, "fractional-offset", "floating point `0.5`", offsets(json!([0.5, 12]))),
        case(Safetensors, "three-offsets", "`model.norm.weight`: ", offsets(json!([0, 1, 2]))),
        case(Safetensors, "shape-over-2-to-64", "`shape` of `model.norm.weight`", {
            entry("/shape", json!([1_u64 << 63, 4, 1_u64 << 62]))
        }),
        case(Safetensors, "shape-over-its-span", "is [5] in F32, but it has 16 bytes", entry("/shape", json!([5]))),
        case(Safetensors, "no-numbers-in-a-span", "is [0] in F32, but it has 16 bytes", entry("/shape", json!([0]))),
        case(Safetensors, "nine-dimensions", "more than 8 dimensions", entry("/shape", json!(vec![1; 9]))),
        case(Safetensors, "negative-dimension", "integer `-4`", entry("/shape", json!([-4]))),
        case(Safetensors, "unknown-dtype", "`dtype` of `model.norm.weight` is `F33`", entry("/dtype", json!("F33"))),
        case(Safetensors, "narrower-dtype", "is [4] in BF16, but it has 16 bytes", entry("/dtype", json!("BF16"))),
        case(Safetensors, "dtype-as-number", "invalid type: integer `32`", entry("/dtype", json!(32))),
        case(Safetensors, "entry-without-shape", "missing field `shape`", {
            one(r#"{"dtype":"U8","data_offsets":[0,8]}"#)
        }),
        case(Safetensors, "two-shapes", "duplicate field `shape`", {
            one(r#"{"dtype":"U8","shape":[8],"shape":[9],"data_offsets":[0,8]}"#)
        }),
        case(Safetensors, "same-name-twice", "it holds `a` twice", {
            let half = |from: usize| {
                format!("\"a\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[{from},{}]}}", from + 4)
            };
            fixed(with_header(&format!("{{{},{}}}", half(0), half(4)), 8))
        }),
        case(Safetensors, "name-of-2-kb", "a tensor's name has 2048 bytes", {
            fixed(with_header(&format!("{{\"{}\":{{}}}}", "a".repeat(2048)), 0))
        }),
        case(Safetensors, "too-many-tensors", "more than 65536 tensors", tensors(65_537)),
        case(Safetensors, "only-empty-tensors", "`num_hidden_layers` is 2", fixed(with_header("{}", 0))),
    ]
}

fn safetensors_models() -> Vec<Case> {
    let rename = |from: &'static str, to: &'static str| {
        header(move |header| {
            let entry = header.as_object_mut().unwrap().remove(from).unwrap();
            header[to] = entry;
        })
    };
    vec![
        case(Safetensors, "wrong-dtype", "`model.norm.weight` is I32, which is not supported", {
            entry("/dtype", json!("I32"))
        }),
        case(Safetensors, "wrong-rank", "model.norm.weight: file [2, 2], model [4]", entry("/shape", json!([2, 2]))),
        case(Safetensors, "swapped-dimensions", "model.embed_tokens.weight: file [4, 12]", {
            header(|header| header["model.embed_tokens.weight"]["shape"] = json!([4, 12]))
        }),
        case(Safetensors, "missing-tensor", "missing: `model.norm.weight`", rename("model.norm.weight", "norm")),
        case(Safetensors, "tensor-of-another-block", "not part of the model: `model.layers.2.mlp.up_proj.weight`", {
            rename("model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight")
        }),
        case(Safetensors, "block-4-billion", "not part of the model", {
            rename("model.layers.1.mlp.up_proj.weight", "model.layers.4294967296.mlp.up_proj.weight")
        }),
    ]
}

fn indexes() -> Vec<Case> {
    let to = |shard: &'static str| edit(move |index| index["weight_map"]["model.norm.weight"] = json!(shard));
    let no_file = "which is not a file of this directory";
    vec![
        case(Index, "empty", "is no index: EOF", fixed([])),
        case(Index, "nested", "`a`: invalid type: sequence", {
            fixed(format!("{{\"weight_map\":{{\"a\":{}}}}}", nested(10_000)))
        }),
        case(Index, "not-utf8", "is not UTF-8", fixed(b"{\"weight_map\":{\"\xff\":\"a\"}}")),
        case(Index, "no-weight-map", "missing field `weight_map`", fixed("{}")),
        case(Index, "empty-weight-map", "`weight_map` is empty", fixed(r#"{"weight_map":{}}"#)),
        case(Index, "shard-as-number", "`a`: invalid type", fixed(r#"{"weight_map":{"a":1}}"#)),
        case(Index, "same-name-twice", "`weight_map` holds `a` twice", {
            fixed(r#"{"weight_map":{"a":"model.safetensors","a":"model.safetensors"}}"#)
        }),
        case(Index, "shard-in-the-parent", no_file, to("../model/model.safetensors")),
        case(Index, "shard-at-the-root", no_file, to("/dev/zero")),
        case(Index, "shard-is-the-directory", no_file, to(".")),
        case(Index, "shard-on-a-drive", no_file, to("C:model.safetensors")),
        case(Index, "shard-without-a-name", no_file, to("")),
        case(Index, "missing-shard", "nowhere.safetensors", to("nowhere.safetensors")),
        case(Index, "shard-that-is-none", "config.json", to("config.json")),
        case(Index, "tensor-in-another-shard", "`model.norm.weight` is not in `model-00001-of-", {
            to("model-00001-of-00004.safetensors")
        }),
        case(Index, "tensor-nowhere", "`surplus` is not in", {
            edit(|index| index["weight_map"]["surplus"] = json!("model-00001-of-00004.safetensors"))
        }),
        case(Index, "tensor-left-out", "`weight_map` leaves `", {
            // One whose shard has others too.
            edit(|index| {
                let map = index["weight_map"].as_object_mut().unwrap();
                let shares = |name: &&String| map.values().filter(|shard| **shard == map[*name]).count() > 1;
                let name = map.keys().find(shares).unwrap().clone();
                map.remove(&name);
            })
        }),
        case(Index, "over-16-mb", "is larger than", fixed([])).of_length(1 << 30),
    ]
}

/// The sound JSON with a change.
fn edit(change: impl Fn(&mut Value) + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let mut value = serde_json::from_slice(sound).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    }
}

/// The sound JSON with another value in one place.
fn set(pointer: &'static str, value: Value) -> impl Fn(&[u8]) -> Vec<u8> {
    edit(move |file| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match file.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            object => object[key] = value.clone(),
        }
    })
}

/// The sound text with something else for the first occurrence of a part.
fn replace(from: &'static str, to: &'static str) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let text = std::str::from_utf8(sound).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    }
}

// --- GGUF ---

const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const UINT64: u32 = 10;

fn gguf_text(text: impl AsRef<[u8]>) -> Vec<u8> {
    [&(text.as_ref().len() as u64).to_le_bytes(), text.as_ref()].concat()
}

fn gguf_key(name: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Vec<u8> {
    [&gguf_text(name), &kind.to_le_bytes()[..], value].concat()
}

fn gguf_list(name: &str, kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    gguf_key(name, ARRAY, &[&kind.to_le_bytes(), &count.to_le_bytes()[..], elements].concat())
}

fn gguf_tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
    let count = (dimensions.len() as u32).to_le_bytes();
    [&gguf_text(name), &count[..], &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// A file that claims so many tensors and keys.
fn gguf_file(tensors: u64, keys: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    [b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &keys.to_le_bytes(), &parts.concat()].concat()
}

/// A file with these keys, and nothing more.
fn gguf_keys(keys: &[Vec<u8>]) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
    fixed(gguf_file(0, keys.len() as u64, keys))
}

/// A file with these tensors, and room for eight f32 behind them.
fn gguf_tensors_only(tensors: &[Vec<u8>]) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
    let mut file = gguf_file(tensors.len() as u64, 0, tensors);
    file.resize(file.len().next_multiple_of(32) + 32, 0);
    fixed(file)
}

type GgufKeys = BTreeMap<String, GgufValue>;

/// The sound file, taken apart, changed and written again.
fn gguf_edit(change: impl Fn(&mut GgufKeys, &mut HostTensors) + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.gguf");
        fs_err::write(&path, sound).unwrap();
        let (keys, tensors) = gguf::read::open(&path).unwrap();
        let mut keys: GgufKeys = keys.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let mut tensors = tensors.read_all().unwrap();
        change(&mut keys, &mut tensors);
        gguf::write::write(&path, &keys.into_iter().collect(), &tensors, Encoding::F32).unwrap();
        fs_err::read(&path).unwrap()
    }
}

/// The sound file with another value of a key.
fn gguf_set(key: &'static str, value: GgufValue) -> impl Fn(&[u8]) -> Vec<u8> {
    gguf_edit(move |keys, _| drop(keys.insert(key.to_owned(), value.clone())))
}

fn gguf_without(key: &'static str) -> impl Fn(&[u8]) -> Vec<u8> {
    gguf_edit(move |keys, _| drop(keys.remove(key).unwrap()))
}

/// The sound file with this vocabulary and as many rows in its embedding, and without a `tokenizer.json`.
fn gguf_vocabulary(tokens: impl Fn() -> Texts + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    gguf_edit(move |keys, tensors| {
        let tokens = tokens();
        let count = tokens.len();
        keys.remove("tokenizer.huggingface.json");
        keys.insert("tokenizer.ggml.scores".to_owned(), GgufValue::Floats(vec![0.0; count]));
        keys.insert("tokenizer.ggml.token_type".to_owned(), GgufValue::Ints(vec![1; count]));
        keys.insert("tokenizer.ggml.tokens".to_owned(), GgufValue::Texts(tokens));
        let embedding = HostTensor { shape: vec![count, 4], values: vec![0.0; count * 4] };
        tensors.insert("token_embd.weight".to_owned(), embedding);
    })
}

fn gguf_headers() -> Vec<Case> {
    let alignment = |kind: u32, value: &[u8]| gguf_keys(&[gguf_key("general.alignment", kind, value)]);
    let list = |kind: u32, count: u64| gguf_keys(&[gguf_list("l", kind, count, &[])]);
    vec![
        case(Gguf, "empty", "ends in the middle of `the magic bytes`", fixed([])),
        case(Gguf, "another-magic", "does not begin with `GGUF`", patch(0, *b"GGML")),
        case(Gguf, "version-1", "is GGUF version 1", patch(4, [1, 0, 0, 0])),
        case(Gguf, "big-endian", "is GGUF version 50331648", patch(4, [0, 0, 0, 3])),
        case(Gguf, "tensors-2-to-64", "claims 18446744073709551615 tensors", patch(8, [255; 8])),
        case(Gguf, "keys-2-to-64", "and 18446744073709551615 keys", patch(16, [255; 8])),
        case(Gguf, "keys-over-the-limit", "65537 keys", patch(16, 65_537_u64.to_le_bytes())),
        case(Gguf, "more-keys-than-there-are", "ends in the middle of", fixed(gguf_file(0, 65_536, &[]))),
        case(Gguf, "more-tensors-than-there-are", "ends in the middle of", fixed(gguf_file(65_536, 0, &[]))),
        case(Gguf, "key-of-2-to-64-bytes", "`a key` claims a text of 18446744073709551615 bytes", {
            patch(24, [255; 8])
        }),
        case(
            Gguf,
            "key-past-the-end",
            "`a key` claims a text of 16000000 bytes",
            patch(24, 16_000_000_u64.to_le_bytes()),
        ),
        case(Gguf, "key-over-the-limit", "claims a text of 16777217 bytes", {
            fixed(gguf_file(0, 1, &[16_777_217_u64.to_le_bytes().to_vec()]))
        })
        .of_length(1 << 30),
        case(Gguf, "key-not-utf8", "`a key` has a text that is not UTF-8", gguf_keys(&[gguf_key(b"\xff", 0, &[0])])),
        case(Gguf, "same-key-twice", "holds the key `k` twice", {
            gguf_keys(&[gguf_key("k", 0, &[1]), gguf_key("k", 0, &[1])])
        }),
        case(Gguf, "unknown-type", "`k` has a value of the unknown type 13", gguf_keys(&[gguf_key("k", 13, &[0; 8])])),
        case(Gguf, "bool-of-2", "`k` is 2, neither true nor false", gguf_keys(&[gguf_key("k", 7, &[2])])),
        case(Gguf, "list-of-2-to-64", "`l` claims a list of 18446744073709551615", list(STRING, u64::MAX)),
        case(Gguf, "list-of-2-to-61-texts", "`l` claims a list of 2305843009213693952", list(STRING, 1 << 61)),
        case(Gguf, "list-past-the-end", "`l` claims a list of 4000000", list(0, 4_000_000)),
        case(Gguf, "list-over-the-limit", "`l` claims a list of 4194305", list(0, 4_194_305)).of_length(1 << 30),
        case(Gguf, "lists-over-the-limit-together", "`m` claims a list of 2097153", {
            gguf_keys(&[gguf_list("l", 0, 2_097_152, &[0; 2_097_152]), gguf_list("m", 0, 2_097_153, &[])])
        })
        .of_length(1 << 30),
        case(Gguf, "list-of-lists", "`l` is a list of lists", list(ARRAY, 1)).of_length(100),
        case(Gguf, "list-of-unknown-type", "`l` has a value of the unknown type 99", list(99, 1)).of_length(100),
        case(Gguf, "list-with-2-to-64", "`l` holds 18446744073709551615", {
            gguf_keys(&[gguf_list("l", UINT64, 1, &[255; 8])])
        }),
        case(Gguf, "list-of-4-million-texts", "`general.architecture` is missing", list(STRING, 4_194_304))
            .of_length(34_000_000),
        case(Gguf, "texts-over-the-limit-together", "`k3` claims a text of 16777216 bytes", |_| {
            let keys = (0..5).map(|i| gguf_key(format!("k{i}"), STRING, &gguf_text(vec![b'a'; 16 << 20])));
            gguf_file(0, 5, &keys.collect::<Vec<_>>())
        }),
        case(Gguf, "alignment-0", "`general.alignment` is", alignment(UINT32, &[0; 4])),
        case(Gguf, "alignment-3", "`general.alignment` is", alignment(UINT32, &[3, 0, 0, 0])),
        case(Gguf, "alignment-131072", "`general.alignment` is", alignment(UINT32, &[0, 0, 2, 0])),
        case(Gguf, "alignment-2-to-63", "`general.alignment` is", alignment(UINT64, &(1_u64 << 63).to_le_bytes())),
        case(Gguf, "alignment-minus-32", "`general.alignment` is", alignment(5, &(-32_i32).to_le_bytes())),
        case(Gguf, "alignment-in-words", "`general.alignment` is", alignment(STRING, &gguf_text("thirty-two"))),
        case(Gguf, "cut-in-the-keys", "claims a text of", cut(1, 20)),
        case(Gguf, "cut-in-a-list", "claims a", cut(2, 5)),
        case(Gguf, "cut-in-the-data", "does not fit in the file", cut(19, 20)),
    ]
}

fn gguf_tensors() -> Vec<Case> {
    let tensors = gguf_tensors_only;
    let one = |dimensions: &[u64], kind, offset| tensors(&[gguf_tensor("t", dimensions, kind, offset)]);
    let two = |second: u64| tensors(&[gguf_tensor("t", &[8], 0, 0), gguf_tensor("u", &[1], 0, second)]);
    vec![
        case(Gguf, "five-dimensions", "the tensor `t` has 5 dimensions", one(&[1; 5], 0, 0)),
        case(Gguf, "dimensions-2-to-32", "the tensor `t` has 4294967295 dimensions", {
            fixed(gguf_file(1, 0, &[gguf_text("t"), vec![255; 64]]))
        }),
        case(Gguf, "shape-over-2-to-64", "the tensor `t` of", one(&[1 << 32, 1 << 32, 4], 0, 0)),
        case(Gguf, "shape-wraps-to-4", "the tensor `t` of", one(&[(1 << 62) + 1, 4], 0, 0)),
        case(Gguf, "shape-over-the-file", "the tensor `t` of [9] in F32 does not fit", one(&[9], 0, 0)),
        case(Gguf, "part-of-a-block", "the tensor `t` of [2, 16] in Q8_0 does not fit", one(&[16, 2], 8, 0)),
        case(Gguf, "offset-2-to-64", "`t` has the offset 18446744073709551615", one(&[8], 0, u64::MAX)),
        case(Gguf, "offset-over-2-to-64", "`t` has the offset 18446744073709551584", one(&[8], 0, u64::MAX - 31)),
        case(Gguf, "offset-past-the-end", "`t` has the offset 64", one(&[8], 0, 64)),
        case(Gguf, "offset-between-places", "`t` has the offset 4", one(&[1], 0, 4)),
        case(Gguf, "tensors-upon-another", "the tensor `u` lies upon another", two(0)),
        case(Gguf, "same-tensor-twice", "holds the tensor `t` twice", {
            tensors(&[gguf_tensor("t", &[0], 0, 0), gguf_tensor("t", &[8], 0, 0)])
        }),
        case(Gguf, "tensor-name-not-utf8", "is not UTF-8", fixed(gguf_file(1, 0, &[gguf_text(b"\xff"), vec![0; 64]]))),
        case(Gguf, "no-architecture", "`general.architecture` is missing", one(&[8], 0, 0)),
        case(Gguf, "too-many-tensors", "claims 65537 tensors", |_| gguf_file(65_537, 0, &[])),
        case(Gguf, "unknown-format", "of ggml's type 2", |sound: &[u8]| {
            let at = sound.windows(18).position(|bytes| bytes == b"output_norm.weight").unwrap() + 18 + 12;
            patch(at, [2, 0, 0, 0])(sound)
        }),
    ]
}

fn gguf_architectures() -> Vec<Case> {
    let int = |key, value: i128| gguf_set(key, GgufValue::Int(value));
    let float = |key, value: f64| gguf_set(key, GgufValue::Float(value));
    let text = |key, value: &str| gguf_set(key, GgufValue::Text(value.to_owned()));
    let tensor = |name: &'static str, shape: &'static [usize]| {
        gguf_edit(move |_, tensors| {
            let values = vec![0.0; shape.iter().product()];
            tensors.insert(name.to_owned(), HostTensor { shape: shape.to_vec(), values });
        })
    };
    vec![
        case(Gguf, "unknown-architecture", "`general.architecture` is `rwkv`", text("general.architecture", "rwkv")),
        case(Gguf, "architecture-as-number", "`general.architecture` is not a text", int("general.architecture", 1)),
        case(Gguf, "no-embedding", "has no matrix `token_embd.weight`", {
            gguf_edit(|_, tensors| drop(tensors.remove("token_embd.weight")))
        }),
        case(
            Gguf,
            "embedding-of-one-dimension",
            "has no matrix `token_embd.weight`",
            tensor("token_embd.weight", &[48]),
        ),
        case(Gguf, "embedding-of-no-rows", "`vocab_size` is 0", tensor("token_embd.weight", &[0, 4])),
        case(
            Gguf,
            "embedding-of-other-width",
            "token_embd.weight: file [12, 5]",
            tensor("token_embd.weight", &[12, 5]),
        ),
        case(Gguf, "width-0", "`hidden_size` is 0", int("llama.embedding_length", 0)),
        case(Gguf, "width-4-billion", "`hidden_size` is 4294967295", int("llama.embedding_length", 4_294_967_295)),
        case(
            Gguf,
            "width-in-words",
            "`llama.embedding_length` is not a whole number",
            text("llama.embedding_length", "4"),
        ),
        case(Gguf, "width-missing", "`llama.embedding_length` is missing", gguf_without("llama.embedding_length")),
        case(Gguf, "blocks-4-billion", "`num_hidden_layers` is 4294967295", int("llama.block_count", 4_294_967_295)),
        case(Gguf, "blocks-without-tensors", "`num_hidden_layers` is 4096", int("llama.block_count", 4096)),
        case(Gguf, "one-block-too-many", "missing: `blk.2.", int("llama.block_count", 3)),
        case(Gguf, "no-heads", "`num_attention_heads` is 0", int("llama.attention.head_count", 0)),
        case(
            Gguf,
            "heads-16-million",
            "blk.0.attn_q.weight: file [4, 4], model [33554432, 4]",
            int("llama.attention.head_count", 1 << 24),
        ),
        case(Gguf, "context-4-billion", "`max_position_embeddings` is", int("llama.context_length", 4_294_967_295)),
        case(Gguf, "context-16-million", SOUND, int("llama.context_length", 1 << 24)),
        case(Gguf, "width-of-values", "`llama.attention.value_length` is 3", int("llama.attention.value_length", 3)),
        case(Gguf, "experts", "`llama.expert_count` is set", int("llama.expert_count", 8)),
        case(Gguf, "epsilon-nan", "`norm_eps` is NaN", float("llama.attention.layer_norm_rms_epsilon", f64::NAN)),
        case(Gguf, "epsilon-negative", "`norm_eps` is -1", float("llama.attention.layer_norm_rms_epsilon", -1.0)),
        case(Gguf, "base-infinite", "`rope_theta` is inf", float("llama.rope.freq_base", f64::INFINITY)),
        case(
            Gguf,
            "scaling-unknown",
            "`llama.rope.scaling.type` is `longrope`",
            text("llama.rope.scaling.type", "longrope"),
        ),
        case(Gguf, "scaling-nan", "`rope_scaling` has a", {
            gguf_edit(|keys, _| {
                keys.insert("llama.rope.scaling.type".to_owned(), GgufValue::Text("linear".to_owned()));
                keys.insert("llama.rope.scaling.factor".to_owned(), GgufValue::Float(f64::NAN));
            })
        }),
        case(
            Gguf,
            "factors-of-another-length",
            "`rope_freqs.weight` is not a list of 1",
            tensor("rope_freqs.weight", &[7]),
        ),
        case(Gguf, "factors-of-no-scaling", "`rope_freqs.weight` are not", tensor("rope_freqs.weight", &[1])),
        case(Gguf, "4096-blocks-of-other-tensors", "missing: `blk.0.", {
            gguf_edit(|keys, tensors| {
                keys.insert("llama.block_count".to_owned(), GgufValue::Int(4096));
                tensors.extend((0..5000).map(|i| (format!("t{i}"), HostTensor { shape: vec![0], values: vec![] })));
                tensors.remove("blk.0.attn_q.weight");
            })
        }),
        case(Gguf, "surplus-tensor", "not part of the model: `extra`", tensor("extra", &[1])),
    ]
}

fn gguf_vocabularies() -> Vec<Case> {
    const JSON: &str = "tokenizer.huggingface.json";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const TYPES: &str = "tokenizer.ggml.token_type";
    let text = |key, value: &str| gguf_set(key, GgufValue::Text(value.to_owned()));
    let assembled = |key: &'static str, value: GgufValue| {
        gguf_edit(move |keys, _| {
            keys.remove(JSON);
            keys.insert(key.to_owned(), value.clone());
        })
    };
    let byte_level = |merges: &'static [&'static str]| {
        gguf_edit(move |keys, _| {
            keys.remove(JSON);
            keys.insert("tokenizer.ggml.model".to_owned(), GgufValue::Text("gpt2".to_owned()));
            keys.insert("tokenizer.ggml.pre".to_owned(), GgufValue::Text("qwen2".to_owned()));
            keys.insert("tokenizer.ggml.merges".to_owned(), GgufValue::Texts(merges.iter().collect()));
        })
    };
    vec![
        case(Gguf, "fewer-tokens-than-rows", "`tokenizer.ggml.tokens` has 2 tokens, and", {
            gguf_set(TOKENS, GgufValue::Texts(["a", "b"].into_iter().collect()))
        }),
        case(
            Gguf,
            "tokens-as-numbers",
            "`tokenizer.ggml.tokens` is not a list",
            gguf_set(TOKENS, GgufValue::Ints(vec![1; 12])),
        ),
        case(Gguf, "tokens-missing", "`tokenizer.ggml.tokens` is missing", gguf_without(TOKENS)),
        case(Gguf, "same-token-twice", "`tokenizer.ggml.tokens` holds `` twice", {
            gguf_vocabulary(|| [""; 12].into_iter().collect())
        }),
        case(Gguf, "4-million-empty-tokens", "`tokenizer.ggml.tokens` holds `` twice", {
            gguf_vocabulary(|| std::iter::repeat_n("", 1_390_000).collect())
        }),
        case(Gguf, "other-tokens-than-tokenizer-json", "`tokenizer.huggingface.json` is another vocabulary", {
            gguf_set(TOKENS, GgufValue::Texts(["a"; 12].into_iter().collect()))
        }),
        case(
            Gguf,
            "tokenizer-json-is-none",
            "`tokenizer.huggingface.json` tokenizer: tokenizer.json is not",
            text(JSON, "[]"),
        ),
        case(Gguf, "tokenizer-json-is-nested", "`tokenizer.huggingface.json`", text(JSON, &nested(10_000))),
        case(Gguf, "tokenizer-json-of-16-mb", "`tokenizer.huggingface.json`", move |sound| {
            text(JSON, &format!("[{}0]", "0,".repeat(8_000_000)))(sound)
        }),
        case(
            Gguf,
            "types-too-few",
            "`tokenizer.ggml.token_type` is not as long",
            assembled(TYPES, GgufValue::Ints(vec![1])),
        ),
        case(Gguf, "scores-too-few", "`tokenizer.ggml.scores` does not have", {
            assembled("tokenizer.ggml.scores", GgufValue::Floats(vec![0.0]))
        }),
        case(Gguf, "scores-nan", "`tokenizer.ggml.scores` does not have", {
            assembled("tokenizer.ggml.scores", GgufValue::Floats(vec![f32::NAN; 12]))
        }),
        case(Gguf, "begin-past-the-vocabulary", "`tokenizer.ggml.bos_token_id` is 4294967295", {
            assembled("tokenizer.ggml.bos_token_id", GgufValue::Int(4_294_967_295))
        }),
        case(
            Gguf,
            "begin-in-words",
            "`tokenizer.ggml.bos_token_id` is not",
            text("tokenizer.ggml.bos_token_id", "<s>"),
        ),
        case(Gguf, "end-past-the-vocabulary", SOUND, {
            gguf_set("tokenizer.ggml.eos_token_id", GgufValue::Int(4_000_000_000))
        }),
        case(Gguf, "unknown-model", "`tokenizer.ggml.model` is `bert`", {
            assembled("tokenizer.ggml.model", GgufValue::Text("bert".to_owned()))
        }),
        case(Gguf, "no-cutter", "`tokenizer.ggml.pre` is `default`, which is not supported", {
            assembled("tokenizer.ggml.model", GgufValue::Text("gpt2".to_owned()))
        }),
        case(Gguf, "no-merges", "`tokenizer.ggml.merges` is missing", {
            gguf_edit(|keys, _| {
                keys.remove(JSON);
                keys.insert("tokenizer.ggml.model".to_owned(), GgufValue::Text("gpt2".to_owned()));
                keys.insert("tokenizer.ggml.pre".to_owned(), GgufValue::Text("qwen2".to_owned()));
            })
        }),
        case(Gguf, "merge-makes-no-token", "the merge 0", byte_level(&["a a"])),
        case(Gguf, "other-kind-of-tokenizer", SOUND, byte_level(&["n d"])),
        case(Gguf, "merge-of-one", "the merge 0", byte_level(&["a"])),
        case(Gguf, "token-too-long-to-cut", "`tokenizer.ggml.tokens` has a token that is too long", {
            gguf_vocabulary(|| ["a".repeat(10_000)].into_iter().collect())
        }),
        case(Gguf, "50-mb-of-long-tokens", "`tokenizer.ggml.tokens`", {
            gguf_vocabulary(|| (0..200_000).map(|i| format!("{}{i:06}", "a".repeat(250))).collect())
        }),
        case(Gguf, "4-million-merges", "`tokenizer.ggml.tokens`", {
            let word = |length: usize, bits: usize| format!("{bits:0length$b}");
            let words = move || (1..=17).flat_map(move |length| (0..1 << length).map(move |bits| word(length, bits)));
            gguf_vocabulary(move || words().collect())
        }),
    ]
}

// --- config.json ---

fn configs() -> Vec<Case> {
    let rope = |value: Value| set("/rope_parameters", value);
    let text = |text: &'static str| fixed(text);
    vec![
        case(ConfigJson, "empty", "is not JSON: EOF", text("")),
        case(ConfigJson, "not-utf8", "is not UTF-8", fixed(b"{\"model_type\": \"\xff\"}")),
        case(ConfigJson, "an-array", "is not a JSON object", text("[]")),
        case(ConfigJson, "nested", "recursion limit", fixed(format!("{{\"a\":{}}}", nested(10_000)))),
        case(ConfigJson, "over-1-mb", "is larger than", fixed(vec![b' '; 1 << 20])).of_length(1 << 30),
        case(ConfigJson, "not-a-number", "is not JSON", replace("\"rope_theta\": 10000.0", "\"rope_theta\": NaN")),
        case(ConfigJson, "too-large-a-number", "number out of range", {
            replace("\"rope_theta\": 10000.0", "\"rope_theta\": 1e999")
        }),
        case(ConfigJson, "cut", "is not JSON: EOF", cut(1, 2)),
        case(ConfigJson, "no-model-type", "`model_type` is missing", text("{}")),
        case(ConfigJson, "unknown-model-type", "`model_type` is `mamba`", set("/model_type", json!("mamba"))),
        case(ConfigJson, "model-type-as-list", "`model_type` is [\"llama\"]", set("/model_type", json!(["llama"]))),
        case(ConfigJson, "quantized", "`quantization_config` is set", set("/quantization_config", json!({}))),
        case(ConfigJson, "activation", "`hidden_act` is `mish`", set("/hidden_act", json!("mish"))),
        case(ConfigJson, "flag-as-number", "`mlp_bias` is 1, not true or false", set("/mlp_bias", json!(1))),
        case(
            ConfigJson,
            "begin-past-32-bits",
            "`bos_token_id` is 4294967296",
            set("/bos_token_id", json!(1_u64 << 32)),
        ),
        case(ConfigJson, "begin-past-the-vocabulary", SOUND, set("/bos_token_id", json!(4_000_000_000_u32))),
        case(ConfigJson, "end-negative", "`eos_token_id` is [2,-1]", set("/eos_token_id", json!([2, -1]))),
        case(ConfigJson, "own-type-with-strange-field", "unknown field", set("/model_type", json!("minillm"))),
        case(ConfigJson, "layer-types-of-others", "`layer_types`", {
            edit(|config| {
                config["model_type"] = json!("qwen2");
                config["layer_types"] = json!(["mamba", 3]);
            })
        }),
        case(ConfigJson, "rope-as-number", "`rope_scaling` or `rope_parameters` is not an object", rope(json!(8))),
        case(ConfigJson, "rope-type", "`rope_parameters` has the rope_type `longrope`", {
            rope(json!({"rope_type": "longrope"}))
        }),
        case(ConfigJson, "rope-without-factor", "`factor` is missing", rope(json!({"rope_type": "linear"}))),
        case(ConfigJson, "rope-factor-0", "`rope_scaling` has a", rope(json!({"rope_type": "linear", "factor": 0}))),
        case(ConfigJson, "rope-factor-absurd", "`rope_scaling` has a", {
            rope(json!({"rope_type": "dynamic", "factor": 1e300}))
        }),
        case(ConfigJson, "rope-original-0", "`rope_scaling` has a", {
            rope(json!({"rope_type": "yarn", "original_max_position_embeddings": 0}))
        }),
        case(ConfigJson, "rope-bounds-swapped", "`rope_scaling` has a", {
            rope(json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                "original_max_position_embeddings": 8192}))
        }),
    ]
}

fn config_sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, field, value, verdict) in [
        ("vocabulary-0", "/vocab_size", json!(0), "`vocab_size` is 0"),
        ("vocabulary-negative", "/vocab_size", json!(-12), "`vocab_size` is -12, not a whole number"),
        ("vocabulary-absurd", "/vocab_size", json!(1_u64 << 60), "`vocab_size` is 1152921504606846976"),
        ("vocabulary-over-2-to-64", "/vocab_size", json!(1e20), "`vocab_size` is 1e+20, not a whole number"),
        ("vocabulary-below-the-tokens", "/vocab_size", json!(9), "tokenizer.json`: has 10 tokens, but `vocab_size`"),
        ("vocabulary-above-the-rows", "/vocab_size", json!(13), "model.safetensors` does not hold"),
        ("width-0", "/hidden_size", json!(0), "`hidden_size` is 0"),
        ("width-fraction", "/hidden_size", json!(4.5), "`hidden_size` is 4.5"),
        ("width-in-words", "/hidden_size", json!("4"), "`hidden_size` is \"4\""),
        ("width-missing", "/hidden_size", Value::Null, "`hidden_size` is missing"),
        ("width-absurd", "/hidden_size", json!(u64::MAX), "`hidden_size` is 18446744073709551615"),
        (
            "width-16-million",
            "/hidden_size",
            json!(1 << 24),
            "model.embed_tokens.weight: file [12, 4], model [12, 16777216]",
        ),
        ("width-of-another", "/hidden_size", json!(8), "model.safetensors` does not hold"),
        ("mlp-0", "/intermediate_size", json!(0), "`intermediate_size` is 0"),
        ("mlp-of-another", "/intermediate_size", json!(9), "mlp.down_proj.weight: file [4, 8], model [4, 9]`"),
        ("layers-0", "/num_hidden_layers", json!(0), "`num_hidden_layers` is 0"),
        ("layers-16-million", "/num_hidden_layers", json!(1 << 24), "`num_hidden_layers` is 16777216"),
        ("layers-without-tensors", "/num_hidden_layers", json!(4096), "has 21 tensors; `num_hidden_layers` is 4096"),
        ("layer-too-many", "/num_hidden_layers", json!(3), "missing: `model.layers.2.input_layernorm.weight`"),
        (
            "layer-too-few",
            "/num_hidden_layers",
            json!(1),
            "not part of the model: `model.layers.1.input_layernorm.weight`",
        ),
        ("heads-0", "/num_attention_heads", json!(0), "`num_attention_heads` is 0"),
        ("heads-16-million", "/num_attention_heads", json!(1 << 24), "q_proj.weight: file [4, 4], model [33554432, 4]"),
        ("heads-do-not-divide", "/num_attention_heads", json!(3), "q_proj.weight: file [4, 4], model [6, 4]"),
        ("key-heads-0", "/num_key_value_heads", json!(0), "`num_key_value_heads` is 0"),
        ("key-heads-do-not-divide", "/num_key_value_heads", json!(4), "`num_key_value_heads` is 4"),
        ("head-width-0", "/head_dim", json!(0), "`head_dim` is 0"),
        ("head-width-odd", "/head_dim", json!(3), "`head_dim` is 3"),
        ("head-width-absurd", "/head_dim", json!(1_u64 << 40), "`head_dim` is 1099511627776"),
        ("head-width-16-million", "/head_dim", json!(1 << 24), "model.safetensors` does not hold"),
        ("context-0", "/max_position_embeddings", json!(0), "`max_position_embeddings` is 0"),
        ("context-absurd", "/max_position_embeddings", json!(1_u64 << 40), "`max_position_embeddings` is"),
        ("context-16-million", "/max_position_embeddings", json!(1 << 24), SOUND),
        ("epsilon-0", "/rms_norm_eps", json!(0), "`norm_eps` is 0"),
        ("epsilon-negative", "/rms_norm_eps", json!(-1e-6), "`norm_eps` is -0.000001"),
        ("base-negative", "/rope_parameters/rope_theta", json!(-1), "`rope_theta` is -1"),
        ("base-0", "/rope_parameters/rope_theta", json!(0), "`rope_theta` is 0"),
        ("dropout-2", "/attention_dropout", json!(2), "`dropout` is 2"),
        ("deviation-negative", "/initializer_range", json!(-1), "`initializer_range` is -1"),
        (
            "learned-positions",
            "/model_type",
            json!("gpt2"),
            "`tie_word_embeddings` is false, which GPT-2 models have not",
        ),
    ] {
        cases.push(case(ConfigJson, name, verdict, set(field, value)));
    }
    cases.push(case(ConfigJson, "learned-positions-16-million", "model.safetensors` does not hold", {
        fixed(
            json!({"model_type": "gpt2", "vocab_size": 12, "n_embd": 4, "n_head": 2, "n_layer": 2,
                "n_positions": 1 << 24})
            .to_string(),
        )
    }));
    cases
}

// --- tokenizer.json ---

fn with_step(part: &'static str, step: Value) -> impl Fn(&[u8]) -> Vec<u8> {
    edit(move |file| file[part] = step.clone())
}

/// A sequence in a sequence, so many deep, around `leaf`.
fn sequences(list: &str, depth: usize, leaf: Value) -> Value {
    (0..depth).fold(leaf, |inner, _| json!({"type": "Sequence", list: [inner]}))
}

/// A sequence of so many times the same step.
fn repeated(list: &str, count: usize, step: &Value) -> Value {
    json!({"type": "Sequence", list: vec![step; count]})
}

fn added(content: &str, normalized: bool) -> Value {
    json!({"id": 10, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": normalized, "special": false})
}

fn model(model: &Value) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
    fixed(json!({"version": "1.0", "added_tokens": [], "model": model}).to_string())
}

/// A BPE of so many tokens, two of them with one id, and merges.
fn large_vocabulary(tokens: usize, merges: usize) -> Vec<u8> {
    let mut text = r#"{"version":"1.0","model":{"type":"BPE","vocab":{"x":0"#.to_owned();
    (1..tokens).for_each(|id| write!(text, ",\"{id}\":{}", id % (tokens - 1)).unwrap());
    text += "},\"merges\":[[\"1\",\"2\"]";
    // A number of four digits and one of one.
    (1..merges).for_each(|i| write!(text, ",[\"{}\",\"{}\"]", 1000 + i % 9000, i % 9 + 1).unwrap());
    (text + "]}}").into_bytes()
}

fn tokenizers() -> Vec<Case> {
    let merge = |value: Value| set("/model/merges/0", value);
    let no_token = "the merge 0, ";
    vec![
        case(TokenizerJson, "empty", "is not JSON: EOF", fixed([])),
        case(TokenizerJson, "not-utf8", "is not UTF-8", |sound| [sound, b"\xff"].concat()),
        case(TokenizerJson, "not-a-number", "is not JSON", replace("\"id\":0", "\"id\":NaN")),
        case(TokenizerJson, "nested", "recursion limit", fixed(nested(10_000))),
        case(TokenizerJson, "an-array", "is not a tokenizer", fixed("[]")),
        case(TokenizerJson, "cut", "is not JSON: EOF", cut(1, 2)),
        case(TokenizerJson, "version-2", "Unknown tokenizer version '2.0'", set("/version", json!("2.0"))),
        case(TokenizerJson, "no-model", "odel", fixed(r#"{"version": "1.0"}"#)),
        case(TokenizerJson, "model-as-text", "is not a tokenizer", set("/model", json!("BPE"))),
        case(TokenizerJson, "unknown-model", "is not a tokenizer", set("/model/type", json!("Byte"))),
        case(TokenizerJson, "vocabulary-as-list", "is not a tokenizer", set("/model/vocab", json!(["a", "b"]))),
        case(TokenizerJson, "no-tokens", "it has no tokens", model(&json!({"type": "BPE", "vocab": {}, "merges": []}))),
        case(
            TokenizerJson,
            "id-4-billion",
            "a token has the id 4000000000",
            set("/model/vocab/a", json!(4_000_000_000_u32)),
        ),
        case(TokenizerJson, "id-over-32-bits", "is not a tokenizer", set("/model/vocab/a", json!(1_u64 << 32))),
        case(TokenizerJson, "id-negative", "is not a tokenizer", set("/model/vocab/a", json!(-1))),
        case(TokenizerJson, "two-tokens-with-one-id", "two tokens have the id 4", set("/model/vocab/n", json!(4))),
        case(
            TokenizerJson,
            "more-tokens-than-the-model",
            "has 13 tokens, but `vocab_size`",
            set("/model/vocab/x", json!(12)),
        ),
        case(TokenizerJson, "merge-makes-no-token", no_token, merge(json!(["a", "a"]))),
        case(TokenizerJson, "merge-of-what-is-no-token", no_token, merge(json!(["x", "y"]))),
        case(TokenizerJson, "merge-longer-than-any-token", no_token, merge(json!(["▁and", "▁and"]))),
        case(TokenizerJson, "merge-of-three", "MergeType", merge(json!(["n", "d", "a"]))),
        case(TokenizerJson, "merge-as-number", no_token, merge(json!(7))),
        case(TokenizerJson, "merges-as-object", "is not a tokenizer", set("/model/merges", json!({"a": "b"}))),
        case(TokenizerJson, "merge-with-a-longer-prefix", no_token, {
            set("/model/continuing_subword_prefix", json!("and much more"))
        }),
        case(
            TokenizerJson,
            "added-id-of-another",
            "`<s>` the id 9, where 1 is its turn",
            set("/added_tokens/1/id", json!(9)),
        ),
        case(
            TokenizerJson,
            "added-without-content",
            "missing field `content`",
            set("/added_tokens/1", json!({"id": 1})),
        ),
        case(TokenizerJson, "added-of-4-mb", "`added_tokens`", {
            edit(|file| file["added_tokens"].as_array_mut().unwrap().push(added(&"0".repeat(1 << 22), false)))
        }),
        case(TokenizerJson, "unigram-unknown-past-the-end", "is not a tokenizer", {
            model(&json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}))
        }),
        case(TokenizerJson, "unigram-with-an-empty-token", SOUND, {
            model(&json!({"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0], ["a", 0.0]]}))
        }),
        case(TokenizerJson, "wordpiece-with-an-empty-token", SOUND, {
            model(&json!({"type": "WordPiece", "unk_token": "", "continuing_subword_prefix": "",
                "max_input_chars_per_word": u32::MAX, "vocab": {"": 0, "a": 1}}))
        }),
        case(TokenizerJson, "merge-with-an-empty-token", SOUND, {
            model(&json!({"type": "BPE", "vocab": {"": 0, "a": 1}, "merges": [["", "a"], ["a", ""], ["", ""]]}))
        }),
        case(TokenizerJson, "added-empty", "the added token `` the id 10", {
            edit(|file| file["added_tokens"].as_array_mut().unwrap().push(added("", true)))
        }),
        case(TokenizerJson, "million-tokens", "`model.vocab` has 1000000 tokens", |_| large_vocabulary(1_000_000, 0)),
        case(TokenizerJson, "as-many-tokens-as-llama-3", "two tokens have the id 0", |_| {
            large_vocabulary(128_000, 280_000)
        }),
        case(TokenizerJson, "million-merges", "holds 3100005 values", |_| large_vocabulary(100_000, 1_000_000)),
        case(TokenizerJson, "unigram-of-nothing", "it has no tokens", {
            model(&json!({"type": "Unigram", "unk_id": null, "vocab": []}))
        }),
        case(TokenizerJson, "unigram-score-in-words", "is not a tokenizer", {
            model(&json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", "b"]]}))
        }),
        case(TokenizerJson, "wordpiece-without-unknown", "is not a tokenizer", {
            model(&json!({"type": "WordPiece", "vocab": {"a": 0}}))
        }),
        case(TokenizerJson, "20-mb-of-zeros", "holds 10000003 values", |_| {
            format!("{{\"version\":\"1.0\",\"model\":[{}0]}}", "0,".repeat(10_000_000)).into_bytes()
        }),
        case(TokenizerJson, "over-48-mb", "is larger than", fixed([])).of_length(1 << 30),
    ]
}

fn tokenizer_parts() -> Vec<Case> {
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let wide = json!({"type": "Split", "pattern": {"Regex": r"\p{L}{90}"}, "behavior": "Isolated", "invert": false});
    let template = |ids: Value| {
        json!({"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": ids})
    };
    let normalized = |normalizer: Value| {
        edit(move |file| {
            file["normalizer"] = normalizer.clone();
            file["added_tokens"].as_array_mut().unwrap().push(added("a\u{e9}a", true));
        })
    };
    let charsmap = |text: &str| with_step("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": text}));
    vec![
        case(TokenizerJson, "60-sequences-of-normalizers", SOUND, {
            with_step("normalizer", sequences("normalizers", 60, json!({"type": "NFC"})))
        }),
        case(TokenizerJson, "60-sequences-of-cutters", SOUND, {
            with_step(
                "pre_tokenizer",
                sequences("pretokenizers", 60, json!({"type": "Digits", "individual_digits": true})),
            )
        }),
        case(TokenizerJson, "60-sequences-of-decoders", SOUND, {
            with_step("decoder", sequences("decoders", 60, json!({"type": "Fuse"})))
        }),
        case(TokenizerJson, "60-sequences-of-processors", SOUND, {
            with_step("post_processor", sequences("processors", 60, bytes.clone()))
        }),
        case(TokenizerJson, "60-sequences-around-nothing", "is not a tokenizer", {
            edit(|file| {
                file["normalizer"] = sequences("normalizers", 60, json!({"type": "Nothing"}));
                file["pre_tokenizer"] = sequences("pretokenizers", 60, json!({"type": "Nothing"}));
            })
        }),
        case(TokenizerJson, "60-processors-around-nothing", "is not a tokenizer", {
            with_step("post_processor", sequences("processors", 60, json!({"type": "Nothing"})))
        }),
        case(TokenizerJson, "template-of-a-missing-token", SOUND, with_step("post_processor", template(json!({})))),
        case(TokenizerJson, "template-past-the-vocabulary", "`post_processor`", {
            with_step(
                "post_processor",
                template(json!({"<s>": {"id": "<s>", "ids": [4_000_000_000_u32], "tokens": ["<s>"]}})),
            )
        }),
        case(TokenizerJson, "truncation-to-less-than-its-stride", SOUND, {
            with_step(
                "truncation",
                json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}),
            )
        }),
        case(TokenizerJson, "padding-to-multiples-of-0", SOUND, {
            with_step(
                "padding",
                json!({"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": 0,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}),
            )
        }),
        case(TokenizerJson, "dropout-2", "is not a tokenizer", set("/model/dropout", json!(2.0))),
        case(TokenizerJson, "decoder-strips-more-than-there-is", "contradict", {
            with_step("decoder", json!({"type": "Strip", "content": "a", "start": 0, "stop": 9}))
        }),
        case(TokenizerJson, "pattern-is-none", "is not a tokenizer", {
            with_step("normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}))
        }),
        case(TokenizerJson, "pattern-too-large", "is not a tokenizer", {
            with_step(
                "normalizer",
                json!({"type": "Replace", "pattern": {"Regex": r"(?:\p{L}{1000}){1000}"}, "content": ""}),
            )
        }),
        case(TokenizerJson, "200-large-patterns", "`pre_tokenizer`", {
            with_step("pre_tokenizer", repeated("pretokenizers", 200, &wide))
        }),
        case(TokenizerJson, "text-grows-in-decoding", "`decoder`", {
            with_step("decoder", repeated("decoders", 34, &double))
        }),
        case(
            TokenizerJson,
            "text-grows-in-normalizing",
            "`normalizer`",
            normalized(repeated("normalizers", 34, &double)),
        ),
        case(TokenizerJson, "bytes-of-bytes", "`normalizer`", {
            normalized(repeated("normalizers", 34, &json!({"type": "ByteLevel"})))
        }),
        case(TokenizerJson, "bytes-of-bytes-in-cutting", "`pre_tokenizer`", {
            with_step("pre_tokenizer", repeated("pretokenizers", 34, &bytes))
        }),
        case(TokenizerJson, "pieces-of-length-0", "`pre_tokenizer`", {
            with_step("pre_tokenizer", json!({"type": "FixedLength", "length": 0}))
        }),
        case(TokenizerJson, "charsmap-not-base64", "`precompiled_charsmap`", charsmap("?")),
        case(TokenizerJson, "charsmap-claims-4-gb", "`precompiled_charsmap` is damaged", charsmap("/////2FhYWE=")),
        case(TokenizerJson, "charsmap-leads-out", "`precompiled_charsmap` is damaged", charsmap("BAAAAP////8=")),
        case(TokenizerJson, "charsmap-of-nothing", "`precompiled_charsmap` is damaged", charsmap("AAAAAA==")),
    ]
}

// --- token files ---

/// Where the header's fields are.
const PAYLOAD: usize = 136;

/// The sound file with a change, and checksums that agree with it.
fn sealed(change: impl Fn(&mut Vec<u8>) + 'static) -> impl Fn(&[u8]) -> Vec<u8> {
    move |sound| {
        let mut bytes = sound.to_vec();
        change(&mut bytes);
        let payload = crc32c::crc32c(&bytes[PAYLOAD..]).to_le_bytes();
        bytes[128..132].copy_from_slice(&payload);
        let header = crc32c::crc32c(&bytes[..132]).to_le_bytes();
        bytes[132..PAYLOAD].copy_from_slice(&header);
        bytes
    }
}

/// The same for numbers in the header.
fn claimed<const N: usize>(numbers: [(usize, u64); N]) -> impl Fn(&[u8]) -> Vec<u8> {
    sealed(move |bytes| {
        for (at, number) in numbers {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
    })
}

fn token_files() -> Vec<Case> {
    const WIDTH: usize = 12;
    const TOKENS: usize = 96;
    const DOCUMENTS: usize = 104;
    let byte = |at: usize, value: u8| sealed(move |bytes| bytes[at] = value);
    // The sound file has five tokens of two bytes, then the starts of two documents, 0 and 4.
    let start = |index: usize, value: u64| claimed([(PAYLOAD + 10 + 8 * index, value)]);
    let other = "it belongs to another text, tokenizer or split";
    let length = "which is not what its header says";
    let damaged = "its list of documents is damaged";
    vec![
        case(Tokens, "empty", "it is shorter than a header", fixed([])),
        case(Tokens, "header-cut", "it is shorter than a header", |sound| sound[..135].to_vec()),
        case(Tokens, "header-alone", length, |sound| sound[..136].to_vec()),
        case(Tokens, "another-magic", "it is not a token file of this version", byte(0, b'm')),
        case(Tokens, "version-2", "it is not a token file of this version", byte(8, 2)),
        case(Tokens, "header-checksum", "its header is damaged", patch(132, [0; 4])),
        case(Tokens, "another-text", other, byte(16, 9)),
        case(Tokens, "another-tokenizer", other, byte(48, 9)),
        case(Tokens, "another-split", other, claimed([(80, f64::NAN.to_bits())])),
        case(Tokens, "another-part", other, byte(88, 7)),
        case(Tokens, "tokens-of-0-bytes", "its tokens are 0 bytes wide", byte(WIDTH, 0)),
        case(Tokens, "tokens-of-3-bytes", "its tokens are 3 bytes wide", byte(WIDTH, 3)),
        case(Tokens, "tokens-of-4-bytes", length, byte(WIDTH, 4)),
        case(Tokens, "tokens-2-to-64", length, claimed([(TOKENS, u64::MAX)])),
        case(Tokens, "tokens-wrap-around", length, claimed([(TOKENS, (1 << 63) + 5)])),
        case(Tokens, "documents-wrap-around", length, claimed([(DOCUMENTS, (1 << 61) + 2)])),
        case(Tokens, "both-wrap-around", length, claimed([(TOKENS, 1 << 62), (DOCUMENTS, 1 << 60)])),
        case(Tokens, "fewer-tokens-than-there-are", length, claimed([(TOKENS, 4)])),
        case(Tokens, "cut", length, cut(19, 20)),
        case(Tokens, "longer", length, |sound| [sound, &[0]].concat()),
        case(Tokens, "with-a-hole-behind", length, <[u8]>::to_vec).of_length(1 << 30),
        case(Tokens, "payload-checksum", "its content does not match its checksum", patch(PAYLOAD, [99, 0])),
        case(Tokens, "documents-out-of-order", damaged, claimed([(PAYLOAD + 10, 4), (PAYLOAD + 18, 0)])),
        case(Tokens, "first-document-later", damaged, start(0, 1)),
        case(Tokens, "document-past-the-end", damaged, start(1, 6)),
        case(Tokens, "document-at-2-to-64", damaged, start(1, u64::MAX)),
        case(Tokens, "tokens-of-no-document", damaged, {
            sealed(|bytes| {
                bytes[DOCUMENTS] = 0;
                bytes.truncate(PAYLOAD + 10);
            })
        }),
    ]
}

// --- the manifest ---

fn manifests() -> Vec<Case> {
    let entry = |name: &str| {
        let text = format!(
            "{{\n  \"version\": 1,\n  \"files\": {{\n    \"{name}\": {{\n      \"bytes\": 1,\n      \"sha256\": \"\"\n    }}\n  }}\n}}\n"
        );
        fixed(text)
    };
    let outside = "which is not a path inside the checkpoint";
    let none = "is not a manifest";
    vec![
        case(Listing, "empty", none, fixed([])),
        case(Listing, "not-utf8", "is not UTF-8", fixed(b"{\"version\": 1, \"files\": {\"\xff\": 1}}")),
        case(Listing, "nested", none, fixed(nested(10_000))),
        case(Listing, "cut", none, cut(1, 2)),
        case(Listing, "version-2", "`version` is 2", replace("\"version\": 1", "\"version\": 2")),
        case(Listing, "version-in-words", "expected u32", replace("\"version\": 1", "\"version\": \"1\"")),
        case(Listing, "no-files", "missing field `files`", fixed(r#"{"version": 1}"#)),
        case(Listing, "surplus-field", "unknown field `sha512`", replace("\"sha256\"", "\"sha512\"")),
        case(Listing, "bytes-negative", "integer `-1`", replace("\"bytes\": ", "\"bytes\": -1, \"b\": ")),
        case(Listing, "bytes-over-2-to-64", none, replace("\"bytes\": ", "\"bytes\": 99999999999999999999, \"b\": ")),
        case(Listing, "in-the-parent", outside, entry("../config.json")),
        case(Listing, "in-the-parent-by-a-detour", outside, entry("a/../../b")),
        case(Listing, "at-the-root", outside, entry("/etc/passwd")),
        case(Listing, "on-a-drive", outside, entry("C:/config.json")),
        case(Listing, "behind-a-backslash", outside, entry(r"a\\b")),
        case(Listing, "hidden", outside, entry(".config.json")),
        case(Listing, "no-name", outside, entry("")),
        case(Listing, "with-a-zero-byte", outside, entry("a\\u0000b")),
        case(Listing, "itself", outside, entry(MANIFEST_FILE)),
        case(Listing, "same-file-twice", "is not as it was written", |sound| {
            let text = std::str::from_utf8(sound).unwrap();
            let begin = text.find("    \"config.json\"").unwrap();
            let end = begin + text[begin..].find("},\n").unwrap() + 3;
            [&text[..end], &text[begin..]].concat().into_bytes()
        }),
        case(Listing, "not-as-written", "is not as it was written", |sound| [sound, b" "].concat()),
        case(Listing, "too-many-files", "more than 4096", |_| {
            let files: BTreeMap<String, Value> =
                (0..5000).map(|i| (format!("f{i}"), json!({"bytes": 1, "sha256": ""}))).collect();
            json!({"version": 1, "files": files}).to_string().into_bytes()
        }),
        case(Listing, "over-2-mb", "is larger than", fixed([])).of_length(1 << 30),
        case(Listing, "file-that-is-not-there", "model/f`: is missing", entry("f")),
        case(Listing, "file-left-out", "is not part of the checkpoint", {
            fixed("{\n  \"version\": 1,\n  \"files\": {}\n}\n")
        }),
        case(Listing, "another-size", "bytes, the checkpoint was saved with 1", replace("\"bytes\": ", "\"bytes\": 1")),
        case(Listing, "another-hash", "SHA-256 differs", replace("\"sha256\": \"", "\"sha256\": \"0")),
    ]
}

// --- the test ---

/// As Llama 2's, with ten tokens.
fn tokenizer() -> Tokenizer {
    let tokens = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "n", "d", "\u{2581}a", "nd", "\u{2581}and"];
    let vocabulary: serde_json::Map<_, _> =
        tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), Value::from(id))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "post_processor": {"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": [["n", "d"], ["\u{2581}", "a"], ["\u{2581}a", "nd"]]},
    });
    Tokenizer::from_json(&file.to_string()).unwrap()
}

/// Of the other kinds, for the fuzzers.
fn other_tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let read = |model: Value| Tokenizer::from_json(&json!({"version": "1.0", "model": model}).to_string()).unwrap();
    let words = ["and a"].map(str::to_owned).into_iter();
    vec![
        ("characters", Tokenizer::char_level(&"and ".chars().collect(), true).unwrap()),
        ("bytes", Tokenizer::train_bpe(260, words).unwrap()),
        ("unigram", read(json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["an", -1.0]]}))),
        ("wordpiece", {
            read(json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##n": 2}}))
        }),
    ]
}

/// A sound file for each loader, as the project writes them.
fn sound_files(directory: &Path) {
    let options = ModelOptions {
        hidden_size: Some(4),
        intermediate_size: Some(8),
        num_hidden_layers: Some(2),
        num_attention_heads: Some(2),
        num_key_value_heads: Some(1),
        ..ModelOptions::default()
    };
    let config = options.resolve(12, 16);
    let tokenizer = tokenizer();
    let model = init::initialize(LanguageModel::new(&config, &Device::flex()).unwrap(), &config, 1);
    let tensors = weights::collect(&model).unwrap();

    let folder = directory.join("model");
    fs_err::create_dir(&folder).unwrap();
    checkpoint::save(&folder, &config, &model, &tokenizer).unwrap();
    Manifest::of_directory(&folder).unwrap().write(&folder.join(MANIFEST_FILE)).unwrap();

    let shards = directory.join("shards");
    fs_err::create_dir(&shards).unwrap();
    fs_err::write(shards.join(CONFIG_FILE), "{}").unwrap();
    safetensors::write_shards(&shards, &tensors, Encoding::F32, 600).unwrap();

    let contents = Contents {
        config: &config,
        tokenizer: Some(&tokenizer),
        begin_id: Some(1),
        end_ids: &[2],
        tokenizer_config: None,
        chat_template: None,
    };
    gguf::save(&Loader::Gguf.file(directory), "tiny", &contents, tensors, Encoding::F32).unwrap();

    let mut writer = TokenFileWriter::create(directory, IDENTITY, 100, 2).unwrap();
    writer.push(&[5, 6, 7], 5).unwrap();
    writer.end_document(Some(99)).unwrap();
    writer.push(&[8], 2).unwrap();
    writer.end_document(None).unwrap();
    drop(writer.publish(directory).unwrap());
}

/// Keeps a file for the fuzzers.
fn keep_seed(loader: Loader, name: &str, bytes: &[u8]) {
    let Some(seeds) = std::env::var_os("MINILLM_SEEDS") else { return };
    if bytes.len() <= LARGEST_SEED {
        let folder = Path::new(&seeds).join(loader.fuzzer());
        fs_err::create_dir_all(&folder).unwrap();
        fs_err::write(folder.join(format!("{loader:?}-{name}")), bytes).unwrap();
    }
}

/// What a file has cost.
struct Cost {
    name: String,
    time: Duration,
    bytes: usize,
}

/// What is wrong with how a file is received, if anything, and the price.
fn judge(case: &Case, directory: &Path) -> (Result<(), String>, Cost) {
    let loader = case.loader;
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let start = Instant::now();
    let result = std::panic::catch_unwind(|| loader.load(directory));
    let cost = Cost {
        name: format!("{:?} {}", case.loader, case.name),
        time: start.elapsed(),
        bytes: MOST.load(Relaxed).saturating_sub(before),
    };
    let file = case.loader.file(directory);
    let file = file.file_name().unwrap().to_str().unwrap();
    let is_named = |message: &str| [&[file], loader.leads_to()].concat().iter().any(|name| message.contains(name));
    let verdict = match result {
        Err(_) => Err("panics".to_owned()),
        Ok(_) if cost.bytes > MOST_BYTES => Err(format!("takes {} MiB", cost.bytes >> 20)),
        Ok(_) if cost.time > LONGEST => Err(format!("takes {:?}", cost.time)),
        Ok(Ok(())) if case.verdict == SOUND => Ok(()),
        Ok(Ok(())) => Err("is read without an error".to_owned()),
        Ok(Err(message)) if !message.contains(case.verdict) || !is_named(&message) => {
            Err(format!("gives `{message:.600}`"))
        }
        Ok(Err(_)) => Ok(()),
    };
    (verdict.map_err(|problem| format!("{}: {problem}, expected `{}`", cost.name, case.verdict)), cost)
}

#[test]
fn every_crafted_file_gets_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    sound_files(directory);
    for loader in Loader::ALL {
        keep_seed(loader, "sound", &fs_err::read(loader.file(directory)).unwrap());
        loader.load(directory).unwrap();
    }

    for (name, tokenizer) in other_tokenizers() {
        keep_seed(Loader::TokenizerJson, name, tokenizer.to_json().as_bytes());
    }

    let (mut problems, mut costs, mut counts) = (Vec::new(), Vec::new(), BTreeMap::new());
    for case in table() {
        let path = case.loader.file(directory);
        let sound = fs_err::read(&path).unwrap();
        let crafted = (case.make)(&sound);
        fs_err::write(&path, &crafted).unwrap();
        if case.length > 0 {
            fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(case.length).unwrap();
        }
        keep_seed(case.loader, case.name, &crafted);
        drop(crafted);
        let (verdict, cost) = judge(&case, directory);
        fs_err::write(&path, sound).unwrap();
        problems.extend(verdict.err());
        costs.push(cost);
        *counts.entry(case.loader).or_insert(0) += 1;
    }
    println!("{} files: {counts:?}", costs.len());
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.time));
    costs.iter().take(8).for_each(|cost| println!("{:?} for {}", cost.time, cost.name));
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.bytes));
    costs.iter().take(8).for_each(|cost| println!("{} KiB for {}", cost.bytes >> 10, cost.name));
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}
