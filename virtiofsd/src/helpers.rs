//! Threads for requests that may wait long, so that the queues' own threads never do.
//!
//! They are few and start with the daemon: what waits longer than all of them together can take
//! waits for them, and the queues go on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use vhost_daemon::sys::name_current_thread;

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that work off jobs, first come, first served.
#[derive(Debug)]
pub struct Helpers {
    jobs: Arc<Jobs>,
    threads: usize,
}

#[derive(Default)]
struct Jobs {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    ended: bool,
}

impl Helpers {
    /// Enough that some slow calls do not wait for each other.
    pub const THREADS: usize = 4;

    /// Starts `threads` threads, each of which calls `first` before anything else. Fewer, or none at
    /// all, where the system has no more threads for us.
    ///
    /// # Errors
    /// `first`'s: then no thread has worked.
    pub fn start<E: Send + 'static>(
        threads: usize,
        first: impl Fn() -> Result<(), E> + Send + Clone + 'static,
    ) -> Result<Self, E> {
        let jobs = Arc::new(Jobs::default());
        let mut started = 0;
        let (report, reports) = channel();
        for _ in 0..threads {
            let (jobs, first, report) = (jobs.clone(), first.clone(), report.clone());
            let body = move || {
                name_current_thread(c"helper");
                let prepared = first();
                let works = prepared.is_ok();
                // Who started us waits for this.
                let _ = report.send(prepared);
                drop(report);
                if works {
                    jobs.work();
                }
            };
            match thread::Builder::new().spawn(body) {
                Ok(_) => started += 1,
                Err(error) => {
                    tracing::warn!(%error, started, "no more threads for requests that wait");
                    break;
                }
            }
        }
        drop(report);
        let helpers = Self {
            jobs,
            threads: started,
        };
        reports.into_iter().collect::<Result<(), E>>()?;
        Ok(helpers)
    }

    /// Has one of the threads do `job`. Without any thread it is done here and now.
    pub fn submit(&self, job: Job) {
        if self.threads == 0 {
            return job();
        }
        self.jobs.lock().jobs.push_back(job);
        self.jobs.more.notify_one();
    }
}

impl Drop for Helpers {
    /// What was submitted is still done.
    fn drop(&mut self) {
        self.jobs.lock().ended = true;
        self.jobs.more.notify_all();
    }
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let none = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.ended;
        let mut waiting = self
            .more
            .wait_while(self.lock(), none)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.jobs.pop_front()
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jobs")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn started(threads: usize) -> Helpers {
        Helpers::start(threads, || Ok::<_, Infallible>(())).unwrap()
    }

    #[test]
    fn a_job_that_waits_does_not_hold_up_the_next() {
        let helpers = started(2);
        let (go, wait) = channel::<()>();
        let (done, results) = channel();
        let first = done.clone();
        helpers.submit(Box::new(move || {
            wait.recv().unwrap();
            first.send("slow").unwrap();
        }));
        helpers.submit(Box::new(move || done.send("quick").unwrap()));
        assert_eq!(results.recv().unwrap(), "quick");
        go.send(()).unwrap();
        assert_eq!(results.recv().unwrap(), "slow");
    }

    #[test]
    fn a_thread_that_is_not_prepared_does_not_work() {
        let error = Helpers::start(2, || Err("no filter")).unwrap_err();
        assert_eq!(error, "no filter");
    }

    #[test]
    fn what_was_submitted_is_done_with_one_thread_none_and_after_the_end() {
        for threads in [0, 1] {
            let helpers = started(threads);
            let (done, results) = channel();
            for n in 0..10 {
                let done = done.clone();
                helpers.submit(Box::new(move || done.send(n).unwrap()));
            }
            drop((helpers, done));
            assert_eq!(
                results.iter().collect::<Vec<_>>(),
                (0..10).collect::<Vec<_>>()
            );
        }
    }
}
