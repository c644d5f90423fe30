//! Work that fails on Burn's own thread of a device is noticed, in the words that Burn itself logs. (One test: a process sees
//! its first failure once and for all.)

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use burn::backend::{DeviceHandle, DeviceId, DeviceService, ServerUtilitiesHandle};
use minillm_infer::{failures, logging};

struct Service;

impl DeviceService for Service {
    fn init(_: DeviceId) -> Self {
        Self
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

#[test]
fn work_that_fails_on_burns_own_thread_is_noticed() {
    logging::start();
    let device = DeviceHandle::<Service>::new(DeviceId::new(0, 0));
    device.submit_blocking(|_| ()).unwrap();
    assert_eq!(failures::first(), None);
    device.submit(|_| panic!("no memory is left"));
    device.submit_blocking(|_| ()).unwrap(); // runs after it
    let failure = failures::first().unwrap();
    assert!(failure.contains("no memory is left"), "{failure}");
}
