//! The command line: what was typed, then what was validated.

mod port;

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Parser;
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::options::{CommonOptions, OptionsError as CommonError, SharedConfig};
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::{EnclosureConfig, EnclosureOptions};

use crate::backend::{InterfaceName, NetworkNamespace};
use crate::commands::Command;
use crate::config::Mac;
use crate::layout::MAX_PAIRS;
pub use port::{Network, NotAPort, PortConfig, PortSpec};

/// What `--print-capabilities` prints (QEMU, docs/interop/vhost-user.rst, "Backend program
/// conventions").
pub const CAPABILITIES: &str = r#"{
  "type": "net",
  "features": [
    "tap",
    "tap-fd",
    "netns",
    "passt",
    "switch",
    "queue-pairs",
    "mac",
    "mtu"
  ]
}"#;

/// The options that describe one port, by clap's names: `--port` says all of that itself.
const ONE_PORT: [&str; 11] = [
    "socket_path",
    "client",
    "fd",
    "name",
    "tap",
    "netns",
    "tap_fd",
    "passt",
    "queue_pairs",
    "mac",
    "mtu",
];

/// Virtio network devices for vhost-user front ends: on taps, on passt, or on a switch of their own
#[derive(Clone, Debug, Parser)]
#[command(
    name = "vhost-user-net",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// To a running daemon.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// What all daemons of Ringside take
    #[command(flatten)]
    pub common: CommonOptions,

    /// How the daemon is closed in
    #[command(flatten)]
    pub sandbox: EnclosureOptions,

    /// A port, for several in one process: socket=PATH[,client=on][,name=TEXT][,tap=NAME[,netns=NAME]]
    /// [,tap-fd=FD:FD...][,passt=PATH][,queue-pairs=N][,mac=ADDRESS][,mtu=BYTES]; a comma within a
    /// value is written twice
    #[arg(long, value_name = "KEY=VALUE,...", conflicts_with_all = ONE_PORT)]
    pub port: Vec<PortSpec>,

    /// Ports without a network of their own are joined by a learning switch
    #[arg(long)]
    pub switch: bool,

    /// Tap interface to use; made if there is none and this process may
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tap_fd", "passt"])]
    pub tap: Option<InterfaceName>,

    /// Network namespace of the tap: a name of `ip netns`, or a path
    #[arg(long, value_name = "NAME|PATH", requires = "tap")]
    pub netns: Option<NetworkNamespace>,

    /// Inherited tap descriptors to use instead, one for each queue pair
    #[arg(
        long,
        value_name = "FD[,FD...]",
        value_delimiter = ',',
        conflicts_with = "passt"
    )]
    pub tap_fd: Vec<i32>,

    /// passt's stream socket to use instead: a network without privileges
    #[arg(long, value_name = "PATH")]
    pub passt: Option<PathBuf>,

    /// Queue pairs to offer, up to 31 [default: 1, or one for each --tap-fd]
    #[arg(long, value_name = "N")]
    pub queue_pairs: Option<usize>,

    /// Ethernet address of the guest [default: the guest or the front end chooses]
    #[arg(long, value_name = "XX:XX:XX:XX:XX:XX")]
    pub mac: Option<Mac>,

    /// Largest packet, told to the guest and set on the tap [default: the tap's]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,

    /// What the control socket, the log and the metrics call the port [default: the tap's name]
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// Directory (on tmpfs) that remembers receive buffers in use and what drivers have set: after a crash
    /// they go on when the front end reconnects
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Unix socket for commands to the running daemon (vhost-user-net ctl)
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// What to do instead of serving.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Send a command to a running daemon's control socket
    Ctl {
        /// The socket given to the daemon as --control
        socket: PathBuf,
        /// The command.
        #[command(subcommand)]
        command: CtlCommand,
    },
}

