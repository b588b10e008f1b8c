//! Who is there.

use std::env;
use std::path::{Path, PathBuf};

use lab::need;

use super::Role;
use super::config::FsConfig;
use super::contestant::{Contestant, Entry};
use super::workload::Target;
use crate::peer::{OurBuild, version};

/// The name of our daemon, with one queue, in reports.
pub(super) const OURS: &str = "ringside";
/// Where `make bench` installs peers.
const INSTALLED: &str = "/var/cache/ringside/peers/bin";

/// Everybody who can take part in a target; who cannot is there with the reason.
pub(super) fn line_up(target: Target, config: &FsConfig) -> Vec<Contestant> {
    let run = &config.run;
    let arguments = &run.ours_arguments;
    let mut all = vec![ours(OURS.to_owned(), Role::Ours, &run.ours, 1, arguments)];
    if config.queues > 1 {
        let name = format!("{OURS} {}q", config.queues);
        all.push(ours(name, Role::Ours, &run.ours, config.queues, arguments));
    }
    if let Some(directory) = &config.state_dir {
        let mut arguments = arguments.clone();
        arguments.push(format!("--state-dir={}", directory.display()));
        let name = format!("{OURS} that survives");
        all.push(ours(name, Role::OtherBuild, &run.ours, 1, &arguments));
    }
    for (name, program) in &run.other_builds {
        let name = name.clone();
        all.push(ours(name, Role::OtherBuild, program, 1, arguments));
    }
    let given = config.rust_virtiofsd.as_deref();
    all.push(peer("rust virtiofsd", find_rust(given), Entry::Rust));
    let qemu = need::file("/usr/lib/qemu/virtiofsd", "qemu-system-common");
    all.push(peer(
        "qemu virtiofsd",
        qemu.map_err(|it| it.to_string()),
        Entry::Qemu,
    ));
    let external = config.peers.iter().filter(|peer| peer.target == target);
    all.extend(external.map(|peer| Contestant {
        name: peer.name.clone(),
        role: Role::Peer,
        version: None,
        queues: 1,
        entry: Ok(Entry::External(peer.clone())),
    }));
    all.push(Contestant {
        name: "bare host".to_owned(),
        role: Role::Limit,
        version: None,
        queues: 1,
        entry: Ok(Entry::Host),
    });
    all
}

fn ours(name: String, role: Role, program: &Path, queues: u16, arguments: &[String]) -> Contestant {
    let build = OurBuild::probe(program, arguments);
    Contestant {
        name,
        role,
        version: version(program),
        queues,
        entry: build.map(Entry::Ours).map_err(|error| error.to_string()),
    }
}

fn peer(name: &str, program: Result<PathBuf, String>, entry: fn(PathBuf) -> Entry) -> Contestant {
    Contestant {
        name: name.to_owned(),
        role: Role::Peer,
        version: program.as_deref().ok().and_then(version),
        queues: 1,
        entry: program.map(entry),
    }
}

/// Our own program has the same name, and so has QEMU's: the version tells them apart.
pub(in crate::scenario) fn find_rust(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let cargo = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(PathBuf::from(INSTALLED))
        .chain(cargo)
        .chain(env::split_paths(&path));
    let found = places.map(|dir| dir.join("virtiofsd")).find(|program| {
        program.is_file() && version(program).is_some_and(|it| it.starts_with("virtiofsd 1."))
    });
    found.ok_or_else(|| {
        "not installed: run `make bench-peers`, or give --rust-virtiofsd PATH".to_owned()
    })
}
