//! `ringside` as an OCI runtime, called as container engines do.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use ringside_pod::identity::Identity;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, waitpid};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::engine::{Engine, read_json};
use crate::support::{eventually, signal, text};

/// Bytes through standard input and output: much more than every buffer on the way holds.
const MUCH: usize = 3_000_000;

#[test]
fn a_container_lives_as_an_engine_wants_it() {
    let script =
        "cat; echo done >&2; trap 'exit 42' TERM; touch /tmp/runs; while :; do sleep 0.1; done";
    let engine = Engine::new(json!({"args": ["sh", "-c", script]}));
    engine.refused(&["create", "--bundle", "/no/such", "c1"], "/no/such");
    engine.refused(&["start", "c1"], "c1 does not exist");
    engine.refused(
        &["create", "--bundle", engine.folder(), "a/b"],
        "names no container",
    );
    engine.ok(&["delete", "--force", "c1"]);
    let bad = engine.bench.path("bad");
    fs::create_dir(&bad).unwrap();
    fs::write(bad.join("config.json"), "{\"ociVersion\": 7}").unwrap();
    engine.refused(
        &["create", "-b", bad.to_str().unwrap(), "c1"],
        "config.json",
    );
    assert_eq!(engine.json(&["features"])["linux"]["cgroup"]["v2"], true);

    // As conmon: what the container's process leaves is ours to wait for.
    set_child_subreaper(Some(getpid())).unwrap();
    let (mut streams, pid) = engine.create(&[]);
    assert_eq!(engine.status(), "created");
    engine.refused(&["create", "-b", engine.folder(), "c1"], "c1 exists");
    engine.refused(&["pause", "c1"], "it is created");
    engine.ok(&["start", "c1"]);
    through(&mut streams);
    eventually("it does not go on", || {
        engine.bench.root().join("tmp/runs").exists()
    });
    let state = engine.json(&["state", "c1"]);
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("running"), &json!(pid))
    );
    engine.refused(&["start", "c1"], "it is running");
    engine.refused(&["delete", "c1"], "it is running");

    look(&engine);
    engine.ok(&["kill", "c1", "SIGTERM"]);
    let ended = waitpid(Pid::from_raw(pid), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(ended.1.exit_status(), Some(42));
    assert_eq!(engine.status(), "stopped");
    engine.refused(&["kill", "c1", "TERM"], "it is stopped");
    let mut errors = String::new();
    streams
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(errors, "done\n");
    engine.ok(&["delete", "c1"]);
    engine.assert_nothing_left();
}

/// Everything that goes into the container comes out of it.
fn through(streams: &mut Child) {
    let sent: Vec<u8> = (0..u32::try_from(MUCH / 4).unwrap())
        .flat_map(u32::to_le_bytes)
        .collect();
    let expected = sent.clone();
    let mut input = streams.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(&sent));
    let mut read = vec![0; expected.len()];
    streams
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut read)
        .unwrap();
    writer.join().unwrap().unwrap();
    assert!(read == expected, "bytes are lost or changed");
}

