//! What a `tokenizer.json` may ask of the library, which takes its files at their word: it allocates what a table claims,
//! compiles as many patterns as there are, and doubles a text in each of a hundred steps.

use serde_json::{Map, Value};

use crate::json::Extent;

/// The largest file that is read: vocabularies of a quarter million tokens need about 35 MB.
pub(super) const LARGEST_FILE_BYTES: usize = 48 << 20;
/// Those have 1.8 million, counting a merge and both its sides.
const MOST_VALUES: usize = 2 << 20;
/// The most tokens in a vocabulary.
const MOST_TOKENS: usize = 3 << 17;
/// In one of the parts. Ten are many.
const MOST_STEPS: usize = 64;
/// Regular expressions in one of the parts; each may take megabytes.
const MOST_PATTERNS: usize = 8;
/// The most bytes in the steps of one of the parts.
const MOST_STEP_BYTES: usize = 64 << 10;
/// How many times as long a text may become in one of the parts.
const MOST_GROWTH: usize = 256;
/// What a token may become in the decoder.
const LONGEST_SPELLING_BYTES: usize = 16 << 20;
/// All added tokens together; the library's automaton takes two hundred times as much.
const MOST_ADDED_BYTES: usize = 1 << 20;

/// Refuses a text that is too large to be taken apart.
pub(super) fn size(json: &str) -> Result<(), String> {
    if json.len() > LARGEST_FILE_BYTES {
        return Err(format!("is larger than {LARGEST_FILE_BYTES} bytes"));
    }
    let Extent { values, .. } = Extent::of(json.as_bytes());
    if values > MOST_VALUES {
        return Err(format!("holds {values} values, more than {MOST_VALUES}"));
    }
    Ok(())
}

/// Refuses what the library must not see, by the name of the part.
pub(super) fn parts(file: &Value) -> Result<(), String> {
    let vocabulary = &file["model"]["vocab"];
    let tokens = vocabulary.as_object().map(Map::len).or(vocabulary.as_array().map(Vec::len)).unwrap_or(0);
    if tokens > MOST_TOKENS {
        return Err(format!("has too large a vocabulary: `model.vocab` has {tokens} tokens"));
    }
    merges(&file["model"])?;
    let normalizing = steps("normalizer", &file["normalizer"])?;
    steps("pre_tokenizer", &file["pre_tokenizer"])?;
    let decoding = steps("decoder", &file["decoder"])?;
    let (mut added, mut normalized) = (0, 0);
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let bytes = token["content"].as_str().map_or(0, str::len);
        added += bytes;
        normalized += if token["normalized"] == false { 0 } else { bytes };
    }
    if added.max(normalized.saturating_mul(normalizing)) > MOST_ADDED_BYTES {
        return Err(format!("has too long `added_tokens`: {added} bytes, of which {normalized} are normalized"));
    }
    let longest = longest_token(vocabulary).max(added);
    if longest.saturating_mul(decoding) > LONGEST_SPELLING_BYTES {
        return Err(format!(
            "has a `decoder` that makes texts {decoding} times as long, and tokens of {longest} bytes"
        ));
    }
    Ok(())
}

fn longest_token(vocabulary: &Value) -> usize {
    match vocabulary {
        Value::Object(tokens) => tokens.keys().map(String::len).max(),
        Value::Array(tokens) => tokens.iter().filter_map(|token| token[0].as_str().map(str::len)).max(),
        _ => None,
    }
    .unwrap_or(0)
}

/// The library takes it for granted that a merge makes a token: it writes past a buffer where one is too long, and cuts
/// characters apart where one lacks the prefix.
fn merges(model: &Value) -> Result<(), String> {
    let (Some(vocabulary), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(()); // not a BPE
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for (rank, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => line.split_once(' '), // the older form
            _ => merge[0].as_str().zip(merge[1].as_str()),
        };
        let makes_a_token = pair.is_some_and(|(left, right)| {
            let whole = right.strip_prefix(prefix).map(|rest| format!("{left}{rest}"));
            whole.is_some_and(|whole| [left, right, &whole].into_iter().all(|token| vocabulary.contains_key(token)))
        });
        if !makes_a_token {
            return Err(format!("has the merge {rank}, {merge}, that makes no token of `model.vocab`"));
        }
    }
    Ok(())
}

