//! Untrusted files: one table of crafted ones, each with the verdict that its loader must give. A verdict names the file
//! and the field, and takes neither much time nor memory, whatever the file claims; a panic is never one.
//!
//! `MINILLM_SEEDS=DIR cargo test --release -p minillm-train --test hostile` also writes the sound files and the crafted
//! ones to `DIR/LOADER/`, where the fuzzers start from (`fuzz/run.sh`).

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
#![allow(unsafe_code)] // the allocator below, which only counts

mod configs;
mod gguf_files;
mod manifests;
mod safetensors_files;
mod token_files;
mod tokenizers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use minillm_model::checkpoint::durable;
use minillm_model::checkpoint::gguf;
use minillm_model::checkpoint::manifest::{MANIFEST_FILE, Manifest, verify_checkpoint};
use minillm_model::checkpoint::weights;
use minillm_model::checkpoint::{self, CONFIG_FILE, Contents, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE, safetensors};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::error::with_causes;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Of the sound token file.
const VOCABULARY: usize = 100;
/// The identity of the sound token file.
const IDENTITY: Identity =
    Identity { text: [1; 32], tokenizer: [2; 32], validation_fraction: 0.1, part: Part::Training };

impl Loader {
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
                read.decode(&ids);
                checkpoint::load(&model, &device).map(drop)
            }),
            Self::Tokens => {
                let tokens = TokenFile::open(&file, &IDENTITY, VOCABULARY)
                    .map_err(|problem| format!("`{}`: {problem}", file.display()))?;
                return tokens.copy(0..tokens.len(), &mut Vec::new()).map_err(|error| error.to_string());
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

fn case(loader: Loader, name: &'static str, verdict: &'static str, make: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Case {
    Case { loader, name, verdict, make: Box::new(make), length: 0 }
}

/// Every crafted file.
fn table() -> Vec<Case> {
    [
        safetensors_files::lengths(),
        safetensors_files::headers(),
        safetensors_files::models(),
        safetensors_files::indexes(),
        gguf_files::headers(),
        gguf_files::tensors(),
        gguf_files::architectures(),
        gguf_files::vocabularies(),
        configs::fields(),
        configs::sizes(),
        tokenizers::files(),
        tokenizers::parts(),
        token_files::cases(),
        manifests::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
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
    let model = init::initialize(LanguageModel::new(&config, &Device::flex()).unwrap(), 1);
    let tensors = weights::collect(&model).unwrap();

    let folder = directory.join("model");
    fs_err::create_dir(&folder).unwrap();
    checkpoint::save(&durable::System, &folder, &model, &tokenizer).unwrap();
    Manifest::of_directory(&folder).unwrap().write(&durable::System, &folder.join(MANIFEST_FILE)).unwrap();

    let shards = directory.join("shards");
    fs_err::create_dir(&shards).unwrap();
    fs_err::write(shards.join(CONFIG_FILE), "{}").unwrap();
    safetensors::write_shards(&durable::System, &shards, &tensors, Encoding::F32, 600).unwrap();

    let contents = Contents {
        config: &config,
        tokenizer: Some(&tokenizer),
        begin_id: Some(1),
        end_ids: &[2],
        tokenizer_config: None,
        chat_template: None,
    };
    gguf::save(&Loader::Gguf.file(directory), "tiny", &contents, tensors, Encoding::F32).unwrap();

    let mut writer = TokenFileWriter::create(directory, IDENTITY, VOCABULARY, 2).unwrap();
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

/// Reads every crafted file of one loader; all that get another verdict are reported together.
fn every_crafted_file(loader: Loader) {
    /// What is allocated is counted for the whole process, so one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);

    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    sound_files(directory);
    let path = loader.file(directory);
    let sound = fs_err::read(&path).unwrap();
    keep_seed(loader, "sound", &sound);
    loader.load(directory).unwrap();

    let (mut problems, mut costs) = (Vec::new(), Vec::new());
    for case in table().into_iter().filter(|case| case.loader == loader) {
        let crafted = (case.make)(&sound);
        fs_err::write(&path, &crafted).unwrap();
        if case.length > 0 {
            fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(case.length).unwrap();
        }
        keep_seed(loader, case.name, &crafted);
        drop(crafted);
        let (verdict, cost) = judge(&case, directory);
        problems.extend(verdict.err());
        costs.push(cost);
    }
    assert!(!costs.is_empty(), "no crafted file for {loader:?}");
    println!("{loader:?}: {} files", costs.len());
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.time));
    costs.iter().take(3).for_each(|cost| println!("{:?} for {}", cost.time, cost.name));
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.bytes));
    costs.iter().take(3).for_each(|cost| println!("{} KiB for {}", cost.bytes >> 10, cost.name));
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn safetensors_files() {
    every_crafted_file(Loader::Safetensors);
}

#[test]
fn indexes_of_shards() {
    every_crafted_file(Loader::Index);
}

#[test]
fn gguf_files() {
    every_crafted_file(Loader::Gguf);
}

#[test]
fn configs_in_json() {
    every_crafted_file(Loader::ConfigJson);
}

#[test]
fn tokenizers_in_json() {
    for (name, tokenizer) in other_tokenizers() {
        keep_seed(Loader::TokenizerJson, name, tokenizer.to_json().as_bytes());
    }
    every_crafted_file(Loader::TokenizerJson);
}

#[test]
fn files_of_tokens() {
    every_crafted_file(Loader::Tokens);
}

#[test]
fn manifests_of_checkpoints() {
    every_crafted_file(Loader::Listing);
}
