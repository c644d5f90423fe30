//! The same weights with another context, scaling of the angles, dropout or way of computing, or with more tokens.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::config::{ModelConfig, Position};
use crate::decoder::LanguageModel;
use crate::error::{Error, Result};
use crate::layers::rope_table::RotaryEmbedding;
use crate::ops::ComputeOptions;

impl LanguageModel {
    /// The same model, computing with `compute`. New models use [`ComputeOptions::fastest`].
    #[must_use]
    pub fn with_compute(self, compute: ComputeOptions) -> Self {
        Self { compute, ..self }
    }

    /// What it computes with.
    pub fn compute(&self) -> ComputeOptions {
        self.compute
    }

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

    /// The same model with at least `size` tokens. A new token's rows are the mean of all others', so that it is neither sought nor shunned
    /// (Hewitt 2021, nlp.stanford.edu/~johnhew/vocab-expansion.html; transformers' `resize_token_embeddings` draws around it).
    #[must_use]
    pub fn with_vocabulary(mut self, size: usize) -> Self {
        let new = size.saturating_sub(self.config.vocab_size);
        if new == 0 {
            return self;
        }
        let grown = |weight: Tensor<2>, dim: usize| {
            let mean = weight.clone().mean_dim(dim); // one row, or one column
            // The new matrix is a leaf of the graph, as the old one was.
            Tensor::cat(vec![weight, mean.repeat_dim(dim, new)], dim).detach()
        };
        let embedding = &mut self.model.embed_tokens;
        embedding.weight = Param::from_tensor(grown(embedding.weight.val(), 0)); // [V, D]
        if let Some(head) = &mut self.lm_head {
            head.weight = Param::from_tensor(grown(head.weight.val(), 1)); // [D, V]
        }
        let config = ModelConfig { vocab_size: size, ..self.config().clone() };
        Self { config: Arc::new(config), ..self }
    }
}
