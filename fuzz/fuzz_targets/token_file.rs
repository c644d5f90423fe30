//! The bytes as a token file, as they are and with checksums that agree: no fuzzer guesses those.

#![no_main]

use libfuzzer_sys::fuzz_target;
use minillm_fuzz::{directory, file};
use minillm_train::data::Part;
use minillm_train::data::token_file::{Identity, TokenFile};

/// Of the sound file that the fuzzer starts from.
const IDENTITY: Identity =
    Identity { text: [1; 32], tokenizer: [2; 32], validation_fraction: 0.1, part: Part::Training };
const VOCABULARY: usize = 100;
const HEADER_BYTES: usize = 136;

fn read(bytes: &[u8]) {
    let path = IDENTITY.path(directory());
    let name = path.file_name().and_then(|name| name.to_str()).expect("the name is UTF-8");
    if let Ok(tokens) = TokenFile::open(&file(name, bytes), &IDENTITY, VOCABULARY) {
        let mut ids = Vec::new();
        if tokens.copy(0..tokens.len(), &mut ids).is_ok() {
            assert!(ids.iter().all(|&id| (0..VOCABULARY as i32).contains(&id)));
        }
        assert!(tokens.document_starts().all(|start| start <= tokens.len()));
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if bytes.len() >= HEADER_BYTES {
        let mut sealed = bytes.to_vec();
        let payload = crc32c::crc32c(&bytes[HEADER_BYTES..]).to_le_bytes();
        sealed[128..132].copy_from_slice(&payload);
        let header = crc32c::crc32c(&sealed[..132]).to_le_bytes();
        sealed[132..HEADER_BYTES].copy_from_slice(&header);
        read(&sealed);
    }
});
