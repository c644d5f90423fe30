//! The `[lora]` section.

use minillm_model::adapter::{LoraOptions, MATRICES};
use serde::{Deserialize, Serialize};

/// In place of the names of all matrices of the blocks.
pub(super) const ALL_LINEAR: &str = "all-linear";

/// An adapter: with this section the model's own weights stay as they are, and LoRA's beside them are trained
/// (see [`minillm_model::layers::lora`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// r, the rank of what is learned.
    pub rank: usize,
    /// The size of the change: what is learned is multiplied by alpha / r.
    pub alpha: f64,
    /// Multiply by alpha / sqrt(r) instead (rsLoRA).
    pub rslora: bool,
    /// The matrices that are adapted: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`, or `all-linear`.
    pub targets: Vec<String>,
    /// Modules that are trained whole beside them: `embed_tokens`, `lm_head`, `norm`. New tokens need the first two.
    pub modules_to_save: Vec<String>,
}

/// PEFT's choice for models of LLaMA's kind: queries and values at rank 8. Its alpha is 8, most people's twice the rank.
impl Default for LoraConfig {
    fn default() -> Self {
        let targets = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
        Self { rank: 8, alpha: 16.0, rslora: false, targets, modules_to_save: Vec::new() }
    }
}

impl LoraConfig {
    /// As the model takes it, for one whose MLP has a gate or not.
    pub fn options(&self, has_gate: bool) -> LoraOptions {
        let all = MATRICES.iter().filter(|name| has_gate || **name != "gate_proj").map(|name| (*name).to_owned());
        let is_all = self.targets.iter().any(|target| target == ALL_LINEAR);
        LoraOptions {
            rank: self.rank,
            alpha: self.alpha,
            is_rank_stabilized: self.rslora,
            targets: if is_all { all.collect() } else { self.targets.clone() },
            modules_to_save: self.modules_to_save.clone(),
        }
    }
}
