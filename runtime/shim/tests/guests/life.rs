//! A pod of two containers, from its start to its end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::KillRequest;
use containerd_shim_protos::ttrpc::context::with_duration;
use rustix::process::Signal;

use crate::containerd::{Containerd, eventually, kill};
use crate::events::Events;
use crate::net::Net;
use crate::{limits, streams, volumes};

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
    let events = Events::follow(&containerd);
    let fast = volumes::Memory::new(&containerd);
    start(&containerd, &net);
    files(&containerd);
    network(&containerd);
    a_killed_daemon(&containerd);
    volumes::all(&containerd, &fast);
    drop(fast);
    streams::flood(&containerd, FLOOD);
    streams::echo(&containerd, "a", ECHO);
    streams::short_input(&containerd);
    limits::all(&containerd, &events);
    storm(&containerd);
    pause(&containerd);
    a_killed_exec(&containerd);
    containerd.restart();
    assert_eq!(containerd.state("a").as_deref(), Some("RUNNING"));
    assert_eq!(containerd.exec("b", "echo still here").ok(), "still here\n");
    signals(&containerd);
    let told = events.told();
    drop(events);
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
            told.contains(&format!("/tasks/{topic} ")),
            "no {topic} in {told}"
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

/// A client that deletes a further process kills "all" of it, which is that process: its container goes on.
fn a_killed_exec(containerd: &Containerd) {
    let command = ["task", "exec", "--exec-id", "e", "b", "sleep", "100001"];
    let mut exec = containerd.background(&command, &containerd.scratch.join("killed"));
    eventually("no further process", || {
        containerd.exec("b", "ps | grep -c 'sleep 10000[1]'").text() == "1\n"
    });
    // As containerd's WithProcessKill does; ctr asks for one or the other.
    let kill = KillRequest {
        id: "b".to_owned(),
        exec_id: "e".to_owned(),
        signal: 9,
        all: true,
        ..KillRequest::default()
    };
    let patience = with_duration(Duration::from_secs(60));
    containerd.calls("b").kill(patience, &kill).unwrap();
    assert_eq!(exec.wait().unwrap().code(), Some(137));
    assert_eq!(containerd.exec("b", "echo still here").ok(), "still here\n");
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
