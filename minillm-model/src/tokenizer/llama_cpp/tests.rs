//! Ids as llama.cpp gave them for small vocabularies (llama-cpp-python 0.3.36), and what distinguishes its rules.

use super::*;

/// Bytes, and pieces with -1000 for a score, as some converters have written them.
fn vocabulary(scores: &[f32], adds_space: bool) -> LlamaCpp {
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = [
        "▁",
        "a",
        "b",
        "c",
        "d",
        "ab",
        "bc",
        "cd",
        "abc",
        "bcd",
        "▁a",
        "▁ab",
        "aa",
        "bb",
        "aab",
        "dd",
        "ddd",
        "▁▁",
        "▁▁▁▁",
    ];
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>"]
        .map(str::to_owned)
        .into_iter()
        .chain(bytes)
        .chain(pieces.map(str::to_owned))
        .chain(["<ud>".to_owned()])
        .collect();
    let mut types = vec![token_type::NORMAL; tokens.len()];
    (types[0], types[1], types[2]) = (token_type::UNKNOWN, token_type::CONTROL, token_type::CONTROL);
    types[3..259].fill(token_type::BYTE);
    types[278] = token_type::USER_DEFINED;
    let rules = Rules::SentencePiece { scores: scores.to_vec(), adds_space };
    LlamaCpp::new(tokens.iter().map(String::as_str), &types, rules).unwrap()
}

fn equal_scores() -> Vec<f32> {
    let mut scores = vec![0.0; 264];
    scores.resize(279, -1000.0);
    scores
}

#[test]
fn of_equal_scores_the_leftmost_pair_is_merged_first() {
    for scores in [equal_scores(), Vec::new(), vec![-0.0; 279]] {
        let vocabulary = vocabulary(&scores, true);
        for (text, ids) in [
            (" acad", &[276, 260, 262, 260, 263][..]),
            ("d bcbbdcad abca", &[259, 263, 259, 265, 272, 263, 262, 260, 263, 270, 262, 260]),
            ("aab abc ddd", &[269, 264, 270, 262, 259, 275]),
        ] {
            assert_eq!(vocabulary.tokenize(text).unwrap(), ids, "{text:?} with {} scores", scores.len());
        }
    }
}

#[test]
fn the_highest_score_comes_before_the_leftmost() {
    let mut scores = equal_scores();
    scores[272] = -1.0; // bb
    assert_eq!(vocabulary(&scores, false).tokenize("abb").unwrap(), [260, 272]);
    assert_eq!(vocabulary(&equal_scores(), false).tokenize("abb").unwrap(), [264, 261]);
    scores[272] = f32::NAN;
    let rules = Rules::SentencePiece { scores, adds_space: true };
    assert!(LlamaCpp::new(["a"].into_iter(), &[], rules).is_err_and(|problem| problem.contains("not a number")));
}

#[test]
fn every_piece_behind_a_special_token_gets_a_space() {
    let spaced = vocabulary(&equal_scores(), true);
    // ▁a <s> ▁a <ud> ▁▁ a: the spaces beside special tokens stay.
    assert_eq!(spaced.tokenize("a<s>a<ud> a").unwrap(), [269, 1, 269, 278, 276, 260]);
    assert!(spaced.tokenize("").unwrap().is_empty());
    assert_eq!(spaced.tokenize("<unk></s>").unwrap(), [0, 2]);
    let bare = vocabulary(&equal_scores(), false);
    assert_eq!(bare.tokenize("a<s>a<ud> a").unwrap(), [260, 1, 260, 278, 269]);
    // A character without a token is written in its bytes.
    assert_eq!(bare.tokenize("é").unwrap(), [3 + 0xc3, 3 + 0xa9]);
}

#[test]
fn the_longest_special_token_is_found_first() {
    let tokens = ["a", "<x", "<x>", "x>y", ">", "y", "x", "<"];
    let types = [1, 4, 4, 4, 1, 1, 1, 1];
    let vocabulary = LlamaCpp::new(tokens.into_iter(), &types, Rules::LongestMatch).unwrap();
    // As long as each other: in the order of the list. Not the leftmost.
    assert_eq!(vocabulary.tokenize("a<x>y").unwrap(), [0, 2, 5]);
    let types = [1, 4, 1, 4, 1, 1, 1, 1];
    let vocabulary = LlamaCpp::new(tokens.into_iter(), &types, Rules::LongestMatch).unwrap();
    assert_eq!(vocabulary.tokenize("a<x>y").unwrap(), [0, 7, 3]);
    assert!(vocabulary.tokenize("b").unwrap_err().contains("'b'"));
}

#[test]
fn tokens_have_the_bytes_that_llama_cpp_prints() {
    let vocabulary = vocabulary(&[], true);
    assert_eq!(vocabulary.token_bytes(270), b" ab");
    assert_eq!(vocabulary.token_bytes(3 + 0xc3), [0xc3]);
    assert_eq!(vocabulary.token_bytes(278), b"<ud>");
    assert_eq!(vocabulary.token_bytes(1), b"");
    assert_eq!(vocabulary.token_bytes(9_999), b"");
}
