//! `ringside run ID`, which OCI runtimes have, too.

use std::path::PathBuf;

use clap::Args;

/// What `ringside run` is told of a bundle's container, instead of a root and a command.
#[derive(Debug, Clone, Default, Args)]
pub struct BundleOptions {
    /// With ID: the directory with config.json [default: .]
    #[arg(
        short,
        long,
        value_name = "DIR",
        requires = "id",
        conflicts_with = "command"
    )]
    pub bundle: Option<PathBuf>,
    /// With ID: return when the container has started, and leave it there
    #[arg(short, long, requires = "id", conflicts_with = "command")]
    pub detach: bool,
    /// With ID: leave the container there when it has stopped
    #[arg(long, requires = "id", conflicts_with = "command")]
    pub keep: bool,
    /// With ID: write the id of the process that stands for the container on the host to this file
    #[arg(long, value_name = "FILE", requires = "id", conflicts_with = "command")]
    pub pid_file: Option<PathBuf>,
    /// With ID and --detach: send the terminal of the container through this unix socket, for `process.terminal`
    #[arg(long, value_name = "SOCKET", requires_all = ["id", "detach"], conflicts_with = "command")]
    pub console_socket: Option<PathBuf>,
    /// Run a bundle's container of this id: create, start, wait, delete
    #[arg(conflicts_with_all = [
        "rootfs", "root", "image", "disks", "net", "publish", "cpus", "memory", "hypervisor", "env", "cwd", "tty",
        "keep_logs", "metrics_dir", "command",
    ])]
    pub id: Option<String>,
}
