//! Where a daemon notes which requests it has begun, so that the next one can do them again
//! (vhost-user, "Inflight I/O tracking").

use std::fs::File;
use std::os::fd::AsRawFd;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserInflight, VhostUserProtocolFeatures};

use super::super::FrontEndError;
use super::super::error::failed;
use super::Session;
use crate::virtio::Setup;

/// Memory that the daemon made and that outlives it. It is the daemons' alone: we only keep it.
pub(in super::super) struct InFlight {
    area: VhostUserInflight,
    file: File,
}

impl Session {
    /// Hands the notes of the daemon before to this one; if there are none, has it make some.
    pub(super) fn share_notes(
        &mut self,
        setup: &Setup,
        notes: &mut Option<InFlight>,
    ) -> Result<(), FrontEndError> {
        if !self
            .protocol
            .contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
        {
            return Ok(());
        }
        let kept = match notes.take() {
            Some(kept) => kept,
            None => self.new_notes(setup)?,
        };
        let kept = notes.insert(kept);
        self.front_end
            .set_inflight_fd(&kept.area, kept.file.as_raw_fd())
            .map_err(failed("take notes of requests in flight"))
    }

    fn new_notes(&mut self, setup: &Setup) -> Result<InFlight, FrontEndError> {
        let queues = setup.queues.iter().map(|queue| queue.index + 1).max();
        let wanted = VhostUserInflight {
            num_queues: u16::try_from(queues.unwrap_or(1)).unwrap_or(u16::MAX),
            queue_size: setup
                .queues
                .iter()
                .map(|queue| queue.size)
                .max()
                .unwrap_or(1),
            ..VhostUserInflight::default()
        };
        let (area, file) = self
            .front_end
            .get_inflight_fd(&wanted)
            .map_err(failed("make room for notes of requests in flight"))?;
        let area = VhostUserInflight {
            num_queues: wanted.num_queues,
            queue_size: wanted.queue_size,
            ..area
        };
        Ok(InFlight { area, file })
    }
}
