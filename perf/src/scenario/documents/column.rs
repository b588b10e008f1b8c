//! The documents' columns: ways to storage, side by side in one guest.

use std::path::Path;

use lab::guest::{QemuGuest, VhostUser};
use lab::need;

use super::error::Error;
use super::ground::Ground;
use super::options::DocumentsConfig;
use crate::peer::{Aio, Backing, OurBuild, Qsd, RunningDaemon, find_ours};
use crate::report::with_causes;
use crate::scenario::Role;
use crate::scenario::fs::{Cache, FileDaemon, find_rust_virtiofsd};

/// Names that the aims speak of.
pub(super) const PLAIN: &str = "plain, memory disk of the guest";
pub(super) const P9_NONE: &str = "9p, cache=none";
pub(super) const P9_LOOSE: &str = "9p, cache=loose";
pub(super) const OUR_FS: &str = "ringside, virtiofs";
pub(super) const OUR_BLOCK: &str = "ringside, block";

/// Entries of a file system's queue, as `ringside run` has them. With QEMU's 128 some thirty requests are under way, and
/// Linux tries again with the next one after a millisecond.
const FS_QUEUE: u16 = 1024;

/// A way to storage.
pub(super) struct Column {
    /// In reports.
    pub(super) name: String,
    /// Below `/mnt` in the guest.
    pub(super) place: &'static str,
    pub(super) role: Role,
    /// Or why it takes no part.
    pub(super) seat: Result<Seat, String>,
}

/// How the guest gets at it.
pub(super) struct Seat {
    /// The guest's order that mounts it.
    pub(super) mount: String,
    device: Device,
    /// What serves it, where that is not the hypervisor or the guest.
    pub(super) daemon: Option<RunningDaemon>,
}

enum Device {
    None,
    P9,
    Fs,
    Blk,
}

/// Everybody, with daemons that listen.
pub(super) fn line_up(config: &DocumentsConfig, ground: &Ground) -> Result<Vec<Column>, Error> {
    let mut all = vec![
        nine_p(P9_NONE, "p9none", "none", config),
        nine_p(P9_LOOSE, "p9loose", "loose", config),
        file_system(OUR_FS, "oursfs", Role::Ours, ours_fs(), ground),
        file_system(
            "rust virtiofsd, virtiofs",
            "rustfs",
            Role::Peer,
            find_rust_virtiofsd(config.rust_virtiofsd.as_deref()).map(FileDaemon::Rust),
            ground,
        ),
        file_system(
            "qemu virtiofsd, virtiofs",
            "qemufs",
            Role::Peer,
            need::file("/usr/lib/qemu/virtiofsd", "qemu-system-common")
                .map(FileDaemon::Qemu)
                .map_err(|error| error.to_string()),
            ground,
        ),
    ];
    let disks = [
        (OUR_BLOCK, "oursblk", Role::Ours),
        ("qemu-storage-daemon, block", "qsdblk", Role::Peer),
    ];
    let mut letters = 'a'..;
    for (name, place, role) in disks {
        let image = ground.image(place)?;
        let socket = ground.socket(place);
        let daemon = match role {
            Role::Ours => our_disk(&image, &socket),
            _ => qsd(&image, &socket),
        };
        let seat = daemon.map(|daemon| Seat {
            mount: format!(
                "attach {place} ext4 /dev/vd{} noatime",
                letters.next().unwrap_or('a')
            ),
            device: Device::Blk,
            daemon: Some(daemon),
        });
        all.push(column(name, place, role, seat));
    }
    all.push(plain(ground));
    Ok(all)
}

fn column(name: &str, place: &'static str, role: Role, seat: Result<Seat, String>) -> Column {
    Column {
        name: name.to_owned(),
        place,
        role,
        seat,
    }
}

/// A disk of the guest's own memory, with the content of the first disk: no host, no device.
fn plain(ground: &Ground) -> Column {
    let mount = format!(
        "memory_disk {} /dev/vda && attach plain ext4 /dev/ram0 noatime",
        ground.image_kib()
    );
    let seat = Seat {
        mount,
        device: Device::None,
        daemon: None,
    };
    column(PLAIN, "plain", Role::Limit, Ok(seat))
}

fn nine_p(name: &str, place: &'static str, cache: &str, config: &DocumentsConfig) -> Column {
    let seat = match config.smoke {
        true => Err("Debian's cloud kernel, which a smoke test boots, has no 9p".to_owned()),
        false => Ok(Seat {
            mount: format!(
                "attach {place} 9p {place} trans=virtio,version=9p2000.L,msize=512000,cache={cache}"
            ),
            device: Device::P9,
            daemon: None,
        }),
    };
    column(name, place, Role::Peer, seat)
}

fn ours_fs() -> Result<FileDaemon, String> {
    let build = OurBuild::probe(&find_ours("virtiofsd"), &[]);
    build
        .map(FileDaemon::Ours)
        .map_err(|error| error.to_string())
}

fn file_system(
    name: &str,
    place: &'static str,
    role: Role,
    daemon: Result<FileDaemon, String>,
    ground: &Ground,
) -> Column {
    let seat = daemon.and_then(|daemon| {
        let started = daemon.start(&ground.shared(), Cache::Auto, 1, &ground.socket(place));
        Ok(Seat {
            mount: format!("attach {place} virtiofs {place} rw"),
            device: Device::Fs,
            daemon: started.map_err(|error| with_causes(&error))?,
        })
    });
    column(name, place, role, seat)
}

fn our_disk(image: &Path, socket: &Path) -> Result<RunningDaemon, String> {
    let build = OurBuild::probe(&find_ours("vhost-user-blk"), &[]);
    let build = build.map_err(|error| error.to_string())?;
    let arguments = [
        format!("--socket-path={}", socket.display()),
        format!("--blk-file={}", image.display()),
    ];
    let started = RunningDaemon::start(&build.program, &arguments, socket);
    started.map_err(|error| with_causes(&error))
}

fn qsd(image: &Path, socket: &Path) -> Result<RunningDaemon, String> {
    let program = need::program(Qsd::PROGRAM).map_err(|error| error.to_string())?;
    let backing = Backing::File {
        path: image,
        direct: false,
    };
    let arguments = Qsd::arguments(backing, Aio::IoUring, socket, 1);
    let started = RunningDaemon::start(&program, &arguments, socket);
    started.map_err(|error| with_causes(&error))
}

impl Column {
    /// Gives the guest the column's device.
    pub(super) fn plug(&self, guest: QemuGuest, ground: &Ground) -> QemuGuest {
        let Ok(seat) = &self.seat else {
            return guest;
        };
        let place = self.place;
        let socket = ground.socket(place);
        match seat.device {
            Device::None => guest,
            Device::Fs => guest.fs(VhostUser::new(socket).queue_size(FS_QUEUE), place),
            Device::Blk => guest.blk(socket),
            Device::P9 => guest.options([
                "-fsdev".to_owned(),
                format!(
                    "local,id={place},security_model=none,multidevs=remap,path={}",
                    ground.shared().display()
                ),
                "-device".to_owned(),
                format!("virtio-9p-pci,fsdev={place},mount_tag={place}"),
            ]),
        }
    }
}
