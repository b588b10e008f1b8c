//! An agent, as honest as a test wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::TtrpcContext;
use containerd_shim::protos::ttrpc::{Code, Error, Result};
use ringside_pod::played;
use ringside_protocol::agent::event::What;
use ringside_protocol::agent::{
    ContainerRequest, Empty, Event, EventsRequest, EventsResponse, ExecRequest, Exit,
    ProcessRequest, ProcessResponse, SignalRequest,
};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::service::answer::status;

#[derive(Debug, Default)]
struct State {
    /// Whether it tells no end, and answers no deletion.
    is_silent: bool,
    /// Whether it refuses further processes.
    refuses: bool,
    /// Whether it starts them and says that it did not.
    denies: bool,
    slowness: Duration,
    /// Processes, and whether they run.
    processes: BTreeMap<String, bool>,
    events: Vec<Event>,
    asked: Vec<String>,
}

/// An agent that a test plays.
#[derive(Debug, Default)]
pub(super) struct Guest {
    state: Mutex<State>,
    happened: Notify,
}

impl Guest {
    pub(super) fn honest() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn silent() -> Arc<Self> {
        let guest = Self::default();
        guest.lock().is_silent = true;
        Arc::new(guest)
    }

    pub(super) fn refuses(&self) {
        self.lock().refuses = true;
    }

    pub(super) fn denies_what_it_does(&self) {
        self.lock().denies = true;
    }

    pub(super) fn is_slow(&self, slowness: Duration) {
        self.lock().slowness = slowness;
    }

    pub(super) fn runs(&self, container: &str, exec: &str) {
        let name = format!("{container} {exec}");
        self.lock().processes.insert(name, true);
    }

    pub(super) fn running(&self) -> Vec<String> {
        let state = self.lock();
        let running = state.processes.iter().filter(|(_, runs)| **runs);
        running.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn was_asked(&self, call: &str) -> bool {
        self.lock().asked.iter().any(|asked| asked == call)
    }

    fn asked(&self, call: &str, container: &str, exec: &str) -> String {
        let name = format!("{container} {exec}");
        self.lock().asked.push(format!("{call} {name}"));
        name
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(code: Code) -> Error {
    status(code, "played")
}

#[async_trait]
impl played::Service for Guest {
    async fn events(&self, _: &TtrpcContext, request: EventsRequest) -> Result<EventsResponse> {
        loop {
            let happened = self.happened.notified();
            let events = self.lock().events.clone();
            let later = events.into_iter().filter(|it| it.number > request.after);
            let later: Vec<_> = later.collect();
            if !later.is_empty() {
                let mut answer = EventsResponse::new();
                answer.events = later;
                return Ok(answer);
            }
            happened.await;
        }
    }

    async fn signal(&self, _: &TtrpcContext, request: SignalRequest) -> Result<Empty> {
        let name = self.asked("signal", &request.container, &request.exec);
        let mut state = self.lock();
        if state.is_silent {
            return Ok(Empty::new());
        }
        match state.processes.get_mut(&name) {
            Some(runs) if *runs => *runs = false,
            _ => return Err(refused(Code::NOT_FOUND)),
        }
        let mut exit = Exit::new();
        (exit.container, exit.exec, exit.code) = (request.container, request.exec, 137);
        let mut event = Event::new();
        event.number = state.events.len() as u64 + 1;
        event.what = Some(What::Exit(exit));
        state.events.push(event);
        self.happened.notify_waiters();
        Ok(Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> Result<ProcessResponse> {
        let name = self.asked("exec", &request.container, &request.exec);
        let slowness = self.lock().slowness;
        sleep(slowness).await;
        let mut state = self.lock();
        if state.refuses {
            return Err(refused(Code::FAILED_PRECONDITION));
        }
        state.processes.insert(name, true);
        match state.denies {
            true => Err(refused(Code::INTERNAL)),
            false => Ok(ProcessResponse::new()),
        }
    }

    async fn delete_process(&self, _: &TtrpcContext, request: ProcessRequest) -> Result<Empty> {
        let name = self.asked("delete_process", &request.container, &request.exec);
        if self.lock().is_silent {
            std::future::pending::<()>().await;
        }
        let mut state = self.lock();
        match state.processes.get(&name) {
            Some(true) => Err(refused(Code::FAILED_PRECONDITION)),
            Some(false) => {
                state.processes.remove(&name);
                Ok(Empty::new())
            }
            None => Err(refused(Code::NOT_FOUND)),
        }
    }

    async fn delete_container(&self, _: &TtrpcContext, request: ContainerRequest) -> Result<Empty> {
        self.asked("delete_container", &request.container, "");
        if self.lock().is_silent {
            std::future::pending::<()>().await;
        }
        let (slowness, denies) = {
            let state = self.lock();
            (state.slowness, state.denies)
        };
        sleep(slowness).await;
        match denies {
            true => Err(refused(Code::INTERNAL)),
            false => Ok(Empty::new()),
        }
    }
}
