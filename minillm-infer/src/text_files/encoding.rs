//! What a file is that is not UTF-8 text, so that the hint is one that helps.
//!
//! Nothing is converted: a guess that is wrong gives a text that is wrong, and nobody sees it.

use std::ops::RangeInclusive;

/// What is wrong with a file's bytes, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Continues the file's name.
    pub problem: String,
    pub hint: String,
}

/// Bytes at a file's start that are looked at.
pub(super) const SAMPLE_BYTES: usize = 64 << 10;

/// How files of other kinds begin, with what they are and what to do with them.
const MAGIC: [(&[u8], &str, &str); 6] = [
    (b"\x1f\x8b", "gzip data", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "let its name end in .zst"),
    (b"BZh91AY&SY", "bzip2 data", "unpack it with `bunzip2`"),
    (b"\xfd7zXZ\0", "xz data", "unpack it with `unxz`"),
    (b"PK\x03\x04", "a ZIP archive or an office document", "unpack it, or save it as plain text"),
    (b"%PDF-", "a PDF document", "convert it to text, for example with `pdftotext -enc UTF-8`"),
];

/// What a file is that begins with `start` and is not UTF-8 text. UTF-16 and UTF-32 are found with and without a byte order
/// mark, also where their bytes happen to be UTF-8 (with NUL characters).
pub(super) fn not_text(start: &[u8]) -> Option<Problem> {
    if let Some((_, kind, hint)) = MAGIC.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Some(Problem { problem: format!("is {kind}, not UTF-8 text"), hint: (*hint).to_owned() });
    }
    let name = wide_encoding(start)?;
    Some(Problem { problem: format!("is {name} text, not UTF-8"), hint: convert_from(name) })
}

fn convert_from(name: &str) -> String {
    let name = name.to_lowercase();
    format!("convert the file, for example with `iconv -f {name} -t utf-8`, or save it as UTF-8 in your editor")
}

/// The encoding of a text in UTF-16 or UTF-32 that begins with `start`, as `iconv` calls it but in capitals; `None` for any
/// other.
pub fn wide_encoding(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    let sample = &start[..start.len().min(SAMPLE_BYTES)];
    let (quads, pairs) = (sample.as_chunks::<4>().0, sample.as_chunks::<2>().0);
    let utf_32 = |of: fn([u8; 4]) -> u32| {
        let is_text = |quad: &[u8; 4]| char::from_u32(of(*quad)).is_some_and(is_of_text);
        !quads.is_empty() && quads.iter().all(is_text)
    };
    // Whether a character was cut by the end of the sample is not known.
    let is_utf_8 = std::str::from_utf8(sample).map_or_else(|error| error.error_len().is_none(), |_| true);
    let utf_16 = |of: fn([u8; 2]) -> u16| {
        let units = || pairs.iter().map(|pair| of(*pair));
        let last = units().next_back();
        let is_text = char::decode_utf16(units()).all(|character| match character {
            Ok(character) => is_of_text(character),
            Err(half) => {
                last == Some(half.unpaired_surrogate()) && (0xd800..0xdc00).contains(&half.unpaired_surrogate())
            }
        });
        let has_ascii = units().any(|unit| unit < 0x80);
        // Alphabets from Latin to Canadian, and punctuation, have high bytes that are control characters or spaces in
        // UTF-8. Text with other high bytes, as Chinese, is not UTF-8 as a whole.
        is_text && has_ascii && if is_utf_8 { units().all(|unit| unit <= 0x20ff) } else { looks_random(sample) }
    };
    if utf_32(u32::from_le_bytes) {
        Some("UTF-32LE")
    } else if utf_32(u32::from_be_bytes) {
        Some("UTF-32BE")
    } else if utf_16(u16::from_le_bytes) {
        Some("UTF-16LE")
    } else if utf_16(u16::from_be_bytes) {
        Some("UTF-16BE")
    } else {
        None
    }
}

