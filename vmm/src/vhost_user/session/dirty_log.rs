//! The daemon marks what it writes in the memory's log (vhost-user, "Migration").

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::Error;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::super::FrontEndError;
use super::super::error::failed;
use super::{Session, ring};
use crate::memory::{DirtyLog, GuestMemory};
use crate::virtio::Setup;

/// `VHOST_F_LOG_ALL`: writes are to be marked.
pub(super) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
/// `VHOST_VRING_F_LOG`: writes to the used ring, too.
pub(super) const LOG_RING: u32 = 1;

/// Message of the front end's, its header, and flags in that (vhost-user, "Header", "Front-end message types").
const SET_LOG_BASE: u32 = 6;
const HEADER: usize = 12;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
/// An answer has nothing that we want, and is no longer than what was asked.
const LONGEST_ANSWER: usize = 64;
/// The daemon only maps the log.
const PATIENCE: Duration = Duration::from_secs(5);

impl Session {
    pub(in super::super) fn can_log(&self) -> bool {
        self.protocol.contains(VhostUserProtocolFeatures::LOG_SHMFD) && self.offered & LOG_ALL != 0
    }

    /// The memory's log, which a daemon that cannot mark makes worthless.
    pub(super) fn log_of(&self, memory: &GuestMemory) -> Option<Arc<DirtyLog>> {
        let log = memory.log()?;
        if self.can_log() {
            return Some(log);
        }
        log.give_up();
        None
    }

    /// The regions of memory must be with the daemon already: a later one would have no log.
    pub(super) fn share_log(&mut self, log: &DirtyLog) -> Result<(), FrontEndError> {
        let set = set_log_base(&self.stream, log);
        let set = set.map_err(|error| vhost::Error::VhostUserProtocol(Error::SocketError(error)));
        set.map_err(failed("take the log of dirty memory"))
    }

    /// Queues that are being served: from now on, writes are marked if there is a log.
    pub(in super::super) fn follow_log(
        &mut self,
        setup: &Setup,
        memory: &GuestMemory,
    ) -> Result<(), FrontEndError> {
        let log = self.log_of(memory);
        if let Some(log) = &log {
            self.share_log(log)?;
        }
        self.set_features(setup, log.is_some())?;
        for queue in &setup.queues {
            let ring = ring(queue, memory, log.is_some())?;
            self.front_end
                .set_vring_addr(queue.index, &ring)
                .map_err(failed("log what it writes to a queue"))?;
        }
        Ok(())
    }
}

/// The library's own insists on an answer as long as the message, and waits for ever for QEMU's, which is
/// shorter; front ends look at its header only (vhost-user: the answer's payload is not told).
fn set_log_base(stream: &UnixStream, log: &DirtyLog) -> io::Result<()> {
    let mut message = [SET_LOG_BASE, VERSION, 16].map(u32::to_le_bytes).concat();
    message.extend([log.bytes(), 0].map(u64::to_le_bytes).concat());
    let sent = stream.send_with_fd(&*message, log.file().as_raw_fd())?;
    if sent != message.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let answered = read_answer(stream);
    stream.set_read_timeout(None)?;
    answered
}

fn read_answer(mut stream: &UnixStream) -> io::Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let [request, flags, len] = [0, 4, 8].map(|at| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_le_bytes(bytes)
    });
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if request != SET_LOG_BASE || flags & REPLY == 0 || len > LONGEST_ANSWER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.read_exact(&mut [0; LONGEST_ANSWER][..len])
}
