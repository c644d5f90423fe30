//! The ways out of what doctor finds; each of them exists in this project.

use minillm_infer::device::{DeviceInfo, compiled};

/// What to do about a form that computes wrongly. `only_fast`: the readable form is sound.
pub fn hint_for(found: &DeviceInfo, only_fast: bool, for_generation: bool) -> String {
    if for_generation {
        return format!("generate and score with {}, and without `--weights q8_0`", others(found));
    }
    if only_fast {
        return "train with the layers as they are written: `--set train.kernels=readable`".to_owned();
    }
    if found.is_gpu {
        // Burn's fusion is compiled in wherever a GPU backend is; only its search for operations to fuse can be stopped.
        return format!(
            "do not train on it: install a newer driver, or take {}. With the environment variable \
             BURN_FUSION_MAX_EXPLORATIONS=0 Burn fuses no operations: if `doctor` is content with that, train so",
            others(found)
        );
    }
    format!(
        "do not train on it: take {}, or build the program on this machine; if that changes nothing, suspect its memory \
         or processor",
        others(found)
    )
}

/// What to do about memory that grows.
pub fn memory_hint(found: &DeviceInfo) -> String {
    format!("a long run may not fit: train in parts, with --resume, or take {}", others(found))
}

/// The other backends of this program.
fn others(found: &DeviceInfo) -> String {
    let own = found.name.split(':').next().unwrap_or_default();
    let others: Vec<_> = compiled().into_iter().filter(|name| *name != own).collect();
    match others.split_first() {
        None => "another --device (this program has only one backend; more are Cargo features)".to_owned(),
        Some((first, [])) => format!("`--device {first}`"),
        Some((first, rest)) => format!("`--device {first}` (or {})", rest.join(", ")),
    }
}
