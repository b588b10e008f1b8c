//! Starts a target's contestants.

use std::path::Path;

use super::Role;
use super::config::NetConfig;
use super::contestant::{Contestant, Entry, Place, TapPlace};
use super::error::Error;
use super::ground::Ground;
use super::workload::Target;
use crate::peer::{ExternalPeer, OurBuild, RunningDaemon, version};

/// The name of our daemon in reports.
pub(super) const OURS: &str = "ringside";
/// The limit that aims speak of.
pub(super) const BARE: &str = "bare tap";
/// Our daemon on two taps, the other way from guest to guest.
pub(super) const BRIDGED: &str = "bridged taps";

/// Starts everybody who can serve the target; who cannot is there with the reason.
pub(super) fn line_up(
    target: Target,
    ground: &Ground,
    config: &NetConfig,
    sockets: &Path,
) -> Result<Vec<Contestant>, Error> {
    let mut starter = Starter {
        target,
        ground,
        sockets,
        extra: &config.run.ours_arguments,
        // Number 0 is the taps' of daemons that run already.
        taps: 1,
    };
    let mut all = vec![starter.ours(OURS, Role::Ours, &config.run.ours)?];
    for (name, program) in &config.run.other_builds {
        all.push(starter.ours(name, Role::OtherBuild, program)?);
    }
    let peers = config.peers.iter().filter(|peer| peer.target == target);
    all.extend(peers.map(adopt));
    if target == Target::Tap {
        let place = starter.tap()?;
        all.push(Contestant {
            name: BARE.to_owned(),
            role: Role::Limit,
            version: None,
            entry: Ok(Entry::Bare(ground.open_tap(&place.name)?, place)),
        });
    } else {
        all.push(starter.bridged(&config.run.ours)?);
    }
    Ok(all)
}

struct Starter<'a> {
    target: Target,
    ground: &'a Ground,
    sockets: &'a Path,
    extra: &'a [String],
    taps: u8,
}

impl Starter<'_> {
    fn tap(&mut self) -> Result<TapPlace, Error> {
        let number = self.taps;
        self.taps += 1;
        Ok(TapPlace {
            number,
            name: self.ground.add_tap(number)?,
            of: None,
        })
    }

    fn ours(&mut self, name: &str, role: Role, program: &Path) -> Result<Contestant, Error> {
        let socket = self.sockets.join(format!("{name}.sock"));
        let (mut arguments, place) = match self.target {
            Target::Tap | Target::Qemu | Target::Uml => {
                let place = self.tap()?;
                let socket = format!("--socket-path={}", socket.display());
                (
                    vec![socket, format!("--tap={}", place.name)],
                    Place::Tap(place),
                )
            }
            Target::Switch => {
                let other = self.sockets.join(format!("{name}-2.sock"));
                let port = |path: &Path| format!("--port=socket={}", path.display());
                let arguments = vec!["--switch".to_owned(), port(&other), port(&socket)];
                (arguments, Place::Switch(other))
            }
        };
        arguments.extend_from_slice(self.extra);
        let started = self.start(program, &arguments, &socket);
        Ok(Contestant {
            name: name.to_owned(),
            role,
            version: version(program),
            entry: started.map(|daemon| Entry::Daemon(daemon, place)),
        })
    }

    /// Two ports, each on a tap of its own, and the kernel's bridge between them.
    fn bridged(&mut self, program: &Path) -> Result<Contestant, Error> {
        let taps = [self.tap()?.name, self.tap()?.name];
        self.ground.bridge(taps.each_ref().map(String::as_str))?;
        let sockets = [1, 2].map(|number| self.sockets.join(format!("bridged-{number}.sock")));
        let ports = sockets.iter().zip(&taps);
        let ports = ports.map(|(at, tap)| format!("--port=socket={},tap={tap}", at.display()));
        let arguments: Vec<String> = ports.chain(self.extra.iter().cloned()).collect();
        let [other, socket] = sockets;
        let started = self.start(program, &arguments, &socket);
        Ok(Contestant {
            name: BRIDGED.to_owned(),
            role: Role::OtherBuild,
            version: version(program),
            entry: started.map(|daemon| Entry::Daemon(daemon, Place::Switch(other))),
        })
    }

    fn start(
        &self,
        program: &Path,
        arguments: &[String],
        socket: &Path,
    ) -> Result<RunningDaemon, String> {
        let build = OurBuild::probe(program, self.extra).map_err(|error| error.to_string())?;
        if self.target == Target::Switch {
            build
                .option("--switch")
                .map_err(|error| error.to_string())?;
        }
        let started = self
            .ground
            .run(|| RunningDaemon::start(program, arguments, socket));
        let started = started.map_err(|error| error.to_string())?;
        started.map_err(|error| error.to_string())
    }
}

fn adopt(peer: &ExternalPeer<Target>) -> Contestant {
    let entry = || {
        let adopted = RunningDaemon::adopt(&peer.socket, peer.pid);
        let daemon = adopted.map_err(|error| error.to_string())?;
        let name = tap_of(peer.pid).ok_or("it holds no tap")?;
        let (number, of) = (0, Some(peer.pid));
        let place = Place::Tap(TapPlace { number, name, of });
        Ok(Entry::Daemon(daemon, place))
    };
    Contestant {
        name: peer.name.clone(),
        role: Role::Peer,
        version: None,
        entry: entry(),
    }
}

/// The tap that a process has open: the kernel names it in proc(5)'s `fdinfo`.
fn tap_of(pid: u32) -> Option<String> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    let name = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("iff:"))?;
        let name = line.trim();
        (!name.is_empty()).then(|| name.to_owned())
    };
    let texts = files
        .flatten()
        .flat_map(|file| std::fs::read_to_string(file.path()));
    texts.filter_map(name).next()
}
