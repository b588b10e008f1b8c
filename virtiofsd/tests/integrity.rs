//! Data stay what was written, whatever is done to files in whatever order, with every way of caching:
//! on the host's own kernel by the lab's bridge, and in a guest. `make integrity` does more of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod exercise;
mod mapping;
mod mounted;
mod share;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use exercise::{Exercise, Stripes};
use lab::guest::UmlGuest;
use mounted::Mounted;
use share::{Share, TAG};

/// Operations of each process; `make test` takes the default.
const OPERATIONS: &str = "INTEGRITY_OPERATIONS";
const FEW: u64 = 2500;
/// The first seed; a process's own is that and its number.
const SEED: &str = "INTEGRITY_SEED";
/// What a process of [`work`] does: way, directory, the host's directory, seed, number, processes,
/// operations.
const TASK: &str = "INTEGRITY_TASK";
const WORK: &str = "--exact work --ignored --nocapture";

/// Processes at a time.
const PROCESSES: u64 = 2;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(number) => number.parse().expect("a number"),
        Err(_) => default,
    }
}

/// Runs as a process of its own.
#[test]
#[ignore = "the other tests run it"]
fn work() {
    let task = std::env::var(TASK).unwrap();
    let [way, directory, host, numbers @ ..] = &task.split(',').collect::<Vec<_>>()[..] else {
        panic!("{task}");
    };
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|number| number.parse().unwrap())
        .collect();
    let [seed, index, processes, operations] = numbers[..] else {
        panic!("{task}");
    };
    let directory = PathBuf::from(directory);
    let own = seed.wrapping_add(index);
    let outcome = if *way == "stripes" {
        let (index, processes) = (index as usize, processes as usize);
        Stripes::new(directory.join("shared"), own, index, processes).run(operations)
    } else {
        let host = (!host.is_empty()).then(|| PathBuf::from(host));
        Exercise::new(directory, host, own, *way == "direct").run(operations)
    };
    if let Err(what) = outcome {
        panic!("process {index}, {SEED}={seed}: {what}");
    }
    println!("integrity: fine");
}

fn task(way: &str, (directory, host): (&Path, &str), index: u64, operations: u64) -> String {
    let seed = number(SEED, 1);
    let directory = directory.display();
    format!("{way},{directory},{host},{seed},{index},{PROCESSES},{operations}")
}

fn start(task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(WORK.split(' '))
        .env(TASK, task)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Several processes at work on a mount.
fn exercise(way: &str, options: &[&str], share: Share) {
    let operations = number(OPERATIONS, FEW);
    let mut mounted = Mounted::on(share, 2);
    let host = mounted.share.directory.to_str().unwrap().to_owned();
    if way == "stripes" {
        fs::write(mounted.at.join("shared"), vec![0; exercise::LEN]).unwrap();
    }
    let begun = Instant::now();
    let children: Vec<Child> = (0..PROCESSES)
        .map(|index| start(&task(way, (&mounted.at, &host), index, operations)))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let fine = output.status.success()
            && String::from_utf8_lossy(&output.stdout).contains("integrity: fine");
        assert!(fine, "{way} {options:?}\n{said}");
    }
    let took = begun.elapsed().as_secs_f64();
    let all = operations * PROCESSES;
    println!(
        "{way:8} {all:9} operations in {took:7.2} s  {}",
        options.join(" ")
    );
    mounted.unmount();
}

fn exercise_each(way: &str, options: &[&str]) {
    let with = |daemon: lab::process::DaemonBuilder| daemon.args(options);
    exercise(way, options, Share::start_with("integrity", with));
    exercise(way, options, Share::start_in_memory("integrity", with));
}

#[test]
fn auto() {
    exercise_each("cached", &["--cache", "auto"]);
}

#[test]
fn always() {
    exercise_each("cached", &["--cache", "always"]);
}

#[test]
fn never() {
    exercise_each("cached", &["--cache", "never"]);
}

#[test]
fn never_but_mapped() {
    exercise_each("cached", &["--cache", "never", "--allow-mmap"]);
}

#[test]
fn written_back() {
    exercise_each("cached", &["--cache", "always", "--writeback"]);
}

#[test]
fn written_back_and_asked_again() {
    exercise_each("cached", &["--cache", "auto", "--writeback"]);
}

#[test]
fn few_may_be_open() {
    exercise_each("cached", &["--max-open", "2"]);
}

#[test]
fn past_the_guests_cache() {
    exercise_each("direct", &["--cache", "auto"]);
}

#[test]
fn past_the_hosts_cache_too() {
    exercise_each("direct", &["--cache", "never", "--allow-direct-io"]);
}

#[test]
fn one_file_of_several_processes() {
    exercise_each("stripes", &["--cache", "auto"]);
}

#[test]
fn one_file_of_several_processes_always_cached() {
    exercise_each("stripes", &["--cache", "always"]);
}

#[test]
fn one_file_of_several_processes_written_back() {
    exercise_each("stripes", &["--cache", "always", "--writeback"]);
}

#[test]
fn one_file_of_several_processes_never_cached() {
    exercise_each("stripes", &["--cache", "never"]);
}

/// The exercise itself, beside the daemon: what somebody else changes is a failure that says where.
#[test]
fn a_changed_byte_is_found() {
    let scratch = lab::scratch::Scratch::new("integrity-itself").unwrap();
    let seed = number(SEED, 1);
    let mut exercise = Exercise::new(scratch.path().into(), None, seed, false);
    exercise.run(500).unwrap();
    let changed = fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let changed = changed.filter(|path| path.to_string_lossy().contains("/file-"));
    for path in changed {
        let content = fs::read(&path).unwrap();
        fs::write(&path, [&content[..], b"more"].concat()).unwrap();
    }
    let told = exercise.run(50).unwrap_err();
    assert!(
        told.contains("instead of") && told.contains("  1: "),
        "{told}"
    );
}

/// User-Mode Linux's kernel is older than the host's.
#[test]
fn in_a_guest() {
    const MOUNT: &str = "/mnt/share";
    let share = Share::start("integrity-guest");
    let operations = number(OPERATIONS, FEW) / 2;
    let work = task("cached", (Path::new(MOUNT), ""), 0, operations);
    let program = std::env::current_exe().unwrap();
    let program = program.display();
    let script = format!(
        "mkdir {MOUNT} && mount -t virtiofs {TAG} {MOUNT} && {TASK}='{work}' {program} {WORK} 2>&1"
    );
    let limit = Duration::from_secs(100 + operations / 20);
    let begun = Instant::now();
    let guest = UmlGuest::new(script).fs(&share.socket).limit(limit);
    let output = guest.run().unwrap().success().unwrap();
    assert!(output.contains("integrity: fine"), "{output}");
    let took = begun.elapsed().as_secs_f64();
    println!("in a guest {operations} operations in {took:.2} s");
}