/// Whether a text would have this character: not what only files of other kinds have.
fn is_of_text(character: char) -> bool {
    const PRIVATE: RangeInclusive<char> = '\u{e000}'..='\u{f8ff}';
    let is_layout = matches!(character, '\t' | '\n' | '\r' | '\u{c}');
    // The planes above are empty but for tags and private use.
    let is_assigned = (character as u32) < 0x4_0000 && !matches!(character as u32 & 0xffff, 0xfffe | 0xffff);
    (is_layout || !character.is_control()) && !PRIVATE.contains(&character) && is_assigned
}

/// Whether bytes are control characters as often as in UTF-16 (of which every second byte may be any), not as seldom as in
/// an encoding of one byte or several.
fn looks_random(bytes: &[u8]) -> bool {
    let is_control = |byte: &&u8| matches!(byte, 0..=8 | 0x0e..=0x1f | 0x7f);
    50 * bytes.iter().filter(is_control).count() > bytes.len()
}

/// What is wrong where `bytes` stop being UTF-8 after the first `valid`, and what to do. `is_end` says that the file ends
/// with them.
pub(super) fn not_utf8(bytes: &[u8], valid: usize, is_end: bool) -> Problem {
    let (before, after) = bytes.split_at(valid.min(bytes.len()));
    let byte = after.first().copied().unwrap_or_default();
    let error = std::str::from_utf8(after).err();
    let is_cut = is_end && error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
    let encoding = if is_windows(after) { "windows-1252" } else { "latin1" };
    let convert = format!("convert the file, for example with `iconv -f {encoding} -t utf-8`");
    let high = bytes.iter().filter(|byte| **byte >= 0x80).count();
    if is_cut {
        return Problem {
            problem: format!("the file ends within a character, with a byte 0x{byte:02x}"),
            hint: format!("if it was cut, fetch it again; if it is not UTF-8 at all, {convert}"),
        };
    }
    if let [0xed, 0xa0..=0xbf, ..] = after {
        return Problem {
            problem: format!("there is half of a surrogate pair, 0x{byte:02x}{:02x}", after[1]),
            hint: "the program that wrote it encodes UTF-16 in UTF-8 (CESU-8): let it write UTF-8, or leave these bytes out \
                   with `iconv -c -f utf-8 -t utf-8`"
                .to_owned(),
        };
    }
    let problem = format!("there is a byte 0x{byte:02x} where no character may begin");
    let hint = if bytes.contains(&0) || looks_random(bytes) {
        "the file looks like data of a program, not like text: name a text file".to_owned()
    } else if !before.is_ascii() {
        "other characters near it are UTF-8, so single bytes are damaged: fetch the file again, or leave them out with \
         `iconv -c -f utf-8 -t utf-8`"
            .to_owned()
    } else if 4 * high > bytes.len() {
        // Latin letters with accents are fewer.
        "convert the file from the encoding that it was written in, for example with `iconv -f windows-1251 -t utf-8` \
         (Cyrillic), or from gb18030, big5, shift_jis or euc-kr; `file -i` makes a guess"
            .to_owned()
    } else {
        convert
    };
    Problem { problem, hint }
}

