//! `install.sh` on a node that is a directory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const SHIM: &str = "usr/local/bin/containerd-shim-ringside-v2";

struct Node {
    folder: TempDir,
}

impl Node {
    /// With an image, and an `nsenter` that only writes down that it was called.
    fn new() -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for name in ["ringside", "containerd-shim-ringside-v2"] {
            node.write(&format!("image/bin/{name}"), "#!/bin/sh\n");
        }
        let snippet = Path::new(env!("CARGO_MANIFEST_DIR")).join("containerd/ringside.toml");
        let snippet = fs::read_to_string(snippet).unwrap();
        node.write("image/share/ringside/containerd.toml", &snippet);
        let config = ringside_config::default_file();
        node.write("image/share/ringside/config.toml", &config);
        let calls = node.path("calls");
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", calls.display());
        node.write("path/nsenter", &script);
        fs::set_permissions(node.path("path/nsenter"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(node.path("node")).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn script(&self, what: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/install.sh");
        let mut command = Command::new(script);
        let path = std::env::var("PATH").unwrap();
        command
            .arg(what)
            .env("PATH", format!("{}:{path}", self.path("path").display()))
            .env("RINGSIDE_IMAGE", self.path("image"))
            .env("RINGSIDE_NODE", self.path("node"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn is(&self, what: &str) -> bool {
        self.script(what).output().unwrap().status.success()
    }

    /// Does `what`, and ends it as Kubernetes does.
    fn act(&self, what: &str) {
        let mut child = self.script(what).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut lines = said.lines().map(Result::unwrap);
        assert!(
            lines.any(|line| line == "ringside: done"),
            "{what} is not done"
        );
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(
            ended.signal(),
            Some(Signal::TERM.as_raw()),
            "{what} did not wait"
        );
        assert_eq!(lines.next(), None);
    }

    fn refused(&self) -> String {
        let output = self.script("install").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// How often containerd was restarted.
    fn restarts(&self) -> usize {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let wanted = "--target 1 --mount -- systemctl restart containerd";
        assert!(calls.lines().all(|call| call == wanted), "{calls}");
        calls.lines().count()
    }
}

#[test]
fn a_fresh_node_gets_everything_once() {
    let node = Node::new();
    assert!(!node.is("check"));
    node.act("install");
    assert!(node.is("check") && !node.is("check-removed"));
    assert_eq!(node.restarts(), 1);
    let snippet = node.read("node/etc/containerd/conf.d/ringside.toml");
    assert_eq!(snippet, node.read("image/share/ringside/containerd.toml"));
    let config: toml::Table =
        toml::from_str(&node.read("node/etc/containerd/config.toml")).unwrap();
    assert_eq!(
        config["imports"][0].as_str(),
        Some("/etc/containerd/conf.d/*.toml")
    );
    assert_eq!(config["version"].as_integer(), Some(2));

    // Once more nothing happens, and what the user changed stays.
    node.write("node/etc/ringside/config.toml", "sandbox = false\n");
    let before = fs::metadata(node.path("node").join(SHIM))
        .unwrap()
        .modified()
        .unwrap();
    node.act("install");
    let after = fs::metadata(node.path("node").join(SHIM))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!((before, node.restarts()), (after, 1));
    assert_eq!(
        node.read("node/etc/ringside/config.toml"),
        "sandbox = false\n"
    );

    node.act("remove");
    assert!(node.is("check-removed") && !node.is("check"));
    assert_eq!(node.restarts(), 2);
    assert_eq!(
        fs::read_dir(node.path("node/usr/local/bin"))
            .unwrap()
            .count(),
        0
    );
    node.act("remove");
    assert_eq!(node.restarts(), 2);
}

#[test]
fn a_program_that_runs_is_replaced() {
    let node = Node::new();
    let path = node.path("node").join(SHIM);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy("/bin/sleep", &path).unwrap();
    let mut running = Command::new(&path).arg("60").spawn().unwrap();
    node.act("install");
    assert!(node.is("check"));
    assert_eq!(running.try_wait().unwrap(), None, "it goes on as it was");
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn containerds_own_file_goes_on_to_say_what_it_said() {
    let node = Node::new();
    let own =
        "# mine\nversion = 2\nroot = \"/srv/containerd\"\n[grpc]\n  address = \"/run/c.sock\"\n";
    node.write("node/etc/containerd/config.toml", own);
    node.act("install");
    let text = node.read("node/etc/containerd/config.toml");
    assert!(text.ends_with(own), "{text}");
    let config: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(
        config["imports"][0].as_str(),
        Some("/etc/containerd/conf.d/*.toml")
    );
    // It is enough once.
    node.act("remove");
    node.act("install");
    assert_eq!(node.read("node/etc/containerd/config.toml"), text);

    // containerd itself sees the runtime, and what was there before.
    let containerd = lab::need::program("containerd").unwrap();
    let here = node.path("node/etc/containerd");
    let moved = text.replace("/etc/containerd", here.to_str().unwrap());
    node.write("moved.toml", &moved);
    let dump = Command::new(containerd)
        .args([
            "--config",
            node.path("moved.toml").to_str().unwrap(),
            "config",
            "dump",
        ])
        .output()
        .unwrap();
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let dump: toml::Table = toml::from_str(&String::from_utf8_lossy(&dump.stdout)).unwrap();
    assert_eq!(dump["root"].as_str(), Some("/srv/containerd"));
    let runtimes = &dump["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"];
    let runtime = &runtimes["ringside"];
    assert_eq!(
        runtime["runtime_type"].as_str(),
        Some("io.containerd.ringside.v2")
    );
    assert_eq!(
        runtime["privileged_without_host_devices"].as_bool(),
        Some(true)
    );
}

#[test]
fn files_that_need_a_hand_are_told() {
    for (own, expected) in [
        (
            "version = 2\nimports = [\"/etc/other.toml\"]\n",
            "imports other files: add \"/etc/containerd/conf.d/*.toml\"",
        ),
        ("[plugins.cri]\n", "is of version 1"),
    ] {
        let node = Node::new();
        node.write("node/etc/containerd/config.toml", own);
        let said = node.refused();
        assert!(said.contains(expected), "{said}");
        assert_eq!(node.read("node/etc/containerd/config.toml"), own);
        assert!(
            !node
                .path("node/etc/containerd/conf.d/ringside.toml")
                .exists()
        );
        assert_eq!(node.restarts(), 0);
    }
}
