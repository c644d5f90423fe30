//! How good the model is on text it has not seen: always the same text, all of it.

use minillm_infer::score::{Score, Window, window_nats};
use minillm_model::decoder::LanguageModel;

use crate::data::{Batch, ValidationData};
use crate::error::Result;
use crate::workers::Workers;

/// The validation split's score, and for `tales` what a perfect model's would be.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Summed nats, tokens and bytes of the split.
    pub score: Score,
    /// Entropy of the split in nats per token, where it is known: no model can be better on average.
    pub floor: Option<f64>,
    /// What a program has graded.
    pub grades: Vec<Grade>,
}

/// How often the model passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grade {
    /// The name among the [metrics](crate::metrics::tag).
    pub tag: &'static str,
    /// Passes.
    pub passed: usize,
    /// Trials.
    pub count: usize,
    /// The share that a perfect model has.
    pub best: f64,
}

impl Grade {
    /// The share of passes; `None` without a trial.
    pub fn share(&self) -> Option<f64> {
        (self.count > 0).then(|| self.passed as f64 / self.count as f64)
    }

    /// The range in which 95 % of all models lie that would pass so often (Wilson 1927, doi:10.1080/01621459.1927.10502953).
    pub fn interval(&self) -> Option<[f64; 2]> {
        const Z: f64 = 1.96; // standard deviations of the normal distribution with 95 % between them
        let (share, n) = (self.share()?, self.count as f64);
        let centre = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some([(centre - half) / (1.0 + Z * Z / n), (centre + half) / (1.0 + Z * Z / n)])
    }
}

impl Evaluation {
    /// Nats per token above the floor.
    pub fn gap(&self) -> Option<f64> {
        self.floor.map(|floor| self.score.nats_per_token() - floor)
    }
}

/// Scores the whole validation split, `rows` sequences at a time. `model` carries no autodiff.
pub fn evaluate(
    model: &LanguageModel,
    workers: &Workers,
    validation: &ValidationData,
    rows: usize,
) -> Result<Evaluation> {
    let rows_each = rows.div_ceil(workers.count());
    let nats = nats(model, workers, validation.batches(rows_each))?;
    let tokens = validation.scored_tokens();
    let score = Score { nats, tokens, bytes: validation.bytes() };
    Ok(Evaluation { score, floor: validation.floor_nats().map(|floor| floor / tokens as f64), grades: Vec::new() })
}

/// The summed nats of the scored targets of all batches.
pub fn nats(
    model: &LanguageModel,
    workers: &Workers,
    batches: impl Iterator<Item = Result<Batch>> + Send,
) -> Result<f64> {
    let nats = workers.map(batches, |batch: Result<Batch>| -> Result<f64> {
        let batch = batch?;
        let documents = batch.documents(0..batch.rows);
        let Batch { inputs, targets, rows, .. } = &batch;
        Ok(window_nats(model, Window { inputs, targets, rows: *rows, documents: documents.as_ref() })?)
    });
    nats.into_iter().sum()
}