/// Whether these are bytes of Windows' extension of Latin-1, which has quotes and dashes where Latin-1 has nothing.
fn is_windows(bytes: &[u8]) -> bool {
    let is_none_of_windows = |byte: &u8| matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d);
    bytes.iter().any(|byte| (0x80..0xa0).contains(byte)) && !bytes.iter().any(is_none_of_windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 6] = [
        "It was the best of times,\r\nit was the worst of times. ",
        "Ça va, Zoë? “Naïve” — 5 €…\n",
        "Все счастливые семьи похожи друг на друга.\n",
        "ἄνδρα μοι ἔννεπε, μοῦσα\nשלום עולם\nनमस्ते\n",
        "天地玄黄 宇宙洪荒\n日月盈昃 辰宿列张\n一天\u{3000}地\n",
        "emoji 🦀🦀 and 𝄞\n",
    ];

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    fn utf_32(text: &str, bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
        text.chars().map(u32::from).flat_map(bytes).collect()
    }

    #[test]
    fn wide_encodings_are_found_with_and_without_a_mark() {
        for text in TEXTS {
            let text = text.repeat(9);
            let marked = format!("\u{feff}{text}");
            for (bytes, expected) in [
                (utf_16(&text, u16::to_le_bytes), "UTF-16LE"),
                (utf_16(&text, u16::to_be_bytes), "UTF-16BE"),
                (utf_32(&text, u32::to_le_bytes), "UTF-32LE"),
                (utf_32(&text, u32::to_be_bytes), "UTF-32BE"),
                (utf_16(&marked, u16::to_le_bytes), "UTF-16"),
                (utf_16(&marked, u16::to_be_bytes), "UTF-16"),
                (utf_32(&marked, u32::to_le_bytes), "UTF-32"),
                (utf_32(&marked, u32::to_be_bytes), "UTF-32"),
            ] {
                assert_eq!(wide_encoding(&bytes), Some(expected), "{text}");
                // A text that is longer than the sample may be cut there within a character.
                assert_eq!(wide_encoding(&bytes[..bytes.len() - 2]), Some(expected), "{text}");
                assert!(not_text(&bytes).unwrap().hint.contains(&format!("iconv -f {} -t", expected.to_lowercase())));
            }
        }
    }

    #[test]
    fn other_texts_are_not_taken_for_wide() {
        let latin_1 = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<_>>();
        for text in TEXTS {
            assert_eq!(wide_encoding(text.as_bytes()), None, "{text}");
            assert_eq!(wide_encoding(&text.as_bytes()[..text.len() - 2]), None, "{text}");
        }
        for bytes in [
            b"".to_vec(),
            b"a".to_vec(),
            b"a b c d e f ".to_vec(),
            b"abc\0def\0ghi\0".to_vec(),
            b"name\0\0\0\0value\0\0\0".to_vec(),
            b"\0".to_vec(),
            b"\0\0\0\0".to_vec(),
            b"one line\0another\0".to_vec(),
            latin_1("d\u{e9}j\u{e0} vu, caf\u{e9}\n"),
            // GB18030, Shift JIS, KOI8-R
            b"\xcc\xec\xb5\xd8\xd0\xfe\xbb\xc6\n\xd3\xee\xd6\xe6\xba\xe9\xbb\xc4\n".to_vec(),
            b"\x93\xfa\x96\x7b\x8c\xea\n".to_vec(),
            b"\xf7\xd3\xc5 \xd3\xde\xc1\xd3\xd4\xcc\xc9\xd7\xd9\xc5\n".to_vec(),
        ] {
            assert_eq!(wide_encoding(&bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        assert_eq!(not_text(b"\x1f\x8b\x08\0\0").unwrap().problem, "is gzip data, not UTF-8 text");
        assert!(not_text(b"PK\x03\x04\x14\0").unwrap().problem.contains("ZIP"));
        assert_eq!(not_text(b"PKs are keys"), None);
        assert_eq!(not_text("\u{feff}text".as_bytes()), None);
    }

    #[test]
    fn the_hint_fits_the_bytes() {
        let hint = |bytes: &[u8], is_end| {
            let valid = std::str::from_utf8(bytes).unwrap_err().valid_up_to();
            let Problem { problem, hint } = not_utf8(bytes, valid, is_end);
            format!("{problem}; {hint}")
        };
        for (bytes, is_end, expected) in [
            (&b"caf\xe9 au lait"[..], true, "iconv -f latin1 "),
            (b"\x93quoted\x94", true, "iconv -f windows-1252 "),
            (b"no \x81 in Windows' caf\xe9", true, "iconv -f latin1 "),
            (b"\xc2\xa9 caf\xe9 au lait", true, "iconv -c -f utf-8 "),
            (b"caf\xc3", true, "ends within a character, with a byte 0xc3; if it was cut"),
            (b"caf\xc3", false, "iconv -f latin1 "),
            (b"a\xed\xa0\xbd\xed\xb8\x80", true, "half of a surrogate pair"),
            (b"\xf7\xd3\xc5 \xd3\xde\xc1", true, "windows-1251"),
            (b"\x01\x02\x03\xff\xfe\x00abc", true, "data of a program"),
        ] {
            let found = hint(bytes, is_end);
            assert!(found.contains(expected), "{bytes:?}: {found}");
        }
    }
}
