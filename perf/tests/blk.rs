//! `ringside-perf blk` as a user runs it: every row is there, and nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod places;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use lab::process::{Daemon, binary};
use places::{PROGRAM, Places, processes_naming};
use ringside_perf::scenario::blk::{Mode, Outcome, Report, Role, Row, Target, Workload};
use rustix::process::Signal;
use tempfile::TempDir;

fn arguments(places: &Places) -> Vec<String> {
    places.arguments("blk", &binary("vhost-user-blk").unwrap())
}

fn measure(places: &Places, options: &[&str]) -> (Report, String) {
    places.measure(arguments(places), options)
}

fn seats(rows: &[Row], target: Target, workload: Workload) -> BTreeSet<String> {
    let rows = rows
        .iter()
        .filter(|row| row.target == target && row.workload == workload);
    rows.map(|row| format!("{} {}", row.contestant, row.mode))
        .collect()
}

fn assert_measured(row: &Row) {
    let place = format!(
        "{}/{} {} {}",
        row.target, row.name, row.contestant, row.mode
    );
    let Outcome::Measured {
        samples,
        system_calls,
        ..
    } = &row.outcome
    else {
        panic!("{place}: {:?}", row.outcome);
    };
    assert!(
        samples.iter().all(|it| it.requests > 0 && it.iops > 0.0),
        "{place}"
    );
    assert!(samples.iter().all(|it| it.latency.p50_ns > 0.0), "{place}");
    assert_eq!(system_calls.is_some(), row.mode != Mode::Host, "{place}");
}

#[test]
fn everybody_has_a_row_for_every_load_on_tmpfs() {
    let places = Places::new();
    let (report, text) = measure(&places, &["--targets=tmpfs"]);
    let daemons = ["ringside", "qsd io_uring", "qsd threads", "qsd native"];
    let rings = daemons
        .iter()
        .flat_map(|it| [format!("{it} eventfd"), format!("{it} polling")]);
    let fio = ["fio io_uring host", "fio psync host"].map(str::to_owned);
    let wanted: BTreeSet<String> = rings.chain(fio).collect();
    for workload in Workload::ALL {
        assert_eq!(seats(&report.rows, Target::Tmpfs, workload), wanted);
    }
    report.rows.iter().for_each(assert_measured);
    let ours = report.rows.iter().filter(|row| row.role == Role::Ours);
    assert!(
        ours.clone()
            .all(|row| row.against_peer.is_some() && row.against_fio.is_some())
    );
    assert_eq!(report.idle.len(), daemons.len());
    assert!(report.verdicts.iter().all(|verdict| verdict.met.is_some()));
    assert!(
        text.contains("tmpfs/4k-randread-d32") && text.contains("aims: "),
        "{text}"
    );
    places.assert_clean();
}

