//! Starts a target's contestants.

use std::path::Path;

use lab::need;

use super::Role;
use super::config::BlkConfig;
use super::contestant::{Contestant, Entry};
use super::image::Disk;
use super::workload::Target;
use crate::peer::fio::Engine;
use crate::peer::{
    Aio, Backing, BuildError, ExternalPeer, OurBuild, Qsd, RunningDaemon, Takes, version,
};

/// The name of our daemon in reports.
pub(super) const OURS: &str = "ringside";
/// What the names of QEMU's daemon begin with.
pub(super) const QSD: &str = "qsd ";
/// The limit that aims speak of.
pub(super) const FIO_IO_URING: &str = "fio io_uring";

/// Starts everybody who can serve the disk; who cannot is there with the reason. Our daemon locks
/// its image, so that each other build has one of its own, in `copies`.
pub(super) fn line_up(
    target: Target,
    disk: Result<&Disk, &str>,
    copies: &[Result<Disk, String>],
    config: &BlkConfig,
    sockets: &Path,
) -> Vec<Contestant> {
    let queues = config
        .workloads
        .iter()
        .map(|it| it.queues)
        .max()
        .unwrap_or(1);
    let starter = Starter {
        disk,
        sockets,
        queues,
    };
    let mut all = vec![starter.ours(
        OURS,
        Role::Ours,
        &config.run.ours,
        &config.run.ours_arguments,
    )];
    for ((name, program), disk) in config.run.other_builds.iter().zip(copies) {
        let starter = Starter {
            disk: disk.as_ref().map_err(String::as_str),
            ..starter
        };
        all.push(starter.ours(name, Role::OtherBuild, program, &config.run.ours_arguments));
    }
    match target {
        Target::Null => all.push(starter.qsd("null-co", Aio::Threads)),
        _ => all.extend(Aio::ALL.map(|aio| starter.qsd(aio.name(), aio))),
    }
    let peers = config.peers.iter().filter(|peer| peer.target == target);
    all.extend(peers.map(adopt));
    match target {
        Target::Tmpfs => all.extend([Engine::IoUring, Engine::Psync].map(|it| starter.fio(it))),
        Target::Disk => all.push(starter.fio(Engine::IoUring)),
        Target::Null => {}
    }
    all
}

fn adopt(peer: &ExternalPeer<Target>) -> Contestant {
    let adopted = RunningDaemon::adopt(&peer.socket, peer.pid);
    Contestant {
        name: peer.name.clone(),
        role: Role::Peer,
        version: None,
        entry: adopted
            .map(Entry::Daemon)
            .map_err(|error| error.to_string()),
    }
}

#[derive(Clone, Copy)]
struct Starter<'a> {
    disk: Result<&'a Disk, &'a str>,
    sockets: &'a Path,
    queues: u16,
}

impl Starter<'_> {
    fn ours(&self, name: &str, role: Role, program: &Path, extra: &[String]) -> Contestant {
        let start = || {
            let disk = self.disk?;
            let build = OurBuild::probe(program, extra).map_err(|error| error.to_string())?;
            let socket = self.sockets.join(format!("{name}.sock"));
            let arguments = disk_arguments(&build, disk.backing(), &socket, self.queues);
            let arguments = arguments.map_err(|error| error.to_string())?;
            let started = RunningDaemon::start(program, &arguments, &socket);
            started.map_err(|error| error.to_string())
        };
        Contestant {
            name: name.to_owned(),
            role,
            version: version(program),
            entry: start().map(Entry::Daemon),
        }
    }

    fn qsd(&self, kind: &str, aio: Aio) -> Contestant {
        let program = need::program(Qsd::PROGRAM).map_err(|error| error.to_string());
        let start = || {
            let (disk, program) = (self.disk?, program.clone()?);
            let socket = self.sockets.join(format!("qsd-{kind}.sock"));
            let arguments = Qsd::arguments(disk.backing(), aio, &socket, self.queues);
            let started = RunningDaemon::start(&program, &arguments, &socket);
            started.map_err(|error| error.to_string())
        };
        Contestant {
            name: format!("{QSD}{kind}"),
            role: Role::Peer,
            entry: start().map(Entry::Daemon),
            version: program.as_deref().ok().and_then(version),
        }
    }

    fn fio(&self, engine: Engine) -> Contestant {
        let program = need::program("fio").map_err(|error| error.to_string());
        let version = program.as_deref().ok().and_then(version);
        let entry = self.disk.map_err(str::to_owned).and(program);
        Contestant {
            name: format!("fio {}", engine.name()),
            role: Role::Limit,
            version,
            entry: entry.map(|program| Entry::Fio { program, engine }),
        }
    }
}

/// The arguments that make a build of ours serve a backing.
fn disk_arguments(
    build: &OurBuild,
    backing: Backing<'_>,
    socket: &Path,
    queues: u16,
) -> Result<Vec<String>, BuildError> {
    let mut arguments = vec![
        format!("--socket-path={}", socket.display()),
        format!("--queues={queues}"),
    ];
    match backing {
        Backing::File { path, direct } => {
            arguments.push(format!("--blk-file={}", path.display()));
            if direct {
                build.option("--direct")?;
                arguments.push("--direct".into());
            }
        }
        Backing::Null { bytes } => match build.option("--null")? {
            Takes::Value => arguments.push(format!("--null={bytes}")),
            Takes::Nothing => arguments.push("--null".into()),
        },
    }
    arguments.extend_from_slice(&build.extra);
    Ok(arguments)
}
