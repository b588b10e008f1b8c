//! QEMU's storage daemon, as Debian ships it, at its best: with an I/O thread.

use std::path::Path;

use super::Backing;

/// How it reaches a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aio {
    /// io_uring.
    IoUring,
    /// A pool of threads.
    Threads,
    /// Linux AIO; needs O_DIRECT.
    Native,
}

/// One way to run the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Qsd;

impl Aio {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::IoUring, Self::Threads, Self::Native];

    /// Its name in QEMU's options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
            Self::Native => "native",
        }
    }
}

impl Qsd {
    /// The program's name.
    pub const PROGRAM: &'static str = "qemu-storage-daemon";

    /// Its arguments. `aio` matters to files only.
    #[must_use]
    pub fn arguments(backing: Backing<'_>, aio: Aio, socket: &Path, queues: u16) -> Vec<String> {
        let node = match backing {
            Backing::Null { bytes } => format!("driver=null-co,node-name=disk,size={bytes}"),
            Backing::File { path, direct } => {
                let direct = match direct || aio == Aio::Native {
                    true => "on",
                    false => "off",
                };
                // Several daemons serve the one file in turn; none keeps the others out.
                format!(
                    "driver=file,node-name=disk,filename={},locking=off,aio={},cache.direct={direct}",
                    escape(path),
                    aio.name()
                )
            }
        };
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={},\
             writable=on,num-queues={queues},iothread=io",
            escape(socket)
        );
        [
            "--object",
            "iothread,id=io",
            "--blockdev",
            &node,
            "--export",
            &export,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// QEMU's options double a comma inside a value.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_goes_past_the_page_cache() {
        let backing = Backing::File {
            path: Path::new("/a,b"),
            direct: false,
        };
        let node = |aio| Qsd::arguments(backing, aio, Path::new("/s"), 2)[3].clone();
        assert!(node(Aio::Native).ends_with("aio=native,cache.direct=on"));
        assert!(node(Aio::Threads).ends_with("aio=threads,cache.direct=off"));
        assert!(node(Aio::IoUring).contains("filename=/a,,b,"));
    }
}
