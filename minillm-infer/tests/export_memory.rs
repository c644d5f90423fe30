//! What an export needs in memory beside the model that it writes. (A test program of its own: the allocator counts for all of
//! it.)

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use minillm_infer::export::{Options, Target, export};
use minillm_model::checkpoint::{self, durable};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::tokenizer::Tokenizer;
use minillm_model::{init, stats};

/// Counts what is allocated, and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_proof_holds_one_tensor_at_a_time() {
    let options = ModelOptions { hidden_size: Some(256), num_hidden_layers: Some(12), ..ModelOptions::default() };
    let tokenizer = Tokenizer::char_level(&"abc".chars().collect(), false).unwrap();
    let (config, device) = (options.resolve(tokenizer.vocab_size(), 32), Device::flex());
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
    let folder = tempfile::tempdir().unwrap();
    checkpoint::save(&durable::System, folder.path(), &model, &tokenizer).unwrap();
    drop(model);
    let source = checkpoint::load(folder.path(), &device).unwrap();
    let size = 4 * stats::parameters(&config).total();

    for target in [Target::Hf, Target::Gguf] {
        let out = folder.path().join(format!("{target:?}"));
        let options = Options { target, out, encoding: Encoding::F32, name: "a".to_owned(), largest_shard: None };
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        export(&source, &options).unwrap();
        let most = MOST.load(Ordering::Relaxed) - before;
        assert!(most < size * 9 / 4, "{target:?}: {most} bytes beside a model of {size}");
    }
}
