//! The device's thread: keeps the daemon as the driver wants it, whatever becomes of the daemon.

mod loss;
mod transfer;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::desk::Desk;
use super::session::{Begin, InFlight, Session};
use super::{FrontEndConfig, FrontEndError};
use crate::memory::GuestMemory;
use crate::virtio::{Positions, Setup};

/// What woke the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Desk = 0,
    Daemon = 1,
    Request = 2,
}

pub(super) struct Worker {
    config: FrontEndConfig,
    memory: GuestMemory,
    desk: Arc<Desk>,
    epoll: Epoll,
    daemon: Daemon,
    /// What the driver wants, as far as it was carried out.
    setup: Option<Arc<Setup>>,
    /// Interrupts that the driver chose later than its set-up.
    calls: BTreeMap<usize, EventFd>,
    queues: Queues,
    /// What the daemon notes its requests in, for the next one.
    notes: Option<InFlight>,
    /// The daemon that came back is another device, and that was said.
    is_refused: bool,
}

/// What the driver's queues are doing.
enum Queues {
    /// The daemon serves them.
    Served,
    /// Nobody does. This is where they go on.
    Waiting(Begin),
}

impl Queues {
    /// As a driver has just set them up.
    fn fresh() -> Self {
        Self::Waiting(Begin::At(Positions::new()))
    }

    fn are_served(&self) -> bool {
        matches!(self, Self::Served)
    }
}

enum Daemon {
    Here(Session),
    Lost { retry: Duration, at: Instant },
}

impl Worker {
    pub(super) fn new(
        config: FrontEndConfig,
        memory: GuestMemory,
        desk: Arc<Desk>,
        session: Session,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        watch(&epoll, desk.wake.as_raw_fd(), EventSet::IN, Source::Desk)?;
        watch_session(&epoll, &session)?;
        Ok(Self {
            config,
            memory,
            desk,
            epoll,
            daemon: Daemon::Here(session),
            setup: None,
            calls: BTreeMap::new(),
            queues: Queues::fresh(),
            notes: None,
            is_refused: false,
        })
    }

    pub(super) fn run(mut self) {
        loop {
            let woken = self.wait();
            if self.desk.state().quit {
                return;
            }
            if let Err(error) = self.serve(&woken) {
                self.lose(&error);
            }
            // Also without a daemon: a driver that waits for its reset must not wait for the next one.
            if let Err(error) = self.reconcile() {
                self.lose(&error);
            }
        }
    }

    fn wait(&self) -> Vec<Source> {
        let timeout = match &self.daemon {
            Daemon::Here(_) => -1,
            Daemon::Lost { at, .. } => {
                let left = at.saturating_duration_since(Instant::now()).as_millis();
                // A fraction of a millisecond would be no wait at all.
                i32::try_from(left + 1).unwrap_or(i32::MAX)
            }
        };
        let mut events = [EpollEvent::default(); 3];
        // Interrupted is woken for nothing.
        let count = self.epoll.wait(timeout, &mut events).unwrap_or(0);
        let source = |event: &EpollEvent| match event.data() {
            0 => Source::Desk,
            1 => Source::Daemon,
            _ => Source::Request,
        };
        events[..count].iter().map(source).collect()
    }

    fn serve(&mut self, woken: &[Source]) -> Result<(), FrontEndError> {
        if woken.contains(&Source::Desk) {
            let _ = self.desk.wake.read();
        }
        let Daemon::Here(session) = &mut self.daemon else {
            return self.try_again();
        };
        if woken.contains(&Source::Daemon) {
            return Err(FrontEndError::Connect(
                io::ErrorKind::ConnectionReset.into(),
            ));
        }
        if woken.contains(&Source::Request) && session.serve_request()? {
            self.read_config()?;
        }
        Ok(())
    }