/// Checks what is done to a text, one step after the other, and says how many times as long it may become.
fn steps(part: &str, value: &Value) -> Result<usize, String> {
    let mut steps = Vec::new();
    flatten(value, &mut steps);
    let refuse = |problem: &str| Err(format!("has a `{part}` {problem}"));
    if steps.len() > MOST_STEPS {
        return refuse(&format!("of {} steps", steps.len()));
    }
    let (mut patterns, mut bytes, mut tables, mut growth) = (0, 0, 0, 1_usize);
    for step in steps {
        patterns += usize::from(step["pattern"]["Regex"].is_string());
        for (field, value) in step.as_object().into_iter().flatten() {
            if field != "precompiled_charsmap" {
                let inner = value.as_object().into_iter().flat_map(|object| object.values());
                bytes += std::iter::once(value).chain(inner).filter_map(Value::as_str).map(str::len).sum::<usize>();
            }
        }
        growth = growth.saturating_mul(growth_of(step));
        if let Some(table) = step["precompiled_charsmap"].as_str() {
            let Some(longest) = longest_entry(table) else {
                return refuse("whose `precompiled_charsmap` is damaged");
            };
            tables += 1;
            growth = growth.saturating_mul(longest.max(1));
        }
        if step["type"] == "FixedLength" && step["length"] == 0 {
            return refuse("that cuts pieces of `length` 0");
        }
        if step["type"] == "Strip" && step["stop"].as_u64().is_some_and(|stop| stop > 0) {
            return refuse("that strips the end of tokens, `stop`; the library looks past the beginning of short ones");
        }
    }
    if patterns > MOST_PATTERNS || bytes > MOST_STEP_BYTES || tables > 1 {
        return refuse(&format!("of {patterns} patterns, {tables} tables and {bytes} bytes of texts"));
    }
    if growth > MOST_GROWTH {
        return refuse(&format!("that makes a text {growth} times as long"));
    }
    Ok(growth)
}

/// The steps of sequences in sequences.
fn flatten<'a>(step: &'a Value, steps: &mut Vec<&'a Value>) {
    let inner = ["normalizers", "pretokenizers", "decoders"].into_iter().find_map(|list| step[list].as_array());
    match inner {
        Some(inner) => inner.iter().for_each(|step| flatten(step, steps)),
        None => steps.push(step),
    }
}

/// How many times as long a text may become in one step.
fn growth_of(step: &Value) -> usize {
    let pattern = &step["pattern"];
    if let (Some(content), true) = (step["content"].as_str(), pattern.is_object()) {
        return match pattern["String"].as_str().map_or(0, str::len) {
            0 => content.len() + 1, // nothing is found between all characters
            bytes => content.len().div_ceil(bytes).max(1),
        };
    }
    let finds_nothing = step["suffix"] == "" || step["word_delimiter_token"] == "";
    if finds_nothing || step["type"] == "ByteLevel" { 2 } else { 1 }
}

/// The longest text in SentencePiece's table of replacements; `None` if following it would lead out of it.
///
/// ```text
/// 4 bytes    length of the trie
/// trie       u32 each: a node's label, where its children are, and whether the text ends there
/// texts      UTF-8, each with a 0 at its end; a node that ends a text says where its replacement begins
/// ```
fn longest_entry(table: &str) -> Option<usize> {
    let bytes = base64(table)?;
    let (length, rest) = bytes.split_first_chunk()?;
    let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let texts = std::str::from_utf8(texts).ok()?;
    let nodes: Vec<usize> = trie.as_chunks().0.iter().map(|&node| u32::from_le_bytes(node) as usize).collect();
    let children = |node: usize| (node >> 10) << ((node & (1 << 9)) >> 6);
    let mut seen = vec![false; nodes.len()];
    let mut open = vec![children(*nodes.first()?)];
    while let Some(begin) = open.pop() {
        // Every byte may come next, and is looked for.
        if *seen.get(begin)? {
            continue;
        }
        seen[begin] = true;
        nodes.get(begin | 0xff)?;
        for label in 1..=0xff {
            let at = begin ^ label;
            if nodes[at] & (1 << 31 | 0xff) == label {
                let next = at ^ children(nodes[at]);
                if nodes[at] >> 8 & 1 == 1 {
                    texts.get(nodes.get(next)? & !(1 << 31)..)?;
                }
                open.push(next);
            }
        }
    }
    texts.split('\0').map(str::len).max()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|byte| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    });
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = bits << 6 | u32::from(digit?);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}
