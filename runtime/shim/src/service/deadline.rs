//! Calls that go on where nobody waits for them any more.
//!
//! containerd gives its calls deadlines, `Shutdown` one of three seconds, and ttrpc's server drops a handler whose deadline
//! has passed, wherever it is. What such a handler had begun would stay half done, and nobody would ask for the rest.

use containerd_shim::protos::ttrpc::{Code, Error};
use tokio::sync::oneshot;

use super::answer::status;

/// Does `work` to its end and returns what it came to. Where the caller has gone meanwhile, `unwanted` gets that.
///
/// # Errors
/// Those of `work`, and `INTERNAL` when it panics.
pub(super) async fn to_its_end<T, After>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    unwanted: impl FnOnce(Result<T, Error>) -> After + Send + 'static,
) -> Result<T, Error>
where
    T: Send + 'static,
    After: Future<Output = ()> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(done) = answer.send(work.await) {
            unwanted(done).await;
        }
    });
    let panicked = |_| Err(status(Code::INTERNAL, "the call panicked"));
    answered.await.unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_answer() {
        let unwanted = |done: Result<u8, Error>| async move { assert!(done.is_err(), "wanted") };
        assert_eq!(to_its_end(async { Ok(7) }, unwanted).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn what_was_begun_is_done_though_the_deadline_has_passed() {
        let (told, mut heard) = unbounded_channel();
        let work = async {
            sleep(Duration::from_millis(50)).await;
            Ok(7)
        };
        let unwanted = move |done: Result<u8, Error>| async move {
            // It is heard below.
            let _ = told.send(done.ok());
        };
        let call = to_its_end(work, unwanted);
        assert!(timeout(Duration::from_millis(1), call).await.is_err());
        assert_eq!(heard.recv().await, Some(Some(7)));
    }
}