    /// Carries out what is on the desk.
    fn reconcile(&mut self) -> Result<(), FrontEndError> {
        let (asked, wanted, paused, writes, calls) = {
            let mut state = self.desk.state();
            let writes = std::mem::take(&mut state.config_writes);
            let calls = std::mem::take(&mut state.calls);
            let changed = state.asked != state.done;
            (
                changed.then_some(state.asked),
                state.wanted.clone(),
                state.paused,
                writes,
                calls,
            )
        };
        let result = asked.map_or(Ok(()), |_| self.carry_out(wanted, paused));
        if let Some(asked) = asked {
            // Even if the daemon was lost: nothing of the old setup is being served any more.
            self.desk.state().done = asked;
        }
        // Also without a daemon: the next one gets them with the queues.
        let changed: Vec<usize> = calls.keys().copied().collect();
        self.calls.extend(calls);
        result?;
        let transfer = self.desk.state().transfer.take();
        if let Some(transfer) = transfer {
            self.transfer(transfer);
        }
        let Daemon::Here(session) = &mut self.daemon else {
            return Ok(());
        };
        for (offset, data) in &writes {
            unless_refused(session.write_config(*offset, data))?;
        }
        for (queue, call) in self.calls.iter().filter(|it| changed.contains(it.0)) {
            session.set_call(*queue, call)?;
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.read_config()
    }

    fn carry_out(&mut self, wanted: Option<Arc<Setup>>, paused: bool) -> Result<(), FrontEndError> {
        let is_same = match (&self.setup, &wanted) {
            (Some(carried_out), Some(wanted)) => Arc::ptr_eq(carried_out, wanted),
            (None, None) => true,
            _ => false,
        };
        if self.queues.are_served() && (paused || !is_same) {
            // Where they are if the daemon is lost in this moment.
            self.queues = Queues::Waiting(Begin::BehindUsed);
            if let Daemon::Here(session) = &mut self.daemon {
                self.queues = Queues::Waiting(Begin::At(session.stop()?));
            }
        }
        if !is_same {
            self.setup = wanted;
            self.calls.clear();
            self.queues = Queues::fresh();
            self.notes = None;
        }
        if paused { Ok(()) } else { self.begin() }
    }

    /// Has the daemon serve queues that wait.
    fn begin(&mut self) -> Result<(), FrontEndError> {
        let (Daemon::Here(session), Some(setup)) = (&mut self.daemon, &self.setup) else {
            return Ok(());
        };
        let Queues::Waiting(begin) = &self.queues else {
            return Ok(());
        };
        let is_fresh = matches!(begin, Begin::At(positions) if positions.is_empty());
        let started = session.start(setup, &self.memory, begin, &mut self.notes);
        let started = started.and_then(|()| set_calls(session, &self.calls));
        if started.is_ok() && !is_fresh {
            wake_both(setup, &self.calls);
        }
        self.queues = after(&started);
        self.or_needs_reset(started)
    }

    /// The guest's queues may be nonsense: the guest has to know, and the daemon is still good.
    fn or_needs_reset(&mut self, started: Result<(), FrontEndError>) -> Result<(), FrontEndError> {
        let Err(error) = started else {
            return Ok(());
        };
        if !error.is_refusal() {
            return Err(error);
        }
        tracing::warn!(device = self.name(), %error, "the driver's set-up is refused");
        if let Daemon::Here(session) = &mut self.daemon {
            session.stop()?;
        }
        self.setup = None;
        self.queues = Queues::fresh();
        let signals = self.desk.state().signals.clone();
        signals.needs_reset();
        Ok(())
    }

    fn read_config(&mut self) -> Result<(), FrontEndError> {
        let Daemon::Here(session) = &mut self.daemon else {
            return Ok(());
        };
        let config = session.config(&self.config)?;
        self.change_config(config);
        Ok(())
    }

    fn change_config(&mut self, config: Vec<u8>) {
        let signals = {
            let mut state = self.desk.state();
            if state.config == config {
                return;
            }
            state.config = config;
            state.signals.clone()
        };
        signals.config_changed();
    }

    fn name(&self) -> String {
        self.config.socket.display().to_string()
    }
}

/// A daemon that was handed some of the queues, and was lost then, may have completed requests in these.
fn after(started: &Result<(), FrontEndError>) -> Queues {
    match started {
        Ok(()) => Queues::Served,
        Err(_) => Queues::Waiting(Begin::BehindUsed),
    }
}

/// What the lost daemon had taken from its kick, or had used without a call, is neither kicked nor called
/// again by anybody else.
fn wake_both(setup: &Setup, calls: &BTreeMap<usize, EventFd>) {
    for queue in &setup.queues {
        let _ = queue.kick.write(1);
        let _ = calls.get(&queue.index).unwrap_or(&queue.call).write(1);
    }
}

fn set_calls(session: &mut Session, calls: &BTreeMap<usize, EventFd>) -> Result<(), FrontEndError> {
    calls
        .iter()
        .try_for_each(|(queue, call)| session.set_call(*queue, call))
}

/// A write that the daemon refuses is the driver's fault and changes nothing.
fn unless_refused(result: Result<(), FrontEndError>) -> Result<(), FrontEndError> {
    result.or_else(|error| {
        if error.is_refusal() {
            Ok(())
        } else {
            Err(error)
        }
    })
}

fn watch_session(epoll: &Epoll, session: &Session) -> io::Result<()> {
    // Answers are read by who asked; only the end of the connection is an event.
    let gone = EventSet::READ_HANG_UP;
    watch(epoll, session.descriptor(), gone, Source::Daemon)?;
    if let Some(requests) = session.request_descriptor() {
        watch(epoll, requests, EventSet::IN, Source::Request)?;
    }
    Ok(())
}

fn watch(epoll: &Epoll, fd: RawFd, events: EventSet, source: Source) -> io::Result<()> {
    epoll.ctl(
        ControlOperation::Add,
        fd,
        EpollEvent::new(events, source as u64),
    )
}
