//! What a container has as disks: its root, where that is a block device, and raw block volumes.

use std::path::{Path, PathBuf};

use containerd_shim::protos::ttrpc::{Code, Error};
use containerd_shim::protos::types::mount::Mount;
use containerd_shim::util::mount_rootfs;
use ringside_config::RootFs;
use ringside_pod::spec::Plan;
use ringside_pod::{Pod, chain};
use ringside_protocol::agent::BlockVolume;

use super::answer::{failure, status};
use super::create::Planned;

/// Where a bundle's root file system is mounted.
pub(super) const ROOTFS: &str = "rootfs";

/// File systems that the guest's kernel mounts from a disk.
const OF_DISKS: [&str; 1] = ["ext4"];

/// A container's disks, as far as they are plugged in.
#[derive(Debug, Default)]
pub(super) struct Disks {
    /// The root's serial, if that is one.
    pub(super) root: Option<String>,
    /// The volumes, by the paths that the container has them at.
    pub(super) volumes: Vec<BlockVolume>,
}

impl Disks {
    /// Plugs in what a container needs; a root that is no disk is mounted on the host.
    pub(super) async fn plug_in(
        &mut self,
        planned: &Planned<'_>,
        mut plan: Plan,
    ) -> Result<Plan, Error> {
        let pod = planned.pod;
        let mounts = &planned.request.rootfs;
        let is_block = pod.configuration().rootfs == RootFs::Block;
        match mounts.as_slice() {
            [mount] if is_block && is_disk(mount) => {
                let read_only = mount.options.iter().any(|it| it == "ro");
                let added = pod.add_disk(Path::new(&mount.source), read_only).await;
                let serial = added.map_err(failure)?;
                let options = mount.options.iter().filter(|it| *it != "loop");
                plan.root_on_disk(&serial, &mount.type_, options.cloned().collect());
                self.root = Some(serial);
            }
            mounts => mount_all(mounts, &planned.bundle.join(ROOTFS)).await?,
        }
        for volume in &plan.volumes {
            let added = pod.add_disk(&volume.device, volume.read_only).await;
            self.volumes.push(BlockVolume {
                path: volume.path.display().to_string(),
                serial: added.map_err(failure)?,
                ..BlockVolume::default()
            });
        }
        Ok(plan)
    }

    /// All of them.
    pub(super) fn serials(&self) -> Vec<String> {
        let volumes = self.volumes.iter().map(|it| it.serial.clone());
        volumes.chain(self.root.clone()).collect()
    }
}

/// Whether a guest can mount this itself: a block device, or an image that would become one.
fn is_disk(mount: &Mount) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = std::fs::metadata(PathBuf::from(&mount.source)).map(|it| it.file_type());
    let is_image = mount.options.iter().any(|it| it == "loop");
    OF_DISKS.contains(&mount.type_.as_str())
        && kind.is_ok_and(|it| it.is_block_device() || (is_image && it.is_file()))
}

async fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), Error> {
    for mount in mounts {
        let mounted = mount_rootfs(mount, rootfs).await;
        mounted.map_err(|error| {
            let message = format!("cannot mount {} for the root: {error}", mount.source);
            status(Code::UNKNOWN, message)
        })?;
    }
    Ok(())
}

/// Takes disks away that no container uses any more. What does not go is told of, and nothing waits for it.
pub(super) async fn unplug(pod: &Pod, serials: &[String]) {
    for serial in serials {
        if let Err(error) = pod.remove_disk(serial).await {
            tracing::warn!(serial, "{}", chain(&error));
        }
    }
}
