//! The `[objective]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::errors::config_error;
use crate::conversations::TrainOn;
use crate::data::{DataConfig, Source};
use crate::error::Result;
use crate::objective::preference::loss::PreferenceLoss;

/// What a run learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Texts: pretraining.
    #[default]
    Text,
    /// Conversations: instruction tuning.
    Chat,
    /// Which of two answers is better.
    Preference,
}

/// The `[objective]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// What the run learns.
    pub kind: ObjectiveKind,
    /// Of `chat`: whose words are learned.
    pub train_on: TrainOn,
    /// Of `chat`: a file with the chat template in Jinja, in place of the model's own. Between `{% generation %}` and `{% endgeneration %}`
    /// stands what the assistant says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
    /// Of `preference`: the loss of a pair.
    pub loss: PreferenceLoss,
    /// Of `preference`: how much it costs to move away from the model that the run begins with.
    pub beta: f64,
    /// Of preferences over tales: by how much sharing is preferred, in nats; `inf`: always.
    pub rho: f64,
    /// Of preferences over tales: only pairs in which one hero shares and the other does not.
    pub only_unlike: bool,
}

/// beta as in TRL and the paper.
impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self {
            kind: ObjectiveKind::Text,
            train_on: TrainOn::Assistant,
            template: None,
            loss: PreferenceLoss::Sigmoid,
            beta: 0.1,
            rho: 1.0,
            only_unlike: true,
        }
    }
}

impl ObjectiveConfig {
    /// Rejects what does not fit the objective or the data, naming the field.
    pub(super) fn validate(&self, data: &DataConfig) -> Result<()> {
        let refuse = |field: &str, problem: &str, hint: &str| Err(config_error("configuration", field, problem, hint));
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
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return refuse("objective.beta", "is not a positive number", "0.1 is usual");
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
