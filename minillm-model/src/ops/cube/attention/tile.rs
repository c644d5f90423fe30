//! What the kernels of attention share: where heads lie in memory, and pieces of their rows in the cube's shared memory.

use cubecl::prelude::*;

use super::super::dropout::is_kept;

/// Units along each side of a cube's square: 64 units, unit (y, x) has rows y, y + 8, .. and columns x, x + 8, .. of what the cube
/// computes.
pub const SIDE: usize = 8;

/// Numbers that shared memory is read and written in: one instruction moves four, and a row's products are added four at a time.
pub const FOUR: usize = 4;

/// Four neighbours of a row.
pub type Four = Vector<f32, Const<FOUR>>;

/// Scores that are hidden. Not minus infinity, so that a row of which no key was seen yet gives no NaN; whatever such a row has
/// added up is multiplied by `exp(HIDDEN - a real score) = 0` when its first key comes.
pub const HIDDEN: f32 = -1e30;

/// Where one head's row of a token begins: `offset + batch stride + head stride + token stride`. The E numbers of a row are neighbours.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Place {
    /// Of the first number.
    pub offset: usize,
    /// From one sequence to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one token to the next.
    pub token: usize,
}

/// Numbers of tokens, and the reach of a query.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Extent {
    /// Query heads.
    pub heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Queries: the last of the positions.
    pub queries: usize,
    /// Keys: all positions.
    pub keys: usize,
    /// How many positions back a query may look, its own included.
    pub window: usize,
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
    /// Rows of scores: B H T.
    pub rows: usize,
    /// Where weights are dropped, the row of the table of seeds with the first sequence's.
    pub first_seed: usize,
    /// Of 2^31: weights whose hash is below are dropped.
    pub threshold: u32,
    /// What the others are multiplied by.
    pub factor: f32,
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Numbers in a head's row: E.
    pub width: usize,
    /// Rows of queries or of keys that a cube has in its shared memory: a multiple of [`SIDE`].
    pub tile: usize,
    /// Whether queries and keys are still to be rotated.
    pub rotated: bool,
    /// Whether queries, keys and values are one tensor.
    pub joined: bool,
    /// Whether some of the weights are dropped.
    pub dropped: bool,
}

impl Plan {
    /// Which of the inputs has the keys. (The first has the queries.)
    pub const fn key(self) -> usize {
        if self.joined { 0 } else { 1 }
    }

    /// Which of the inputs has the values.
    pub const fn value(self) -> usize {
        if self.joined { 0 } else { 2 }
    }

    /// [`Four`]s of a row; the last is filled up with zeros.
    pub const fn fours(self) -> usize {
        self.width.div_ceil(FOUR)
    }

    /// Distance between rows in shared memory, in [`Four`]s: an odd number, so that the same column of neighbouring rows lies in different
    /// banks.
    pub const fn stride(self) -> usize {
        self.fours() | 1
    }

    /// [`Four`]s of a tile of rows.
    pub const fn rows(self) -> usize {
        self.tile * self.stride()
    }

    /// Numbers of a tile of scores; as with [`Self::stride`], its rows are one number longer.
    pub const fn scores(self) -> usize {
        self.tile * (self.tile + 1)
    }

    /// Rows of each unit.
    pub const fn rows_of_a_unit(self) -> usize {
        self.tile / SIDE
    }

    /// [`Four`]s of each row of a unit.
    pub const fn fours_of_a_unit(self) -> usize {
        self.fours().div_ceil(SIDE)
    }

    /// [`Four`]s of a unit's rows.
    pub const fn fours_of_its_rows(self) -> usize {
        self.rows_of_a_unit() * self.fours_of_a_unit()
    }

    /// Scores of a unit: of its rows with its columns.
    pub const fn scores_of_a_unit(self) -> usize {
        self.rows_of_a_unit() * self.rows_of_a_unit()
    }
}

/// Reads `plan.tile` rows from token `first` on, times `factor`, rotated by `tables` of cosines and sines, `[T, E]`, if so asked; zeros from token `end` on.
#[cube]
pub fn read_rows(
    tile: &mut Shared<[Four]>,
    source: &[f32],
    start: usize,
    token_stride: usize,
    first: usize,
    end: usize,
    factor: f32,
    tables: &Sequence<Box<[f32]>>,
    #[comptime] rotated: bool,
    #[comptime] plan: Plan,
) {
    let (width, fours) = (comptime!(plan.width), comptime!(plan.fours()));
    let mut index = UNIT_POS as usize;
    while index < comptime!(plan.tile * plan.fours()) {
        let row = index / fours;
        let four = index % fours;
        let token = first + row;
        let mut values = Four::new(0.0f32);
        if token < end {
            let begin = start + token * token_stride;
            #[unroll]
            for lane in 0..FOUR {
                let column = four * FOUR + lane;
                // (Known when the kernel is compiled, where widths are multiples of four.)
                if comptime!(plan.width.is_multiple_of(FOUR)) || column < width {
                    let mut value = source[begin + column];
                    if rotated {
                        // The partner is half a row away, in one direction or the other.
                        let half = comptime!(plan.width / 2);
                        let partner = source[begin + (column + half) % width];
                        let angle = token * width + column;
                        value = value * tables.index(0)[angle] + partner * tables.index(1)[angle];
                    }
                    values.insert(lane, value * factor);
                }
            }
        }
        tile[row * comptime!(plan.stride()) + four] = values;
        index += comptime!(SIDE * SIDE);
    }
}

