//! Real guests for tests: a tiny root file system, and `ringside run` on it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &str = "sh cat echo env false head httpd id ip kill ls md5sum mkdir mount nc printf pwd \
                       sha256sum sleep stat stty sync touch true tty yes";

/// One guest at a time, whatever the test runner does: two of them would only make both slow.
pub(crate) struct Turn(#[allow(dead_code, reason = "held, not read")] File);

impl Turn {
    pub(crate) fn take() -> Self {
        let path = std::env::temp_dir().join("ringside-test-guest.lock");
        let file = File::create(path).unwrap();
        file.lock().unwrap();
        Self(file)
    }
}

/// A root file system, a run directory of its own, and the programs, built as this test was.
pub(crate) struct Bench {
    folder: TempDir,
    _turn: Turn,
}

impl Bench {
    pub(crate) fn new() -> Self {
        build_programs();
        let folder = tempfile::Builder::new().prefix("rs").tempdir().unwrap();
        let bench = Self {
            folder,
            _turn: Turn::take(),
        };
        let root = bench.root();
        for name in ["bin", "dev", "proc", "sys", "run", "tmp", "mnt", "www"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, root.join("bin/busybox"))
            .expect("static busybox is needed: apt-get install busybox-static");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::create_dir(bench.path("xdg")).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// `ringside run` with the root file system and `options`, without the command.
    pub(crate) fn ringside(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.env("XDG_RUNTIME_DIR", self.path("xdg"));
        command
            .arg("run")
            .arg("--rootfs")
            .arg(self.root())
            .args(options);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a shell script in a guest to its end.
    pub(crate) fn script(&self, options: &[&str], script: &str) -> Output {
        self.ringside(options)
            .args(["--", "sh", "-c", script])
            .output()
            .unwrap()
    }

    /// Ids of all processes that have this bench's folder in their command line.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let folder = self.folder.path().to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id: i32| {
            let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(folder).then_some((id, line))
        })
        .collect()
    }

    /// The process whose program has that name.
    pub(crate) fn process(&self, program: &str) -> i32 {
        let all = self.processes();
        let found = all.iter().find(|(_, line)| {
            let first = line.split(' ').next().unwrap_or_default();
            Path::new(first)
                .file_name()
                .is_some_and(|name| name == program)
        });
        found
            .unwrap_or_else(|| panic!("no {program} among {all:#?}"))
            .0
    }

    /// Fails unless nothing of any run is left: no process, no file.
    pub(crate) fn assert_nothing_left(&self) {
        eventually("processes are left", || self.processes().is_empty());
        let base = self.path("xdg/ringside");
        let left: Vec<_> = fs::read_dir(base).into_iter().flatten().flatten().collect();
        let left: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["lock"], "the run left files behind");
    }
}

/// A failed test leaves nothing behind either: ringside's end takes the rest along.
impl Drop for Bench {
    fn drop(&mut self) {
        for (id, _) in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(id) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// How long anything may take: a machine in the lab's machine on a busy host is slow.
const LONGEST: Duration = Duration::from_secs(240);

/// Waits until something is so.
pub(crate) fn eventually(otherwise: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONGEST;
    while !is_so() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn signal(id: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until the guest's command made a file in the shared root, so that it surely runs.
pub(crate) fn wait_for_file(path: &Path, child: &mut Child) {
    eventually("the guest's command did not start", || {
        assert!(child.try_wait().unwrap().is_none(), "ringside ended early");
        path.exists()
    });
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds the daemons and the static agent in the profile of this test, unless
/// `RINGSIDE_TEST_PREBUILT` says that somebody did.
pub(crate) fn build_programs() {
    if std::env::var_os("RINGSIDE_TEST_PREBUILT").is_some() {
        return;
    }
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let release = env!("CARGO_BIN_EXE_ringside").contains("/release/");
        let build = |flags: &str, arguments: &[&str]| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo
                .args(["build", "-q"])
                .args(arguments)
                .args(release.then_some("--release"));
            if !flags.is_empty() {
                cargo.env("RUSTFLAGS", flags);
            }
            assert!(
                cargo.status().unwrap().success(),
                "cargo build {arguments:?} failed"
            );
        };
        build(
            "",
            &[
                "-p",
                "virtiofsd",
                "-p",
                "vhost-user-blk",
                "-p",
                "vhost-user-net",
                "-p",
                "vhost-user-vsock",
                "-p",
                "ringside-shim",
                "-p",
                "vmm",
            ],
        );
        let target = "x86_64-unknown-linux-gnu";
        build(
            "-C target-feature=+crt-static -C strip=debuginfo",
            &[
                "-p",
                "ringside-agent",
                "-p",
                "ringside-lab-init",
                "--target",
                target,
            ],
        );
    });
}
