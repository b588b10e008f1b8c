//! One connection to a daemon.

mod dirty_log;
mod in_flight;
mod requests;
mod shared_memory;
mod state;
mod time_limit;

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use vhost::vhost_user::message::{
    VHOST_USER_MAX_VRINGS, VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::error::failed;
use super::{FrontEndConfig, FrontEndError};
use crate::memory::GuestMemory;
use crate::virtio::{Positions, QueueSetup, Setup};
pub(super) use in_flight::InFlight;
use requests::Requests;
use time_limit::TimeLimit;

/// What we can make use of.
const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::DEVICE_STATE)
    .union(VhostUserProtocolFeatures::LOG_SHMFD);
const PROTOCOL_BIT: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// How long a new daemon has to say what it is.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A daemon that has told what it offers.
pub(super) struct Session {
    front_end: Frontend,
    /// The same connection.
    stream: UnixStream,
    offered: u64,
    protocol: VhostUserProtocolFeatures,
    queues: u64,
    requests: Option<Requests>,
    /// The daemon has the guest's memory, region by region.
    has_memory: bool,
    /// Queues that the daemon may be serving.
    running: Vec<usize>,
    limit: Option<TimeLimit>,
}

/// Where a daemon begins in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where it was stopped; a queue that was not, where its set-up says.
    At(Positions),
    /// Behind what a daemon that was lost had completed.
    BehindUsed,
}

impl Session {
    pub(super) fn connect(socket: &Path) -> Result<Self, FrontEndError> {
        let stream = UnixStream::connect(socket).map_err(FrontEndError::Connect)?;
        let limit = TimeLimit::new(&stream, HANDSHAKE)?;
        let same = stream.try_clone()?;
        let mut front_end = Frontend::from_stream(stream, VHOST_USER_MAX_VRINGS);
        front_end
            .set_owner()
            .map_err(failed("take us as its owner"))?;
        let offered = front_end
            .get_features()
            .map_err(failed("tell its features"))?;
        if offered & PROTOCOL_BIT == 0 {
            return Err(FrontEndError::Missing("protocol features"));
        }
        let protocol = PROTOCOL
            & front_end
                .get_protocol_features()
                .map_err(failed("tell its protocol features"))?;
        front_end
            .set_protocol_features(protocol)
            .map_err(failed("take protocol features"))?;
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        let mut session = Self {
            front_end,
            stream: same,
            offered,
            protocol,
            queues: VHOST_USER_MAX_VRINGS,
            requests: None,
            has_memory: false,
            running: Vec::new(),
            limit: Some(limit),
        };
        session.finish_handshake()?;
        Ok(session)
    }

