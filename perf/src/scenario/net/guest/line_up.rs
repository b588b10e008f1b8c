//! Boots a guest for every contestant.

use std::path::Path;

use lab::guest::Guest;
use lab::netns::NetNamespace;

use super::machine::{Device, boot};
use super::tools;
use crate::measure::Processes;
use crate::peer::{ExternalPeer, OurBuild, RunningDaemon, version};
use crate::report::with_causes;
use crate::scenario::net::Role;
use crate::scenario::net::config::NetConfig;
use crate::scenario::net::error::Error;
use crate::scenario::net::frame::address;
use crate::scenario::net::ground::Ground;
use crate::scenario::net::line_up::OURS;
use crate::scenario::net::results::ContestantFacts;
use crate::scenario::net::workload::Target;

/// The hypervisors' own devices, in reports.
pub(super) const QEMU: &str = "qemu virtio-net";
const QEMU_WITHOUT_MSIX: &str = "qemu virtio-net INTx";
const UML: &str = "uml vector";

/// Somebody who takes turns, or would.
pub(crate) struct Contestant {
    pub(super) name: String,
    pub(super) role: Role,
    version: Option<String>,
    command: String,
    /// Or why it takes no part.
    pub(super) entry: Result<Seat, String>,
}

/// A guest that runs.
pub(super) struct Seat {
    guest: Guest,
    daemon: Option<RunningDaemon>,
    /// Of somebody's daemon, where that is not the ground's.
    namespace: Option<NetNamespace>,
    /// The guest's.
    pub(super) address: String,
}

impl Seat {
    pub(super) fn hypervisor(&self) -> Processes {
        Processes::of(self.guest.pid())
    }

    pub(super) fn daemon(&self) -> Option<Processes> {
        self.daemon.as_ref().map(RunningDaemon::processes)
    }

    /// Does `work` where the guest's network is.
    pub(super) fn run<T: Send>(
        &self,
        ground: &Ground,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, Error> {
        match &self.namespace {
            Some(namespace) => Ok(namespace.run(work)?),
            None => ground.run(work),
        }
    }
}

impl Contestant {
    pub(crate) fn facts(&self, target: Target) -> ContestantFacts {
        ContestantFacts {
            target,
            name: self.name.clone(),
            role: self.role,
            command: self.command.clone(),
            version: self.version.clone(),
            skipped: self.entry.as_ref().err().cloned(),
        }
    }
}

/// Boots one guest of the target's kind for each.
pub(crate) fn line_up(
    target: Target,
    ground: &Ground,
    config: &NetConfig,
    sockets: &Path,
) -> Result<Vec<Contestant>, Error> {
    let starter = Starter {
        target,
        ground,
        sockets,
        extra: &config.run.ours_arguments,
    };
    let builds = config.run.other_builds.iter();
    let builds = builds.map(|(name, program)| (name.as_str(), Role::OtherBuild, program));
    let ours = [(OURS, Role::Ours, &config.run.ours)];
    let mut all = Vec::new();
    // Number 0 is the taps' of daemons that run already.
    let mut taps = 1_u8..;
    for ((name, role, program), tap) in ours.into_iter().chain(builds).zip(&mut taps) {
        all.push(starter.ours(name, role, program, tap)?);
    }
    let peers = config.peers.iter().filter(|peer| peer.target == target);
    all.extend(peers.map(|peer| starter.adopt(peer)));
    let built_in: &[_] = match target {
        Target::Uml => &[(UML, true)],
        _ => &[(QEMU, true), (QEMU_WITHOUT_MSIX, false)],
    };
    for ((name, msix), tap) in built_in.iter().zip(taps) {
        all.push(starter.built_in(name, *msix, tap)?);
    }
    Ok(all)
}

struct Starter<'a> {
    target: Target,
    ground: &'a Ground,
    sockets: &'a Path,
    extra: &'a [String],
}

impl Starter<'_> {
    fn ours(&self, name: &str, role: Role, program: &Path, tap: u8) -> Result<Contestant, Error> {
        let socket = self.sockets.join(format!("{name}.sock"));
        let device = self.ground.add_tap(tap)?;
        let mut arguments = vec![
            format!("--socket-path={}", socket.display()),
            format!("--tap={device}"),
        ];
        arguments.extend_from_slice(self.extra);
        let entry = OurBuild::probe(program, self.extra).map_err(|error| with_causes(&error));
        let entry = entry.and_then(|_| {
            let started = self
                .ground
                .run(|| RunningDaemon::start(program, &arguments, &socket));
            let daemon = started.map_err(|error| with_causes(&error))?;
            let daemon = daemon.map_err(|error| with_causes(&error))?;
            let guest = self.boot(&Device::VhostUser(&socket), tap)?;
            self.seat(guest, Some((daemon, None)), tap)
        });
        Ok(Contestant {
            name: name.to_owned(),
            role,
            version: version(program),
            command: format!("{} {}", program.display(), arguments.join(" ")),
            entry,
        })
    }

    fn built_in(&self, name: &str, msix: bool, tap: u8) -> Result<Contestant, Error> {
        let device = self.ground.add_tap(tap)?;
        let guest = self.boot(&Device::BuiltIn { tap: &device, msix }, tap);
        Ok(Contestant {
            name: name.to_owned(),
            role: Role::Peer,
            version: match self.target {
                Target::Uml => version(Path::new("linux.uml")),
                _ => version(Path::new("qemu-system-x86_64")),
            },
            command: format!("its own device on tap {device}"),
            entry: guest.and_then(|guest| self.seat(guest, None, tap)),
        })
    }

    fn adopt(&self, peer: &ExternalPeer<Target>) -> Contestant {
        let entry = || {
            let adopted = RunningDaemon::adopt(&peer.socket, peer.pid);
            let daemon = adopted.map_err(|error| with_causes(&error))?;
            let namespace = NetNamespace::of_process(peer.pid);
            let namespace = namespace.map_err(|error| with_causes(&error))?;
            let guest = self.boot(&Device::VhostUser(&peer.socket), 0)?;
            self.seat(guest, Some((daemon, Some(namespace))), 0)
        };
        Contestant {
            name: peer.name.clone(),
            role: Role::Peer,
            version: None,
            command: format!("process {}", peer.pid),
            entry: entry(),
        }
    }

    /// In the ground's namespace, where the tap of a hypervisor's own device is.
    fn boot(&self, device: &Device<'_>, tap: u8) -> Result<Guest, String> {
        let booted = self.ground.run(|| boot(self.target, device, tap));
        let booted = booted.map_err(|error| with_causes(&error))?;
        booted.map_err(|error| with_causes(&error))
    }

    /// A guest that has answered once: whatever is set up at first use is set up.
    fn seat(
        &self,
        guest: Guest,
        daemon: Option<(RunningDaemon, Option<NetNamespace>)>,
        tap: u8,
    ) -> Result<Seat, String> {
        let (daemon, namespace) = daemon.unzip();
        let seat = Seat {
            guest,
            daemon,
            namespace: namespace.flatten(),
            address: address(tap, true).map(|byte| byte.to_string()).join("."),
        };
        tools::await_server(&seat, self.ground).map_err(|error| error.told())?;
        Ok(seat)
    }
}
