//! Several CPU cores on one step: each takes some of the sequences through the whole model, then some of the parameters
//! through the optimiser.
//!
//! Burn's Rust backends run most operations on one thread and split only large matrix products, which leaves cores idle
//! in a small model. Splitting the *batch* keeps every core busy from the embedding to the loss, and nothing has to be
//! handed over in between. Each worker is a thread pool with its share of the cores: one, where there are as many sequences
//! as cores, so that the operations inside it do not split again.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Threads that each run whole tasks. Results do not depend on timing, but sums over the tasks do depend on how many
/// tasks there are, so a run repeats bit for bit on the same number of workers.
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// One for each of `threads`, but no more than `tasks`, which then have several threads each. With one worker,
    /// everything runs on the caller's thread, whose operations may split as they like.
    pub fn new(threads: usize, tasks: usize) -> Result<Self> {
        let count = threads.min(tasks).max(1);
        let share = |worker| threads / count + usize::from(worker < threads % count);
        let pool = |worker| ThreadPoolBuilder::new().num_threads(share(worker)).build();
        let pools = if count > 1 { (0..count).map(pool).collect() } else { Ok(Vec::new()) };
        let failed =
            |error| Error::Io { action: "start", what: "the worker threads", source: std::io::Error::other(error) };
        Ok(Self { pools: pools.map_err(failed)? })
    }

    /// The number of tasks that run at once.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Runs `task` on every item, each worker taking the next one when it is free; results come in the order of the items.
    pub fn map<T, R, I>(&self, items: I, task: impl Fn(T) -> R + Sync) -> Vec<R>
    where
        T: Send,
        R: Send,
        I: IntoIterator<Item = T, IntoIter: Send>,
    {
        let items = items.into_iter();
        if self.pools.is_empty() || matches!(items.size_hint(), (_, Some(0 | 1))) {
            return items.map(task).collect();
        }
        let mut items = items.enumerate();
        // The first item of each is always the same one: then it finds the memory there that it freed a step ago.
        let first: Vec<_> = self.pools.iter().map(|_| items.next()).collect();
        let items = Mutex::new(items);
        // A lock that a panicking worker held is still good: what it guards is one step of an iterator.
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        let run = |pool: &ThreadPool, first: Option<(usize, T)>| {
            let items = first.into_iter().chain(std::iter::from_fn(next));
            pool.install(|| items.map(|(index, item)| (index, task(item))).collect::<Vec<_>>())
        };
        let mut results = thread::scope(|scope| {
            let run = &run;
            let pools = self.pools.iter().zip(first);
            let started: Vec<_> = pools.map(|(pool, first)| scope.spawn(move || run(pool, first))).collect();
            // A worker's panic is the caller's.
            let joined = started.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.flatten().collect::<Vec<_>>()
        });
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        for count in [1, 2, 3] {
            let workers = Workers::new(count, 9).unwrap();
            assert_eq!(workers.count(), count);
            assert_eq!(workers.map(0..7, |i| i * i), [0, 1, 4, 9, 16, 25, 36]);
            assert!(workers.map(Vec::<u8>::new(), |i| i).is_empty());
            // Where there can be no more than one item, no thread is woken.
            let here = thread::current().id();
            assert_eq!(workers.map((0..3).filter(|i| *i == 1).take(1), |_| thread::current().id()), [here]);
        }
    }

    #[test]
    fn the_workers_share_the_threads() {
        let threads = |threads, tasks| {
            let workers = Workers::new(threads, tasks).unwrap();
            // Each waits for the others, so that every worker takes one item.
            let all_here = std::sync::Barrier::new(workers.count());
            let mut each = workers.map(0..workers.count(), |_| {
                all_here.wait();
                rayon::current_num_threads()
            });
            each.sort_unstable();
            each
        };
        assert_eq!(threads(2, 12), [1, 1]);
        assert_eq!(threads(7, 3), [2, 2, 3]);
        assert_eq!(threads(3, 1).len(), 1);
    }
}
