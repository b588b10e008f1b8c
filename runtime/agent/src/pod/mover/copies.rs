//! The copies that run, and the processes that have ended and wait for theirs.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside_protocol::agent::Exit;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::CopyId;
use crate::pod::copy::{CHUNK, Copy, Kind, Wait};
use crate::pod::events::Events;

/// A process whose host takes none of its last output for this long is reported as ended all the same; what
/// is left is still sent when the host takes it.
const STALLED: Duration = Duration::from_secs(10);

/// What a terminal may hold of a process's last words: it cannot be asked.
const TERMINAL_HOLDS: u64 = 256 * 1024;

/// All copies, woken by name.
pub(super) struct Copies {
    epoll: Arc<OwnedFd>,
    events: Arc<Events>,
    running: HashMap<CopyId, Running>,
    ended: Vec<Ended>,
    /// To go on with, without waiting.
    turns: Vec<CopyId>,
    /// Lent to one after another; there while there are copies.
    buffer: Vec<u8>,
}

struct Running {
    copy: Copy,
    wait: Wait,
    /// When it last moved anything.
    moved: Instant,
}

/// A process that ended, and how far each of its outputs must come before that is told.
struct Ended {
    outputs: Vec<(CopyId, u64)>,
    exit: Option<Exit>,
}

impl Copies {
    pub(super) fn new(epoll: Arc<OwnedFd>, events: Arc<Events>) -> Self {
        Self {
            epoll,
            events,
            running: HashMap::new(),
            ended: Vec::new(),
            turns: Vec::new(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn start(&mut self, id: CopyId, copy: Copy) {
        let ends = [
            (copy.source.as_ref(), EventFlags::IN),
            (Some(&copy.sink), EventFlags::OUT),
        ];
        for (end, flags) in ends {
            let name = EventData::new_u64(id.0);
            if let Some(end) = end
                && let Err(error) = epoll::add(&*self.epoll, end, name, flags | EventFlags::ET)
            {
                eprintln!("ringside-agent: cannot wait for a stream: {error}");
            }
        }
        let (wait, moved) = (Wait::Turn, Instant::now());
        self.running.insert(id, Running { copy, wait, moved });
        self.advance(id);
    }

    pub(super) fn end_soon(&mut self, id: CopyId) {
        if let Some(running) = self.running.get_mut(&id) {
            running.copy.end_soon();
            self.advance(id);
        }
    }

    /// Closes both ends: that takes them out of the epoll instance too.
    pub(super) fn stop(&mut self, ids: &[CopyId]) {
        for id in ids {
            self.running.remove(id);
        }
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    pub(super) fn take_turns(&mut self) {
        for id in std::mem::take(&mut self.turns) {
            self.advance(id);
        }
    }

    pub(super) fn advance(&mut self, id: CopyId) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        self.buffer.resize(CHUNK, 0);
        let before = running.copy.total;
        running.wait = running.copy.advance(&mut self.buffer);
        if running.copy.total > before {
            running.moved = Instant::now();
        }
        match running.wait {
            Wait::Turn => self.turns.push(id),
            Wait::Source | Wait::Sink => {}
            // An input's end is the closing of its pipe. An output stays: its other direction is open, and
            // the host is to read all before the connection goes.
            Wait::Done if running.copy.kind() == Kind::Output => running.copy.rest(),
            Wait::Done => {
                self.running.remove(&id);
            }
        }
    }

    /// A process has ended: all it wrote is in its pipes by now.
    pub(super) fn ended(&mut self, outputs: &[CopyId], exit: Exit) {
        let now = Instant::now();
        let mut until = Vec::new();
        for &id in outputs {
            self.advance(id);
            if let Some(running) = self.running.get_mut(&id) {
                running.moved = now;
                let backlog = match running.copy.backlog() {
                    0 => TERMINAL_HOLDS,
                    bytes => bytes,
                };
                until.push((id, running.copy.total + backlog));
            }
        }
        self.ended.push(Ended {
            outputs: until,
            exit: Some(exit),
        });
    }

    /// Tells of every ended process whose output is out.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        for ended in &mut self.ended {
            ended.outputs.retain(|(id, until)| {
                self.running.get(id).is_some_and(|running| {
                    let sent = matches!(running.wait, Wait::Source | Wait::Done);
                    !sent && running.copy.total < *until && now < running.moved + STALLED
                })
            });
            if ended.outputs.is_empty()
                && let Some(exit) = ended.exit.take()
            {
                self.events.exited(exit);
            }
        }
        self.ended.retain(|ended| ended.exit.is_some());
    }

    /// When the first of the ended processes is told of though its host takes nothing.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let outputs = self.ended.iter().flat_map(|ended| &ended.outputs);
        let moved = outputs.filter_map(|(id, _)| Some(self.running.get(id)?.moved));
        moved.min().map(|moved| moved + STALLED)
    }

    pub(super) fn tidy(&mut self) {
        if self.running.is_empty() && self.buffer.capacity() > 0 {
            self.buffer = Vec::new();
            self.running.shrink_to_fit();
        }
    }
}
