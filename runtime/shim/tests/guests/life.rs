//! A pod of two containers, from its start to its end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{Empty, UpdateTaskRequest};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::context::with_duration;
use containerd_shim_protos::{Client, TaskClient};
use serde_json::json;
use sha2::{Digest, Sha256};

use rustix::process::Signal;

use crate::containerd::{Containerd, eventually, kill};
use crate::volumes;

/// Bytes through standard output.
const FLOOD: usize = 100 << 20;
/// Bytes in and out at the same time.
const ECHO: usize = 4 << 20;
/// Processes of the storm, and how many at a time.
const STORM: usize = 200;
const AT_ONCE: usize = 8;

#[test]
fn a_pod_lives() {
    let mut containerd = Containerd::start("shim-life");
    let net = Net::new();
    let seen = containerd.scratch.join("events");
    let mut events = containerd.background(&["events"], &seen);
    let fast = volumes::Memory::new(&containerd);
    start(&containerd, &net);
    files(&containerd);
    network(&containerd);
    a_killed_daemon(&containerd);
    volumes::all(&containerd, &fast);
    drop(fast);
    streams(&containerd);
    limits(&containerd);
    storm(&containerd);
    pause(&containerd);
    containerd.restart();
    assert_eq!(containerd.state("a").as_deref(), Some("RUNNING"));
    assert_eq!(containerd.exec("b", "echo still here").ok(), "still here\n");
    signals(&containerd);
    events.kill().unwrap();
    events.wait().unwrap();
    let seen = fs::read_to_string(seen).unwrap();
    for topic in [
        "create",
        "start",
        "exec-added",
        "exec-started",
        "exit",
        "delete",
        "oom",
        "paused",
        "resumed",
    ] {
        assert!(
            seen.contains(&format!("/tasks/{topic} ")),
            "no {topic} in {seen}"
        );
    }
    containerd.remove("b");
    containerd.remove("a");
    containerd.assert_nothing_left();
    let links = net.inside(&["link"]);
    assert!(!links.contains("tap"), "a tap is left: {links}");
}

/// Two containers of one pod, as CRI says so.
pub(crate) fn start(containerd: &Containerd, net: &Net) {
    let scratch = &containerd.scratch;
    let folder = |name: &str| scratch.dir(name).unwrap().display().to_string();
    let (data, secret) = (folder("data"), folder("secret"));
    let file = scratch.file("file", "a file\n").unwrap();
    publish(Path::new(&secret), "one");
    let data = format!("type=bind,src={data},dst=/data,options=rbind:rw");
    let secret = format!("type=bind,src={secret},dst=/secret,options=rbind:ro");
    let file = format!(
        "type=bind,src={},dst=/etc/file,options=bind:ro",
        file.display()
    );
    let netns = format!("network:/run/netns/{}", net.0);
    let cgroup = "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro";
    let sandbox = "io.kubernetes.cri.sandbox-id=a";
    containerd.run_on(
        "a",
        &[
            "--annotation",
            "io.kubernetes.cri.container-type=sandbox",
            "--annotation",
            sandbox,
            "--annotation",
            "io.ringside.rootfs=block",
            "--with-ns",
            &netns,
            "--mount",
            &data,
            "--mount",
            &secret,
            "--mount",
            &file,
        ],
    );
    containerd.run_on(
        "b",
        &[
            "--annotation",
            "io.kubernetes.cri.container-type=container",
            "--annotation",
            sandbox,
            "--with-ns",
            &netns,
            "--mount",
            &data,
            "--mount",
            cgroup,
            "--memory-limit",
            "67108864",
        ],
    );
    assert_eq!(containerd.shim("a"), containerd.shim("a"));
    let list = containerd.ctr(&["task", "ls"]).ok();
    let pids: Vec<_> = list
        .lines()
        .skip(1)
        .map(|it| it.split_whitespace().nth(1))
        .collect();
    assert_eq!(pids[0], pids[1], "one machine: {list}");
}

/// A new version of a volume, as kubelet's atomic writer makes it.
fn publish(folder: &Path, text: &str) {
    let version = folder.join(format!("..{text}"));
    fs::create_dir(&version).unwrap();
    fs::write(version.join("key"), format!("{text}\n")).unwrap();
    symlink(version.file_name().unwrap(), folder.join("..new")).unwrap();
    fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    if !folder.join("key").exists() {
        symlink("..data/key", folder.join("key")).unwrap();
    }
}

