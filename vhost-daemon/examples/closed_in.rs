//! Closes itself in as a daemon does that serves no directory, and shows what the kernel then says of
//! it and lets it do: `closed_in on-demand|none DIR`. `tests/sandbox.rs` runs it.

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::CapabilitySet;
use vhost_daemon::sandbox::seccomp::Action;
use vhost_daemon::sandbox::{Enclosure, EnclosureConfig, Files};

fn tell<T, E: Display>(what: &str, result: Result<T, E>) {
    match result {
        Ok(_) => println!("can {what}"),
        Err(error) => println!("cannot {what}: {error}"),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let on_demand = arguments.next().as_deref() == Some("on-demand");
    let directory = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let there = |name| directory.join(name);
    let status = fs::File::open("/proc/self/status")?;
    let files = match on_demand {
        true => Files::OnDemand,
        false => Files::removed([there("old")]),
    };
    let config = EnclosureConfig {
        isolates: true,
        seccomp: Action::None,
        capabilities: CapabilitySet::empty(),
        required: CapabilitySet::empty(),
    };
    Enclosure { config, files }.enter()?;

    print!("{}", std::io::read_to_string(status)?);
    for kind in ["mnt", "net", "pid", "ipc"] {
        let namespace = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        println!("{kind} {}", namespace.display());
    }
    println!("memory {:?}", rustix::process::dumpable_behavior()?);
    tell("read", fs::read(there("old")));
    tell(
        "write",
        fs::OpenOptions::new().write(true).open(there("old")),
    );
    tell("make", fs::File::create(there("new")));
    tell("bind", UnixListener::bind(there("socket")));
    tell("mkdir", fs::create_dir(there("directory")));
    tell("link", std::os::unix::fs::symlink("old", there("link")));
    let moved = directory.with_extension("moved");
    tell("move", fs::rename(there("old"), moved));
    tell("run", Command::new("/bin/true").status());
    tell("connect", TcpStream::connect(("127.0.0.1", 9)));
    tell("remove", fs::remove_file(there("old")));
    tell("remove elsewhere", fs::remove_file(elsewhere(&directory)));
    Ok(())
}

/// A file beside the directory.
fn elsewhere(directory: &Path) -> PathBuf {
    directory.with_extension("beside")
}
