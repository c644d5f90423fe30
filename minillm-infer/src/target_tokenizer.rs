//! Whether llama.cpp will cut texts as the tokenizer does that was written for it.
//!
//! The file holds a copy of `tokenizer.json` too, and that one is always equal; llama.cpp does not look at it. So texts are
//! tokenised a second time by llama.cpp's rules from the keys that it reads.

use std::collections::BTreeSet;
use std::path::Path;

use minillm_model::checkpoint::gguf;
use minillm_model::random::derive;
use minillm_model::tokenizer::Tokenizer;
use minillm_model::tokenizer::llama_cpp::LlamaCpp;

use crate::error::{Error, Result};
use crate::verify::TEXTS;

/// Texts made of random tokens of the vocabulary.
const RANDOM_TEXTS: u64 = 64;
const TOKENS_PER_TEXT: u64 = 8;
/// Tokens that are each a text by itself: about so many, from the whole vocabulary.
const SINGLE_TOKENS: usize = 4096;
/// Special tokens that are put into texts.
const MOST_SPECIAL: usize = 32;
/// Where spaces are treated differently, it shows here.
const SPACES: [&str; 7] = [" ", "  two", "a  b", "\n a", " leading", "trailing ", "a\u{2581}b"];

/// What was found.
#[derive(Debug)]
pub struct Findings {
    /// Texts that llama.cpp cuts alike.
    pub equal: usize,
    /// Texts that were compared.
    pub texts: usize,
    /// What is different, for the user.
    pub warnings: Vec<String>,
}

/// Compares the tokenizer of a model of `rows` rows with llama.cpp's rules for the GGUF file at `path`.
pub fn compare_with_file(tokenizer: &Tokenizer, rows: usize, path: &Path) -> Result<Findings> {
    let rules = gguf::llama_cpp(path)?.map_err(|problem| Error::Differ { problem })?;
    compare(tokenizer, &rules, gguf::vocabulary::differences(tokenizer, rows))
}

/// Compares `tokenizer` with the rules of a file. `parts` are what llama.cpp is known to do differently;
/// a text that is cut differently where nothing explains it is an error.
fn compare(tokenizer: &Tokenizer, rules: &LlamaCpp, parts: Vec<String>) -> Result<Findings> {
    let mut findings = Findings { equal: 0, texts: 0, warnings: parts };
    let mut example = None;
    for text in texts(tokenizer) {
        // What the tokenizer has no token for, nobody will give to it.
        let Ok(ours) = tokenizer.encode(&text) else { continue };
        let theirs = rules.tokenize(&text);
        findings.texts += 1;
        if theirs.as_ref() == Ok(&ours) {
            findings.equal += 1;
        } else if example.is_none() {
            let theirs = theirs.map_or_else(|problem| problem, |ids| format!("{ids:?}"));
            example = Some(format!("{text:?} is {ours:?} here, and in llama.cpp {theirs}"));
        }
    }
    if let Some(example) = example {
        match (findings.warnings.is_empty(), rules.merges_by_score()) {
            (true, false) => {
                let problem = format!("llama.cpp would cut texts differently from tokenizer.json: {example}");
                return Err(Error::Differ { problem });
            }
            (true, true) => {
                let merges = "`model.merges` are in an order of their own: llama.cpp merges whatever makes a token, by its score";
                findings.warnings.push(format!("{merges}; {example}"));
            }
            (false, _) => findings.warnings.push(format!("an example: {example}")),
        }
    }
    let differs = |id: &u32| tokenizer.has_token(*id) && tokenizer.token_bytes(*id) != rules.token_bytes(*id);
    if let Some(id) = (0..rules.vocab_size() as u32).find(differs) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (ours, theirs) = (text(tokenizer.token_bytes(id)), text(&rules.token_bytes(id)));
        findings.warnings.push(format!(
            "`decoder` makes {ours:?} of the token {id}, `{}`, and llama.cpp {theirs:?}",
            tokenizer.name(id).unwrap_or_default()
        ));
    }
    Ok(findings)
}

fn texts(tokenizer: &Tokenizer) -> BTreeSet<String> {
    let mut texts: BTreeSet<String> = TEXTS.into_iter().chain(SPACES).map(str::to_owned).collect();
    for token in tokenizer.added_tokens().iter().take(MOST_SPECIAL) {
        for text in [
            token.clone(),
            format!("a{token}b"),
            format!("a {token} b"),
            format!("{token}  a{token}{token}"),
            format!(" {token}\n{token} "),
        ] {
            texts.insert(text);
        }
    }
    let step = tokenizer.vocab_size().div_ceil(SINGLE_TOKENS);
    texts.extend((0..tokenizer.vocab_size() as u32).step_by(step).map(|id| tokenizer.decode(&[id])));
    for text in 0..RANDOM_TEXTS {
        let id = |place| (derive(text, &[place]) % tokenizer.vocab_size() as u64) as u32;
        texts.insert(tokenizer.decode(&(0..TOKENS_PER_TEXT).map(id).collect::<Vec<_>>()));
    }
    texts
}
