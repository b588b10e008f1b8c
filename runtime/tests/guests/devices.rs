//! Files, disks and network of a guest, through the daemons.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Child;

use crate::support::{Bench, eventually, signal, text, wait_for_file};

#[test]
fn the_root_directory_is_shared() {
    let bench = Bench::new();
    fs::write(bench.root().join("tmp/from-host"), "hello guest").unwrap();
    let output = bench.script(&[], "cat /tmp/from-host; echo hello host > /tmp/from-guest");
    assert_eq!(
        text(&output.stdout),
        "hello guest",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        fs::read_to_string(bench.root().join("tmp/from-guest")).unwrap(),
        "hello host\n"
    );
}

#[test]
fn a_block_root_is_kept_in_its_image() {
    let bench = Bench::new();
    let image = bench.path("root.img");
    let options = ["--root", "block", "--image", image.to_str().unwrap()];
    let first = bench.script(&options, "echo kept > /tmp/file");
    assert!(first.status.success(), "{}", text(&first.stderr));
    let second = bench.script(&options, "cat /tmp/file");
    assert_eq!(text(&second.stdout), "kept\n", "{}", text(&second.stderr));
    assert!(
        !bench.root().join("tmp/file").exists(),
        "the directory itself was written to"
    );
    bench.assert_nothing_left();
}

#[test]
fn data_disks_have_their_names_and_modes() {
    let bench = Bench::new();
    for name in ["a.img", "b.img"] {
        File::create(bench.path(name))
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
    }
    let (writable, read_only) = (bench.path("a.img"), bench.path("b.img"));
    let read_only = format!("{},ro", read_only.display());
    let options = ["--disk", writable.to_str().unwrap(), "--disk", &read_only];
    let output = bench.script(
        &options,
        "echo data > /dev/disk/by-id/virtio-disk0 && sync && cat /sys/block/*/ro && \
         (echo data > /dev/disk/by-id/virtio-disk1) 2>/dev/null || echo refused",
    );
    assert_eq!(
        text(&output.stdout),
        "0\n1\nrefused\n",
        "{}",
        text(&output.stderr)
    );
    assert!(fs::read(&writable).unwrap().starts_with(b"data\n"));
    assert!(
        fs::read(bench.path("b.img"))
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn a_published_port_serves_and_metrics_count() {
    let bench = Bench::new();
    let page = "x".repeat(300_000);
    fs::write(bench.root().join("www/index.html"), &page).unwrap();
    let metrics = bench.path("m");
    let options = [
        "--net",
        "--publish",
        "0:8000",
        "--metrics-dir",
        metrics.to_str().unwrap(),
    ];
    let log = File::create(bench.path("messages")).unwrap();
    let mut child = bench
        .ringside(&options)
        .stderr(log)
        .args([
            "--",
            "sh",
            "-c",
            "httpd -p 8000 -h /www; touch /tmp/serves; sleep 1000",
        ])
        .spawn()
        .unwrap();
    wait_for_file(&bench.root().join("tmp/serves"), &mut child);
    let port = announced_port(&bench);
    for _ in 0..3 {
        assert!(fetch(port).ends_with(&page), "the page came back damaged");
    }
    for device in ["root", "net"] {
        let mut counted = String::new();
        let socket = metrics.join(format!("{device}.metrics"));
        UnixStream::connect(socket)
            .unwrap()
            .read_to_string(&mut counted)
            .unwrap();
        assert!(
            counted.contains("ringside_requests_total"),
            "{device}: {counted}"
        );
    }
    end(&mut child);
    bench.assert_nothing_left();
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "the port still listens"
    );
}

pub(crate) fn announced_port(bench: &Bench) -> u16 {
    let mut port = None;
    eventually("no port was announced", || {
        let messages = fs::read_to_string(bench.path("messages")).unwrap();
        port = messages.lines().find_map(|line| {
            line.strip_prefix("ringside: 127.0.0.1:")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        });
        port.is_some()
    });
    port.unwrap()
}

pub(crate) fn fetch(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn end(child: &mut Child) {
    signal(
        i32::try_from(child.id()).unwrap(),
        rustix::process::Signal::TERM,
    );
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}
