//! What is measured of a trained model: its loss at other contexts, and the speed of generation.

use std::path::Path;

use minillm_infer::device::DeviceInfo;
use minillm_infer::generate::Tokens;
use minillm_infer::sampling::Sampling;
use minillm_model::checkpoint::{self, Checkpoint, locate};
use minillm_model::config::{ModelConfig, Position, RopeScaling};
use minillm_model::tokenizer::Tokenizer;

use super::file::{Evaluate, Stretch};
use super::result::ContextResult;
use crate::config::{RunConfig, TrainConfig};
use crate::data::{Progress, TokenizerConfig};
use crate::error::Result;
use crate::objective;
use crate::workers::Workers;

/// The model after the last step.
pub(super) struct Trained<'a> {
    config: &'a RunConfig,
    checkpoint: Checkpoint,
    threads: usize,
}

impl<'a> Trained<'a> {
    /// Loads it from the run in `directory`.
    pub(super) fn load(directory: &Path, config: &'a RunConfig, found: &DeviceInfo) -> Result<Self> {
        let path = directory.join(locate::checkpoint_name(config.train.max_steps));
        let mut checkpoint = checkpoint::load(&path, &found.device)?;
        checkpoint.model = checkpoint.model.with_compute(config.train.compute_on(&found.device)?);
        Ok(Self { config, checkpoint, threads: found.training_threads() })
    }

    /// Scores the validation text at every context of `wanted`, as the model is and with its angles stretched.
    pub(super) fn contexts(
        &self,
        wanted: &Evaluate,
        cache_dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<ContextResult>> {
        let trained = self.config.train.context;
        let mut results = Vec::new();
        for &multiple in &wanted.contexts {
            let context = multiple * trained;
            // The tokenizer is made already, and stored in the checkpoint.
            let tokenizer = TokenizerConfig::File { path: self.checkpoint.path.join(checkpoint::TOKENIZER_FILE) };
            let train = TrainConfig { context, ..self.config.train.clone() };
            let objective =
                objective::prepare(&RunConfig { tokenizer, train, ..self.config.clone() }, cache_dir, progress)?;
            let rows = (self.config.train.micro_batch_size() / multiple).max(1);
            let workers = Workers::new(self.threads, rows)?;
            let stretches = wanted.rope_scaling.iter().copied().map(Some);
            for stretch in std::iter::once(None).chain(stretches.filter(|_| multiple > 1)) {
                let factor = wanted.factor.unwrap_or(multiple as f64);
                let mut result = ContextResult { context, stretch, loss: None, bits_per_byte: None, note: None };
                match self.stretched(context, stretch, factor) {
                    Err(note) => result.note = Some(note.to_owned()),
                    Ok(config) => {
                        let model = self.checkpoint.model.clone().with_config(&config)?;
                        let score = objective.evaluate(&model, &workers, rows)?.score;
                        result.loss = Some(score.nats_per_token());
                        result.bits_per_byte = Some(score.bits_per_byte());
                    }
                }
                results.push(result);
            }
        }
        Ok(results)
    }

    /// The architecture for sequences of `context` tokens, or why it cannot have them.
    fn stretched(&self, context: usize, stretch: Option<Stretch>, factor: f64) -> Result<ModelConfig, &'static str> {
        let mut config = self.checkpoint.model.config().clone();
        let original = config.max_position_embeddings;
        match config.position {
            Position::Learned if context > original => return Err("no positions beyond the table"),
            Position::Rope => {}
            _ if stretch.is_some() => return Err("no angles to stretch"),
            _ => return Ok(config),
        }
        config.rope_scaling = match stretch {
            None => config.rope_scaling,
            Some(Stretch::Linear) => Some(RopeScaling::Linear { factor }),
            Some(Stretch::Dynamic) => Some(RopeScaling::Dynamic { factor }),
            Some(Stretch::Yarn) => Some(RopeScaling::yarn(factor, original)),
        };
        if stretch != Some(Stretch::Dynamic) {
            config.max_position_embeddings = original.max(context); // dynamic scaling measures from the original
        }
        Ok(config)
    }

    /// Tokens per second of greedy generation, the best of three: whatever else the machine does only slows it down.
    pub(super) fn decoding_rate(&self, count: usize) -> Result<f64> {
        let Checkpoint { model, tokenizer, .. } = &self.checkpoint;
        let first = tokenizer.as_ref().and_then(Tokenizer::end_of_text).unwrap_or(0);
        let count = count.min(model.config().context().saturating_sub(1)).max(2);
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut best = 0.0f64;
        for _ in 0..3 {
            let mut tokens = Tokens::new(model, &[first], count, &greedy)?;
            tokens.by_ref().try_for_each(|id| id.map(drop))?;
            best = best.max(tokens.rates().decode_tokens_per_second);
        }
        Ok(best)
    }
}