/// Verbs for a container that runs.
fn look(engine: &Engine) {
    let exec = engine.run(&["exec", "c1", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(exec.status.code(), Some(7));
    assert_eq!(
        (text(&exec.stdout), text(&exec.stderr)),
        ("out\n".into(), "err\n".into())
    );
    let lost = engine.run(&["exec", "c1", "/no/such"]);
    assert_eq!(lost.status.code(), Some(255), "{}", text(&lost.stderr));
    let process = engine.bench.path("process.json");
    let object = json!({
        "args": ["sh", "-c", "touch /tmp/detached; exec sleep 100"], "cwd": "/tmp", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}
    });
    fs::write(&process, object.to_string()).unwrap();
    let pid_file = engine.bench.path("exec.pid");
    let pid_file = pid_file.to_str().unwrap();
    let process = process.to_str().unwrap();
    // With streams of nobody's: it would hold this test's for as long as it runs.
    let mut detached = engine.command(&["exec", "-d", "-p", process, "--pid-file", pid_file, "c1"]);
    let status = detached
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    eventually("it does not run", || {
        engine.bench.root().join("tmp/detached").exists()
    });
    let holder: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert!(Path::new(&format!("/proc/{holder}")).exists());
    let pids = engine.json(&["ps", "--format", "json", "c1"]);
    assert!(pids.as_array().unwrap().len() >= 2, "{pids}");
    signal(holder, Signal::TERM);
    let ended = waitpid(Pid::from_raw(holder), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(ended.1.exit_status(), Some(128 + 15));

    engine.ok(&["pause", "c1"]);
    assert_eq!(engine.status(), "paused");
    engine.refused(&["delete", "c1"], "it is paused");
    engine.ok(&["resume", "c1"]);
    let event = engine.json(&["events", "--stats", "c1"]);
    assert_eq!(
        (&event["type"], &event["id"]),
        (&json!("stats"), &json!("c1"))
    );
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    let page = engine.ok(&["metrics", "c1"]);
    for words in [
        "container=\"c1\"",
        "part=\"virtiofsd\",queue=",
        "part=\"qemu\"",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(engine.ok(&["logs", "c1"]).contains("==> virtiofsd <=="));
    assert!(engine.ok(&["list"]).contains("running"));
    assert_eq!(engine.ok(&["list", "-q"]), "c1\n");
}

#[test]
fn a_terminal_goes_to_the_engine_and_sigkill_leaves_nothing() {
    // The size is told by a signal, the start by a call: what comes first is not said.
    let script = "until test \"$(stty size 2>/dev/null)\" = '33 77'; do sleep 0.1; done; stty size; \
                  read word; echo got $word; exec sleep 1000";
    let engine = Engine::new(json!({"args": ["sh", "-c", script], "terminal": true}));
    engine.refused(&["create", "-b", engine.folder(), "c1"], "--console-socket");
    let socket = engine.bench.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    let received = thread::spawn(move || receive(&listener));
    let (_streams, pid) = engine.create(&["--console-socket", socket.to_str().unwrap()]);
    let mut master = received.join().unwrap();
    let size = Winsize {
        ws_row: 33,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    engine.ok(&["start", "c1"]);
    let mut seen = String::new();
    see(&mut master, &mut seen, "33 77\r\n");
    master.write_all(b"this\n").unwrap();
    see(&mut master, &mut seen, "got this\r\n");
    signal(pid, Signal::KILL);
    eventually("it goes on", || engine.status() == "stopped");
    eventually("its machine goes on", || {
        engine.bench.processes().is_empty()
    });
    after_a_reboot(&engine);

    // The same for the shim, and for one that was never started.
    fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let received = thread::spawn(move || receive(&listener));
    let (_streams, _) = engine.create(&["--console-socket", socket.to_str().unwrap()]);
    let _master = received.join().unwrap();
    signal(
        engine.bench.process("containerd-shim-ringside-v2"),
        Signal::KILL,
    );
    eventually("it goes on", || engine.status() == "stopped");
    engine.ok(&["delete", "--force", "c1"]);
    engine.assert_nothing_left();
}

/// What is left names processes that others are by now, their start times included: nobody is signalled.
fn after_a_reboot(engine: &Engine) {
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let its = Identity::of(stranger.id()).to_string();
    let (process, _) = its.rsplit_once(' ').unwrap();
    let (pid, started) = process.split_once(' ').unwrap();
    let of_another_boot = "3b1c2f0e-0000-4000-8000-000000000000";
    let state = engine.bench.path("oci/c1/state.json");
    let mut record = read_json(&state);
    let number = |text: &str| text.parse::<u64>().unwrap();
    record["holder"] =
        json!({"pid": number(pid), "started": number(started), "boot": of_another_boot});
    fs::write(state, record.to_string()).unwrap();
    let pods = fs::read_dir(engine.bench.path("pods")).unwrap().flatten();
    let parts = pods.flat_map(|pod| fs::read_dir(pod.path()).unwrap().flatten());
    let parts = parts.filter(|it| it.path().extension().is_some_and(|it| it == "pid"));
    let named =
        parts.map(|it| fs::write(it.path(), format!("{process} {of_another_boot}\n")).unwrap());
    assert!(named.count() >= 3);
    let state = engine.json(&["state", "c1"]);
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("stopped"), &json!(0))
    );
    assert!(engine.ok(&["list"]).contains("stopped"));
    engine.refused(&["kill", "c1", "KILL"], "it is stopped");
    engine.ok(&["delete", "c1"]);
    engine.assert_nothing_left();
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a stranger was signalled"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// Reads until these words have come.
fn see(master: &mut File, seen: &mut String, words: &str) {
    let mut buffer = [0; 512];
    while !seen.contains(words) {
        let length = master.read(&mut buffer).unwrap();
        seen.push_str(&text(&buffer[..length]));
    }
}

/// The terminal that comes with a message.
fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut parts = [IoSliceMut::new(&mut name)];
    recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let [terminal] = descriptors.try_into().unwrap();
    let path = PathBuf::from(text(&name).trim_end_matches('\0'));
    assert!(path.starts_with("/dev/pts"), "{path:?}");
    terminal.into()
}
