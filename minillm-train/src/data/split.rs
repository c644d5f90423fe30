//! Which part of the text is trained on and which is held out to be scored.

use std::collections::BTreeSet;

use minillm_infer::text_files::{Cuts, Documents, TextChunk};

use super::source::Text;
use super::{Progress, watch};
use crate::error::{Error, Result};

/// What one reading of the whole text finds out.
#[derive(Debug, PartialEq, Eq)]
pub struct CorpusStats {
    /// Documents that are not empty.
    pub documents: u64,
    /// Unicode characters in them, separators excluded.
    pub characters: u64,
    /// Every character that occurs.
    pub alphabet: BTreeSet<char>,
}

impl CorpusStats {
    /// Reads the text once. A text without a document is an error.
    pub fn new(text: &Text, progress: &dyn Progress) -> Result<Self> {
        let (mut documents, mut characters) = (0, 0);
        // One flag for each code point: a set would be looked up for every character of the text.
        let mut occurs = vec![false; char::MAX as usize + 1];
        watch(progress, "reading the text", text.size_bytes(), || {
            Documents::new(&text.files, Cuts::Anywhere, progress).try_for_each(|chunk| {
                let chunk = chunk?;
                documents += u64::from(chunk.ends_document);
                for character in chunk.text.chars() {
                    occurs[character as usize] = true;
                    characters += 1;
                }
                Ok(())
            })
        })?;
        if documents == 0 {
            return Err(empty(text));
        }
        let alphabet =
            (0..=char::MAX as u32).filter(|&code| occurs[code as usize]).filter_map(char::from_u32).collect();
        Ok(Self { documents, characters, alphabet })
    }
}

/// That there is nothing in the text.
pub fn empty(text: &Text) -> Error {
    Error::Data {
        path: text.path().to_path_buf(),
        problem: "holds no text".into(),
        hint: "set `data.files` to a file with the text to train on".into(),
    }
}

/// The two parts of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the model learns from.
    Training,
    /// What it is scored on.
    Validation,
}

impl Part {
    /// The name, for messages and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }
}

/// The rule by which a text is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// One document or a few: the first characters, this many, are trained on and the tail is held out. A tail rather than
    /// pieces from everywhere, because neighbouring lines give each other away.
    Tail {
        /// Characters to train on.
        training_characters: u64,
    },
    /// Several documents: every n-th is held out whole.
    EveryNth {
        /// One document in so many is for validation; at least 2.
        n: u64,
    },
}

impl Split {
    /// nanoGPT's `int(n * (1 - fraction))` for one document, and for so few that none of them would be held out;
    /// n = round(1 / fraction) for more.
    pub fn new(stats: &CorpusStats, fraction: f64) -> Self {
        let n = ((1.0 / fraction).round() as u64).max(2);
        if stats.documents < n {
            return Self::Tail { training_characters: (stats.characters as f64 * (1.0 - fraction)) as u64 };
        }
        Self::EveryNth { n }
    }
}

/// The chunks of a text, each with the part it belongs to.
pub struct Parts<'a> {
    chunks: Documents<'a>,
    split: Split,
    /// Documents and characters given out so far.
    documents: u64,
    characters: u64,
    /// The second half of a chunk that the split went through.
    tail: Option<TextChunk>,
}

impl<'a> Parts<'a> {
    /// Reads the text anew; see [`Documents::new`].
    pub fn new(text: &'a Text, split: Split, cuts: Cuts, progress: &'a dyn Progress) -> Self {
        Self { chunks: Documents::new(&text.files, cuts, progress), split, documents: 0, characters: 0, tail: None }
    }

    fn assign(&mut self, mut chunk: TextChunk) -> (Part, TextChunk) {
        match self.split {
            Split::EveryNth { n } => {
                let part = if self.documents % n == n - 1 { Part::Validation } else { Part::Training };
                self.documents += u64::from(chunk.ends_document);
                (part, chunk)
            }
            Split::Tail { training_characters } => {
                let left = training_characters - self.characters;
                let Some((cut, _)) = chunk.text.char_indices().nth(left as usize) else {
                    self.characters += chunk.text.chars().count() as u64;
                    return (Part::Training, chunk);
                };
                self.characters = training_characters;
                if cut == 0 {
                    return (Part::Validation, chunk);
                }
                self.tail = Some(TextChunk { text: chunk.text.split_off(cut), ..chunk });
                chunk.ends_document = true;
                (Part::Training, chunk)
            }
        }
    }
}

impl Iterator for Parts<'_> {
    type Item = Result<(Part, TextChunk)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(tail) = self.tail.take() {
            return Some(Ok((Part::Validation, tail)));
        }
        Some(self.chunks.next()?.map(|chunk| self.assign(chunk)).map_err(Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Silent;

    /// The text of each part, documents joined by `|`.
    fn parts(content: &str, fraction: f64) -> Result<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs_err::write(&path, content).unwrap();
        let text = Text::new(&[path], &Silent)?;
        let stats = CorpusStats::new(&text, &Silent)?;
        let split = Split::new(&stats, fraction);
        let (mut training, mut validation) = (String::new(), String::new());
        for chunk in Parts::new(&text, split, Cuts::BetweenWords, &Silent) {
            let (part, chunk) = chunk?;
            let target = if part == Part::Training { &mut training } else { &mut validation };
            *target += &chunk.text;
            target.push_str(if chunk.ends_document { "|" } else { "" });
        }
        Ok((training, validation))
    }

    #[test]
    fn of_one_document_the_tail_is_held_out_by_characters() {
        assert_eq!(parts("äöü4567890", 0.25).unwrap(), ("äöü4567|".into(), "890|".into())); // int(7.5) = 7
        // Over several chunks, with the split within one.
        let long = "wörd ".repeat(1_000_000);
        let (training, validation) = parts(&long, 0.1).unwrap();
        assert_eq!(training.chars().count() - 1, 4_500_000);
        assert!(format!("{}{}", training.trim_end_matches('|'), validation.trim_end_matches('|')) == long);
    }

    #[test]
    fn of_several_documents_every_nth_is_held_out() {
        let text = "a<|endoftext|>b<|endoftext|>c<|endoftext|>d<|endoftext|>e<|endoftext|>f<|endoftext|>g";
        assert_eq!(parts(text, 0.3).unwrap(), ("a|b|d|e|g|".into(), "c|f|".into()));
        assert_eq!(parts(text, 0.9).unwrap().1, "b|d|f|");
        // Every tenth of seven would be none.
        assert_eq!(parts(text, 0.1).unwrap(), ("a|b|c|d|e|f|".into(), "g|".into()));
    }

    #[test]
    fn the_stats_counts_and_collects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs_err::write(&path, "bä\n<|endoftext|>\n \n<|endoftext|>ab").unwrap();
        let stats = CorpusStats::new(&Text::new(&[path], &Silent).unwrap(), &Silent).unwrap();
        assert_eq!(stats, CorpusStats { documents: 2, characters: 4, alphabet: ['a', 'b', 'ä'].into() });
        for empty in ["", " \n", "<|endoftext|>\n<|endoftext|>"] {
            let error = parts(empty, 0.1).unwrap_err();
            assert!(error.to_string().contains("holds no text"), "{error}");
        }
    }
}
