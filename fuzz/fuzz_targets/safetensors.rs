//! The bytes as a model's weights, each tensor of which is read, and as the index of weights in several files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minillm_fuzz::{directory, file};
use minillm_model::checkpoint::{INDEX_FILE, safetensors};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensors) = safetensors::open(&file("model.safetensors", bytes)) {
        for (name, _) in tensors.iter() {
            let _ = tensors.read(name);
        }
    }
    file(&format!("shards/{INDEX_FILE}"), bytes);
    safetensors::open_directory(&directory().join("shards")).expect_err("there are no shards");
});
