//! The names of `tokenizer.ggml.pre`: how llama.cpp cuts a text into words before byte-level BPE.
//!
//! llama.cpp has some ninety names, most of them for a pattern that another has, too. Here are those of four patterns;
//! a file with any other name is read, but no text can be encoded with it.

use crate::tokenizer::{LLAMA3_PATTERN, QWEN2_PATTERN};

/// GPT-2's: contractions, words, numbers and punctuation, each with the space before it, and runs of white space.
pub(super) const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Each digit is a word.
const DIGIT_PATTERN: &str = r"\p{N}";

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pre {
    /// Applied one after the other.
    pub patterns: &'static [&'static str],
    /// Whether a word that is a token is one, merges or not.
    pub ignores_merges: bool,
    /// Whether a text begins with a token of its own unless the file says otherwise.
    pub adds_begin: bool,
}

/// The rule behind a name that is known here.
pub(super) fn rule(name: &str) -> Option<Pre> {
    let plain = |patterns| Some(Pre { patterns, ignores_merges: false, adds_begin: false });
    match name {
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de" | "jina-v1-en" | "jina-v2-code"
        | "roberta-bpe" | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" | "exaone4" | "mpt" | "olmo" | "jais"
        | "trillion" | "granite-docling" => plain(&[GPT2_PATTERN]),
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan" | "solar-open"
        | "grok-2" => plain(&[QWEN2_PATTERN]),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
        | "jina-v5-nano" => Some(Pre { patterns: &[LLAMA3_PATTERN], ignores_merges: true, adds_begin: true }),
        "smaug-bpe" | "dbrx" | "glm4" | "chatglm-bpe" => plain(&[LLAMA3_PATTERN]),
        "starcoder" | "smollm" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
            plain(&[DIGIT_PATTERN, GPT2_PATTERN])
        }
        _ => None,
    }
}

/// The name to write for a rule.
pub(super) fn name(patterns: &[&str], ignores_merges: bool) -> Option<&'static str> {
    let known = ["gpt-2", "qwen2", "llama-bpe", "smaug-bpe", "starcoder"];
    known
        .into_iter()
        .find(|name| rule(name).is_some_and(|rule| rule.patterns == patterns && rule.ignores_merges == ignores_merges))
}

/// The patterns of a `pre_tokenizer` of tokenizer.json that only cuts, and then writes bytes as symbols.
pub(super) fn patterns(cutter: &serde_json::Value) -> Option<Vec<&str>> {
    let single = std::slice::from_ref(cutter);
    let steps = cutter["pretokenizers"].as_array().map_or(single, Vec::as_slice);
    let (last, splits) = steps.split_last()?;
    if last["type"] != "ByteLevel" {
        return None;
    }
    let mut patterns = Vec::new();
    for split in splits {
        patterns.push(match split["type"].as_str()? {
            "Digits" if split["individual_digits"] == true => DIGIT_PATTERN,
            "Split" if split["behavior"] == "Isolated" && split["invert"] != true => {
                split["pattern"]["Regex"].as_str()?
            }
            _ => return None,
        });
    }
    if last["use_regex"] != false {
        patterns.push(GPT2_PATTERN);
    }
    Some(patterns)
}
