//! The guest's command as if it ran here: arguments, streams, exit code.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use crate::support::{Bench, text};

#[test]
fn a_command_that_cannot_run_is_named() {
    let bench = Bench::new();
    let output = bench
        .ringside(&[])
        .args(["--", "nonesuch"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(
        text(&output.stderr).contains("cannot run nonesuch"),
        "{}",
        text(&output.stderr)
    );
    let output = bench
        .ringside(&["--cwd", "/nowhere"])
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("/nowhere"),
        "{}",
        text(&output.stderr)
    );
    bench.assert_nothing_left();
}

#[test]
fn arguments_environment_folder_and_signal_are_exact() {
    let bench = Bench::new();
    let mut command = bench.ringside(&["--env", "A=1 =2", "--cwd", "/tmp"]);
    command.args([
        "--",
        "sh",
        "-c",
        "pwd; echo \"$A\"; printf '<%s>' \"$@\"; kill -9 $$",
        "name",
    ]);
    command.args(["two words", "", "new\nline", "'quote\""]);
    command.arg("\u{17e}");
    let output = command.output().unwrap();
    let expected = "/tmp\n1 =2\n<two words><><new\nline><'quote\"><\u{17e}>";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(128 + 9));
    bench.assert_nothing_left();
    // Nothing starts for what no specification can hold.
    let mut command = bench.ringside(&[]);
    command
        .args(["--", "echo"])
        .arg(OsStr::from_bytes(b"\xff\xfe"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("is not UTF-8"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn output_and_errors_stay_apart_and_the_exit_code_comes_back() {
    let bench = Bench::new();
    let output = bench.script(&[], "echo out; echo err >&2; echo more; exit 7");
    assert_eq!(text(&output.stdout), "out\nmore\n");
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(7));
    bench.assert_nothing_left();
}

#[test]
fn binary_data_passes_unchanged_both_ways() {
    let bench = Bench::new();
    let mut sent = vec![0; 3 << 20];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut sent)
        .unwrap();
    let mut child = bench
        .ringside(&[])
        .stdin(Stdio::piped())
        .args(["--", "cat"])
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let data = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&data).map(|()| drop(stdin)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert!(
        output.stdout == sent,
        "{} of {} bytes came back",
        output.stdout.len(),
        sent.len()
    );
}

#[test]
fn a_reader_that_leaves_ends_the_command() {
    let bench = Bench::new();
    let mut child = bench.ringside(&[]).args(["--", "yes"]).spawn().unwrap();
    let mut first = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\ny\n");
    drop(stdout);
    // SIGPIPE, as it would be without a machine in between.
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
    bench.assert_nothing_left();
}

#[test]
fn a_terminal_has_the_size_of_ours() {
    let bench = Bench::new();
    let root = bench.root();
    let ringside = env!("CARGO_BIN_EXE_ringside");
    let line = format!(
        "stty rows 33 cols 77; {ringside} run --rootfs {} -t -- sh -c 'tty; stty size; exit 3'; echo $?; stty size",
        root.display()
    );
    let output = Command::new("script")
        .args(["-q", "-c", &line, "/dev/null"])
        .env("XDG_RUNTIME_DIR", bench.path("xdg"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = text(&output.stdout).replace('\r', "");
    for expected in ["/dev/pts/0\n", "33 77\n3\n33 77\n"] {
        assert!(shown.contains(expected), "{expected:?} is not in {shown:?}");
    }
}

#[test]
fn a_terminal_is_refused_where_there_is_none() {
    let bench = Bench::new();
    let output = bench
        .ringside(&["-t"])
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("-t needs a terminal"),
        "{}",
        text(&output.stderr)
    );
}
