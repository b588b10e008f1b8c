//! The daemons of a pod and their command lines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::PodError;
use crate::directory::PodDirectory;
use crate::hypervisor::{FileSystem, VsockDevice};
use crate::parts::{PartEnd, Parts, Role};
use crate::proc::is_served;
use crate::programs;
use crate::share::TAG;

/// How long a daemon may take to listen: it may have to open a slow disk.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// The guest's number on its vsock: each machine has a device of its own, so all may have the same.
const GUEST_CID: u64 = 3;

/// Where the host's ends of the guest's sockets are.
pub(crate) const VSOCK: &str = "vsock";

/// Has a daemon serve its metrics at `PART.metrics` in the pod's directory.
pub(crate) fn serve_metrics(
    command: &mut Command,
    directory: &PodDirectory,
    part: &str,
) -> Result<(), PodError> {
    let socket = directory.socket(&format!("{part}.metrics"))?;
    command.arg("--metrics-socket").arg(socket);
    Ok(())
}

/// Starts virtiofsd on the shared directory.
pub(crate) fn start_virtiofsd(
    parts: &Parts,
    directory: &PodDirectory,
    shared: &Path,
) -> Result<FileSystem, PodError> {
    let socket = directory.socket("fs.sock")?;
    let mut command = Command::new(programs::VIRTIOFSD.find()?);
    command.arg("--socket-path").arg(&socket);
    command.arg("--shared-dir").arg(shared);
    command.args(["--tag", TAG, "--announce-submounts"]);
    serve_metrics(&mut command, directory, "virtiofsd")?;
    parts.start("virtiofsd", command, &[], Role::Daemon)?;
    Ok(FileSystem {
        socket,
        tag: TAG.to_owned(),
    })
}

/// Starts the vsock device. Connections to the guest begin at the returned path.
pub(crate) fn start_vsock(
    parts: &Parts,
    directory: &PodDirectory,
) -> Result<(VsockDevice, PathBuf), PodError> {
    let socket = directory.socket("vsock.sock")?;
    let ends = directory.socket(VSOCK)?;
    let mut command = Command::new(programs::VSOCK.find()?);
    command.arg("--socket-path").arg(&socket);
    command.arg("--uds-path").arg(&ends);
    command.arg("--cid").arg(GUEST_CID.to_string());
    serve_metrics(&mut command, directory, "vhost-user-vsock")?;
    parts.start("vhost-user-vsock", command, &[], Role::Daemon)?;
    let device = VsockDevice {
        socket,
        cid: GUEST_CID,
    };
    Ok((device, ends))
}

/// Returns when every socket is listened on.
pub(crate) async fn wait_until_served(
    sockets: &[&Path],
    parts: &Parts,
    ends: &mut UnboundedReceiver<PartEnd>,
) -> Result<(), PodError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Ok(end) = ends.try_recv() {
            return Err(parts.obituary(&end));
        }
        let Some(missing) = sockets.iter().find(|socket| !is_served(socket)) else {
            return Ok(());
        };
        if tokio::time::Instant::now() > deadline {
            return Err(PodError::NotServed {
                path: missing.to_path_buf(),
                seconds: PATIENCE.as_secs(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
