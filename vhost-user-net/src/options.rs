//! The command line: what was typed, then what was validated.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use clap::Parser;
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::options::{CommonConfig, CommonOptions, OptionsError as CommonError};
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::{EnclosureConfig, EnclosureOptions};
use vhost_daemon::sys::adopt_fd;

use crate::backend::{InterfaceName, TapSource};
use crate::config::Mac;
use crate::layout::MAX_PAIRS;

/// What `--print-capabilities` prints (QEMU, docs/interop/vhost-user.rst, "Backend program
/// conventions").
pub const CAPABILITIES: &str = r#"{
  "type": "net",
  "features": [
    "tap",
    "tap-fd",
    "queue-pairs",
    "mac",
    "mtu"
  ]
}"#;

/// A virtio network device for vhost-user front ends, on a tap interface.
#[derive(Clone, Debug, Parser)]
#[command(name = "vhost-user-net", version)]
pub struct Options {
    /// What all daemons of Ringside take
    #[command(flatten)]
    pub common: CommonOptions,

    /// How the daemon is closed in
    #[command(flatten)]
    pub sandbox: EnclosureOptions,

    /// Tap interface to use; made if there is none and this process may
    #[arg(long, value_name = "NAME", conflicts_with = "tap_fd")]
    pub tap: Option<InterfaceName>,

    /// Inherited tap descriptors to use instead, one for each queue pair
    #[arg(long, value_name = "FD[,FD...]", value_delimiter = ',')]
    pub tap_fd: Vec<i32>,

    /// Queue pairs to offer, up to 31 [default: 1, or one for each --tap-fd]
    #[arg(long, value_name = "N")]
    pub queue_pairs: Option<usize>,

    /// Ethernet address of the guest [default: the guest or the front end chooses]
    #[arg(long, value_name = "XX:XX:XX:XX:XX:XX")]
    pub mac: Option<Mac>,

    /// Largest packet, told to the guest and set on the tap [default: the tap's]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,
}

/// The options as validated.
#[derive(Debug)]
pub struct Config {
    /// What all daemons need.
    pub common: CommonConfig,
    /// How the daemon is closed in.
    pub sandbox: EnclosureConfig,
    /// The tap.
    pub tap: TapSource,
    /// Queue pairs.
    pub pairs: usize,
    /// The guest's address.
    pub mac: Option<Mac>,
    /// The largest packet.
    pub mtu: Option<u16>,
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
    /// Neither `--tap` nor `--tap-fd`.
    #[error("give --tap NAME or --tap-fd FD")]
    NoTap,
    /// A number of pairs that cannot be offered.
    #[error("--queue-pairs {0} is not between 1 and {MAX_PAIRS}")]
    Pairs(usize),
    /// Fewer or more descriptors than pairs.
    #[error("--tap-fd names {fds} descriptor(s) for {pairs} queue pair(s): give one for each")]
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
    #[error("--tap-fd {fd} is not an open descriptor that was handed down")]
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
        self.tap_fd.iter().copied().chain(self.common.fd).collect()
    }

    /// Checks the options and takes over inherited descriptors.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<Config, OptionsError> {
        let pairs = self.queue_pairs.unwrap_or(self.tap_fd.len().max(1));
        if !(1..=MAX_PAIRS).contains(&pairs) {
            return Err(OptionsError::Pairs(pairs));
        }
        let mut known: HashSet<i32> = self.common.fd.into_iter().collect();
        if let Some(twice) = self.tap_fd.iter().find(|fd| !known.insert(**fd)) {
            return Err(OptionsError::SameFd(*twice));
        }
        let tap = match self.tap {
            Some(name) => TapSource::Name(name),
            None => TapSource::Inherited(adopt(&self.tap_fd, pairs)?),
        };
        Ok(Config {
            // An open tap obeys whoever has it.
            sandbox: self.sandbox.validate(CapabilitySet::empty())?,
            common: self.common.validate()?,
            tap,
            pairs,
            mac: self.mac,
            mtu: self.mtu,
        })
    }
}

fn adopt(numbers: &[i32], pairs: usize) -> Result<Vec<OwnedFd>, OptionsError> {
    let fds = numbers.len();
    match fds {
        0 => return Err(OptionsError::NoTap),
        _ if fds != pairs => return Err(OptionsError::FdCount { fds, pairs }),
        _ => {}
    }
    let adopt = |&fd| adopt_fd(fd).map_err(|source| OptionsError::BadFd { fd, source });
    numbers.iter().map(adopt).collect()
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
        let cases: [(&[&str], &str); 9] = [
            (&["--socket-path", "/s"], "give --tap NAME or --tap-fd FD"),
            (&["--tap", "t"], "give --socket-path PATH or --fd FD"),
            (&["--tap", "t", "--queue-pairs", "0"], "between 1 and 31"),
            (&["--tap", "t", "--queue-pairs", "32"], "between 1 and 31"),
            (&["--tap-fd", "98,99", "--queue-pairs", "3"], "one for each"),
            (&["--tap-fd", "99,99"], "descriptor 99 is named twice"),
            (&["--tap-fd", "999"], "999 is not an open descriptor"),
            (
                &["--tap", "t", "--mac", "01:00:00:00:00:00"],
                "address of a station",
            ),
            (&["--tap", "a/b"], "cannot name an interface"),
        ];
        for (arguments, text) in cases {
            let refusal = refusal(arguments);
            assert!(refusal.contains(text), "{arguments:?}: {refusal}");
        }
    }

    #[test]
    fn the_capabilities_need_no_other_option() {
        let options = Options::try_parse_from(["vhost-user-net", "--print-capabilities"]);
        assert!(options.unwrap().common.print_capabilities);
    }
}
