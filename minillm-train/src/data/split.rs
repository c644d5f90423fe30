//! Which part of the text is trained on and which is held out to be scored.

use std::collections::BTreeSet;

use super::documents::{Documents, Piece};
use super::source::Text;
use super::{Progress, watch};
use crate::error::{Error, Result};

/// What one reading of the whole text finds out.
#[derive(Debug, PartialEq, Eq)]
pub struct Survey {
    /// Documents that are not empty.
    pub documents: u64,
    /// Unicode characters in them, separators excluded.
    pub characters: u64,
    /// Every character that occurs.
    pub alphabet: BTreeSet<char>,
}

impl Survey {
    /// Reads the text once. A text without a document is an error.
    pub fn new(text: &Text, progress: &dyn Progress) -> Result<Self> {
        let (mut documents, mut characters) = (0, 0);
        // One flag for each code point: a set would be looked up for every character of the text.
        let mut occurs = vec![false; char::MAX as usize + 1];
        watch(progress, "reading the text", text.size_bytes(), || {
            Documents::new(text, progress).try_for_each(|piece| {
                let piece = piece?;
                documents += u64::from(piece.ends_document);
                for character in piece.text.chars() {
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
    /// For messages and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }
}

/// How a text is divided.
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
        /// At least 2.
        n: u64,
    },
}

impl Split {
    /// nanoGPT's `int(n * (1 - fraction))` for one document, and for so few that none of them would be held out;
    /// n = round(1 / fraction) for more.
    pub fn new(survey: &Survey, fraction: f64) -> Self {
        let n = ((1.0 / fraction).round() as u64).max(2);
        if survey.documents < n {
            return Self::Tail { training_characters: (survey.characters as f64 * (1.0 - fraction)) as u64 };
        }
        Self::EveryNth { n }
    }
}

/// The pieces of a text, each with the part it belongs to.
pub struct Parts<'a> {
    pieces: Documents<'a>,
    split: Split,
    /// Documents and characters given out so far.
    documents: u64,
    characters: u64,
    /// The second half of a piece that the split went through.
    tail: Option<Piece>,
}

impl<'a> Parts<'a> {
    /// Reads the text anew; see [`Documents::new`].
    pub fn new(text: &'a Text, split: Split, progress: &'a dyn Progress) -> Self {
        Self { pieces: Documents::new(text, progress), split, documents: 0, characters: 0, tail: None }
    }

    fn assign(&mut self, mut piece: Piece) -> (Part, Piece) {
        match self.split {
            Split::EveryNth { n } => {
                let part = if self.documents % n == n - 1 { Part::Validation } else { Part::Training };
                self.documents += u64::from(piece.ends_document);
                (part, piece)
            }
            Split::Tail { training_characters } => {
                let left = training_characters - self.characters;
                let Some((cut, _)) = piece.text.char_indices().nth(left as usize) else {
                    self.characters += piece.text.chars().count() as u64;
                    return (Part::Training, piece);
                };
                self.characters = training_characters;
                if cut == 0 {
                    return (Part::Validation, piece);
                }
                self.tail = Some(Piece { text: piece.text.split_off(cut), ..piece });
                piece.ends_document = true;
                (Part::Training, piece)
            }
        }
    }
}

impl Iterator for Parts<'_> {
    type Item = Result<(Part, Piece)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(tail) = self.tail.take() {
            return Some(Ok((Part::Validation, tail)));
        }
        Some(self.pieces.next()?.map(|piece| self.assign(piece)))
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
        let survey = Survey::new(&text, &Silent)?;
        let split = Split::new(&survey, fraction);
        let (mut training, mut validation) = (String::new(), String::new());
        for piece in Parts::new(&text, split, &Silent) {
            let (part, piece) = piece?;
            let target = if part == Part::Training { &mut training } else { &mut validation };
            *target += &piece.text;
            target.push_str(if piece.ends_document { "|" } else { "" });
        }
        Ok((training, validation))
    }

    #[test]
    fn of_one_document_the_tail_is_held_out_by_characters() {
        assert_eq!(parts("äöü4567890", 0.25).unwrap(), ("äöü4567|".into(), "890|".into())); // int(7.5) = 7
        // Over several pieces, with the split within one.
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
    fn the_survey_counts_and_collects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs_err::write(&path, "bä\n<|endoftext|>\n \n<|endoftext|>ab").unwrap();
        let survey = Survey::new(&Text::new(&[path], &Silent).unwrap(), &Silent).unwrap();
        assert_eq!(survey, Survey { documents: 2, characters: 4, alphabet: ['a', 'b', 'ä'].into() });
        for empty in ["", " \n", "<|endoftext|>\n<|endoftext|>"] {
            let error = parts(empty, 0.1).unwrap_err();
            assert!(error.to_string().contains("holds no text"), "{error}");
        }
    }
}
