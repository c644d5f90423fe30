//! The bytes as a `config.json`. What was read is counted, and comes back from what is written of it.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use minillm_model::encoding::Encoding;
use minillm_model::checkpoint::hf_config::{chat_template, from_json, generation_end_ids, to_json};
use minillm_model::stats;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("config.json");
    let _ = (generation_end_ids(path, text), chat_template(text));
    if let Ok(read) = from_json(path, text) {
        let _ = (stats::parameters(&read.config).total(), read.config.context());
        let again = to_json(&read.config, read.begin_id, &read.end_ids, Encoding::F32);
        from_json(path, &again).expect("what was written is read");
    }
});
