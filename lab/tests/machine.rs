//! The lab's machine: streams, files, KVM, its ends, and one at a time.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::frontend::blk::{Blk, Data, kind, status};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::machine::{Error as MachineError, Machine};
use lab::process::{Daemon, binary};
use lab::scratch::Scratch;
use rustix::process::Signal;

type TestResult = Result<(), Box<dyn Error>>;

const LAB: &str = env!("CARGO_BIN_EXE_ringside-lab");
/// A machine takes four seconds, and on a busy host many times as long.
const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(10);

#[test]
fn streams_files_and_exit_code_are_exact_and_kvm_is_native() -> TestResult {
    let scratch = Scratch::new("machine")?;
    let shared = scratch.dir("shared")?;
    let (sent, written) = (lab::pattern(1, 1 << 20), lab::pattern(2, 1 << 20));
    fs::write(shared.join("to-stdout"), &written)?;
    let below = scratch.file("below", "from the host")?;
    let kvm = Command::new(std::env::current_exe()?);
    let script = format!(
        r#"set -e
        cat >"$1/from-stdin"
        cat "$1/to-stdout"
        test "$(cat "$2")" = "from the host"
        echo changed >"$2"
        test "$(cat "$2")" = changed
        {0} --exact kvm_runs_ring_0_natively --ignored >"$1/kvm" 2>&1
        {0} --exact a_daemon_that_the_kernel_kills_for_its_memory_loses_no_write --ignored >"$1/oom" 2>&1
        "$3" run --here -- sh -c 'exit 7' || test $? = 7
        echo to standard error >&2
        exit 42"#,
        kvm.get_program().display()
    );
    let mut run = Command::new(LAB)
        .args(["run", "-m", "1024", "-w"])
        .arg(&shared)
        .args(["--", "sh", "-c", &script, "sh"])
        .args([&shared, &below])
        .arg(LAB)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = run.stdin.take().ok_or("no standard input")?;
    let input = sent.clone();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let output = run.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;

    let said = |name| fs::read_to_string(shared.join(name)).unwrap_or_default();
    let (kvm, oom) = (said("kvm"), said("oom"));
    let stderr = without_waiting(&String::from_utf8(output.stderr)?);
    assert_eq!(stderr, "to standard error\n", "{kvm}{oom}");
    assert_eq!(output.status.code(), Some(42));
    assert!(output.stdout == written, "standard output differs");
    assert!(
        fs::read(shared.join("from-stdin"))? == sent,
        "standard input differs"
    );
    assert_eq!(fs::read_to_string(&below)?, "from the host");
    assert!(kvm.contains("1 passed"), "{kvm}");
    assert!(oom.contains("1 passed"), "{oom}");
    Ok(())
}

/// What another machine on this host may add.
fn without_waiting(stderr: &str) -> String {
    let lines = stderr.split_inclusive('\n');
    lines
        .filter(|line| !line.starts_with("lab: waiting"))
        .collect()
}

#[test]
#[ignore = "runs in the lab's machine, called by the test above"]
fn kvm_runs_ring_0_natively() -> TestResult {
    let speed = ringside::kvm::probe()?;
    assert!(speed.is_native(), "{speed:?}");
    Ok(())
}

/// A cgroup with the memory controller. Hosts have it in different places, or do not let it be used: here the kernel
/// is the lab's.
const CGROUP: &str = "/sys/fs/cgroup/short";
const BLOCK: usize = 4096;

#[test]
#[ignore = "runs in the lab's machine, called by the first test"]
fn a_daemon_that_the_kernel_kills_for_its_memory_loses_no_write() -> TestResult {
    let cgroup = Path::new(CGROUP);
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
    fs::create_dir(cgroup)?;
    // The image is in memory, too: what was written there stays charged.
    let scratch = Scratch::in_memory("oom")?;
    scratch.image("disk", 8 << 20)?;
    scratch.dir("state")?;
    let mut daemon = disk_in_a_cgroup(&scratch)?;
    let memory = GuestMemory::with_size(16 << 20)?;
    let mut front_end = attach(&scratch, &memory)?;
    let mut blk = Blk::new(front_end.set_up_queue(0, 128)?);
    blk.exchange().set_timeout(BOOT);
    for block in 0..64 {
        let state = blk.write(sector(block), &content(block))?;
        assert_eq!(state, status::OK);
    }
    let (mut tickets, mut taken) = (Vec::new(), None);
    for block in 64..96 {
        let data = content(block);
        tickets.push(blk.submit(kind::OUT, sector(block), Data::ToDevice(&data))?);
        if block == 80 {
            // Returns when what cannot be had by force has been had by killing.
            let take = move || fs::write(cgroup.join("memory.max"), "4096");
            taken = Some(thread::spawn(take));
        }
    }
    if let Some(taken) = taken {
        taken.join().map_err(|_| "the thread panicked")??;
    }
    let exit = daemon.wait_exit(BOOT)?;
    assert_eq!(exit.status.signal(), Some(9), "{}", exit.stderr);
    let events = fs::read_to_string(cgroup.join("memory.events"))?;
    assert!(events.contains("oom_kill 1"), "{events}");
    drop(front_end);

    fs::write(cgroup.join("memory.max"), "max")?;
    let mut daemon = disk_in_a_cgroup(&scratch)?;
    let mut front_end = attach(&scratch, &memory)?;
    front_end.attach_queue(blk.queue(), blk.queue().used_idx()?)?;
    blk.queue().kick_always()?;
    for ticket in tickets {
        assert_eq!(blk.wait(ticket)?.0, status::OK);
    }
    for block in 0..96 {
        let read = blk.read(sector(block), BLOCK)?;
        assert!(read == (status::OK, content(block)), "block {block}");
    }
    let exit = daemon.terminate(BOOT)?;
    assert!(exit.status.success(), "{}", exit.stderr);
    Ok(())
}