/// Writes the rows of a tile from token `first` on, up to token `end`; rotated rows are turned back.
#[cube]
pub fn write_rows(
    tile: &Shared<[Four]>,
    target: &mut [f32],
    start: usize,
    token_stride: usize,
    first: usize,
    end: usize,
    tables: &Sequence<Box<[f32]>>,
    #[comptime] rotated: bool,
    #[comptime] plan: Plan,
) {
    let width = comptime!(plan.width);
    let mut index = UNIT_POS as usize;
    while index < comptime!(plan.tile * plan.width) {
        let row = index / width;
        let column = index % width;
        let token = first + row;
        if token < end {
            let begin = row * comptime!(plan.stride());
            let mut value = tile[begin + column / FOUR].extract_dynamic(column % FOUR);
            if rotated {
                let half = comptime!(plan.width / 2);
                let other = (column + half) % width;
                let partner = tile[begin + other / FOUR].extract_dynamic(other % FOUR);
                // The sines' sign is that of the column.
                let angle = token * width + column;
                value = value * tables.index(0)[angle] - partner * tables.index(1)[angle];
            }
            target[start + token * token_stride + column] = value;
        }
        index += comptime!(SIDE * SIDE);
    }
}

/// Puts a unit's rows of a result into a tile, times `factor`.
#[cube]
pub fn put_rows(values: &Array<Four>, tile: &mut Shared<[Four]>, factor: f32, #[comptime] plan: Plan) {
    let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let fours = comptime!(plan.fours_of_a_unit());
    #[unroll]
    for i in 0..comptime!(plan.rows_of_a_unit()) {
        #[unroll]
        for c in 0..fours {
            let four = x + c * SIDE;
            if four < comptime!(plan.fours()) {
                tile[(y + i * SIDE) * comptime!(plan.stride()) + four] = values[i * fours + c] * Four::new(factor);
            }
        }
    }
}

/// A unit's scores: the products of its rows of one tile with its rows of another.
#[cube]
pub fn products(rows: &Shared<[Four]>, columns: &Shared<[Four]>, #[comptime] plan: Plan) -> Array<f32> {
    let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let (m, stride) = (comptime!(plan.rows_of_a_unit()), comptime!(plan.stride()));
    let mut scores = zeros(comptime!(plan.scores_of_a_unit()));
    for four in 0..comptime!(plan.fours()) {
        let mut others = Array::<Four>::new(m);
        #[unroll]
        for j in 0..m {
            others[j] = columns[(x + j * SIDE) * stride + four];
        }
        #[unroll]
        for i in 0..m {
            let row = rows[(y + i * SIDE) * stride + four];
            #[unroll]
            for j in 0..m {
                scores[i * m + j] += row.dot(others[j]);
            }
        }
    }
    scores
}

/// Adds `scores x rows` to a unit's part of a result. `scores`: `[tile, tile]`, its rows or (`transposed`) its columns are the rows of
/// the result; `rows`: `[tile, E]`.
#[cube]
pub fn add_product(
    result: &mut Array<Four>,
    scores: &Shared<[f32]>,
    rows: &Shared<[Four]>,
    #[comptime] transposed: bool,
    #[comptime] plan: Plan,
) {
    let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let fours = comptime!(plan.fours_of_a_unit());
    let line = comptime!(plan.tile + 1);
    for inner in 0..comptime!(plan.tile) {
        let mut values = Array::<Four>::new(fours);
        #[unroll]
        for c in 0..fours {
            values[c] = Four::new(0.0f32);
            if comptime!(plan.fours().is_multiple_of(SIDE)) || x + c * SIDE < comptime!(plan.fours()) {
                values[c] = rows[inner * comptime!(plan.stride()) + x + c * SIDE];
            }
        }
        #[unroll]
        for i in 0..comptime!(plan.rows_of_a_unit()) {
            let row = y + i * SIDE;
            let place = if transposed { inner * line + row } else { row * line + inner };
            let score = Four::new(scores[place]);
            #[unroll]
            for c in 0..fours {
                result[i * fours + c] += score * values[c];
            }
        }
    }
}

/// A unit's scores, or one number of each of its rows, zero.
#[cube]
pub fn zeros(#[comptime] count: usize) -> Array<f32> {
    let mut values = Array::<f32>::new(count);
    #[unroll]
    for index in 0..count {
        values[index] = 0.0f32;
    }
    values
}

/// A unit's rows of a result, zero.
#[cube]
pub fn zero_rows(#[comptime] plan: Plan) -> Array<Four> {
    let count = comptime!(plan.fours_of_its_rows());
    let mut values = Array::<Four>::new(count);
    #[unroll]
    for index in 0..count {
        values[index] = Four::new(0.0f32);
    }
    values
}

/// What a weight is multiplied by: 1, or where some are dropped 0 or more than 1. `head` and `query` are those of the sequence.
#[cube]
pub fn dropout_factor(
    seed: u32,
    head: usize,
    query: usize,
    key: usize,
    extent: &Extent,
    #[comptime] plan: Plan,
) -> f32 {
    let mut factor = 1.0f32;
    if comptime!(plan.dropped) {
        let index = (head * extent.queries + query) * extent.keys + key;
        factor = select(is_kept(index as u32, seed, extent.threshold), extent.factor, 0.0f32);
    }
    factor
}

/// Whether the query at `position` may look at `key`.
#[cube]
pub fn is_visible(position: usize, key: usize, window: usize) -> bool {
    key <= position && position < key + window
}
