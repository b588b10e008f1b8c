//! One port, as `--port key=value,...` describes it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use vhost_daemon::key_values::{self, KeyValueError, Keys};
use vhost_daemon::listen::Endpoint;
use vhost_daemon::options::inherited;
use vhost_daemon::sys::adopt_fd;

use super::OptionsError;
use crate::backend::{InterfaceName, NetworkNamespace, TapSource};
use crate::config::Mac;
use crate::layout::MAX_PAIRS;

/// A port as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PortSpec {
    /// Unix socket for front ends.
    pub socket: Option<PathBuf>,
    /// The front end listens on the socket.
    pub client: bool,
    /// Instead of `socket`: an inherited one.
    pub fd: Option<i32>,
    /// What the control socket, the log and the metrics call the port.
    pub name: Option<String>,
    /// Tap interface.
    pub tap: Option<InterfaceName>,
    /// Network namespace of the tap.
    pub netns: Option<NetworkNamespace>,
    /// Instead of `tap`: its inherited descriptors.
    pub tap_fd: Vec<i32>,
    /// Instead of `tap`: passt's stream socket.
    pub passt: Option<PathBuf>,
    /// Queue pairs to offer.
    pub queue_pairs: Option<usize>,
    /// Ethernet address of the guest.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: Option<u16>,
}

/// Which network a port belongs to, as validated.
#[derive(Debug)]
pub enum Network {
    /// A tap.
    Tap(TapSource),
    /// passt's stream socket.
    Passt(PathBuf),
    /// The switch of this process.
    Switch,
}

/// A port as validated.
#[derive(Debug)]
pub struct PortConfig {
    /// What the control socket, the log and the metrics call it.
    pub name: String,
    /// Where front ends come from.
    pub endpoint: Endpoint,
    /// Its network.
    pub network: Network,
    /// Queue pairs.
    pub pairs: usize,
    /// The guest's address.
    pub mac: Option<Mac>,
    /// The largest packet.
    pub mtu: Option<u16>,
}

/// `key=value,...` that is no port.
pub type NotAPort = KeyValueError;

/// The port that `--port` names: a comma within a value is written twice.
impl FromStr for PortSpec {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        key_values::parse(
            text,
            Keys {
                switches: &["client"],
                numbers: &["fd", "queue-pairs", "mtu"],
                number_lists: &["tap-fd"],
            },
        )
    }
}

impl PortSpec {
    /// Checks the description; `switch` says whether there is one for ports without a network of their
    /// own, `number` names a port without a name.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self, switch: bool, number: usize) -> Result<PortConfig, OptionsError> {
        let endpoint = match (&self.socket, self.fd) {
            (Some(_), Some(_)) => return Err(OptionsError::SocketAndFd),
            (Some(path), None) if self.client => Endpoint::FrontEnd(path.clone()),
            (Some(path), None) => Endpoint::Path(path.clone()),
            (None, Some(fd)) => inherited(fd)?,
            (None, None) => return Err(OptionsError::NoSocket),
        };
        self.at(endpoint, switch, number)
    }

    /// The same for front ends that come from `endpoint`.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn at(
        self,
        endpoint: Endpoint,
        switch: bool,
        number: usize,
    ) -> Result<PortConfig, OptionsError> {
        let pairs = self.queue_pairs.unwrap_or(self.tap_fd.len().max(1));
        if !(1..=MAX_PAIRS).contains(&pairs) {
            return Err(OptionsError::Pairs(pairs));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < 68) {
            return Err(OptionsError::Mtu(mtu));
        }
        let name = match &self.name {
            Some(name) if is_name(name) => name.clone(),
            Some(name) => return Err(OptionsError::Name(name.clone())),
            None => self.default_name(number),
        };
        let (mac, mtu) = (self.mac, self.mtu);
        Ok(PortConfig {
            name,
            endpoint,
            network: self.network(switch, pairs)?,
            pairs,
            mac,
            mtu,
        })
    }

    fn default_name(&self, number: usize) -> String {
        let tap = self.tap.as_ref().map(InterfaceName::as_str);
        match tap.filter(|tap| is_name(tap)) {
            Some(tap) => tap.to_owned(),
            None => format!("port{number}"),
        }
    }

    fn network(self, switch: bool, pairs: usize) -> Result<Network, OptionsError> {
        let fds = self.tap_fd.len();
        let kinds = [self.tap.is_some(), fds > 0, self.passt.is_some()];
        if kinds.into_iter().filter(|given| *given).count() > 1 {
            return Err(OptionsError::SeveralNetworks);
        }
        if self.netns.is_some() && self.tap.is_none() {
            return Err(OptionsError::NetnsAlone);
        }
        if let Some(passt) = self.passt {
            return match pairs {
                1 => Ok(Network::Passt(passt)),
                _ => Err(OptionsError::PasstPairs),
            };
        }
        match self.tap {
            Some(name) => Ok(Network::Tap(TapSource::Name {
                name,
                netns: self.netns,
            })),
            None if fds > 0 && fds != pairs => Err(OptionsError::FdCount { fds, pairs }),
            None if fds > 0 => Ok(Network::Tap(TapSource::Inherited(adopt(&self.tap_fd)?))),
            None if switch => Ok(Network::Switch),
            None => Err(OptionsError::NoNetwork),
        }
    }
}

fn adopt(numbers: &[i32]) -> Result<Vec<OwnedFd>, OptionsError> {
    let adopt = |&fd| adopt_fd(fd).map_err(|source| OptionsError::BadFd { fd, source });
    numbers.iter().map(adopt).collect()
}

/// Names become labels and arguments.
fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_reads_as_documented() {
        let text = "socket=/run/a,,b.sock,tap=t0,queue-pairs=2,mac=52:54:00:00:00:01,mtu=9000";
        let port: PortSpec = text.parse().unwrap();
        let config = port.validate(false, 1).unwrap();
        assert_eq!((config.name.as_str(), config.pairs), ("t0", 2));
        assert_eq!(config.mtu, Some(9000));
        assert!(matches!(config.endpoint, Endpoint::Path(path) if path == *"/run/a,b.sock"));
        let fds: PortSpec = "socket=/s,tap-fd=7:8".parse().unwrap();
        assert_eq!(fds.tap_fd, [7, 8]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("socket", "'socket' is not of the form key=value"),
            ("socket=/s", "has no network"),
            ("tap=t0", "socket=PATH"),
            ("socket=/s,fd=3,tap=t0", "not both"),
            ("socket=/s,tap=t0,passt=/p", "one network"),
            ("socket=/s,netns=n,passt=/p", "netns= is the tap's"),
            ("socket=/s,passt=/p,queue-pairs=2", "one queue pair"),
            ("socket=/s,tap=a/b", "cannot name an interface"),
            (
                "socket=/s,tap=t,mac=01:00:00:00:00:00",
                "address of a station",
            ),
            ("socket=/s,tap=t,name=a b", "the name 'a b'"),
            ("socket=/s,tap=t,mtu=67", "mtu"),
            ("socket=/s,tap=t,colour=red", "unknown field `colour`"),
            ("socket=/s,tap-fd=7:8,queue-pairs=3", "one for each"),
            ("socket=/s,tap=t,netns=", "names no network namespace"),
        ] {
            let port = text.parse::<PortSpec>();
            let error = match port {
                Ok(port) => port.validate(false, 1).unwrap_err().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_port_or_is_refused(text in "[a-z=,:/.0-9-]{0,80}") {
            if let Ok(port) = text.parse::<PortSpec>() {
                let _ = PortSpec { fd: None, tap_fd: Vec::new(), ..port }.validate(true, 1);
            }
        }
    }
}
