//! Block operations that are more than one operation of the kernel, as futures.
//!
//! A [`Task`] belongs to one queue and runs on its thread ([`Tasks`]). Inside a task [`perform`] hands
//! an operation to the queue's io_uring and waits for it. A task may also wait for what a task of
//! another queue holds; that one then wakes this queue's thread. Outside a queue's thread
//! ([`block_on`]: opening and closing an image) operations are done at once by the calling thread.

mod desk;
mod executor;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

pub use desk::{Change, Changes, Perform, perform, perform_change};
pub(crate) use desk::{OperationId, run_here};
pub(crate) use executor::{Finished, Tasks};

/// A block operation on its way; its result is the number of bytes moved. It lives and dies on one
/// thread.
pub type Task = Pin<Box<dyn Future<Output = io::Result<u32>>>>;

/// Runs `future` on the calling thread until it is done.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
