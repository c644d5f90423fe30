//! Sharing work among the threads of the current pool.
//!
//! How work is cut never depends on how many threads there are, so that sums come out the same with any number. In
//! training each worker has a pool of its own, often of one thread; then everything runs in place.

use rayon::prelude::*;

/// Numbers in a piece of element-wise work: 64 KiB, a share that fits a core's own cache.
pub const PIECE: usize = 16 * 1024;

/// Runs `task` on every item.
pub fn for_each<T: Send>(items: Vec<T>, task: impl Fn(T) + Sync + Send) {
    if items.len() < 2 || rayon::current_num_threads() == 1 {
        items.into_iter().for_each(task);
    } else {
        items.into_par_iter().for_each(task);
    }
}

/// As [`for_each`], with results in the order of the items.
pub fn map<T: Send, R: Send>(items: Vec<T>, task: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    if items.len() < 2 || rayon::current_num_threads() == 1 {
        items.into_iter().map(task).collect()
    } else {
        items.into_par_iter().map(task).collect()
    }
}

/// Rows in a piece, for rows of `width` numbers.
pub fn rows_per_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}
