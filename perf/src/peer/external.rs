//! A daemon that somebody else started: `--peer NAME[@TARGET]=SOCKET:PID`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

/// A daemon that runs already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalPeer<T> {
    /// Its name in the report.
    pub name: String,
    /// What it serves, so that it is compared with its like.
    pub target: T,
    /// Where it listens.
    pub socket: PathBuf,
    /// Its process.
    pub pid: u32,
}

/// The text names no daemon.
#[derive(Debug, thiserror::Error)]
pub enum ParsePeerError {
    /// Wrong form.
    #[error("expected NAME=SOCKET:PID or NAME@TARGET=SOCKET:PID")]
    Form,
    /// No process id.
    #[error("'{0}' is no process id")]
    Pid(String),
    /// No such target.
    #[error("'{given}' is not a target: {known}")]
    Target {
        /// As given.
        given: String,
        /// What would be one.
        known: String,
    },
}

impl<T: Clone + ValueEnum> FromStr for ExternalPeer<T> {
    type Err = ParsePeerError;

    fn from_str(text: &str) -> Result<Self, ParsePeerError> {
        let (name, place) = text.split_once('=').ok_or(ParsePeerError::Form)?;
        let (socket, pid) = place.rsplit_once(':').ok_or(ParsePeerError::Form)?;
        let (name, target) = match name.split_once('@') {
            Some((name, target)) => (name, Some(target)),
            None => (name, None),
        };
        if name.is_empty() || socket.is_empty() {
            return Err(ParsePeerError::Form);
        }
        let wrong_pid = |_| ParsePeerError::Pid(pid.to_owned());
        let wrong_target = || ParsePeerError::Target {
            given: target.unwrap_or_default().to_owned(),
            known: names::<T>(),
        };
        // Without a name, the first.
        let target_of = |target: Option<&str>| match target {
            Some(target) => T::from_str(target, true).ok(),
            None => T::value_variants().first().cloned(),
        };
        Ok(Self {
            name: name.to_owned(),
            target: target_of(target).ok_or_else(wrong_target)?,
            socket: PathBuf::from(socket),
            pid: pid.parse().map_err(wrong_pid)?,
        })
    }
}

fn names<T: ValueEnum>() -> String {
    let values = T::value_variants().iter();
    let names = values.filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::blk::Target;

    #[test]
    fn name_target_socket_and_pid() {
        let peer: ExternalPeer<Target> = "spdk@null=/run/a:b.sock:12".parse().unwrap();
        assert_eq!(
            (peer.name.as_str(), peer.target, peer.pid),
            ("spdk", Target::Null, 12)
        );
        assert_eq!(peer.socket, PathBuf::from("/run/a:b.sock"));
        let plain: ExternalPeer<Target> = "ch=/run/ch.sock:7".parse().unwrap();
        assert_eq!(plain.target, Target::Tmpfs);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, reason) in [
            ("spdk", "expected NAME"),
            ("a=/s", "expected NAME"),
            ("a=/s:x", "'x' is no process id"),
            ("a@moon=/s:1", "'moon' is not a target"),
        ] {
            let error = text
                .parse::<ExternalPeer<Target>>()
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
