//! Attention's core, with as many key/value heads as query heads, with fewer, with a window, and over several documents.

use super::Place;
use super::inputs::leaf;
use super::prepared::{Prepared, to};
use crate::layers::attend;
use crate::layers::context::ForwardContext;
use crate::layers::documents::Documents;
use crate::layers::dropout::Dropout;

/// Of one attention, in the project's letters: B, H, K, T, S, E, window.
#[derive(Clone, Copy, Debug)]
pub struct Sizes(usize, usize, usize, usize, usize, usize, Option<usize>);

impl Sizes {
    /// Every query head has keys of its own.
    pub const MHA: Self = Self(2, 2, 2, 7, 7, 8, None);
    /// Two query heads share a key/value head.
    pub const GQA: Self = Self(2, 4, 2, 7, 7, 8, None);
    /// More tokens than a block of the CPU's fast form has (64), each looking 20 back.
    pub const WINDOW: Self = Self(1, 2, 1, 70, 70, 5, Some(20));
    /// For documents of seven tokens.
    pub const DOCUMENTS: Self = Self(2, 4, 2, 19, 19, 8, None);
    /// A model 384 wide with 6 heads and 4 sequences of 256 tokens.
    pub const BENCH: Self = Self(4, 6, 6, 256, 256, 64, None);
}

/// A single token; queries after a cache.
pub const FULL: [Sizes; 2] = [Sizes(2, 1, 1, 1, 1, 4, None), Sizes(2, 4, 4, 9, 100, 8, None)];
/// Fewer and more queries than a block of 64; one query after a cache.
pub const GROUPED: [Sizes; 3] =
    [Sizes(2, 4, 2, 7, 7, 8, None), Sizes(2, 6, 2, 70, 70, 5, None), Sizes(2, 4, 2, 1, 90, 8, None)];
/// Windows that end in the block, before it, and after a cache.
pub const WINDOWED: [Sizes; 4] = [
    Sizes(2, 3, 1, 150, 150, 16, Some(20)),
    Sizes(2, 2, 2, 65, 65, 32, Some(2)),
    Sizes(2, 4, 2, 1, 90, 8, Some(3)),
    Sizes(2, 2, 1, 130, 200, 8, Some(64)),
];

/// With the length of a row's first document: two tokens each and the last alone, more of them than in a block, and with a window.
pub const IN_DOCUMENTS: [(Sizes, usize); 4] = [
    (Sizes(1, 2, 1, 5, 5, 4, None), 2),
    (Sizes(2, 4, 2, 150, 150, 8, None), 60),
    (Sizes(3, 2, 2, 300, 300, 16, None), 140),
    (Sizes(2, 2, 1, 90, 90, 5, Some(20)), 30),
];

/// Heads are brought forward as the layer does it: the vectors of a head do not follow one another in memory.
pub fn attention(sizes: Sizes, place: &Place) -> Prepared {
    over(sizes, None, place)
}

/// [`attention`] in rows of several documents. Each row's are longer by one than those of the row before.
pub fn in_documents((sizes, length): (Sizes, usize), place: &Place) -> Prepared {
    let Sizes(b, _, _, t, ..) = sizes;
    let row = |row: usize| (0..t).map(move |place| (place - place % (length + row)) as u32);
    over(sizes, Some(Documents::new((0..b).flat_map(row).collect(), t)), place)
}

fn over(Sizes(b, h, k, t, s, e, window): Sizes, documents: Option<Documents>, place: &Place) -> Prepared {
    let context = ForwardContext::at(place.compute, None, window, Dropout::off()).with_documents(documents);
    let device = place.device.clone();
    let query = leaf([b, t, h, e], "query", &device);
    let [key, value] = ["key", "value"].map(|name| leaf([b, s, k, e], name, &device));
    let leaves = vec![to("query", &query), to("key", &key), to("value", &value)];
    Prepared::new(leaves, move || {
        let [query, key, value] = [&query, &key, &value].map(|x| x.clone().swap_dims(1, 2)); // [B, heads, T or S, E]
        attend(query, key, value, window, &Dropout::off(), &context)
    })
}
