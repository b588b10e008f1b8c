//! Starts the process that stands for one in a guest, and hears from it how that went.

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::pipe::pipe;
use serde_json::Value;

use super::OciError;
use super::state::{Entry, StateRoot};
use crate::options::GlobalOptions;

/// Longest report: an error's message, with the console of a guest that did not start.
const LONGEST_REPORT: u64 = 1 << 20;

/// Starts it with this process's standard streams; returns its id once the process in the guest was made.
///
/// # Errors
/// What it says went wrong.
pub(super) fn start(
    global: &GlobalOptions,
    root: &StateRoot,
    entry: &Entry,
    exec: Option<&str>,
    console: Option<&Path>,
) -> Result<u32, OciError> {
    let failed = || OciError::system("start the process that stands for it");
    // Not closed on exec: the child gets the second.
    let (reader, writer) = pipe().map_err(|error| failed()(error.into()))?;
    let program = std::env::current_exe().map_err(failed())?;
    let mut command = Command::new(program);
    command.arg("--root").arg(root.path());
    if global.debug {
        command.arg("--debug");
    }
    command.args(["hold", "--report", &writer.as_raw_fd().to_string()]);
    if let Some(exec) = exec {
        command.args(["--exec", exec]);
    }
    if let Some(console) = console {
        command.arg("--console-socket").arg(console);
    }
    let mut child = command.arg("--").arg(&entry.id).spawn().map_err(failed())?;
    drop(writer);
    let mut line = String::new();
    let mut reader = BufReader::new(File::from(reader).take(LONGEST_REPORT));
    reader.read_line(&mut line).map_err(failed())?;
    let report: Value = match serde_json::from_str(&line) {
        Ok(report) => report,
        Err(_) => {
            let status = child.wait().map_err(failed())?;
            return Err(OciError::Holder(format!(
                "the process that stands for container {} ended early ({status})",
                entry.id
            )));
        }
    };
    if let Some(pid) = report["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
    {
        return Ok(pid);
    }
    // It has nothing left to do but to end.
    let _ = child.wait();
    let message = report["error"].as_str().unwrap_or("it does not say why");
    Err(OciError::Holder(message.to_owned()))
}

/// Mode of a process id's file, less the umask: who may look at the folder may read it.
const PID_FILE_MODE: u32 = 0o666;

/// Writes a process id whole or not at all: engines read the file as soon as it is there. The new file has a name that
/// nobody knows before, and is made, never found: in a folder that others may write to, a link could wait there.
pub(super) fn write_pid_file(path: &Path, pid: u32) -> Result<(), OciError> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let written = tempfile::Builder::new()
        .prefix(".pid-")
        .permissions(Permissions::from_mode(PID_FILE_MODE))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .and_then(|mut file| {
            file.write_all(pid.to_string().as_bytes())?;
            file.persist(path).map_err(|error| error.error)
        });
    written
        .map(drop)
        .map_err(OciError::file("write --pid-file", path))
}

/// A path that is right in another directory, too.
pub(super) fn absolute(path: &Path) -> Result<std::path::PathBuf, OciError> {
    std::path::absolute(path).map_err(OciError::file("find", path))
}

/// No descriptor can enter a machine.
pub(super) fn refuse_descriptors(count: u32) -> Result<(), OciError> {
    if count == 0 {
        return Ok(());
    }
    Err(OciError::usage(format!(
        "--preserve-fds {count}: a descriptor of the host cannot be given to a process in a machine"
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_pid_file_is_written_through_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, victim) = (folder.path().join("pid"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        // As it would be planted: where the file is to be, and where its name says it is made.
        for name in ["pid", ".pid"] {
            symlink(&victim, folder.path().join(name)).unwrap();
        }
        write_pid_file(&file, 4711).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&file).unwrap(), "4711");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o600, 0o600, "{mode:o}");
        assert_eq!(mode & 0o111, 0, "{mode:o}");
        write_pid_file(&file, 4712).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "4712");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            3,
            "nothing is left"
        );
        let refused = write_pid_file(&folder.path().join("no/such"), 1).unwrap_err();
        assert!(refused.to_string().contains("--pid-file"), "{refused}");
    }
}
