//! A token as people can read it: nothing in it is invisible.

use std::fmt::Write as _;

use minillm_model::tokenizer::Tokenizer;

/// A token's text, with signs for spaces (`␣`), tabs (`⇥`) and ends of lines (`↵`). Other characters without a shape of
/// their own and bytes that are no UTF-8 by themselves are escaped: `\u{200b}`, `\xC3`. A special token has no text but a
/// name; without a tokenizer, and for ids without a token, there is only the number: `#12`.
pub fn label(tokenizer: Option<&Tokenizer>, id: u32) -> String {
    let Some(tokenizer) = tokenizer.filter(|tokenizer| tokenizer.has_token(id)) else { return format!("#{id}") };
    match (tokenizer.token_bytes(id), tokenizer.name(id)) {
        ([], Some(name)) => visible(name.as_bytes()),
        (bytes, _) => visible(bytes),
    }
}

fn visible(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    match c {
        ' ' => out.push('␣'),
        '\n' => out.push('↵'),
        '\t' => out.push('⇥'),
        '"' | '\'' | '\\' => out.push(c),
        // The standard library knows which characters have no shape: controls, marks of direction, unassigned ones.
        _ => out.extend(c.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_invisible() {
        assert_eq!(visible(b" upon\n"), "␣upon↵");
        assert_eq!(visible(b"\ta\"'\\\r\x1b"), "⇥a\"'\\\\r\\u{1b}");
        assert_eq!(visible("naïve 👋".as_bytes()), "naïve␣👋");
        assert_eq!(visible(&"é".as_bytes()[..1]), "\\xC3");
        assert_eq!(visible(&[b'a', 0x9f, 0x91]), "a\\x9F\\x91");
        // A mark that turns the direction of writing, a space without width, a line separator.
        assert_eq!(visible("\u{202e}\u{200b}\u{2028}\u{a0}".as_bytes()), "\\u{202e}\\u{200b}\\u{2028}\\u{a0}");
    }

    #[test]
    fn special_tokens_and_numbers_without_a_token_have_names() {
        let tokenizer = Tokenizer::train_bpe(259, std::iter::empty()).unwrap();
        let end = tokenizer.end_of_text().unwrap();
        assert_eq!(label(Some(&tokenizer), end), "<|endoftext|>");
        let letter = tokenizer.encode("é").unwrap();
        assert_eq!(letter.iter().map(|&id| label(Some(&tokenizer), id)).collect::<String>(), "\\xC3\\xA9");
        assert_eq!(label(Some(&tokenizer), 9_999), "#9999");
        assert_eq!(label(None, 7), "#7");
    }
}
