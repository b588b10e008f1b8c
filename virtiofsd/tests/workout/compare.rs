//! The same work on the host and elsewhere, and where what came of it differs.

use std::path::Path;
use std::process::Command;

/// Names the directory to work in.
pub const DIRECTORY: &str = "WORKOUT_DIRECTORY";
/// Arguments that make this test binary do the work: its test `work_out`.
pub const WORK_OUT: &str = "--exact work_out --ignored --nocapture";

const BEGIN: &str = "--- transcript ---\n";

/// Works in the directory that the environment names, and prints the transcript.
pub fn work_out() {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let transcript = super::run(&Path::new(&directory).join("work"));
    println!("{BEGIN}{transcript}{BEGIN}");
}

pub fn transcript_in(output: &str) -> String {
    let output = output.replace('\r', "");
    output
        .split(BEGIN)
        .nth(1)
        .unwrap_or_else(|| panic!("no transcript:\n{output}"))
        .to_owned()
}

/// Works in `directory`, in a process of its own, in the calling thread's mount namespace.
pub fn transcript_at(directory: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(WORK_OUT.split(' '))
        .env(DIRECTORY, directory)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    transcript_in(&said)
}

/// Fails with the lines that differ, but for those that begin with one of `but`. Of these some must
/// differ, or they do not belong there.
pub fn assert_same_but(host: &str, guest: &str, but: &[&str]) {
    let excepted = |line: &&str| but.iter().any(|but| line.starts_with(but));
    let without = |text: &str| -> String {
        let lines = text.lines().filter(|line| !excepted(line));
        lines.map(|line| format!("{line}\n")).collect()
    };
    assert_same(&without(host), &without(guest));
    for but in but {
        let of = |text: &'_ str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with(but));
            lines.map(str::to_owned).collect()
        };
        assert_ne!(of(host), of(guest), "\"{but}\" is the same");
    }
}

/// Fails with the lines that differ.
pub fn assert_same(host: &str, guest: &str) {
    let differences: Vec<String> = host
        .lines()
        .zip(guest.lines())
        .enumerate()
        .filter(|(_, (host, guest))| host != guest)
        .map(|(line, (host, guest))| format!("{line}\n  host  {host}\n  guest {guest}"))
        .collect();
    let first = &differences[..differences.len().min(20)];
    assert!(
        first.is_empty(),
        "{} lines differ:\n{}",
        differences.len(),
        first.join("\n")
    );
    assert_eq!(host.lines().count(), guest.lines().count());
}
