//! The bytes as the manifest of a checkpoint that has one file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minillm_fuzz::{directory, file};
use minillm_model::checkpoint::manifest::{MANIFEST_FILE, verify_checkpoint};

fuzz_target!(|bytes: &[u8]| {
    file(&format!("checkpoint/{MANIFEST_FILE}"), bytes);
    file("checkpoint/config.json", b"{}");
    let _ = verify_checkpoint(&directory().join("checkpoint"));
});
