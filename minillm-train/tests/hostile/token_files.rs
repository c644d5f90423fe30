//! Tokens on disk.

use super::Loader::Tokens;
use super::{Case, case, cut, fixed, patch};

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

pub(super) fn cases() -> Vec<Case> {
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
