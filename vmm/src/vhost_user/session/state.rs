//! A daemon's own state, handed out and taken back through a pipe (vhost-user protocol, "Migrating back-end
//! state"). Its queues must be stopped.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures,
};

use super::{PROTOCOL_BIT, Session};
use crate::memory::GuestMemory;
use crate::virtio::SaveError;

/// Bytes of a daemon's state at most.
const MOST: usize = 256 << 20;

impl Session {
    pub(in super::super) fn has_state(&self) -> bool {
        self.protocol
            .contains(VhostUserProtocolFeatures::DEVICE_STATE)
    }

    /// What the daemon says; nothing where it keeps no state that it could hand out.
    pub(in super::super) fn save_state(&mut self) -> Result<Vec<u8>, SaveError> {
        let (ours, theirs) = pipe()?;
        let source = self.transfer(VhostTransferStateDirection::SAVE, ours, theirs)?;
        let mut state = Vec::new();
        let most = u64::try_from(MOST + 1).unwrap_or(u64::MAX);
        source.take(most).read_to_end(&mut state).map_err(failed)?;
        if state.len() > MOST {
            return Err(SaveError::Long(MOST));
        }
        self.front_end.check_device_state().map_err(failed)?;
        Ok(state)
    }

    /// Gives it back to a daemon that serves nobody yet.
    pub(in super::super) fn load_state(
        &mut self,
        features: u64,
        memory: &GuestMemory,
        state: &[u8],
    ) -> Result<(), SaveError> {
        self.front_end
            .set_features((features & self.offered) | PROTOCOL_BIT)
            .map_err(failed)?;
        self.share_memory(memory).map_err(failed)?;
        let (theirs, ours) = pipe()?;
        let mut sink = self.transfer(VhostTransferStateDirection::LOAD, ours, theirs)?;
        sink.write_all(state).map_err(failed)?;
        // Its end is the state's end.
        drop(sink);
        self.front_end.check_device_state().map_err(failed)
    }

    /// Hands the daemon its end; our end, or another one that the daemon wants us to use.
    fn transfer(
        &mut self,
        direction: VhostTransferStateDirection,
        ours: OwnedFd,
        theirs: OwnedFd,
    ) -> Result<File, SaveError> {
        let phase = VhostTransferStatePhase::STOPPED;
        let instead = self
            .front_end
            .set_device_state_fd(direction, phase, theirs)
            .map_err(failed)?;
        Ok(instead.unwrap_or_else(|| File::from(ours)))
    }
}

/// Reading end, writing end.
fn pipe() -> Result<(OwnedFd, OwnedFd), SaveError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> SaveError {
    SaveError::Transfer(error.to_string())
}
