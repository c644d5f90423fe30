//! Merging neighbours, the most important pair first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// A piece of the text and its neighbours; an empty one has become a part of another.
struct Symbol {
    range: Range<usize>,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A pair that could be merged: its rank, the left symbol (the leftmost first), the right one, and the bytes of both when
/// it was found.
type Pair<R> = (R, Reverse<usize>, usize, usize);

/// Begins with the characters of `text` and merges neighbours until no pair has a rank: the highest rank first, of equal
/// ones the leftmost pair. Returns what is left, in order.
pub(super) fn merge<R: Ord>(text: &str, rank: impl Fn(&str, &str) -> Option<R>) -> Vec<&str> {
    let count = text.chars().count();
    let symbol = |(index, (start, character)): (usize, (usize, char))| Symbol {
        range: start..start + character.len_utf8(),
        previous: index.checked_sub(1),
        next: Some(index + 1).filter(|next| *next < count),
    };
    let mut symbols: Vec<Symbol> = text.char_indices().enumerate().map(symbol).collect();
    let pair = |symbols: &[Symbol], left: Option<usize>, right: Option<usize>| -> Option<Pair<R>> {
        let (left, right) = (left?, right?);
        let [one, two] = [left, right].map(|index| symbols[index].range.clone());
        let bytes = one.len() + two.len();
        Some((rank(&text[one], &text[two])?, Reverse(left), right, bytes))
    };
    let mut queue: BinaryHeap<Pair<R>> =
        (1..count).filter_map(|right| pair(&symbols, Some(right - 1), Some(right))).collect();
    while let Some((_, Reverse(left), right, bytes)) = queue.pop() {
        let [one, two] = [left, right].map(|index| symbols[index].range.clone());
        if one.is_empty() || two.is_empty() || one.len() + two.len() != bytes {
            continue; // one of the two was merged with another since
        }
        symbols[left].range = one.start..two.end;
        symbols[right].range = two.end..two.end;
        let next = symbols[right].next;
        symbols[left].next = next;
        if let Some(next) = next {
            symbols[next].previous = Some(left);
        }
        queue.extend(pair(&symbols, symbols[left].previous, Some(left)));
        queue.extend(pair(&symbols, Some(left), next));
    }
    symbols.into_iter().map(|symbol| symbol.range).filter(|range| !range.is_empty()).map(|range| &text[range]).collect()
}
