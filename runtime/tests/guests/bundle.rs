//! `ringside run ID`, hooks, networks and pods of several bundles.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::support::text;

const PODMAN_TYPE: &str = "io.kubernetes.cri-o.ContainerType";
const PODMAN_SANDBOX: &str = "io.kubernetes.cri-o.SandboxID";

/// A named network namespace with a pair of interfaces: what podman makes before it calls the runtime.
struct Network(String);

impl Network {
    fn new() -> Self {
        let network = Self(format!("rs-test-{}", std::process::id()));
        let name = network.0.as_str();
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link add eth0 type veth peer name far"));
        ip(&format!("-n {name} addr add 10.88.0.2/16 dev eth0"));
        ip(&format!("-n {name} link set far up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} route add default via 10.88.0.1"));
        network
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// Each hook of the host appends a line to this file, with the status that it was told; `bad` fails.
fn hooks(log: &Path, bad: &str) -> Value {
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let hook = |kind: &str| {
        let code = u8::from(kind == bad);
        let script = format!(
            "echo {kind} $(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') >>{}; exit {code}",
            log.display()
        );
        let fails = json!({"path": "/bin/false"});
        let one =
            json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
        match kind {
            // What comes last goes on after a failure.
            "poststop" => json!([fails, one]),
            _ => json!([one]),
        }
    };
    kinds
        .iter()
        .map(|kind| ((*kind).to_owned(), hook(kind)))
        .collect()
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_bundle_is_run_from_create_to_delete() {
    let script = "cat; ip -4 addr show eth0; ip route; exit 7";
    let engine = Engine::new(json!({"args": ["sh", "-c", script]}));
    let network = Network::new();
    let log = engine.bench.path("hooks");
    engine.edit(|config| {
        config["hooks"] = hooks(&log, "");
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(network.path());
            }
        }
    });
    let pid_file = engine.bench.path("pid");
    let pid = pid_file.to_str().unwrap();
    let command = engine.command(&["run", "--bundle", engine.folder(), "--pid-file", pid, "c1"]);
    let output = with_input(command, "typed\n");
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(7),
        "{said}{}",
        text(&output.stderr)
    );
    for words in ["typed\n", "inet 10.88.0.2/16", "default via 10.88.0.1"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(pid_file.exists());
    let told = fs::read_to_string(&log).unwrap();
    let expected =
        "prestart creating\ncreateRuntime creating\npoststart running\npoststop stopped\n";
    assert_eq!(told, expected);
    engine.assert_nothing_left();

    // A hook that fails ends it before its program runs; the last hooks are for what the first have made.
    fs::remove_file(&log).unwrap();
    engine.edit(|config| config["hooks"] = hooks(&log, "createRuntime"));
    let refused = engine.run(&["run", "--bundle", engine.folder(), "c1"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        text(&refused.stderr).contains("createRuntime"),
        "{}",
        text(&refused.stderr)
    );
    let told = fs::read_to_string(&log).unwrap();
    assert!(
        told.starts_with("prestart creating\ncreateRuntime creating\npoststop stopped\n"),
        "{told}"
    );
    assert!(!told.contains("poststart"), "{told}");
    engine.assert_nothing_left();
}

#[test]
fn bundles_of_one_sandbox_share_a_machine_and_limits_change() {
    let engine = Engine::new(json!({"args": ["sleep", "1000"]}));
    engine.edit(|config| {
        config["annotations"] = json!({PODMAN_TYPE: "sandbox", PODMAN_SANDBOX: "c1"});
    });
    let member = |config: &mut Value, script: &str| {
        config["annotations"] = json!({PODMAN_TYPE: "container", PODMAN_SANDBOX: "c1"});
        config["process"]["args"] = json!(["sh", "-c", script]);
    };
    let id = "cat /proc/sys/kernel/random/boot_id";
    let second = engine.bundle("second", |config| member(config, &format!("{id}; exit 5")));
    let lost = engine.bundle("lost", |config| member(config, "true"));
    let alone = engine.run(&["run", "--bundle", &second, "c2"]);
    assert!(
        text(&alone.stderr).contains("c1 does not exist"),
        "{}",
        text(&alone.stderr)
    );

    let pid_file = engine.bench.path("pid");
    let mut first = engine.command(&[
        "run",
        "--detach",
        "--bundle",
        engine.folder(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "c1",
    ]);
    // With streams of nobody's: it would hold this test's for as long as it runs.
    let status = first.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    assert_eq!(engine.status(), "running");
    let guest = engine.ok(&["exec", "c1", "sh", "-c", id]);
    let output = engine.run(&["run", "--bundle", &second, "c2"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), guest, "another machine");
    // One whose program is not there leaves nothing in the pod.
    fs::write(Path::new(&lost).join("config.json"), {
        let mut config = crate::engine::read_json(&Path::new(&lost).join("config.json"));
        config["process"]["args"] = json!(["/no/such"]);
        config.to_string()
    })
    .unwrap();
    let refused = engine.run(&["run", "--bundle", &lost, "c3"]);
    assert_eq!(
        refused.status.code(),
        Some(125),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(engine.ok(&["list", "-q"]), "c1\n");

    limits(&engine);
    let sleeper = engine.bundle("sleeper", |config| member(config, "sleep 1000"));
    members_leave_whoever_holds_them(&engine, &sleeper);
    let kept = engine.run(&["run", "--keep", "--bundle", &second, "c2"]);
    assert_eq!(kept.status.code(), Some(5));
    let page = engine.ok(&["metrics", "c1"]);
    for words in [
        "container=\"c1\"",
        "ringside_agent_anonymous_bytes ",
        "ringside_guest_cpus 1",
        "ringside_agent_info{",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    engine.ok(&["delete", "c2"]);
    engine.ok(&["delete", "--force", "c1"]);
    engine.assert_nothing_left();
}

/// The pod forgets a member that was made for nobody, and one whose holder was killed: its id can be had again.
fn members_leave_whoever_holds_them(engine: &Engine, bundle: &str) {
    let detached = |pid_file: &str| {
        let arguments = [
            "run",
            "--detach",
            "--bundle",
            bundle,
            "--pid-file",
            pid_file,
            "c4",
        ];
        let mut command = engine.command(&arguments);
        // With streams of nobody's: it would hold this test's for as long as it runs.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.unwrap().success()
    };
    assert!(!detached("/no/such/folder/pid"));
    let pid_file = engine.bench.path("pid");
    for _ in 0..2 {
        assert!(detached(pid_file.to_str().unwrap()), "the pod has it still");
        let holder: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(holder).unwrap(), Signal::KILL).unwrap();
        engine.ok(&["delete", "--force", "c4"]);
    }
    assert_eq!(engine.ok(&["list", "-q"]), "c1\n");
}

fn limits(engine: &Engine) {
    engine.refused(&["update", "c1"], "nothing to change");
    engine.refused(&["update", "--memory", "64M", "c9"], "c9 does not exist");
    let options = [
        "update",
        "--memory",
        "64M",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "c1",
    ];
    engine.ok(&options);
    let read = |file: &str| engine.ok(&["exec", "c1", "cat", &format!("/sys/fs/cgroup/{file}")]);
    assert_eq!(read("memory.max"), "67108864\n");
    assert_eq!(read("pids.max"), "50\n");
    assert_eq!(read("cpu.max"), "50000 100000\n");
    let object = json!({"memory": {"limit": 96 << 20}, "pids": {"limit": 7}});
    let output = with_input(
        engine.command(&["update", "--resources", "-", "--pids-limit", "60", "c1"]),
        &object.to_string(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(read("memory.max"), "100663296\n");
    assert_eq!(read("pids.max"), "60\n");
}
