//! What a GPU is asked to do: kernel launches by operation, and the least memory that they read and write.
//!
//! Counted through the observers that Burn and `CubeCL` offer, on any device of theirs, a software one included: the numbers are
//! the same on every machine that chooses the same kernels. Not of devices that launch nothing (`flex`, `ndarray`, `tch`).

use std::collections::BTreeMap;

/// What was launched while something was watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    /// Kernel launches by operation. Several operations of Burn's that run in one kernel are named after the first product or sum
    /// among them.
    pub by_operation: BTreeMap<String, u64>,
    /// Bytes that the operations must read and write at least: each fused block its inputs and its outputs, once.
    pub bytes: u64,
}

impl Launches {
    /// All launches.
    pub fn total(&self) -> u64 {
        self.by_operation.values().sum()
    }

    /// What `run` launches, and what it returns. Other work of the process is counted, too.
    #[cfg(not(feature = "gpu"))]
    pub fn of<T>(run: impl FnOnce() -> T) -> (T, Self) {
        (run(), Self::default())
    }

    /// What `run` launches, and what it returns. Other work of the process is counted, too; what `run` only notes down, and what was
    /// noted down before, counts when it runs, so wait for the device (`Device::sync`) before and at the end of `run`.
    #[cfg(feature = "gpu")]
    pub fn of<T>(run: impl FnOnce() -> T) -> (T, Self) {
        use std::sync::Arc;

        use burn::backend::fusion::observer::FusionObservation;
        use cubecl::logging::LaunchObservation;

        let counter = Arc::new(counter::Counter::default());
        let watching = (LaunchObservation::new(counter.clone()), FusionObservation::new(counter.clone()));
        let result = run();
        drop(watching);
        (result, counter.take())
    }
}

#[cfg(feature = "gpu")]
mod counter {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use burn::backend::fusion::observer::{BlockOperations, FusionObserver};
    use burn::backend::ir::{OperationIr, TensorIr, TensorStatus};
    use cubecl::logging::LaunchObserver;

    use super::Launches;

    /// Counts while it is installed.
    #[derive(Default)]
    pub struct Counter(Mutex<State>);

    #[derive(Default)]
    struct State {
        found: Launches,
        /// The operation that is running.
        current: Option<String>,
    }

    impl Counter {
        /// What was counted; the next count begins at nothing.
        pub fn take(&self) -> Launches {
            self.with(|state| std::mem::take(&mut state.found))
        }

        fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
            change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl LaunchObserver for Counter {
        fn launched(&self, _: &'static str) {
            self.with(|state| {
                let name = state.current.clone().unwrap_or_else(|| "outside of operations".to_owned());
                *state.found.by_operation.entry(name).or_default() += 1;
            });
        }
    }

    impl FusionObserver for Counter {
        fn registered(&self, _: &OperationIr) {}

        fn block_starts(&self, block: BlockOperations<'_>) {
            let (name, bytes) = (name(block), bytes(block));
            self.with(|state| {
                state.current = Some(name);
                state.found.bytes += bytes;
            });
        }

        fn block_ran(&self) {
            self.with(|state| state.current = None);
        }
    }

    /// The operation of ours, or the first product or sum of Burn's, or the first operation.
    fn name(block: BlockOperations<'_>) -> String {
        let name = |operation: &OperationIr| match operation {
            OperationIr::Custom(custom) => custom.id.clone(),
            // `Float(F32, Matmul(..))` and the like.
            other => {
                let text = format!("{other:?}");
                let mut words = text.split(['(', ',', ' ', '{']).filter(|word| !word.is_empty() && *word != "F32");
                words.nth(1).unwrap_or("other").to_owned()
            }
        };
        let names: Vec<String> = block.iter().map(name).collect();
        let main = names.iter().find(|name| name.contains("Matmul") || name.contains("Sum") || name.contains("Mean"));
        main.or(names.first()).cloned().unwrap_or_else(|| "nothing".to_owned())
    }

    /// What the block reads that it does not make, and what it makes that something else reads.
    fn bytes(block: BlockOperations<'_>) -> u64 {
        // Operations that move no numbers.
        let moves = |operation: &OperationIr| !matches!(operation, OperationIr::Drop(_) | OperationIr::Init(_));
        let size = |tensor: &TensorIr| (tensor.shape.num_elements() * tensor.dtype.size()) as u64;
        let (mut made, mut read, mut used_up) = (Vec::new(), Vec::new(), BTreeSet::new());
        for operation in block.iter().filter(|operation| moves(operation)) {
            for input in operation.inputs() {
                if input.status == TensorStatus::ReadWrite {
                    used_up.insert(input.id);
                }
                read.push((input.id, size(input)));
            }
            made.extend(operation.outputs().map(|output| (output.id, size(output))));
        }
        if block.iter().len() == 1 && block.iter().any(is_a_view) {
            return 0;
        }
        let own: BTreeSet<_> = made.iter().map(|(id, _)| *id).collect();
        let read: BTreeSet<_> = read.into_iter().filter(|(id, _)| !own.contains(id)).collect();
        let written = made.into_iter().filter(|(id, _)| !used_up.contains(id));
        read.into_iter().chain(written).map(|(_, bytes)| bytes).sum()
    }

    /// Whether an operation only describes memory anew.
    fn is_a_view(operation: &OperationIr) -> bool {
        let text = format!("{operation:?}");
        ["Reshape", "SwapDims", "Permute", "Expand", "Slice("].iter().any(|view| text.contains(view))
    }
}
