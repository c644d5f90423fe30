//! A number that a device is still computing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use burn::tensor::Tensor;

type Values = Result<Vec<f32>, String>;

/// Values on their way from the device to the host.
pub struct Later {
    future: Pin<Box<dyn Future<Output = Values> + Send>>,
    /// If they were there at once.
    ready: Option<Values>,
}

impl Later {
    /// Asks for the values of `tensor` without waiting. The device copies them when it comes to this point of its work, whatever is
    /// asked of it afterwards.
    pub fn of(tensor: Tensor<1>) -> Self {
        let read = Box::pin(tensor.into_data_async());
        let mut future: Pin<Box<dyn Future<Output = Values> + Send>> = Box::pin(async move {
            let data = read.await.map_err(|error| error.to_string())?;
            data.convert::<f32>().try_into_vec::<f32>().map_err(|error| error.to_string())
        });
        // The copy is asked for when the future is polled for the first time.
        let ready = match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(values) => Some(values),
            Poll::Pending => None,
        };
        Self { future, ready }
    }

    /// Waits for them. Fails, in words, if the device does.
    pub fn wait(mut self) -> Values {
        let waker = Waker::from(Arc::new(ThisThread(thread::current())));
        loop {
            if let Some(values) = self.ready.take() {
                return values;
            }
            match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(values) => return values,
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// The thread that waits.
struct ThisThread(Thread);

impl Wake for ThisThread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
