//! A device's failure that is only logged is what `score` reports. (One test: a process sees its first failure once and for
//! all.)

#![allow(missing_docs, clippy::unwrap_used)]

use burn::module::Param;
use burn::tensor::Device;
use minillm_infer::failures::Watch;
use minillm_infer::score::{EncodedText, Windows, score};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use tracing_subscriber::layer::SubscriberExt;

#[test]
fn a_device_that_failed_is_named_and_not_the_loss() {
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(1), ..ModelOptions::default() };
    let (config, device) = (options.resolve(11, 16), Device::flex());
    let mut model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
    let embedding = model.model.embed_tokens.weight.val();
    model.model.embed_tokens.weight = Param::from_tensor(embedding * f32::NAN);
    let (text, windows) = (EncodedText { ids: vec![1, 2, 3], bytes: 2 }, Windows::new(&config, None, None).unwrap());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(Watch), || {
        let message = || score(&model, &text, windows).unwrap_err().to_string();
        assert_eq!(message(), "the loss is not finite");
        tracing::warn!(target: "cubecl_common::device::handle::channel", "Task failed: out of memory");
        assert_eq!(message(), "the device failed: Task failed: out of memory");
    });
}
