//! The bytes as a GGUF file: its keys, tensors, architecture and tokenizer, as far as they can be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minillm_fuzz::{allow_contained_panics, file, use_tokenizer};
use minillm_model::checkpoint::gguf::{config, read, vocabulary};

fuzz_target!(init: allow_contained_panics(), |bytes: &[u8]| {
    let Ok((keys, tensors)) = read::open(&file("model.gguf", bytes)) else { return };
    let _ = tensors.read_all();
    let _ = (vocabulary::begin_id(&keys), vocabulary::end_ids(&keys), vocabulary::chat_template(&keys));
    if let Ok((_, config)) = config::read(&keys, &tensors)
        && let Ok(Some(tokenizer)) = vocabulary::read(&keys, config.vocab_size)
    {
        use_tokenizer(&tokenizer);
    }
});
