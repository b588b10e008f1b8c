//! Namespaces, taps, and what is left of them.

use std::error::Error;
use std::io::{Read, Write};
use std::process::Command;

use lab::netns::{NetNamespace, Tap};
use lab::process::Daemon;

type TestResult = Result<(), Box<dyn Error>>;

#[test]
fn a_tap_carries_frames_of_its_namespace() -> TestResult {
    let network = NetNamespace::new()?;
    network.add_tap(
        "lab0",
        &Tap {
            address: Some("10.9.8.1/24"),
            ..Tap::default()
        },
    )?;
    let mut tap = std::fs::File::from(network.open_tap("lab0", false)?);
    // Somebody in the namespace asks who 10.9.8.2 is: the tap's reader sees the ARP request.
    network.run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "10.9.8.2:9"))??;
    let mut frame = [0; 2048];
    let len = loop {
        let len = tap.read(&mut frame)?;
        if frame[10 + 12..10 + 14] == [8, 6] {
            break len;
        }
    };
    assert!(frame[..len].windows(4).any(|bytes| bytes == [10, 9, 8, 2]));
    tap.write_all(&frame[..len])?;
    Ok(())
}

#[test]
fn a_multi_queue_tap_opens_once_per_queue() -> TestResult {
    let network = NetNamespace::new()?;
    network.add_tap(
        "lab0",
        &Tap {
            multi_queue: true,
            ..Tap::default()
        },
    )?;
    let _queues = [
        network.open_tap("lab0", true)?,
        network.open_tap("lab0", true)?,
    ];
    let single = NetNamespace::new()?;
    let _first = single.open_tap("lab0", false)?;
    assert!(single.open_tap("lab0", false).is_err());
    Ok(())
}

#[test]
fn the_host_sees_nothing_of_it() -> TestResult {
    let network = NetNamespace::new()?;
    network.add_tap("lab-unseen", &Tap::default())?;
    let inside = network.run(|| Command::new("ip").arg("link").output())??;
    let outside = Command::new("ip").arg("link").output()?;
    assert!(String::from_utf8_lossy(&inside.stdout).contains("lab-unseen"));
    assert!(!String::from_utf8_lossy(&outside.stdout).contains("lab-unseen"));
    let mut daemon = network.spawn(Daemon::builder("ip").args(["link", "show", "lab-unseen"]))?;
    assert!(
        daemon
            .wait_exit(std::time::Duration::from_secs(5))?
            .status
            .success()
    );
    Ok(())
}
