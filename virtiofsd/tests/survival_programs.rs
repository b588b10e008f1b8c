//! Programs of the host at work on a daemon that is killed again and again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lab::bridge::Bridge;
use lab::mounts;
use lab::process::Daemon;
use share::{SOON, Share};

/// Each line must work, and each loop leaves something to be compared.
const SCRIPT: &str = r#"
for n in $(seq 25); do
  mkdir d$n; mkdir d$n/sub; printf 'first %s\n' $n > d$n/file
  ln d$n/file d$n/hard; ln -s file d$n/soft
  mv d$n/file d$n/sub/moved
  printf 'line %s\n' $n >> log
  cat d$n/hard >> log
  setfattr -n user.number -v $n d$n/hard
  test "$(getfattr --only-values -n user.number d$n/sub/moved)" = $n
  if [ $n -gt 2 ]; then
    m=$((n - 2)); rm d$m/soft; mv d$m e$m; mv -T e$m/sub e$m/sup; rm e$m/hard
    setfattr -x user.number e$m/sup/moved
  fi
  head -c 300000 /dev/zero | tr '\0' x > big; truncate -s 5000 big; fallocate -l 10000 big
  exec 5<>d$n/kept; printf kept >&5; chmod 640 d$n/kept; exec 5>&-
  mkdir gone$n; rmdir gone$n
done
"#;

/// What the script has left.
const LEFT: &str = "find . -type f -print0 | sort -z | xargs -0 -r sha256sum; \
    find . -printf '%P %y %m %U %G %l\\n' | sort; \
    find . -type f -printf '%P %n %s\\n' | sort; getfattr -R -d . 2>/dev/null | sort";

fn launch(share: &Share, options: &[&str]) -> Daemon {
    share
        .remembering()
        .args(options)
        .spawn_listening(&share.socket, SOON)
        .unwrap()
}

fn said(directory: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the script on the mount; meanwhile the daemon dies every few dozen milliseconds.
fn programs_notice_nothing(test: &str, options: &[&str]) {
    mounts::make_private().expect("this test mounts: run it as root");
    lab::need::program("setfattr").unwrap();
    let mut share = Share::start(test);
    share.daemon.terminate(SOON).unwrap();
    share.scratch.dir("state").unwrap();
    share.daemon = launch(&share, options);
    let at = share.scratch.dir("mnt").unwrap();
    let mounted = Bridge::new(&share.socket).queues(2).waiting().mount(&at);
    let mut bridge = mounted.unwrap();
    let working = {
        let at = at.clone();
        thread::spawn(move || said(&at, SCRIPT))
    };
    let mut kills = 0;
    let began = Instant::now();
    while !working.is_finished() {
        assert!(began.elapsed() < Duration::from_secs(150), "it hangs");
        thread::sleep(Duration::from_millis(5 + kills * 29 % 97));
        share.daemon.kill().unwrap();
        fs::remove_file(&share.socket).unwrap();
        share.daemon = launch(&share, options);
        bridge.reattach().unwrap();
        kills += 1;
    }
    working.join().expect("a program noticed");
    assert!(kills >= 8, "hardly any deaths: {kills}");
    let left = said(&at, LEFT);
    bridge.unmount().unwrap();
    let bare = share.scratch.dir("bare").unwrap();
    said(&bare, SCRIPT);
    assert_eq!(left, said(&bare, LEFT));
    assert_eq!(left, said(&share.directory, LEFT), "on the host");
    share.daemon.terminate(SOON).unwrap();
    drop::<PathBuf>(at);
}

#[test]
fn programs_notice_no_death_with_handles() {
    programs_notice_nothing("survival-programs", &[]);
}

#[test]
fn programs_notice_no_death_with_names() {
    let options = ["--inode-file-handles", "never", "--cache", "never"];
    programs_notice_nothing("survival-programs-names", &options);
}

#[test]
fn programs_notice_no_death_with_writeback() {
    let options = ["--writeback", "--cache", "always", "--max-open", "40"];
    programs_notice_nothing("survival-programs-writeback", &options);
}
