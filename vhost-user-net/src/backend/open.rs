//! Opening a tap, and what can be wrong with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use rustix::fs::{Mode, OFlags};
use thiserror::Error;
use vhost_daemon::patience::Patience;

use super::{InterfaceName, NetworkNamespace};
use crate::sys;

const CLONE_DEVICE: &str = "/dev/net/tun";

/// Which tap to use.
#[derive(Debug)]
pub enum TapSource {
    /// The interface of this name; made if there is none.
    Name {
        /// Its name.
        name: InterfaceName,
        /// Where it is, if not in this process's own namespace.
        netns: Option<NetworkNamespace>,
    },
    /// Descriptors that the parent process opened, one for each queue pair.
    Inherited(Vec<OwnedFd>),
}

/// A tap that cannot be used.
#[derive(Debug, Error)]
pub enum TapError {
    /// /dev/net/tun cannot be opened.
    #[error("cannot open {CLONE_DEVICE} (is the kernel's module 'tun' loaded?)")]
    CloneDevice(#[source] io::Error),
    /// The namespace.
    #[error("cannot enter network namespace {netns}")]
    Namespace {
        /// Its file.
        netns: NetworkNamespace,
        /// The system's reason.
        source: io::Error,
    },
    /// No permission.
    #[error(
        "not permitted to use or make tap '{0}': run with CAP_NET_ADMIN, or make it beforehand \
         for this user ('ip tuntap add {0} mode tap user NAME')"
    )]
    NotPermitted(InterfaceName),
    /// Somebody else has it.
    #[error("tap '{0}' is in use by another process")]
    InUse(InterfaceName),
    /// The interface is of another kind or has other flags.
    #[error(
        "interface '{name}' exists and is not a tap that can serve {lanes} queue pair(s); more \
         than one needs 'ip tuntap add {name} mode tap multi_queue'"
    )]
    OtherKind {
        /// The interface.
        name: InterfaceName,
        /// Queue pairs wanted.
        lanes: usize,
    },
    /// Anything else that `TUNSETIFF` reports.
    #[error("cannot use tap '{name}'")]
    Attach {
        /// The interface.
        name: InterfaceName,
        /// The system's reason.
        source: io::Error,
    },
    /// An inherited descriptor is no tap.
    #[error("descriptor {0} is not bound to a tap interface")]
    NotATap(i32),
    /// An inherited descriptor is a tun, or a tap without headers.
    #[error("descriptor {0} must be opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR")]
    Flags(i32),
    /// Several inherited descriptors that do not belong together.
    #[error("descriptor {0} is not a queue of the same multi-queue tap as the others")]
    Mixed(i32),
    /// The header's length or the descriptor's mode cannot be set.
    #[error("cannot set up tap '{name}'")]
    SetUp {
        /// The interface.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// `--mtu` differs from the tap's and cannot be set.
    #[error("cannot set the MTU of tap '{name}' to {mtu}")]
    Mtu {
        /// The interface.
        name: String,
        /// The MTU asked for.
        mtu: u16,
        /// The system's reason.
        source: io::Error,
    },
}

/// The descriptors of a tap's queues.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) queues: Vec<OwnedFd>,
}

const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Opens `lanes` queues of the interface `name`.
pub(super) fn by_name(name: &InterfaceName, lanes: usize) -> Result<Opened, TapError> {
    let queues = if lanes == 1 {
        // A tap made with multi_queue refuses to be opened without, and the other way round.
        vec![attach(name, lanes, 0).or_else(|error| match error {
            TapError::OtherKind { .. } => attach(name, lanes, libc::IFF_MULTI_QUEUE),
            error => Err(error),
        })?]
    } else {
        let queue = |_| attach(name, lanes, libc::IFF_MULTI_QUEUE);
        (0..lanes).map(queue).collect::<Result<_, _>>()?
    };
    let name = name.to_string();
    Ok(Opened { name, queues })
}

fn attach(name: &InterfaceName, lanes: usize, more: c_int) -> Result<OwnedFd, TapError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(CLONE_DEVICE, flags, Mode::empty())
        .map_err(|error| TapError::CloneDevice(error.into()))?;
    let name = name.clone();
    match attach_in_time(fd.as_fd(), &name, FLAGS | more) {
        Ok(()) => Ok(fd),
        Err(source) => Err(match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::NotPermitted(name),
            _ if is_busy(&source) => TapError::InUse(name),
            Some(libc::EINVAL) => TapError::OtherKind { name, lanes },
            _ => TapError::Attach { name, source },
        }),
    }
}

/// A daemon that was killed just now may still hold the tap: the kernel takes an io_uring that
/// watches it apart after the process has gone.
fn attach_in_time(fd: BorrowedFd<'_>, name: &InterfaceName, flags: c_int) -> io::Result<()> {
    let mut patience = Patience::default();
    loop {
        match sys::attach_interface(fd, name.as_str(), flags) {
            Err(error) if is_busy(&error) && patience.lasts(name, None) => {}
            result => return result,
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

/// Checks descriptors that were handed down.
pub(super) fn inherited(queues: Vec<OwnedFd>) -> Result<Opened, TapError> {
    let several = queues.len() > 1;
    let mut known: Option<String> = None;
    for fd in &queues {
        let number = fd.as_raw_fd();
        let (name, flags) = sys::interface_of(fd.as_fd()).map_err(|_| TapError::NotATap(number))?;
        if flags & FLAGS != FLAGS {
            return Err(TapError::Flags(number));
        }
        let multi_queue = flags & libc::IFF_MULTI_QUEUE != 0;
        if several && (!multi_queue || known.as_ref().is_some_and(|known| *known != name)) {
            return Err(TapError::Mixed(number));
        }
        set_nonblocking(fd.as_fd()).map_err(|source| TapError::SetUp {
            name: name.clone(),
            source,
        })?;
        known = Some(name);
    }
    let name = known.unwrap_or_default();
    Ok(Opened { name, queues })
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}
