//! The daemons that every VMM's guest has: one of a kind, serving one VMM after another.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::process::Daemon;

use super::Error;
use crate::peer::find_ours;

const STARTS: Duration = Duration::from_secs(20);
const DISK: u64 = 64 << 20;

/// Their sockets.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) blk: PathBuf,
    pub(super) net: PathBuf,
    pub(super) fs: PathBuf,
    _daemons: [Daemon; 3],
}

impl Devices {
    pub(super) fn start(scratch: &Path) -> Result<Self, Error> {
        let at = |name: &str| scratch.join(name);
        let (disk, shared) = (at("disk"), at("shared"));
        File::create(&disk)
            .and_then(|file| file.set_len(DISK))
            .map_err(|source| Error::Write(disk.clone(), source))?;
        std::fs::create_dir(&shared).map_err(|source| Error::Write(shared.clone(), source))?;
        let (blk, net, fs) = (at("blk.sock"), at("net.sock"), at("fs.sock"));
        let start = |program: &str, socket: &Path, with: &[&str], path: Option<&Path>| {
            let daemon = Daemon::builder(find_ours(program)).bound().args(with);
            let daemon = path.into_iter().fold(daemon, |daemon, it| daemon.arg(it));
            daemon.spawn_listening(socket, STARTS)
        };
        let socket = |path: &Path| format!("--socket-path={}", path.display());
        let port = format!("socket={},name=guest", net.display());
        let daemons = [
            start(
                "vhost-user-blk",
                &blk,
                &[&socket(&blk), "--blk-file"],
                Some(&disk),
            )?,
            start("vhost-user-net", &net, &["--switch", "--port", &port], None)?,
            start(
                "virtiofsd",
                &fs,
                &[&socket(&fs), "--shared-dir"],
                Some(&shared),
            )?,
        ];
        Ok(Self {
            blk,
            net,
            fs,
            _daemons: daemons,
        })
    }
}
