//! Whether training needs more memory the longer it goes on.

use std::time::Instant;

use minillm_infer::device::DeviceInfo;
use minillm_infer::memory::resident_memory_bytes;
use minillm_infer::number::megabytes;
use minillm_model::config::ModelConfig;
use minillm_model::ops::ComputeOptions;

use super::advice::memory_hint;
use super::check::{ALLOWED_BYTES, Finding, Form, Group, Outcome, Setting};
use super::examine::catch_panic;
use super::training::{qwen3, train};

/// The steps between which memory may not grow: the first ones fill pools and compile kernels.
pub const STEPS: [usize; 2] = [50, 200];

/// Memory after the first and the last of [`STEPS`], in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Resident memory of this process, where the system tells.
    pub resident: Option<[u64; 2]>,
    /// What is in use on the device, where its backend tells.
    pub on_device: Option<[u64; 2]>,
}

/// Trains the smaller model and looks at the memory in between.
pub fn examine(found: &DeviceInfo) -> (Outcome, Growth) {
    let setting = Setting::new(found, ComputeOptions::fastest(&found.device));
    let (start, mut resident, mut on_device) = (Instant::now(), [None; 2], [None; 2]);
    let trained = catch_panic(|| {
        train(&smallest(), &setting, STEPS[1], |step, _| {
            if let Some(index) = STEPS.iter().position(|when| *when == step) {
                resident[index] = resident_memory_bytes();
                on_device[index] = setting.place.plain.memory_pool_usage().map(|usage| usage.bytes_in_use);
            }
        })
    });
    let pair = |[before, after]: [Option<u64>; 2]| before.zip(after).map(<[u64; 2]>::from);
    let growth = Growth { resident: pair(resident), on_device: pair(on_device) };
    let outcome = judge(found, growth, trained.err());
    (Outcome { seconds: start.elapsed().as_secs_f64(), ..outcome }, growth)
}

/// One block: the steps' number counts here, not their size.
fn smallest() -> ModelConfig {
    ModelConfig { num_hidden_layers: 1, ..qwen3() }
}

/// What is to be said about it; `failed`: why there were fewer steps.
pub fn judge(found: &DeviceInfo, growth: Growth, failed: Option<String>) -> Outcome {
    let named = [("resident memory", growth.resident), ("memory in use on the device", growth.on_device)];
    let grown =
        named.into_iter().filter_map(|(name, pair)| pair.map(|[before, after]| (name, after.saturating_sub(before))));
    let worst = grown.max_by_key(|(_, bytes)| *bytes);
    let problem = match (failed, worst) {
        (Some(failed), _) => Some(format!("gave nothing: {failed}")),
        (None, Some((name, bytes))) if bytes > ALLOWED_BYTES => Some(format!(
            "{name} grew by {} from step {} to step {} (allowed {})",
            megabytes(bytes as usize),
            STEPS[0],
            STEPS[1],
            megabytes(ALLOWED_BYTES as usize)
        )),
        _ => None,
    };
    Outcome {
        group: Group::Memory,
        name: "memory",
        form: if ComputeOptions::fastest(&found.device) == ComputeOptions::READABLE {
            Form::Readable
        } else {
            Form::Fast
        },
        error: worst.map(|(_, bytes)| bytes as f64),
        tolerance: Group::Memory.tolerance(found.is_gpu),
        finding: problem.map(|problem| Finding { problem, hint: memory_hint(found) }),
        parts: Vec::new(),
        seconds: 0.0,
    }
}
