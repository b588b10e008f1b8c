//! The command line: what was typed, then what was validated.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::options::{CommonConfig, CommonOptions, OptionsError as CommonError};
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::{EnclosureConfig, EnclosureOptions};

use crate::switchboard::Line;

/// What `--print-capabilities` prints (QEMU, docs/interop/vhost-user.rst, "Backend program
/// conventions").
pub const CAPABILITIES: &str = r#"{
  "type": "vsock",
  "features": [
    "hybrid"
  ]
}"#;

/// Virtio socket device for a vhost-user front end: a guest's ports as unix sockets
#[derive(Clone, Debug, Parser)]
#[command(name = "vhost-user-vsock", version)]
pub struct Options {
    /// What all daemons of Ringside take
    #[command(flatten)]
    pub common: CommonOptions,

    /// How the daemon is closed in
    #[command(flatten)]
    pub sandbox: EnclosureOptions,

    /// Unix socket for programs of the host's: after 'CONNECT PORT' they are joined to that port of the
    /// guest's. What the guest connects to is PATH_PORT
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "print_capabilities"
    )]
    pub uds_path: Option<PathBuf>,

    /// The guest's context id, from 3 on
    #[arg(
        long,
        value_name = "CID",
        value_parser = RangedU64ValueParser::<u64>::new().range(3..0xffff_ffff),
        required_unless_present = "print_capabilities"
    )]
    pub cid: Option<u64>,

    /// Most connections at once, both ways together
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536)
    )]
    pub connections: usize,

    /// Most KiB of a guest's that wait for one program
    #[arg(
        long,
        value_name = "KIB",
        default_value_t = 256,
        value_parser = RangedU64ValueParser::<u32>::new().range(4..=65_536)
    )]
    pub buffer_kib: u32,
}

/// The options as validated.
#[derive(Debug)]
pub struct Config {
    /// What all daemons need.
    pub common: CommonConfig,
    /// How the daemon is closed in.
    pub sandbox: EnclosureConfig,
    /// What the device is made of.
    pub line: Line,
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
    /// No path.
    #[error("give --uds-path PATH")]
    NoPath,
    /// No id.
    #[error("give --cid CID, from 3 on")]
    NoCid,
    /// A path that no socket can have.
    #[error("--uds-path {0} is too long: with _PORT behind it, a socket's path has 107 bytes")]
    PathTooLong(PathBuf),
}

/// Bytes of a socket's path (`sun_path` of unix(7), with its final 0).
const SUN_PATH: usize = 108;
/// `_4294967295`, and the final 0.
const SUFFIX: usize = 12;

impl Options {
    /// Checks the options and takes over inherited descriptors.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<Config, OptionsError> {
        let path = self.uds_path.ok_or(OptionsError::NoPath)?;
        if path.as_os_str().as_bytes().len() + SUFFIX > SUN_PATH {
            return Err(OptionsError::PathTooLong(path));
        }
        Ok(Config {
            common: self.common.validate()?,
            sandbox: self.sandbox.validate(CapabilitySet::empty())?,
            line: Line {
                cid: self.cid.ok_or(OptionsError::NoCid)?,
                path,
                room: self.buffer_kib << 10,
                connections: self.connections,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let line = ["vhost-user-vsock"].iter().chain(arguments);
        match Options::try_parse_from(line) {
            Ok(options) => options.validate().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let long = "x".repeat(97);
        let cases: [(&[&str], &str); 5] = [
            (&["--cid", "3", "--socket-path", "/s"], "--uds-path"),
            (&["--uds-path", "/v", "--socket-path", "/s"], "--cid"),
            (&["--uds-path", "/v", "--cid", "2"], "2 is not in 3.."),
            (&["--uds-path", "/v", "--cid", "3"], "--socket-path PATH"),
            (&["--uds-path", &long, "--cid", "3"], "too long"),
        ];
        for (arguments, text) in cases {
            let refusal = refusal(arguments);
            assert!(refusal.contains(text), "{arguments:?}: {refusal}");
        }
    }

    #[test]
    fn the_capabilities_need_no_other_option() {
        let options = Options::try_parse_from(["vhost-user-vsock", "--print-capabilities"]);
        assert!(options.unwrap().common.print_capabilities);
    }
}