    fn finish_handshake(&mut self) -> Result<(), FrontEndError> {
        if self.protocol.contains(VhostUserProtocolFeatures::MQ) {
            self.queues = self
                .front_end
                .get_queue_num()
                .map_err(failed("tell its number of queues"))?;
        }
        if self
            .protocol
            .contains(VhostUserProtocolFeatures::BACKEND_REQ)
        {
            let acknowledged = self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK);
            let requests = Requests::new(acknowledged)?;
            self.front_end
                .set_backend_request_fd(&requests.theirs())
                .map_err(failed("take a channel for its requests"))?;
            self.requests = Some(requests);
        }
        Ok(())
    }

    /// From now on the daemon may take its time: a queue is stopped when its last request is done.
    pub(super) fn trust(&mut self) {
        self.limit = None;
    }

    pub(super) fn features(&self) -> u64 {
        self.offered
    }

    /// The connection: it ends when the daemon does.
    pub(super) fn descriptor(&self) -> RawFd {
        self.front_end.as_raw_fd()
    }

    /// Readable when the daemon wants something.
    pub(super) fn request_descriptor(&self) -> Option<RawFd> {
        self.requests.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Serves what the daemon wants; whether its configuration changed.
    pub(super) fn serve_request(&mut self) -> Result<bool, FrontEndError> {
        self.requests.as_mut().map_or(Ok(false), Requests::serve)
    }

    pub(super) fn check_queues(
        &self,
        config: &FrontEndConfig,
        needed: usize,
    ) -> Result<(), FrontEndError> {
        if needed as u64 > self.queues {
            return Err(FrontEndError::Queues {
                wanted: config.queues,
                needed,
                most: self.queues,
            });
        }
        Ok(())
    }

    /// What the driver sees of a device with these options.
    pub(super) fn config(&mut self, options: &FrontEndConfig) -> Result<Vec<u8>, FrontEndError> {
        let told = self.told_config(options.config_len())?;
        options.config(told)
    }

    /// The daemon's configuration space, if it tells it.
    fn told_config(&mut self, len: usize) -> Result<Option<Vec<u8>>, FrontEndError> {
        if !self.protocol.contains(VhostUserProtocolFeatures::CONFIG) || len == 0 {
            return Ok(None);
        }
        let size =
            u32::try_from(len).map_err(|_| FrontEndError::Missing("so much configuration"))?;
        let flags = VhostUserConfigFlags::WRITABLE;
        self.front_end
            .get_config(0, size, flags, &vec![0; len])
            .map(|(_, bytes)| Some(bytes))
            .map_err(failed("tell its configuration"))
    }

    pub(super) fn write_config(&mut self, offset: usize, data: &[u8]) -> Result<(), FrontEndError> {
        let Ok(offset) = u32::try_from(offset) else {
            return Ok(());
        };
        if !self.protocol.contains(VhostUserProtocolFeatures::CONFIG) {
            return Ok(());
        }
        self.front_end
            .set_config(offset, VhostUserConfigFlags::WRITABLE, data)
            .map_err(failed("take a change of its configuration"))
    }

    /// Hands the guest's memory and its queues to the daemon, and what it notes its requests in: of the
    /// daemon before it, or of its own making.
    pub(super) fn start(
        &mut self,
        setup: &Setup,
        memory: &GuestMemory,
        begin: &Begin,
        notes: &mut Option<InFlight>,
    ) -> Result<(), FrontEndError> {
        let lacking = setup.features & !self.offered & !our_own(setup.features);
        if lacking != 0 {
            return Err(FrontEndError::Features(lacking));
        }
        let log = self.log_of(memory);
        self.set_features(setup, log.is_some())?;
        self.share_memory(memory)?;
        if let Some(log) = &log {
            self.share_log(log)?;
        }
        self.share_notes(setup, notes)?;
        for queue in &setup.queues {
            self.start_queue(queue, memory, begin)?;
        }
        Ok(())
    }

    fn start_queue(
        &mut self,
        queue: &QueueSetup,
        memory: &GuestMemory,
        begin: &Begin,
    ) -> Result<(), FrontEndError> {
        let logged = self.log_of(memory).is_some();
        let ring = ring(queue, memory, logged)?;
        let base = match begin {
            Begin::At(positions) => *positions.get(&queue.index).unwrap_or(&queue.position),
            Begin::BehindUsed => memory
                .used_index(queue.used)
                .ok_or(FrontEndError::QueueAddress(queue.index))?,
        };
        let (index, daemon) = (queue.index, &mut self.front_end);
        self.running.push(index);
        daemon
            .set_vring_num(index, queue.size)
            .and_then(|()| daemon.set_vring_addr(index, &ring))
            .and_then(|()| daemon.set_vring_base(index, base))
            .and_then(|()| daemon.set_vring_call(index, &queue.call))
            .and_then(|()| daemon.set_vring_kick(index, &queue.kick))
            .and_then(|()| daemon.set_vring_enable(index, true))
            .map_err(failed("take a queue"))
    }

    fn set_features(&mut self, setup: &Setup, logged: bool) -> Result<(), FrontEndError> {
        let log = if logged { dirty_log::LOG_ALL } else { 0 };
        self.front_end
            .set_features((setup.features & self.offered) | PROTOCOL_BIT | log)
            .map_err(failed("take the driver's features"))
    }

    pub(super) fn set_call(&mut self, queue: usize, call: &EventFd) -> Result<(), FrontEndError> {
        self.front_end
            .set_vring_call(queue, call)
            .map_err(failed("take an interrupt"))
    }

    /// Returns when the daemon has completed what it had begun: where each queue goes on.
    pub(super) fn stop(&mut self) -> Result<Positions, FrontEndError> {
        let stop = |queue| {
            let stopped = self.front_end.get_vring_base(queue);
            let position = stopped.map_err(failed("stop a queue"))?;
            // A split ring's position has 16 bits.
            Ok((queue, u16::try_from(position & 0xffff).unwrap_or(0)))
        };
        std::mem::take(&mut self.running)
            .into_iter()
            .map(stop)
            .collect()
    }
}

/// Where a queue is; and in which page's name its used ring is logged.
fn ring(
    queue: &QueueSetup,
    memory: &GuestMemory,
    logged: bool,
) -> Result<VringConfigData, FrontEndError> {
    let address = |guest| {
        let found = memory.user_address(guest);
        found.ok_or(FrontEndError::QueueAddress(queue.index))
    };
    Ok(VringConfigData {
        queue_max_size: queue.size,
        queue_size: queue.size,
        flags: if logged { dirty_log::LOG_RING } else { 0 },
        desc_table_addr: address(queue.descriptors)?,
        used_ring_addr: address(queue.used)?,
        avail_ring_addr: address(queue.available)?,
        log_addr: logged.then_some(queue.used),
    })
}

/// Features that we offer by ourselves, whether the daemon does or not: a given network address.
fn our_own(features: u64) -> u64 {
    features & 1 << virtio_bindings::virtio_net::VIRTIO_NET_F_MAC
}
