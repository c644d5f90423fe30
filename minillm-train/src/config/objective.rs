//! The `[objective]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::conversations::TrainOn;

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

/// A loss of the difference d between two answers (see [`loss`](crate::objective::preference::loss)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// DPO's own.
    #[default]
    Sigmoid,
    /// SLiC's.
    Hinge,
    /// IPO's.
    Ipo,
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
