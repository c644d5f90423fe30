//! Ranges of `[objective]` and `[lora]`, and what they need of other sections.

use minillm_model::adapter::MATRICES;
use minillm_model::config::ModelOptions;

use super::errors::config_error;
use super::lora::{ALL_LINEAR, LoraConfig};
use super::objective::{ObjectiveConfig, ObjectiveKind};
use crate::conversations::TrainOn;
use crate::data::{DataConfig, Source};
use crate::error::Result;

/// Modules that can be trained whole.
const WHOLE: [&str; 3] = ["embed_tokens", "lm_head", "norm"];

impl ObjectiveConfig {
    /// Rejects what does not fit the objective or the data, naming the field.
    pub(super) fn validate(&self, data: &DataConfig) -> Result<()> {
        let refuse = |field: &str, problem: &str, hint: &str| Err(config_error("configuration", field, problem, hint));
        let default = Self::default();
        if self.kind != ObjectiveKind::Preference {
            for (field, is_set) in [
                ("objective.loss", self.loss != default.loss),
                ("objective.beta", self.beta.to_bits() != default.beta.to_bits()),
                ("objective.rho", self.rho.to_bits() != default.rho.to_bits()),
                ("objective.only_unlike", self.only_unlike != default.only_unlike),
            ] {
                if is_set {
                    return refuse(
                        field,
                        "is for preferences",
                        "set `objective.kind` to `preference`, or leave it out",
                    );
                }
            }
        } else if self.train_on != TrainOn::Assistant {
            return refuse("objective.train_on", "is for conversations", "leave it out: of an answer all is learned");
        }
        if self.kind == ObjectiveKind::Text {
            if data.is_tales() && data.source == Some(Source::TalesChat) {
                let hint = "set `objective.kind` to `chat`";
                return refuse("data.source", "holds conversations, and the objective is to learn texts", hint);
            }
            let hint = "set `objective.kind` to `chat`, or leave it out";
            return match (self.train_on, &self.template) {
                (TrainOn::Assistant, None) => Ok(()),
                (TrainOn::All, _) => refuse("objective.train_on", "has no meaning for texts", hint),
                (_, Some(_)) => refuse("objective.template", "has no meaning for texts", hint),
            };
        }
        let hint = "give `data.files` with a conversation in JSON a line, or the source `tales-chat`";
        if data.files.is_empty() && data.url.is_some() {
            return refuse("data.url", "is for texts", hint);
        }
        if data.files.is_empty() && data.source == Some(Source::Tales) {
            return refuse("data.source", "holds texts, and the objective is to learn conversations", hint);
        }
        if !(1e-6..=1e6).contains(&self.beta) {
            return refuse("objective.beta", "is not between 1e-6 and 1e6", "0.1 is usual");
        }
        if self.rho.is_nan() || self.rho < 0.0 {
            return refuse("objective.rho", "is below 0 or no number", "choose 0 or more, or `inf`");
        }
        if data.order.is_some() {
            let hint = "leave it out: every conversation is learned once an epoch";
            return refuse("data.order", "has no meaning for conversations", hint);
        }
        Ok(())
    }
}

impl LoraConfig {
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
        if !(1e-6..=1e6).contains(&self.alpha) {
            return refuse(
                "lora.alpha",
                format!("is {}", self.alpha),
                "choose a number from 1e-6 to 1e6; twice the rank is usual",
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