/// A command as typed.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum CtlCommand {
    /// One that the daemon answers.
    #[command(flatten)]
    Command(Command),
    /// Write copies of passing frames to a file in pcap's format, until interrupted
    Capture {
        /// The file; - for standard output
        file: PathBuf,
        /// The port's name
        #[arg(long)]
        port: Option<String>,
        /// Bytes of each frame to keep
        #[arg(long, value_name = "BYTES", default_value_t = 65_535)]
        snap: usize,
        /// Frames after which to end (0: no end)
        #[arg(long, value_name = "N", default_value_t = 0)]
        frames: u64,
    },
}

/// The options as validated.
#[derive(Debug)]
pub struct Config {
    /// What all daemons need.
    pub shared: SharedConfig,
    /// How the daemon is closed in.
    pub sandbox: EnclosureConfig,
    /// The ports, at least one.
    pub ports: Vec<PortConfig>,
    /// Where the next process finds what drivers would not tell it.
    pub state_dir: Option<PathBuf>,
    /// Where commands to the running daemon come from.
    pub control: Option<PathBuf>,
}

/// Options that cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// Those of all daemons.
    #[error(transparent)]
    Common(#[from] CommonError),
    /// `--modcaps`.
    #[error(transparent)]
    Capabilities(#[from] ModifyError),
    /// A port without a tap, passt or a switch.
    #[error(
        "the port has no network: give --tap NAME, --tap-fd FD or --passt PATH (of a --port: tap=, tap-fd=, passt=), or --switch"
    )]
    NoNetwork,
    /// Several of them.
    #[error("a port has one network: a tap, tap descriptors or passt")]
    SeveralNetworks,
    /// A namespace for nothing.
    #[error("netns= is the tap's: give tap=NAME too")]
    NetnsAlone,
    /// passt has one connection.
    #[error("passt has one queue pair")]
    PasstPairs,
    /// Nowhere to serve it.
    #[error("give the port's socket: socket=PATH")]
    NoSocket,
    /// Two sockets.
    #[error("a port has a socket or an fd, not both")]
    SocketAndFd,
    /// A number of pairs that cannot be offered.
    #[error("{0} queue pairs: their number is between 1 and {MAX_PAIRS}")]
    Pairs(usize),
    /// Less than any network carries.
    #[error("an mtu of {0} bytes is less than 68")]
    Mtu(u16),
    /// Not a name.
    #[error(
        "the name '{0}' is not 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter, a digit or '_'"
    )]
    Name(String),
    /// Two ports of one name.
    #[error("two ports are named '{0}': give each its own name=")]
    SameName(String),
    /// Fewer or more descriptors than pairs.
    #[error("{fds} tap descriptor(s) for {pairs} queue pair(s): give one for each")]
    FdCount {
        /// Descriptors named.
        fds: usize,
        /// Pairs to offer.
        pairs: usize,
    },
    /// The same descriptor for two purposes.
    #[error("descriptor {0} is named twice")]
    SameFd(i32),
    /// A descriptor that is not open.
    #[error("tap descriptor {fd} is not an open descriptor that was handed down")]
    BadFd {
        /// The number given.
        fd: i32,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Options {
    /// The inherited descriptors that are named.
    pub fn inherited(&self) -> Vec<i32> {
        let of_port = |port: &PortSpec| port.fd.into_iter().chain(port.tap_fd.clone());
        let ports = self.port.iter().flat_map(of_port);
        let own = self.common.fd.into_iter().chain(self.tap_fd.clone());
        own.chain(ports).collect()
    }

    /// Checks the options and takes over inherited descriptors.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<Config, OptionsError> {
        self.check_descriptors()?;
        // An open tap obeys whoever has it.
        let sandbox = self.sandbox.validate(CapabilitySet::empty())?;
        let (endpoint, shared) = self.common.validate_optional_endpoint()?;
        let mut ports = Vec::new();
        for (spec, number) in self.port.into_iter().zip(1..) {
            ports.push(spec.validate(self.switch, number)?);
        }
        if ports.is_empty() {
            let spec = PortSpec {
                name: self.name,
                tap: self.tap,
                netns: self.netns,
                tap_fd: self.tap_fd,
                passt: self.passt,
                queue_pairs: self.queue_pairs,
                mac: self.mac,
                mtu: self.mtu,
                ..PortSpec::default()
            };
            let endpoint = endpoint.ok_or(CommonError::NoEndpoint)?;
            ports.push(spec.at(endpoint, self.switch, 1)?);
        }
        let mut names = HashSet::new();
        if let Some(twice) = ports.iter().find(|port| !names.insert(port.name.as_str())) {
            return Err(OptionsError::SameName(twice.name.clone()));
        }
        Ok(Config {
            shared,
            sandbox,
            ports,
            state_dir: self.state_dir,
            control: self.control,
        })
    }

    /// Before anything is taken over: a descriptor can have one owner.
    fn check_descriptors(&self) -> Result<(), OptionsError> {
        let mut known = HashSet::new();
        let mut named = self.inherited().into_iter();
        match named.find(|fd| !known.insert(*fd)) {
            Some(twice) => Err(OptionsError::SameFd(twice)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let line = ["vhost-user-net"].iter().chain(arguments);
        match Options::try_parse_from(line) {
            Ok(options) => options.validate().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let cases: [(&[&str], &str); 15] = [
            (&["--socket-path", "/s"], "give --tap NAME, --tap-fd FD"),
            (&["--tap", "t"], "give --socket-path PATH or --fd FD"),
            (
                &["--socket-path", "/s", "--tap", "t", "--queue-pairs", "0"],
                "between 1 and 31",
            ),
            (
                &["--socket-path", "/s", "--tap", "t", "--queue-pairs", "32"],
                "between 1 and 31",
            ),
            (
                &[
                    "--socket-path",
                    "/s",
                    "--tap-fd",
                    "98,99",
                    "--queue-pairs",
                    "3",
                ],
                "one for each",
            ),
            (
                &["--socket-path", "/s", "--tap-fd", "99,99"],
                "descriptor 99 is named twice",
            ),
            (
                &["--socket-path", "/s", "--tap-fd", "999"],
                "999 is not an open descriptor",
            ),
            (
                &["--tap", "t", "--mac", "01:00:00:00:00:00"],
                "address of a station",
            ),
            (&["--tap", "a/b"], "cannot name an interface"),
            (
                &["--port", "socket=/s,tap=t", "--tap", "t"],
                "cannot be used with",
            ),
            (
                &["--port", "socket=/s,tap=t", "--port", "socket=/r,tap=t"],
                "two ports are named 't'",
            ),
            (&["--port", "socket=/s"], "has no network"),
            (&["--netns", "n"], "--tap"),
            (&["--client", "--tap", "t"], "--socket-path"),
            (
                &["--port", "fd=7,tap=a", "--port", "fd=7,tap=b"],
                "descriptor 7 is named twice",
            ),
        ];
        for (arguments, text) in cases {
            let refusal = refusal(arguments);
            assert!(refusal.contains(text), "{arguments:?}: {refusal}");
        }
    }

    #[test]
    fn several_ports_share_a_switch() {
        let line = "vhost-user-net --switch --port socket=/a --port socket=/b,name=b,queue-pairs=2";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        let config = options.validate().unwrap();
        let ports: Vec<_> = config
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.pairs))
            .collect();
        assert_eq!(ports, [("port1", 1), ("b", 2)]);
        assert!(
            config
                .ports
                .iter()
                .all(|port| matches!(port.network, Network::Switch))
        );
    }

    #[test]
    fn the_capabilities_need_no_other_option() {
        let options = Options::try_parse_from(["vhost-user-net", "--print-capabilities"]);
        assert!(options.unwrap().common.print_capabilities);
    }
}
