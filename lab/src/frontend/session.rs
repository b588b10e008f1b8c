//! The vhost-user session as the front end leads it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::connect::connect_stream;
use super::watchdog::Watchdog;
use super::{
    BackendChannel, DriverQueue, Error, GuestMemory, ProtocolFeatures, Result, RingAddresses,
    features,
};

/// The `vhost` crate checks queue indexes against this until GET_QUEUE_NUM says better.
const MAX_QUEUES: u64 = 64;
/// Long enough for a daemon that drains a slow disk under load.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What front end and daemon agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Virtio features that the daemon offers.
    pub offered: u64,
    /// Virtio features that both want.
    pub features: u64,
    /// Protocol features that the daemon offers.
    pub protocol_offered: ProtocolFeatures,
    /// Protocol features that both want.
    pub protocol_features: ProtocolFeatures,
    /// Queues that the daemon supports, where MQ was negotiated.
    pub queues: Option<u64>,
}

/// A connection to a daemon. Dropping it disconnects.
pub struct FrontEnd {
    vhost: Frontend,
    stream: UnixStream,
    watchdog: Watchdog,
    timeout: Duration,
    negotiated: Option<Negotiated>,
    memory: Option<GuestMemory>,
}

impl FrontEnd {
    /// Connects to the daemon's socket, trying until it is there.
    ///
    /// # Errors
    /// When nobody accepts within `timeout`.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        Self::from_stream(connect_stream(path, timeout)?)
    }

    /// Takes a connection that exists already, such as one half of a socket pair (`--fd`).
    ///
    /// # Errors
    /// When the stream cannot be duplicated.
    pub fn from_stream(stream: UnixStream) -> Result<Self> {
        let duplicate = || {
            stream
                .try_clone()
                .map_err(Error::os("cannot duplicate the socket"))
        };
        Ok(Self {
            vhost: Frontend::from_stream(duplicate()?, MAX_QUEUES),
            watchdog: Watchdog::guard(duplicate()?),
            stream,
            timeout: REQUEST_TIMEOUT,
            negotiated: None,
            memory: None,
        })
    }

    /// Owns the session and agrees on features: those wanted that the daemon offers.
    ///
    /// With REPLY_ACK agreed, every later request waits for the daemon's acknowledgement.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn handshake(
        &mut self,
        wanted_features: u64,
        wanted_protocol_features: ProtocolFeatures,
    ) -> Result<Negotiated> {
        self.request("SET_OWNER", |vhost| vhost.set_owner())?;
        let offered = self.request("GET_FEATURES", |vhost| vhost.get_features())?;
        let (protocol_offered, protocol_features) = if offered & features::PROTOCOL_FEATURES != 0 {
            self.agree_on_protocol(wanted_protocol_features)?
        } else {
            (ProtocolFeatures::empty(), ProtocolFeatures::empty())
        };
        let queues = if protocol_features.contains(ProtocolFeatures::MQ) {
            Some(self.request("GET_QUEUE_NUM", Frontend::get_queue_num)?)
        } else {
            None
        };
        let agreed = offered & (wanted_features | features::PROTOCOL_FEATURES);
        self.request("SET_FEATURES", |vhost| vhost.set_features(agreed))?;
        let negotiated = Negotiated {
            offered,
            features: agreed,
            protocol_offered,
            protocol_features,
            queues,
        };
        self.negotiated = Some(negotiated);
        Ok(negotiated)
    }

    fn agree_on_protocol(
        &mut self,
        wanted: ProtocolFeatures,
    ) -> Result<(ProtocolFeatures, ProtocolFeatures)> {
        let offered = self.request("GET_PROTOCOL_FEATURES", Frontend::get_protocol_features)?;
        let agreed = offered & wanted;
        self.request("SET_PROTOCOL_FEATURES", |vhost| {
            vhost.set_protocol_features(agreed)
        })?;
        if agreed.contains(ProtocolFeatures::REPLY_ACK) {
            self.vhost.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        Ok((offered, agreed))
    }

    /// Shares all of `memory` with the daemon.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn set_mem_table(&mut self, memory: &GuestMemory) -> Result<()> {
        self.set_mem_regions(memory, &memory.regions()?)
    }

    /// Shares chosen regions of `memory`, for instance too few or wrong ones.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn set_mem_regions(
        &mut self,
        memory: &GuestMemory,
        regions: &[VhostUserMemoryRegionInfo],
    ) -> Result<()> {
        self.memory = Some(memory.clone());
        self.request("SET_MEM_TABLE", |vhost| vhost.set_mem_table(regions))
            .map(drop)
    }

    /// Reads `size` bytes of the device's configuration space.
    ///
    /// # Errors
    /// When CONFIG was not negotiated, or the daemon refuses or does not answer.
    pub fn get_config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let zeros = vec![0; size as usize];
        let flags = VhostUserConfigFlags::empty();
        let reply = self.request("GET_CONFIG", |vhost| {
            vhost.get_config(offset, size, flags, &zeros)
        })?;
        Ok(reply.1)
    }

    /// Writes to the device's configuration space.
    ///
    /// # Errors
    /// When CONFIG was not negotiated, or the daemon refuses or does not answer.
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        let flags = VhostUserConfigFlags::WRITABLE;
        self.request("SET_CONFIG", |vhost| vhost.set_config(offset, flags, bytes))
    }

    /// Lays out a queue, hands it to the daemon and enables it.
    ///
    /// # Errors
    /// When memory was not shared yet, or the daemon refuses or does not answer.
    pub fn set_up_queue(&mut self, index: usize, size: u16) -> Result<DriverQueue> {
        let queue = self.lay_out_queue(index, size)?;
        self.attach_queue(&queue, 0)?;
        Ok(queue)
    }

    /// Lays out a queue without telling the daemon.
    ///
    /// # Errors
    /// When the handshake is not done or memory was not shared yet.
    pub fn lay_out_queue(&self, index: usize, size: u16) -> Result<DriverQueue> {
        let order = |needed| Error::OutOfOrder {
            operation: "a queue",
            needed,
        };
        let negotiated = self.negotiated.ok_or_else(|| order("the handshake"))?;
        let memory = self.memory.as_ref().ok_or_else(|| order("set_mem_table"))?;
        DriverQueue::new(memory, index, size, negotiated.features)
    }

    /// Hands a queue to the daemon, from available index `base` on, and enables it. For a queue
    /// of an earlier connection, `base` is its [`used_idx`](DriverQueue::used_idx) or what
    /// [`stop_queue`](Self::stop_queue) returned.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn attach_queue(&mut self, queue: &DriverQueue, base: u16) -> Result<()> {
        let index = queue.index();
        let memory = queue.memory().clone();
        self.request("SET_VRING_NUM", |vhost| {
            vhost.set_vring_num(index, queue.size())
        })?;
        self.request("SET_VRING_BASE", |vhost| vhost.set_vring_base(index, base))?;
        self.set_vring_addr(index, queue.size(), &memory, queue.addresses())?;
        let (call, kick) = (queue.call.eventfd(), queue.kick.eventfd());
        self.request("SET_VRING_CALL", |vhost| vhost.set_vring_call(index, call))?;
        self.request("SET_VRING_KICK", |vhost| vhost.set_vring_kick(index, kick))?;
        let protocol = |negotiated: Negotiated| negotiated.features & features::PROTOCOL_FEATURES;
        if self
            .negotiated
            .is_some_and(|negotiated| protocol(negotiated) != 0)
        {
            self.enable_queue(index, true)?;
        }
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: usize,
        size: u16,
        memory: &GuestMemory,
        at: RingAddresses,
    ) -> Result<()> {
        let data = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: memory.user_address(at.desc)?,
            used_ring_addr: memory.user_address(at.used)?,
            avail_ring_addr: memory.user_address(at.avail)?,
            log_addr: None,
        };
        self.request("SET_VRING_ADDR", |vhost| vhost.set_vring_addr(index, &data))
    }

    /// Enables or disables a queue.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn enable_queue(&mut self, index: usize, enable: bool) -> Result<()> {
        self.request("SET_VRING_ENABLE", |vhost| {
            vhost.set_vring_enable(index, enable)
        })
    }

    /// Stops a queue. Returns the available index from which it would go on.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn stop_queue(&mut self, index: usize) -> Result<u16> {
        let base = self.request("GET_VRING_BASE", |vhost| vhost.get_vring_base(index))?;
        u16::try_from(base).map_err(|_| Error::BadReply {
            queue: index,
            why: format!("GET_VRING_BASE answered {base}, an index has 16 bits"),
        })
    }

    /// Any other request, on the `vhost` crate's front end, within this session's time limit.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer.
    pub fn request<T>(
        &mut self,
        request: &'static str,
        send: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T> {
        self.watchdog.arm(self.timeout);
        let outcome = send(&mut self.vhost);
        if self.watchdog.disarm() {
            return Err(Error::NoAnswer {
                request,
                timeout: self.timeout,
            });
        }
        outcome.map_err(|source| Error::Request { request, source })
    }

    /// Opens the channel on which the daemon may speak unasked (`SET_BACKEND_REQ_FD`).
    ///
    /// # Errors
    /// When the daemon refuses; the protocol feature `BACKEND_REQ` must be negotiated.
    pub fn open_backend_channel(&mut self) -> Result<BackendChannel> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::os("cannot make a channel"))?;
        self.request("SET_BACKEND_REQ_FD", |vhost| {
            vhost.set_backend_request_fd(&theirs)
        })?;
        Ok(BackendChannel { stream: ours })
    }

    /// Changes the time limit of requests.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// What the handshake agreed on.
    #[must_use]
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated
    }

    /// The connection itself, to send garbage in the middle of a session.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}
