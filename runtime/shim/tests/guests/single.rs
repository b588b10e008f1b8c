//! One container: it is what was asked for, or it is refused.

use std::fs;
use std::process::{Command, Stdio};

use crate::containerd::{Containerd, IMAGE, USER_IMAGE};

#[test]
fn a_container_is_what_was_asked_for() {
    let containerd = Containerd::start("shim-single");
    let script = "id -u; id -g; pwd; echo $COLOUR; cat; echo lost >&2; exit 7";
    let options = ["--rm", "--cwd", "/tmp", "--env", "COLOUR=blue"];
    let command = ["sh", "-c", script];
    let mut arguments = Containerd::run_arguments("one", &options, &command);
    arguments
        .iter_mut()
        .filter(|it| **it == IMAGE)
        .for_each(|it| *it = USER_IMAGE);
    let ran = containerd.ctr_with(&arguments, b"typed");
    assert_eq!(ran.text(), "1000\n1000\n/tmp\nblue\ntyped");
    assert_eq!((ran.code, ran.err.as_str()), (7, "lost\n"));
    // The same name at once again: nothing is left of the shim that had it.
    let again = containerd.run("one", &[], &["echo", "again"]);
    assert_eq!(again.ok(), "again\n");
    containerd.assert_nothing_left();
    a_terminal_is_one(&containerd);
    refusals(&containerd);
    containerd.assert_nothing_left();
}

/// `script` gives ctr a terminal, whose size and bytes go through to the guest's.
fn a_terminal_is_one(containerd: &Containerd) {
    // ctr tells the size once the container runs. Without one, stty succeeds and says nothing of it.
    let script = "tty; until test \"$(stty size 2>/dev/null)\" = \"33 77\" || test $((n += 1)) = 1000; do sleep 0.1; done; \
                  stty size; echo wrong >&2; exit 5";
    let quoted = format!("'{script}'");
    let command = ["sh", "-c", &quoted];
    let arguments = Containerd::run_arguments("two", &["--rm", "-t"], &command);
    let sock = containerd.scratch.join("sock");
    // In a process group of its own, as `timeout` makes one, ctr would be stopped at the terminal.
    let line = format!(
        "stty rows 33 cols 77; exec timeout --foreground -s KILL 300 ctr -a {} {}",
        sock.display(),
        arguments.join(" ")
    );
    let ran = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    // Standard error is the terminal, too; what ends a line, and what input's end shows as, is ctr's.
    for words in ["/dev/pts/0", "33 77", "wrong"] {
        assert!(text.contains(words), "{text:?}");
    }
    assert_eq!(ran.status.code(), Some(5));
}

fn refusals(containerd: &Containerd) {
    let ran = containerd.run("three", &["--net-host"], &["true"]);
    assert!(
        ran.code != 0 && ran.err.contains("host's network"),
        "{ran:?}"
    );
    let logger = ["--log-uri", "binary:///bin/true", "-d"];
    let ran = containerd.ctr(&Containerd::run_arguments("four", &logger, &["true"]));
    assert!(ran.code != 0 && ran.err.contains("only FIFOs"), "{ran:?}");
    let sandbox = ["--annotation", "io.kubernetes.cri.sandbox-id=nobody"];
    let container = ["--annotation", "io.kubernetes.cri.container-type=container"];
    let options = [sandbox, container].concat();
    let ran = containerd.run("five", &options, &["true"]);
    assert!(
        ran.code != 0 && ran.err.contains("sandbox nobody"),
        "{ran:?}"
    );
    let missing = [
        "--mount",
        "type=bind,src=/nowhere/at/all,dst=/x,options=bind",
    ];
    let ran = containerd.run("six", &missing, &["true"]);
    assert!(
        ran.code != 0 && ran.err.contains("/nowhere/at/all"),
        "{ran:?}"
    );
    let log = fs::read_to_string(containerd.scratch.join("log")).unwrap();
    assert!(!log.contains("panicked"), "a shim panicked");
}
