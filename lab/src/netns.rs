//! A network namespace of a test's own, with taps in it. It has no name, so none is left over.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lab::netns::{NetNamespace, Tap};
//!
//! let network = NetNamespace::new()?;
//! network.add_tap("tap0", &Tap { address: Some("10.0.2.1/24"), ..Tap::default() })?;
//! let output = network.run(|| std::process::Command::new("ping").arg("10.0.2.2").output())??;
//! # Ok(())
//! # }
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::need;
use crate::process::{self, Daemon, DaemonBuilder};
use crate::sys;

/// Why something in a network namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host lacks something.
    #[error(transparent)]
    Missing(#[from] need::Missing),
    /// A system call failed.
    #[error("cannot {what}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// `ip` refused.
    #[error("`ip {arguments}` failed: {message}")]
    Ip {
        /// Its arguments.
        arguments: String,
        /// What it said.
        message: String,
    },
    /// A daemon could not be started.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The closure panicked; the panic's message is on standard error.
    #[error("a thread in the network namespace panicked")]
    Panicked,
}

impl Error {
    fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { what, source }
    }
}

/// How a tap is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tap<'a> {
    /// It may be opened once per queue.
    pub multi_queue: bool,
    /// The address of the namespace's own end, with prefix length.
    pub address: Option<&'a str>,
    /// Its MTU, where it is not to be 1500.
    pub mtu: Option<u16>,
}

/// A network namespace. It goes, with all its devices, when this value and the last process in
/// it are gone.
#[derive(Debug)]
pub struct NetNamespace {
    handle: OwnedFd,
}

impl NetNamespace {
    /// Makes a namespace whose loopback is up.
    ///
    /// # Errors
    /// When the process is not root.
    pub fn new() -> Result<Self, Error> {
        need::root()?;
        let handle = on_a_thread(|| {
            sys::namespace::unshare_network()?;
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        })?;
        let namespace = Self {
            handle: handle.map_err(Error::os("make a network namespace"))?,
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The namespace that a process is in.
    ///
    /// # Errors
    /// When the process has ended or is out of reach.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        let handle = File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from);
        Ok(Self {
            handle: handle.map_err(Error::os("open the process's network namespace"))?,
        })
    }

    /// Runs `work` on a thread in the namespace; processes that it starts are in there too.
    ///
    /// # Errors
    /// When the namespace cannot be entered or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_thread(|| {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| Error::os("enter the network namespace")(errno.into()))?;
            Ok(work())
        })?
    }

    /// Runs `ip` with arguments that are separated by blanks: its output.
    ///
    /// # Errors
    /// When `ip` is not installed or fails.
    pub fn ip(&self, arguments: &str) -> Result<String, Error> {
        let program = need::program("ip")?;
        let mut command = Command::new(program);
        command.args(arguments.split_ascii_whitespace());
        let output = self
            .run(|| command.output())?
            .map_err(Error::os("run ip"))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Ip {
                arguments: arguments.to_owned(),
                message,
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a tap that is there without being open, for a daemon that opens it by name.
    ///
    /// # Errors
    /// When there is no `/dev/net/tun` or the name is taken.
    pub fn add_tap(&self, name: &str, tap: &Tap<'_>) -> Result<(), Error> {
        need::device("/dev/net/tun")?;
        let multi_queue = if tap.multi_queue { "multi_queue" } else { "" };
        self.ip(&format!(
            "tuntap add dev {name} mode tap vnet_hdr {multi_queue}"
        ))?;
        // Else the kernel's own IPv6 chatter is the first thing on every tap.
        self.ip(&format!("link set {name} addrgenmode none"))?;
        if let Some(mtu) = tap.mtu {
            self.ip(&format!("link set {name} mtu {mtu}"))?;
        }
        if let Some(address) = tap.address {
            self.ip(&format!("addr add {address} dev {name}"))?;
        }
        self.ip(&format!("link set {name} up")).map(drop)
    }

    /// Opens a queue of a tap, for a daemon that takes a descriptor. A tap that
    /// [`add_tap`](Self::add_tap) did not make goes when its last descriptor is closed.
    ///
    /// # Errors
    /// When there is no `/dev/net/tun`, or the tap is open already and has one queue.
    pub fn open_tap(&self, name: &str, multi_queue: bool) -> Result<OwnedFd, Error> {
        need::device("/dev/net/tun")?;
        let opened = self.run(|| sys::tap::open(name, multi_queue))?;
        opened.map_err(Error::os("open the tap"))
    }

    /// Starts a daemon in the namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, daemon: DaemonBuilder) -> Result<Daemon, Error> {
        Ok(self.run(|| daemon.spawn())??)
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// A thread of its own, as a thread that changed its namespace must not run anything else.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| Error::Panicked)
}
