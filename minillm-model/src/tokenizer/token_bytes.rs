//! The bytes that each token stands for in a text, found out by asking the file's decoder.

use tokenizers::{Decoder, DecoderWrapper, Tokenizer as Inner};

use super::LARGEST_VOCABULARY;

/// All tokens together; those of the largest vocabularies have a few million bytes.
const MOST_BYTES: usize = 64 << 20;

/// The bytes of a token; `None` for an id that no token has.
pub(super) type TokenBytes = Option<Box<[u8]>>;

/// The bytes of each token, and whether a text loses its first space.
pub(super) fn token_bytes(inner: &Inner) -> Result<(Vec<TokenBytes>, bool), String> {
    let mut tokens: Vec<_> = inner.get_vocab(true).into_iter().map(|(content, id)| (id, content)).collect();
    tokens.sort_unstable();
    let Some(&(largest, _)) = tokens.last() else { return Err("it has no tokens".to_owned()) };
    if largest >= LARGEST_VOCABULARY {
        return Err(format!("a token has the id {largest}, and no vocabulary is that large"));
    }
    let decoder = TokenDecoder::new(inner);
    let mut all = vec![None; largest as usize + 1];
    let (mut drops_first_space, mut total) = (None, 0);
    for (id, content) in tokens {
        let bytes = decoder.token_bytes(id, &content);
        total += bytes.len();
        if total > MOST_BYTES {
            return Err(format!("its tokens have more than {MOST_BYTES} bytes"));
        }
        if drops_first_space.is_none() && bytes.starts_with(b" ") {
            drops_first_space = Some(decoder.drops_space(&content));
        }
        if all[id as usize].replace(bytes.into_boxed_slice()).is_some() {
            return Err(format!("two tokens have the id {id}"));
        }
    }
    Ok((all, drops_first_space.unwrap_or(false)))
}

/// Decodes single tokens by asking the file's decoder.
struct TokenDecoder<'a> {
    inner: &'a Inner,
    is_byte_level: bool,
    falls_back_to_bytes: bool,
    /// For GPT-2's symbols: the byte of each, by code point.
    bytes: Vec<Option<u8>>,
}

impl<'a> TokenDecoder<'a> {
    fn new(inner: &'a Inner) -> Self {
        let decoders = match inner.get_decoder() {
            Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
            Some(decoder) => std::slice::from_ref(decoder),
            None => &[],
        };
        Self {
            inner,
            is_byte_level: decoders.iter().any(|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_))),
            falls_back_to_bytes: decoders.iter().any(|decoder| matches!(decoder, DecoderWrapper::ByteFallback(_))),
            bytes: byte_symbols(),
        }
    }

    fn token_bytes(&self, id: u32, content: &str) -> Vec<u8> {
        let added = self.inner.get_added_vocabulary();
        if added.is_special_token(content) {
            Vec::new()
        } else if self.is_byte_level {
            let byte = |symbol: char| self.bytes.get(symbol as usize).copied().flatten();
            let bytes: Option<_> = content.chars().map(byte).collect();
            // An added token stands for itself.
            bytes.filter(|_| !added.get_added_tokens_decoder().contains_key(&id)).unwrap_or_else(|| content.into())
        } else if let Some(byte) = byte_token(content).filter(|_| self.falls_back_to_bytes) {
            vec![byte]
        } else {
            self.between(content).unwrap_or_else(|| content.to_owned()).into()
        }
    }

    /// What `token` adds between two others, for the kinds of decoders (Llama's, BERT's) that say it in whole characters.
    fn between(&self, token: &str) -> Option<String> {
        const OTHER: &str = "a";
        let (one, two) = (self.decode(&[OTHER])?, self.decode(&[OTHER, OTHER])?);
        let all = self.decode(&[OTHER, token, OTHER])?;
        all.strip_prefix(&one)?.strip_suffix(two.strip_prefix(&one)?).map(str::to_owned)
    }

    /// Whether `token`, which begins with a space, loses it at the beginning of a text.
    fn drops_space(&self, token: &str) -> bool {
        !self.is_byte_level && self.decode(&[token]).is_some_and(|text| !text.starts_with(' '))
    }

    fn decode(&self, tokens: &[&str]) -> Option<String> {
        match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens.iter().map(|&token| token.to_owned()).collect()).ok(),
            None => Some(tokens.join(" ")), // the library's rule
        }
    }
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on, in their order.
pub fn byte_symbols() -> Vec<Option<u8>> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut bytes: Vec<_> = (0..=u8::MAX).map(|byte| Some(byte).filter(is_printable)).collect();
    bytes.extend((0..=u8::MAX).filter(|byte| !is_printable(byte)).map(Some));
    bytes
}

/// The byte of a token like `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}
