//! The `[lora]` section.

use minillm_model::adapter::{LoraOptions, MATRICES};
use minillm_model::config::ModelOptions;
use serde::{Deserialize, Serialize};

use super::errors::config_error;
use crate::error::Result;

/// In place of the names of all matrices of the blocks.
const ALL_LINEAR: &str = "all-linear";

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

/// Modules that can be trained whole.
const WHOLE: [&str; 3] = ["embed_tokens", "lm_head", "norm"];

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

    /// Rejects values that no model could make right, naming the field.
    pub(super) fn validate(&self, model: &ModelOptions) -> Result<()> {
        let refuse =
            |field: &str, problem: String, hint: &str| Err(config_error("configuration", field, problem, hint));
        if model.from.is_none() {
            let hint = "name the model with `model.from`, or leave [lora] out";
            return refuse("model.from", "is not given: an adapter is for a model that is there".to_owned(), hint);
        }
        if model.max_position_embeddings.is_some() {
            let hint = "leave it out: an adapter's files have no place for it";
            return refuse("model.max_position_embeddings", "is given beside [lora]".to_owned(), hint);
        }
        if self.rank == 0 || self.rank > 1 << 14 {
            return refuse("lora.rank", format!("is {}", self.rank), "8 and 16 are usual");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse(
                "lora.alpha",
                format!("is {}", self.alpha),
                "choose a positive number; twice the rank is usual",
            );
        }
        if self.targets.is_empty() {
            return refuse("lora.targets", "is empty".to_owned(), "name matrices, or `all-linear`");
        }
        for target in &self.targets {
            if !MATRICES.contains(&&**target) && target != ALL_LINEAR {
                let hint = format!("there are {} and `{ALL_LINEAR}`", MATRICES.join(", "));
                return refuse("lora.targets", format!("has `{target}`"), &hint);
            }
        }
        for module in &self.modules_to_save {
            if !WHOLE.contains(&&**module) {
                let hint = format!("there are {}", WHOLE.join(", "));
                return refuse("lora.modules_to_save", format!("has `{module}`"), &hint);
            }
        }
        Ok(())
    }
}
