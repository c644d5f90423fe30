//! What a device's own thread only logs stops the run: here such a warning is logged by the test. (One test: a process sees its
//! first failure once and for all.)

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::Bench;
use minillm_infer::device;
use minillm_infer::failures::Watch;
use minillm_model::checkpoint::durable::System;
use minillm_train::config::RunConfig;
use minillm_train::data::Silent;
use minillm_train::error::Error;
use minillm_train::interrupt::Interrupt;
use minillm_train::run_dir::OpenMode;
use minillm_train::session::Session;
use minillm_train::trainer::Outcome;
use tracing_subscriber::layer::SubscriberExt;

fn train(bench: &Bench, out: &str, changes: &[&str]) -> Result<Outcome, Error> {
    let changes: Vec<_> = changes.iter().chain(&["train.max_steps=3"]).map(ToString::to_string).collect();
    let mut config = RunConfig::load(&bench.path().join("tiny.toml"), &changes).unwrap();
    config.data.files = vec![bench.path().join("text.txt")];
    let (found, out) = (device::open("flex").unwrap(), bench.path().join(out));
    let disk = Arc::new(System);
    let session = Session { config: &config, out: &out, mode: OpenMode::New, found: &found, label: Some("run"), disk };
    session.open(&bench.path().join("cache"), &Silent).unwrap().run(&Interrupt::never())
}

#[test]
fn failed_work_of_the_device_stops_the_run() {
    let bench = Bench::new();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(Watch), || {
        assert_eq!(train(&bench, "before", &[]).unwrap().steps, 3);
        let endless = ["model.initializer_range=1e30"];
        assert!(matches!(train(&bench, "nan", &endless).unwrap_err(), Error::NotFinite { step: 1, .. }));
        tracing::warn!(target: "cubecl_common::device::handle::channel", "Task failed: out of memory");
        // Also where the loss of that step is not finite.
        for (out, changes) in [("after", &[][..]), ("nan-after", &endless)] {
            let error = train(&bench, out, changes).unwrap_err();
            assert!(matches!(error, Error::Device { step: 1, .. }), "{error:?}");
            assert!(error.to_string().contains("Task failed: out of memory"), "{error}");
            assert!(error.hint().unwrap().contains("--resume"));
        }
    });
    assert_eq!(bench.newest_step("before"), 3);
    assert_eq!(bench.newest_step("after"), 0, "nothing that was computed then is saved");
}
