//! How likely a model finds the answers of a batch.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData};
use minillm_model::decoder::LanguageModel;
use minillm_model::error::Error as ModelError;
use minillm_model::layers::dropout::Dropout;

use crate::data::Batch;
use crate::error::Result;
use crate::workers::Workers;

/// ln p of every document's targets, summed, in the order of the batch: `rows` rows at a time among the workers. `model` carries no autodiff.
pub fn logps(model: &LanguageModel, workers: &Workers, rows: usize, batch: &Batch) -> Result<Vec<f64>> {
    let rows = rows.div_ceil(workers.count()).max(1);
    let shares = (0..batch.rows).step_by(rows).map(|first| first..batch.rows.min(first + rows));
    let logps = workers.map(shares, |rows| of_rows(model, batch, rows));
    Ok(logps.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

fn of_rows(model: &LanguageModel, batch: &Batch, rows: Range<usize>) -> Result<Vec<f64>> {
    let device = model.device();
    let tensor = |ids: &[i32]| {
        let ids = ids[rows.start * batch.context..rows.end * batch.context].to_vec();
        Tensor::<2, Int>::from_data(TensorData::new(ids, [rows.len(), batch.context]), &device) // [B, T]
    };
    let (inputs, targets) = (tensor(&batch.inputs), tensor(&batch.targets));
    let hidden = model.hidden_states_of(inputs, batch.documents(rows.clone()), Dropout::default()); // [B, T, D]
    let nats = batch.pieces(rows).map(|(row, tokens)| {
        let at = [row..row + 1, tokens];
        model.summed_loss(hidden.clone().slice(at.clone()), targets.clone().slice(at)) // [1]
    });
    let nats = Tensor::cat(nats.collect(), 0).try_into_vec_as::<f64>();
    let nats = nats.map_err(|error| ModelError::Device(error.to_string()))?;
    Ok(nats.into_iter().map(|nats| -nats).collect())
}
