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

fn train(bench: &Bench, out: &str) -> Result<Outcome, Error> {
    let mut config = RunConfig::load(&bench.path().join("tiny.toml"), &["train.max_steps=3".to_owned()]).unwrap();
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
        assert_eq!(train(&bench, "before").unwrap().steps, 3);
        tracing::warn!(target: "cubecl_common::device::handle::channel", "Task failed: out of memory");
        let error = train(&bench, "after").unwrap_err();
        assert!(matches!(error, Error::Device { step: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("Task failed: out of memory"), "{error}");
        assert!(error.hint().unwrap().contains("--resume"));
    });
    assert_eq!(bench.newest_step("before"), 3);
    assert_eq!(bench.newest_step("after"), 0, "nothing that was computed then is saved");
}