pub(crate) fn files(containerd: &Containerd) {
    let text = containerd
        .exec("a", "cat /secret/key /etc/file; echo hello >/data/x")
        .ok();
    assert_eq!(text, "one\na file\n");
    assert_eq!(
        containerd.exec("b", "cat /data/x; echo on >>/data/x").ok(),
        "hello\n"
    );
    let data = fs::read_to_string(containerd.scratch.join("data/x")).unwrap();
    assert_eq!(data, "hello\non\n");
    for path in ["/secret/key", "/etc/file"] {
        let ran = containerd.exec("a", &format!("echo no >{path}"));
        assert!(ran.code != 0 && ran.err.contains("Read-only"), "{ran:?}");
    }
    publish(&containerd.scratch.join("secret"), "two");
    eventually("a changed secret does not arrive", || {
        containerd.exec("a", "cat /secret/key").ok() == "two\n"
    });
    // Each has its own root, and sees its own processes.
    containerd.exec("a", "touch /mine").ok();
    assert_ne!(containerd.exec("b", "test -e /mine").code, 0);
}

pub(crate) fn network(containerd: &Containerd) {
    let ping = containerd
        .exec("b", "ip addr show eth0; ping -c 2 -W 5 10.77.0.1")
        .ok();
    assert!(ping.contains("10.77.0.2/24"), "{ping}");
}

/// A killed network daemon is started again, and the machine goes on with it.
pub(crate) fn a_killed_daemon(containerd: &Containerd) {
    let killed = containerd.part("a", "vhost-user-net0");
    kill(killed, Signal::KILL);
    eventually("it is not started again", || {
        containerd.part("a", "vhost-user-net0") != killed
    });
    eventually("the network does not come back", || {
        containerd.exec("b", "ping -c 1 -W 2 10.77.0.1").code == 0
    });
}

fn streams(containerd: &Containerd) {
    let flood = noise(FLOOD);
    fs::write(containerd.scratch.join("data/flood"), &flood).unwrap();
    let began = Instant::now();
    let ran = containerd.exec("a", "cat /data/flood");
    eprintln!("{FLOOD} bytes in {:?}", began.elapsed());
    fs::remove_file(containerd.scratch.join("data/flood")).unwrap();
    assert_eq!(ran.out.len(), FLOOD, "{}", ran.err);
    assert!(
        Sha256::digest(&ran.out) == Sha256::digest(&flood),
        "other bytes"
    );
    let input = &flood[..ECHO];
    let ran = containerd.exec_with("a", "cat; echo done >&2; exit 3", input);
    assert_eq!((ran.code, ran.err.as_str()), (3, "done\n"));
    assert!(
        ran.out == input,
        "{} of {ECHO} bytes, or others",
        ran.out.len()
    );
    // Input that ends at once.
    assert_eq!(
        containerd.exec_with("a", "cat; echo end", b"x").ok(),
        "xend\n"
    );
}

/// Bytes without a pattern, the same each time (xorshift, Marsaglia 2003).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn limits(containerd: &Containerd) {
    let limit = containerd.exec(
        "b",
        "cat /sys/fs/cgroup/pod/b/memory.max /sys/fs/cgroup/memory.max 2>/dev/null",
    );
    assert_eq!(limit.text(), "67108864\n");
    let metrics = containerd.ctr(&["task", "metrics", "b"]).ok();
    assert!(
        metrics.contains("67108864") && metrics.contains("pids.current"),
        "{metrics}"
    );
    let ran = containerd.exec("b", "x=a; while :; do x=$x$x$x$x; done");
    assert_eq!(ran.code, 137, "{ran:?}");
    assert_eq!(containerd.state("b").as_deref(), Some("RUNNING"));
    updated_limits(containerd);
}

/// ctr has no `update`: kubelet's resizes come by this call.
fn updated_limits(containerd: &Containerd) {
    let less = json!({"memory": {"limit": 32 << 20}, "pids": {"limit": 8}, "cpu": {"quota": 20_000, "period": 100_000}});
    update(containerd, "b", &less).unwrap();
    let files = "cd /sys/fs/cgroup/pod/b; cat memory.max pids.max cpu.max";
    assert_eq!(
        containerd.exec("b", files).text(),
        "33554432\n8\n20000 100000\n"
    );
    // 40 MiB were allowed before, and ten processes.
    let ran = containerd.exec("b", "head -c 41943040 /dev/zero | tail -c 41943040 | wc -c");
    assert_ne!(ran.text(), "41943040\n");
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait";
    let ran = containerd.exec("b", script);
    assert!(ran.code != 0 && ran.err.contains("fork"), "{ran:?}");
    let nonsense = json!({"memory": {"limit": "much"}});
    assert!(update(containerd, "b", &nonsense).is_err());
    let more = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 1000}, "cpu": {"quota": -1, "period": 100_000}});
    update(containerd, "b", &more).unwrap();
    containerd.exec("b", script).ok();
}

