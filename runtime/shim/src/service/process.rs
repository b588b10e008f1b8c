//! A process of a container: what containerd knows of it, and its standard streams.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::protos::events::task::TaskExit;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::ttrpc::{Code, Error};
use ringside_pod::Pod;
use ringside_pod::stream::{self, InputGuard, Output};
use ringside_protocol::agent::{Streams, WindowSize};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::answer::{failure, status};
use crate::shim::now;

/// How long output may take to be read after the process ended, before it is given up.
const OUTPUT: Duration = Duration::from_secs(10);

/// Where containerd wants a process's standard streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Stdio {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// How far a process is.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Created,
    Running,
    Stopped(Exited),
}

/// A process's standard input.
enum Input {
    Unopened,
    /// It ends when this is dropped and its writer is gone.
    Open(#[expect(dead_code, reason = "it is held open")] InputGuard),
    Closed,
}

/// A process's end.
#[derive(Debug, Clone)]
pub(super) struct Exited {
    pub(super) code: u32,
    pub(super) at: Timestamp,
}

/// A process.
pub(super) struct Process {
    pub(super) container: String,
    pub(super) exec: String,
    pub(super) pid: u32,
    pub(super) stdio: Stdio,
    /// Of a further process: the `process` object it is started with.
    pub(super) spec: Vec<u8>,
    /// One permit: who starts it holds it, so that its end is told after its start.
    pub(super) starting: Semaphore,
    stage: watch::Sender<Stage>,
    /// Whether its end was heard of, which a guest may tell as often as it likes.
    is_ending: AtomicBool,
    /// Whether somebody waits for its end, which a guest may never tell.
    pub(super) is_awaited: AtomicBool,
    /// Whether its end was assumed.
    pub(super) is_given_up: AtomicBool,
    window: Mutex<Option<WindowSize>>,
    input: Mutex<Input>,
    /// What copies it, or waits to.
    input_copy: Mutex<Option<AbortHandle>>,
    outputs: Mutex<Vec<JoinHandle<()>>>,
}

impl Process {
    pub(super) fn new(container: &str, exec: &str, pid: u32, stdio: Stdio, spec: Vec<u8>) -> Self {
        Self {
            container: container.to_owned(),
            exec: exec.to_owned(),
            pid,
            stdio,
            spec,
            starting: Semaphore::new(1),
            stage: watch::Sender::new(Stage::Created),
            is_ending: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            window: Mutex::new(None),
            input: Mutex::new(Input::Unopened),
            input_copy: Mutex::new(None),
            outputs: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Returns when nobody is starting it: its stage is what it is in the guest.
    pub(super) async fn is_not_being_started(&self) {
        // The permit is never taken away.
        drop(self.starting.acquire().await);
    }

    pub(super) fn has_started(&self) {
        self.stage.send_replace(Stage::Running);
    }

    /// Whether this is the first time that its end is told.
    pub(super) fn first_end(&self) -> bool {
        !self.is_ending.swap(true, Ordering::Relaxed)
    }

    /// Notes its end, and returns what to tell containerd; `None` when it is known already.
    pub(super) async fn end(&self, code: u32) -> Option<TaskExit> {
        // Its start is told first. The permit is never taken away.
        let _started = self.starting.acquire().await;
        let at = now();
        let exited = Exited {
            code,
            at: at.clone(),
        };
        let is_new = self.stage.send_if_modified(|stage| {
            let runs = !matches!(stage, Stage::Stopped(_));
            if runs {
                *stage = Stage::Stopped(exited);
            }
            runs
        });
        // Nobody reads any more.
        self.close_input();
        is_new.then(|| TaskExit {
            container_id: self.container.clone(),
            id: self.name().to_owned(),
            pid: self.pid,
            exit_status: code,
            exited_at: MessageField::some(at),
            ..TaskExit::default()
        })
    }

    /// What events call it: the first process has its container's name.
    pub(super) fn name(&self) -> &str {
        if self.exec.is_empty() {
            &self.container
        } else {
            &self.exec
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Exited {
        let mut stage = self.stage.subscribe();
        loop {
            if let Stage::Stopped(exited) = &*stage.borrow_and_update() {
                return exited.clone();
            }
            // The sender is this process's own and lives as long.
            let _ = stage.changed().await;
        }
    }

    /// Its end, if it has ended.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` while it has not.
    pub(super) fn exited(&self) -> Result<Exited, Error> {
        match self.stage() {
            Stage::Stopped(exited) => Ok(exited),
            Stage::Created | Stage::Running => Err(status(
                Code::FAILED_PRECONDITION,
                format!("process {} has not ended", self.name()),
            )),
        }
    }

    pub(super) fn window(&self) -> Option<WindowSize> {
        locked(&self.window).clone()
    }

    pub(super) fn set_window(&self, window: WindowSize) {
        locked(&self.window).replace(window);
    }

    /// No more input than is in the FIFO.
    pub(super) fn close_input(&self) {
        *locked(&self.input) = Input::Closed;
    }

    /// Connects its streams to the guest; returns what the agent knows them by.
    ///
    /// # Errors
    /// When a FIFO cannot be opened or the guest not reached.
    pub(super) async fn connect(self: &Arc<Self>, pod: &Pod) -> Result<Streams, Error> {
        let mut streams = Streams::new();
        if !self.stdio.stdin.is_empty() {
            let (name, to) = pod.open_stream().await.map_err(failure)?;
            streams.stdin = name;
            self.pass_input_on(to);
        }
        streams.stdout = self.connect_output(pod, &self.stdio.stdout).await?;
        if !self.stdio.terminal {
            streams.stderr = self.connect_output(pod, &self.stdio.stderr).await?;
        }
        Ok(streams)
    }

    /// Copies input to the guest from the process's start on. Of a start that failed nothing is left: two readers would
    /// each get some of it.
    fn pass_input_on(self: &Arc<Self>, mut to: UnixStream) {
        let (process, mut stage) = (Arc::downgrade(self), self.stage.subscribe());
        let copy = tokio::spawn(async move {
            let process = match is_past_creation(&mut stage).await {
                true => process.upgrade(),
                false => None,
            };
            let Some(process) = process else {
                return;
            };
            let copied = match process.open_input() {
                Ok(from) => stream::copy_input(from, &mut to).await,
                Err(error) => Err(std::io::Error::other(error)),
            };
            if let Err(error) = copied {
                tracing::warn!(%error, process = process.name(), "standard input is lost");
            }
        });
        if let Some(before) = locked(&self.input_copy).replace(copy.abort_handle()) {
            before.abort();
        }
    }

    /// Opens the input FIFO. It ends for us when `close_input` was called and its writer is gone.
    fn open_input(&self) -> std::io::Result<pipe::Receiver> {
        let (from, guard) = stream::open_input(Path::new(&self.stdio.stdin))?;
        let mut input = locked(&self.input);
        if matches!(*input, Input::Unopened) {
            *input = Input::Open(guard);
        }
        Ok(from)
    }

    async fn connect_output(&self, pod: &Pod, to: &str) -> Result<String, Error> {
        let Some(output) = output(to)? else {
            return Ok(String::new());
        };
        let (name, mut from) = pod.open_stream().await.map_err(failure)?;
        let copy = tokio::spawn(async move {
            if let Err(error) = output.copy(&mut from).await {
                tracing::warn!(%error, ?output, "output is lost");
                // The process must not stand still for it.
                stream::discard(&mut from).await;
            }
        });
        locked(&self.outputs).push(copy);
        Ok(name)
    }

    /// Lets go of the streams of a process that did not start, or that nobody is to hear of.
    pub(super) fn drop_streams(&self) {
        let copies = std::mem::take(&mut *locked(&self.outputs));
        copies.iter().for_each(JoinHandle::abort);
        if let Some(copy) = locked(&self.input_copy).take() {
            copy.abort();
        }
    }

    /// Waits until everything it wrote has been read, or nobody seems to.
    pub(super) async fn wait_for_output(&self) {
        let copies = std::mem::take(&mut *locked(&self.outputs));
        // Who did not end writes on, and nobody reads it.
        let patience = match self.is_given_up.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => OUTPUT,
        };
        let deadline = Instant::now() + patience;
        for mut copy in copies {
            if tokio::time::timeout_at(deadline, &mut copy).await.is_err() {
                tracing::warn!(process = self.name(), "nobody reads the rest of the output");
                copy.abort();
            }
        }
    }
}

/// Waits for a process's start; `false` where it is forgotten before, as one is that could not be started. Only then is
/// its input opened, which lets the writer begin: `ctr run` does not say that its input has ended when it ends before
/// `create` is answered.
async fn is_past_creation(stage: &mut watch::Receiver<Stage>) -> bool {
    let begun = stage.wait_for(|stage| !matches!(stage, Stage::Created));
    begun.await.is_ok()
}

/// Where output goes.
///
/// # Errors
/// `INVALID_ARGUMENT` for what cannot be served.
pub(super) fn output(to: &str) -> Result<Option<Output>, Error> {
    Output::parse(to).map_err(|text| {
        let message = format!("output to {text:?}: only FIFOs and file:// can be served");
        status(Code::INVALID_ARGUMENT, message)
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_is_started_a_second_time_has_all_its_input() {
        let scratch = lab::scratch::Scratch::new("shim-input").unwrap();
        let path = scratch.join("stdin");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let stdio = Stdio {
            stdin: path.to_str().unwrap().to_owned(),
            ..Stdio::default()
        };
        let process = Arc::new(Process::new("c", "e", 1, stdio, Vec::new()));
        let (failed, mut nobody) = UnixStream::pair().unwrap();
        process.pass_input_on(failed);
        let (to, mut guest) = UnixStream::pair().unwrap();
        process.pass_input_on(to);
        process.has_started();
        let mut byte = [0];
        let from_first = nobody.read(&mut byte).await;
        assert_eq!(from_first.unwrap(), 0, "the first start's is still there");
        let mut writer = loop {
            match pipe::OpenOptions::new().open_sender(&path) {
                Ok(writer) => break writer,
                // Nobody has opened it yet.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        writer.write_all(b"all of it").await.unwrap();
        drop(writer);
        process.close_input();
        let mut all = Vec::new();
        guest.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"all of it");
    }

    #[tokio::test]
    async fn nobody_waits_for_the_start_of_a_process_that_is_forgotten() {
        let process = || Process::new("c", "e", 1, Stdio::default(), Vec::new());
        let (started, forgotten) = (process(), process());
        let (mut of_started, mut of_forgotten) =
            (started.stage.subscribe(), forgotten.stage.subscribe());
        started.has_started();
        assert!(is_past_creation(&mut of_started).await);
        drop(forgotten);
        assert!(!is_past_creation(&mut of_forgotten).await);
    }
}
