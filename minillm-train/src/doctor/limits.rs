//! What a device says it can do. Nothing is computed for it.
//!
//! Burn passes on the device's name, what its kernels are compiled for, the largest buffer and the atomics; the
//! driver's version it does not.

use minillm_infer::device::{DeviceInfo, DeviceLimits};
use minillm_infer::number::megabytes;
use minillm_model::ops::Precision;
use serde_json::{Value, json};

/// A device in numbers and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The device, as `--device` takes it.
    pub name: String,
    /// The hardware, or the backend, in words.
    pub description: String,
    /// A graphics driver that computes on the CPU.
    pub is_software: bool,
    /// Values of `train.precision` that run on it.
    pub precisions: Vec<&'static str>,
    /// What Burn passes on.
    pub limits: DeviceLimits,
}

impl Described {
    /// Asks the device.
    pub fn new(found: &DeviceInfo) -> Self {
        let all = [Precision::F32, Precision::F16, Precision::Bf16];
        let precisions = all.into_iter().filter(|precision| precision.runs_on(&found.device));
        Self {
            name: found.name.clone(),
            description: found.description.clone(),
            is_software: found.is_software,
            precisions: precisions.map(Precision::name).collect(),
            limits: found.limits(),
        }
    }

    /// Lines of name and value.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let software = if self.is_software { ", a driver that computes on the CPU" } else { "" };
        let mut lines = vec![
            ("device", format!("{} ({}){software}", self.name, self.description)),
            ("computes in", self.precisions.join(", ")),
        ];
        let DeviceLimits { compiles_for, largest_buffer_bytes, memory_bytes, atomic_add } = &self.limits;
        let size = |bytes: u64| megabytes(bytes as usize);
        lines.extend(compiles_for.iter().map(|target| ("compiles for", target.clone())));
        lines.extend(largest_buffer_bytes.map(|bytes| ("largest buffer", size(bytes))));
        lines.extend(memory_bytes.map(|bytes| ("memory", size(bytes))));
        lines.extend(atomic_add.as_ref().map(|types| ("atomic addition", in_words(types))));
        lines
    }

    /// The same for `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "description": self.description,
            "is_software": self.is_software,
            "precisions": self.precisions,
            "compiles_for": self.limits.compiles_for,
            "largest_buffer_bytes": self.limits.largest_buffer_bytes,
            "memory_bytes": self.limits.memory_bytes,
            "atomic_add": self.limits.atomic_add,
        })
    }
}

fn in_words(types: &[String]) -> String {
    if types.is_empty() { "of no type".to_owned() } else { types.join(", ") }
}
