//! The same weights with another context, scaling of the angles or dropout.

use std::sync::Arc;

use crate::config::{ModelConfig, Position};
use crate::decoder::LanguageModel;
use crate::error::{Error, Result};
use crate::layers::rope_table::RotaryEmbedding;

impl LanguageModel {
    /// The same weights under `config`, which may differ from the model's only in what no weight depends on: dropout, and
    /// with rotary positions the context and the scaling of the angles.
    pub fn with_config(mut self, config: &ModelConfig) -> Result<Self> {
        config.validate()?;
        let mut nearest = ModelConfig { dropout: config.dropout, ..self.config().clone() };
        if config.position == Position::Rope {
            nearest.max_position_embeddings = config.max_position_embeddings;
            nearest.rope_scaling = config.rope_scaling;
        }
        if nearest != *config {
            let problem = "is another architecture than that of the weights".to_owned();
            let hint = "change only dropout, and with rotary positions the context and the scaling".to_owned();
            return Err(Error::InvalidConfig { field: "config", problem, hint });
        }
        let device = self.device();
        self.model.rope = self.model.rope.map(|_| RotaryEmbedding::new(config, &device));
        Ok(Self { config: Arc::new(nearest), ..self })
    }
}
