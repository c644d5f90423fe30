//! The bytes as a `tokenizer.json`. What can be read writes and reads a text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minillm_fuzz::{allow_contained_panics, use_tokenizer};
use minillm_model::tokenizer::Tokenizer;

fuzz_target!(init: allow_contained_panics(), |bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(tokenizer) = Tokenizer::from_json(text)
    {
        use_tokenizer(&tokenizer);
    }
});