fn update(
    containerd: &Containerd,
    id: &str,
    resources: &serde_json::Value,
) -> containerd_shim_protos::ttrpc::Result<Empty> {
    let client = Client::connect(&containerd.shim_address(id))?;
    let request = UpdateTaskRequest {
        id: id.to_owned(),
        resources: MessageField::some(Any {
            value: serde_json::to_vec(resources).unwrap(),
            ..Any::default()
        }),
        ..UpdateTaskRequest::default()
    };
    TaskClient::new(client).update(with_duration(Duration::from_secs(60)), &request)
}

/// Many processes at once: each gets its own output and exit code.
fn storm(containerd: &Containerd) {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            scope.spawn(move || {
                for number in (worker..STORM).step_by(AT_ONCE) {
                    let ran = containerd.exec("a", &format!("echo {number}; exit {number}"));
                    assert_eq!(ran.text(), format!("{number}\n"));
                    assert_eq!(ran.code, i32::try_from(number).unwrap(), "{ran:?}");
                }
            });
        }
    });
    eprintln!("{STORM} processes in {:?}", began.elapsed());
    let listed = containerd.ctr(&["task", "ps", "a"]).ok();
    assert_eq!(listed.lines().count(), 2, "processes are left: {listed}");
}

fn pause(containerd: &Containerd) {
    containerd
        .exec(
            "b",
            "while :; do echo x >>/data/ticks; sleep 0.05; done >/dev/null 2>&1 &",
        )
        .ok();
    let ticks = || fs::metadata(containerd.scratch.join("data/ticks")).map_or(0, |it| it.len());
    eventually("nothing ticks", || ticks() > 2);
    containerd.ctr(&["task", "pause", "b"]).ok();
    assert_eq!(containerd.state("b").as_deref(), Some("PAUSED"));
    let (then, _) = (ticks(), std::thread::sleep(Duration::from_millis(500)));
    assert_eq!(ticks(), then, "a paused container goes on");
    containerd.ctr(&["task", "resume", "b"]).ok();
    eventually("a resumed container stands still", || ticks() > then);
    let ran = containerd.ctr(&["task", "checkpoint", "b"]);
    assert!(ran.code != 0 && ran.err.contains("checkpointed"), "{ran:?}");
}

/// A signal reaches a container's first process, whose trap chooses the exit code.
fn signals(containerd: &Containerd) {
    let sandbox = "io.kubernetes.cri.sandbox-id=a";
    let script = "trap 'echo got it >/data/got; exit 9' USR1; touch /data/ready; while :; do sleep 0.1; done";
    let data = format!(
        "type=bind,src={},dst=/data,options=rbind:rw",
        containerd.scratch.join("data").display()
    );
    let options = [
        "-d",
        "--annotation",
        "io.kubernetes.cri.container-type=container",
        "--annotation",
        sandbox,
        "--mount",
        &data,
    ];
    let command = ["sh", "-c", script];
    containerd
        .ctr(&Containerd::run_arguments("c", &options, &command))
        .ok();
    eventually("the third container does not run", || {
        containerd.scratch.join("data/ready").exists()
    });
    containerd.ctr(&["task", "kill", "-s", "USR1", "c"]).ok();
    eventually("a signal has no effect", || {
        containerd.state("c").as_deref() == Some("STOPPED")
    });
    assert!(containerd.scratch.join("data/got").exists());
    let removed = containerd.ctr(&["task", "rm", "c"]);
    assert!(removed.err.contains("exit code 9"), "{removed:?}");
    containerd.ctr(&["container", "rm", "c"]).ok();
}

/// A network namespace with an interface, as CNI's bridge plugin would leave it. Its other end has one of its own:
/// the host's addresses are nobody's business here.
pub(crate) struct Net(String);

impl Net {
    pub(crate) fn new() -> Self {
        let net = Self(format!("rs-shim-{}", std::process::id()));
        let [name, outside] = net.namespaces();
        for line in [
            format!("netns add {name}"),
            format!("netns add {outside}"),
            format!("-n {name} link set lo up"),
            format!("link add eth0 netns {name} type veth peer name bridge netns {outside}"),
            format!("-n {outside} addr add 10.77.0.1/24 dev bridge"),
            format!("-n {outside} link set bridge up"),
            format!("-n {name} addr add 10.77.0.2/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via 10.77.0.1"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(done.success(), "ip {line}");
        }
        net
    }

    fn namespaces(&self) -> [String; 2] {
        [self.0.clone(), format!("{}-outside", self.0)]
    }

    pub(crate) fn inside(&self, arguments: &[&str]) -> String {
        let shown = Command::new("ip")
            .args(["-n", &self.0])
            .args(arguments)
            .output();
        String::from_utf8_lossy(&shown.unwrap().stdout).into_owned()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
        }
    }
}
