//! What the metrics of a trained run say.

use std::path::Path;

use super::json::read_error;
use super::result::{CurvePoint, Validation};
use crate::error::Result;
use crate::metrics::{jsonl, tag};

/// What a run's `metrics.jsonl` says.
pub(super) struct RunMetrics {
    /// The validation loss over the steps.
    pub curve: Vec<CurvePoint>,
    /// The last evaluation.
    pub last: Option<Validation>,
    /// The median over the records.
    pub tokens_per_second: Option<f64>,
}

impl RunMetrics {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let (mut curve, mut last, mut rates) = (Vec::new(), None, Vec::new());
        let read = jsonl::read(path, |record| {
            rates.extend(record.get(tag::TRAIN_TOKENS_PER_SECOND));
            if let (Some(loss), Some(bits_per_byte)) = (record.get(tag::VAL_LOSS), record.get(tag::VAL_BITS_PER_BYTE)) {
                last = Some(Validation { loss, bits_per_byte, floor: record.get(tag::VAL_FLOOR) });
                curve.push(CurvePoint { step: record.step, tokens: record.tokens, loss, bits_per_byte });
            }
        });
        read.map_err(read_error)?;
        rates.sort_by(f64::total_cmp);
        Ok(Self { curve, last, tokens_per_second: rates.get(rates.len() / 2).copied() })
    }
}