fn sector(block: u64) -> u64 {
    block * BLOCK as u64 / 512
}

fn content(block: u64) -> Vec<u8> {
    lab::pattern(block, BLOCK)
}

fn disk_in_a_cgroup(scratch: &Scratch) -> Result<Daemon, Box<dyn Error>> {
    let socket = scratch.join("socket");
    // One that was killed leaves it.
    let _ = fs::remove_file(&socket);
    let daemon = Daemon::builder("sh")
        .args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec "$@""#, CGROUP])
        .arg(binary("vhost-user-blk")?)
        .arg("--blk-file")
        .arg(scratch.join("disk"))
        .arg("--state-dir")
        .arg(scratch.join("state"))
        .arg("--socket-path")
        .arg(&socket);
    Ok(daemon.spawn_listening(&socket, BOOT)?)
}

fn attach(scratch: &Scratch, memory: &GuestMemory) -> Result<FrontEnd, Box<dyn Error>> {
    let mut front_end = FrontEnd::connect(&scratch.join("socket"), BOOT)?;
    front_end.set_timeout(BOOT);
    let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end.handshake(features::VERSION_1, protocol)?;
    front_end.set_mem_table(memory)?;
    Ok(front_end)
}

#[test]
fn a_panic_is_told_with_the_ends_of_output_and_console() {
    let script = "echo the last word; sleep 0.1; echo c >/proc/sysrq-trigger";
    let error = machine(&["sh", "-c", script]).run().unwrap_err();
    assert!(matches!(error, MachineError::Panicked { .. }), "{error}");
    let text = error.to_string();
    for part in [
        "panicked: sysrq triggered crash",
        "the last word",
        "Call Trace",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

/// Two processors, one of which patches what the other runs, may never get past it (docs/lab.md, "Static keys").
#[test]
fn a_second_processor_starts_when_kvm_has_patched_the_kernel() -> TestResult {
    let machine = Machine::new(["sh", "-c", "nproc; dmesg"]);
    let said = machine.cpus(2).limit(BOOT).run()?.success()?;
    assert!(said.starts_with("2\n"), "{said}");
    let kvm = said.find("Nested Paging enabled");
    let second = said.find("Booting Node 0 Processor 1");
    assert!(kvm.is_some() && kvm < second, "{kvm:?}, {second:?}: {said}");
    Ok(())
}

#[test]
fn a_missing_command_is_told() {
    let error = machine(&["no-such-command"]).run().unwrap_err();
    let is_127 = matches!(error, MachineError::NotRun { code: 127, .. });
    assert!(
        is_127 && error.to_string().contains("no-such-command"),
        "{error}"
    );
}

#[test]
fn a_time_limit_and_a_directory_that_is_none_are_told() {
    let limit = Duration::from_secs(1);
    let error = machine(&["true"])
        .limit(limit)
        .run()
        .unwrap_err()
        .to_string();
    let sentence = "the lab's machine was still starting when its time limit of 1s passed";
    assert!(error.starts_with(sentence), "{error}");
    let error = machine(&["true"])
        .writable("/etc/passwd")
        .run()
        .unwrap_err();
    assert!(error.to_string().contains("/etc/passwd"), "{error}");
}

fn machine(command: &[&str]) -> Machine {
    Machine::new(command.iter().copied()).memory_mib(512)
}

/// One machine runs, a second one waits for it; neither leaves a process, however it ends.
#[test]
fn there_is_one_at_a_time_and_nothing_stays() -> TestResult {
    let start = || {
        Daemon::builder(LAB)
            .args([
                "run",
                "-m",
                "512",
                "--",
                "sh",
                "-c",
                "echo up >&2; sleep 1000",
            ])
            .spawn()
    };
    let mut first = start()?;
    first.wait_stderr("up", BOOT)?;
    let processes = descendants(first.pid());
    assert!(
        processes.len() >= 3,
        "QEMU, virtiofsd and its sandbox: {processes:?}"
    );

    let mut second = start()?;
    let waits = format!("waiting for the machine of process {}", first.pid());
    second.wait_stderr(&waits, SOON)?;
    let exit = first.terminate(SOON)?;
    assert_eq!(exit.status.code(), Some(128 + 15), "{}", exit.stderr);
    assert!(
        exit.stderr.contains("stopped by signal 15"),
        "{}",
        exit.stderr
    );
    wait_until_gone(&processes);

    second.wait_stderr("up", BOOT)?;
    let processes = descendants(second.pid());
    second.signal(Signal::KILL)?;
    second.wait_exit(SOON)?;
    wait_until_gone(&processes);
    Ok(())
}

/// All processes below this one (proc(5), `/proc/pid/task/tid/children`).
fn descendants(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let children = tasks.into_iter().flatten().flatten().flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect::<Vec<u32>>()
    });
    children
        .flat_map(|child| [vec![child], descendants(child)].concat())
        .collect()
}

fn wait_until_gone(processes: &[u32]) {
    let deadline = Instant::now() + SOON;
    // Without a command line it is a zombie, which PID 1 may not have reaped yet.
    let lives = |id: &u32| {
        fs::read(Path::new("/proc").join(id.to_string()).join("cmdline"))
            .is_ok_and(|line| !line.is_empty())
    };
    while processes.iter().any(lives) {
        assert!(
            Instant::now() < deadline,
            "of {processes:?} some still live"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
