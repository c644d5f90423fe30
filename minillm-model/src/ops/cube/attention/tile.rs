//! What the kernels of attention share: where heads lie in memory, and pieces of their rows in the cube's shared memory.

use cubecl::prelude::*;

/// Units along each side of a cube's square: 64 units, unit (y, x) has rows y, y + 8, .. and columns x, x + 8, .. of what the cube
/// computes.
pub const SIDE: usize = 8;

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

    /// Distance between rows in shared memory: one more than the width, so that the same column of neighbouring rows lies in different
    /// banks.
    pub const fn stride(self) -> usize {
        self.width + 1
    }

    /// Numbers of a tile of rows.
    pub const fn rows(self) -> usize {
        self.tile * self.stride()
    }

    /// Numbers of a tile of scores.
    pub const fn scores(self) -> usize {
        self.tile * (self.tile + 1)
    }

    /// Rows of each unit.
    pub const fn rows_of_a_unit(self) -> usize {
        self.tile / SIDE
    }

    /// Columns of each unit.
    pub const fn columns_of_a_unit(self) -> usize {
        self.width.div_ceil(SIDE)
    }
}

/// Reads `plan.tile` rows from token `first` on, times `factor`, rotated by `tables` of cosines and sines, `[T, E]`, if so asked; zeros from token `end` on.
#[cube]
pub fn read_rows(
    tile: &mut Shared<[f32]>,
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
    let width = comptime!(plan.width);
    let mut index = UNIT_POS as usize;
    while index < comptime!(plan.tile * plan.width) {
        let row = index / width;
        let column = index % width;
        let token = first + row;
        let mut value = 0.0f32;
        if token < end {
            let begin = start + token * token_stride;
            value = source[begin + column];
            if rotated {
                // The partner is half a row away, in one direction or the other.
                let half = comptime!(plan.width / 2);
                let partner = source[begin + (column + half) % width];
                let angle = token * width + column;
                value = value * tables.index(0)[angle] + partner * tables.index(1)[angle];
            }
        }
        tile[row * comptime!(plan.stride()) + column] = value * factor;
        index += comptime!(SIDE * SIDE);
    }
}

/// Writes the rows of a tile from token `first` on, up to token `end`; rotated rows are turned back.
#[cube]
pub fn write_rows(
    tile: &Shared<[f32]>,
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
            let mut value = tile[begin + column];
            if rotated {
                let half = comptime!(plan.width / 2);
                let partner = tile[begin + (column + half) % width];
                // The sines' sign is that of the column.
                let angle = token * width + column;
                value = value * tables.index(0)[angle] - partner * tables.index(1)[angle];
            }
            target[start + token * token_stride + column] = value;
        }
        index += comptime!(SIDE * SIDE);
    }
}

/// Puts a unit's rows and columns of a result into a tile, times `factor`.
#[cube]
pub fn put_rows(values: &Array<f32>, tile: &mut Shared<[f32]>, factor: f32, #[comptime] plan: Plan) {
    let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let columns = comptime!(plan.columns_of_a_unit());
    #[unroll]
    for i in 0..comptime!(plan.rows_of_a_unit()) {
        #[unroll]
        for c in 0..columns {
            let column = x + c * SIDE;
            if column < comptime!(plan.width) {
                tile[(y + i * SIDE) * comptime!(plan.stride()) + column] = values[i * columns + c] * factor;
            }
        }
    }
}

/// Adds `scores x rows` to a unit's part of a result. `scores`: `[tile, tile]`, its rows or (`transposed`) its columns are the rows of
/// the result; `rows`: `[tile, E]`.
#[cube]
pub fn add_product(
    result: &mut Array<f32>,
    scores: &Shared<[f32]>,
    rows: &Shared<[f32]>,
    #[comptime] transposed: bool,
    #[comptime] plan: Plan,
) {
    let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
    let columns = comptime!(plan.columns_of_a_unit());
    let line = comptime!(plan.tile + 1);
    for inner in 0..comptime!(plan.tile) {
        let mut values = Array::<f32>::new(columns);
        #[unroll]
        for c in 0..columns {
            values[c] = 0.0f32;
            if x + c * SIDE < comptime!(plan.width) {
                values[c] = rows[inner * comptime!(plan.stride()) + x + c * SIDE];
            }
        }
        #[unroll]
        for i in 0..comptime!(plan.rows_of_a_unit()) {
            let row = y + i * SIDE;
            let place = if transposed { inner * line + row } else { row * line + inner };
            let score = scores[place];
            #[unroll]
            for c in 0..columns {
                result[i * columns + c] += score * values[c];
            }
        }
    }
}

/// A unit's part of a result, zero.
#[cube]
pub fn zeros(#[comptime] count: usize) -> Array<f32> {
    let mut values = Array::<f32>::new(count);
    #[unroll]
    for index in 0..count {
        values[index] = 0.0f32;
    }
    values
}

/// Whether the query at `position` may look at `key`.
#[cube]
pub fn is_visible(position: usize, key: usize, window: usize) -> bool {
    key <= position && position < key + window
}
