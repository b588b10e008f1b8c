//! What a snapshot wants of the daemon.

use super::super::desk::Transfer;
use super::super::session::Begin;
use super::{Daemon, Queues, Worker};
use crate::virtio::{Kind, QueueSetup, SaveError, Saved};

impl Worker {
    pub(super) fn transfer(&mut self, transfer: Transfer) {
        match transfer {
            Transfer::Save(answer) => drop(answer.send(self.save())),
            Transfer::Load {
                features,
                state,
                done,
            } => {
                let loaded = match &mut self.daemon {
                    Daemon::Here(session) if session.has_state() => {
                        session.load_state(features, &self.memory, &state)
                    }
                    Daemon::Here(_) => Err(SaveError::NotOffered),
                    Daemon::Lost { .. } => Err(SaveError::Gone),
                };
                let _ = done.send(loaded);
            }
            Transfer::FollowLog(done) => drop(done.send(self.follow_log())),
        }
    }

    /// A daemon that is not there, or serves no queue, learns of the log when it starts serving.
    fn follow_log(&mut self) -> Result<(), SaveError> {
        let Daemon::Here(session) = &mut self.daemon else {
            return Ok(());
        };
        if self.memory.log().is_some() && !session.can_log() {
            return Err(SaveError::NoLog);
        }
        if let (Queues::Served, Some(setup)) = (&self.queues, &self.setup)
            && let Err(error) = session.follow_log(setup, &self.memory)
        {
            self.lose(&error);
        }
        Ok(())
    }

    /// A disk's or an interface's daemon has no state of its own once its queues are stopped; a file
    /// system's knows what the guest has open.
    fn save(&mut self) -> Result<Saved, SaveError> {
        let Some(setup) = &self.setup else {
            return Ok(Saved::default());
        };
        let state = match &mut self.daemon {
            Daemon::Here(session) if session.has_state() => Some(session.save_state()?),
            Daemon::Here(_) if self.config.kind == Kind::Fs => return Err(SaveError::NotOffered),
            Daemon::Lost { .. } if self.config.kind == Kind::Fs => return Err(SaveError::Gone),
            _ => None,
        };
        let used = |used_ring| self.memory.used_index(used_ring).unwrap_or(0);
        let position = |queue: &QueueSetup| match &self.queues {
            Queues::Waiting(Begin::At(positions)) => {
                *positions.get(&queue.index).unwrap_or(&queue.position)
            }
            _ => used(queue.used),
        };
        let positions = setup.queues.iter().map(|it| (it.index, position(it)));
        Ok(Saved {
            positions: positions.collect(),
            state,
        })
    }
}