#[test]
fn disk_and_null_have_their_rows_too() {
    let places = Places::new();
    let options = [
        "--targets=disk,null",
        "--only=4k-randread-d32",
        "--modes=polling",
    ];
    let (report, _) = measure(&places, &options);
    let deep = Workload::ALL[2];
    let wanted = |names: &[&str]| {
        names
            .iter()
            .map(|&it| it.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let disk = [
        "ringside polling",
        "qsd io_uring polling",
        "qsd threads polling",
        "qsd native polling",
        "fio io_uring host",
    ];
    assert_eq!(seats(&report.rows, Target::Disk, deep), wanted(&disk));
    let null = ["ringside polling", "qsd null-co polling"];
    assert_eq!(seats(&report.rows, Target::Null, deep), wanted(&null));
    // Our daemon may say that it lacks an option; nobody else has an excuse.
    report
        .rows
        .iter()
        .filter(|row| row.role != Role::Ours)
        .for_each(assert_measured);
    places.assert_clean();
}

/// strace holds up each system call of the daemon that submits or reaps: our own programs have no such switch.
#[test]
fn compare_finds_a_slowed_daemon() {
    let places = Places::new();
    let results = TempDir::new().unwrap();
    let at = |name: &str| results.path().join(name);
    let slowed = at("slowed-daemon");
    let script = format!(
        "#!/bin/sh\ncase $1 in --help|--version) exec {0} \"$@\";; esac\n\
         exec strace -f -qq -o /dev/null -e trace=io_uring_enter -e inject=io_uring_enter:delay_enter=5000 {0} \"$@\"\n",
        binary("vhost-user-blk").unwrap().display()
    );
    fs::write(&slowed, script).unwrap();
    fs::set_permissions(&slowed, fs::Permissions::from_mode(0o755)).unwrap();
    for (daemon, json) in [
        (binary("vhost-user-blk").unwrap(), "before.json"),
        (slowed, "after.json"),
    ] {
        let output = Command::new(PROGRAM)
            .args(places.arguments("blk", &daemon))
            .args([
                "--rounds=3",
                "--seconds=0.1",
                "--size=16",
                "--targets=tmpfs",
            ])
            .args(["--only=tmpfs/4k-randread-d1", "--modes=eventfd", "--json"])
            .arg(at(json))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let compare = |old: &str, new: &str| {
        let output = Command::new(PROGRAM)
            .arg("compare")
            .args([at(old), at(new)])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, text) = compare("before.json", "after.json");
    assert_eq!(code, Some(1), "{text}");
    let worse = |line: &str| line.starts_with("WORSE") && line.contains("ringside ");
    assert!(text.lines().any(worse), "{text}");
    assert_eq!(compare("before.json", "before.json").0, Some(0));
    places.assert_clean();
}

/// The page of the committed runs on a phone's width: nothing is wider than the screen, and what is drawn is seen.
#[test]
#[ignore = "chromium is large: `make bench` installs it and runs this"]
fn chromium_renders_the_page() {
    let scratch = TempDir::new().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance");
    let runs = fs::read_dir(docs).unwrap().map(|it| it.unwrap().path());
    let runs = runs.filter(|it| it.extension().is_some_and(|it| it == "json"));
    let report = Command::new(PROGRAM)
        .arg("report")
        .args(runs)
        .arg("--html")
        .arg(at("page.html"))
        .status();
    assert!(report.unwrap().success());
    let script = "<script>document.title = 'seen ' + document.documentElement.scrollWidth + ' of ' + innerWidth + ' ' \
                  + [...document.querySelectorAll('details')].map(it => it.open = true).length + ' ' \
                  + document.documentElement.scrollWidth</script>";
    let page = fs::read_to_string(at("page.html")).unwrap();
    fs::write(
        at("page.html"),
        page.replace("</body>", &format!("{script}</body>")),
    )
    .unwrap();
    let browser = ["chromium-headless-shell", "chromium"]
        .iter()
        .find_map(|it| lab::need::program(it).ok())
        .expect("no chromium: `make bench` installs chromium-headless-shell");
    let chromium = |options: &[String]| {
        let output = Command::new(&browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", at("profile").display()))
            .args(options)
            .arg(format!("file://{}", at("page.html").display()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let dom = chromium(&["--window-size=500,900".to_owned(), "--dump-dom".to_owned()]);
    let (_, seen) = dom.split_once("<title>seen ").expect("the script ran");
    let words: Vec<u32> = seen
        .split(|it: char| !it.is_ascii_digit())
        .filter_map(|it| it.parse().ok())
        .take(4)
        .collect();
    assert!(
        words[0] <= words[1] && words[3] <= words[1] && words[2] > 0,
        "{words:?}"
    );
    for (name, size) in [("page", "1000,2000"), ("phone", "500,2000")] {
        let picture = at(&format!("{name}.png"));
        chromium(&[
            format!("--window-size={size}"),
            format!("--screenshot={}", picture.display()),
        ]);
        // An empty page is some 5 KB.
        assert!(fs::metadata(picture).unwrap().len() > 30_000, "{name}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let places = Places::new();
    let mut run = Daemon::builder(PROGRAM)
        .args(arguments(&places))
        .args(["--size=64", "--seconds=20", "--targets=tmpfs"])
        .env("TMPDIR", places.scratch.path())
        .spawn()
        .unwrap();
    run.wait_stderr("tmpfs/4k-randread-d1", Duration::from_secs(30))
        .unwrap();
    assert!(!processes_naming(places.tmpfs.path()).is_empty());
    run.signal(Signal::INT).unwrap();
    let exit = run.wait_exit(Duration::from_secs(10)).unwrap();
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stderr.contains("interrupted"), "{}", exit.stderr);
    drop(run);
    places.assert_clean();
}
