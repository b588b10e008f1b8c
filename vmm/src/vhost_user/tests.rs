//! Our own daemon serves a disk; the test is the driver, on memory as a guest has it.

mod dirty_log;
mod driver;
mod notes;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab::process::{Daemon, binary};
use lab::scratch::Scratch;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::memory::{ByteSize, GuestMemory, MemoryConfig};
use crate::pci::Function;
use crate::pci::testing::Remembered;
use crate::virtio::{Device, Kind, SaveError, Saved, Transport};
use driver::{Disk, SECTOR};

/// Longer than a daemon waits for an image whose last owner was killed.
const LIMIT: Duration = Duration::from_secs(30);
const IMAGE: u64 = 16 << 20;

struct Fixture {
    scratch: Scratch,
    memory: GuestMemory,
}

impl Fixture {
    fn new() -> Self {
        let scratch = Scratch::new("vmm").unwrap();
        scratch.image("disk", IMAGE).unwrap();
        scratch.dir("state").unwrap();
        // Two regions: queues and buffers on both sides of the hole.
        let memory = GuestMemory::new(MemoryConfig {
            size: ByteSize(4 << 30),
            hugepages: false,
            prefault: false,
        });
        let memory = memory.unwrap();
        Self { scratch, memory }
    }

    fn daemon(&self) -> Daemon {
        let socket = self.scratch.join("blk");
        Daemon::builder(binary("vhost-user-blk").unwrap())
            .arg("--socket-path")
            .arg(&socket)
            .arg("--blk-file")
            .arg(self.scratch.join("disk"))
            .arg("--control")
            .arg(self.scratch.join("control"))
            .arg("--state-dir")
            .arg(self.scratch.join("state"))
            .args(["--queues", "2", "--sandbox", "none"])
            .spawn_listening(&socket, LIMIT)
            .unwrap()
    }

    /// It takes its time, so that a kill finds requests that it has begun.
    fn qemu_storage_daemon(&self) -> Daemon {
        let (socket, image) = (self.scratch.join("blk"), self.scratch.join("disk"));
        let export =
            "type=vhost-user-blk,id=disk,node-name=slow,writable=on,addr.type=unix,addr.path=";
        Daemon::builder("qemu-storage-daemon")
            .args(["--object", "throttle-group,id=slow,x-iops-total=400"])
            .arg("--blockdev")
            .arg(format!(
                "driver=file,node-name=disk,locking=off,filename={}",
                image.display()
            ))
            .args([
                "--blockdev",
                "driver=throttle,node-name=slow,throttle-group=slow,file=disk",
            ])
            .arg("--export")
            .arg(format!("{export}{}", socket.display()))
            .spawn_listening(&socket, LIMIT)
            .unwrap()
    }

    fn config(&self) -> FrontEndConfig {
        config(&self.scratch.join("blk"))
    }

    fn connect(&self) -> FrontEnd {
        FrontEnd::connect(self.config(), &self.memory, Patience::Starting).unwrap()
    }

    fn disk(&self) -> Disk {
        Disk::new(self.connect(), &self.memory)
    }
}

fn config(socket: &Path) -> FrontEndConfig {
    FrontEndConfig {
        kind: Kind::Block,
        socket: socket.to_owned(),
        queues: 1,
        queue_size: 128,
        tag: None,
        mac: None,
        cid: None,
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < give_up, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_disk_tells_its_size_and_keeps_what_is_written() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon();
    let mut disk = fixture.disk();
    let sectors = u64::from_le_bytes(disk.device.config()[..8].try_into().unwrap());
    assert_eq!(sectors * SECTOR, IMAGE);
    disk.start();
    disk.write(8, &[0x5a; 4096]);
    assert_eq!(disk.read(8, 4096), [0x5a; 4096]);
    let image = std::fs::read(fixture.scratch.join("disk")).unwrap();
    assert_eq!(image[4096..8192], [0x5a; 4096]);
}

#[test]
fn a_device_is_reset_and_started_again() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon();
    let mut disk = fixture.disk();
    for round in 0..3_u8 {
        disk.start();
        disk.write(u64::from(round), &[round; 512]);
        disk.device.reset();
        wait_for("the reset", || disk.device.is_reset());
    }
    disk.start();
    assert_eq!(disk.read(2, 512), [2; 512]);
}

#[test]
fn a_killed_daemon_costs_a_pause_and_no_request() {
    survives_kills(Fixture::daemon);
}

/// QEMU's keeps no state of its own: it begins behind the last one that was used, which is right as long as
/// requests are done in their order.
#[test]
fn a_killed_daemon_of_others_costs_no_request_either() {
    survives_kills(Fixture::qemu_storage_daemon);
}

fn survives_kills(start: impl Fn(&Fixture) -> Daemon) {
    let fixture = Fixture::new();
    let mut daemon = start(&fixture);
    let mut disk = fixture.disk();
    disk.start();
    for round in 0..10_u8 {
        for sector in 0..32 {
            disk.submit_write(sector * 8, &[round; 4096]);
        }
        daemon.kill().unwrap();
        // Some more while nobody is there.
        for sector in 32..40 {
            disk.submit_write(sector * 8, &[round; 4096]);
        }
        daemon = start(&fixture);
        disk.finish_all();
        assert_eq!(disk.read(39 * 8, 4096), vec![round; 4096]);
    }
}

#[test]
fn a_paused_disk_is_served_by_nobody_and_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let mut daemon = fixture.daemon();
    let mut disk = fixture.disk();
    disk.start();
    for round in 1..=5_u8 {
        disk.submit_write(0, &[round; 4096]);
        disk.device.pause();
        wait_for("the pause", || disk.device.is_paused());
        disk.submit_write(8, &[round; 4096]);
        if round == 3 {
            // One that is lost meanwhile is not missed, and the next one is not told to serve.
            daemon.kill().unwrap();
            daemon = fixture.daemon();
            wait_for("the new daemon", || disk.device.condition().losses == 1);
        }
        std::thread::sleep(Duration::from_millis(20));
        let image = std::fs::read(fixture.scratch.join("disk")).unwrap();
        assert_eq!(image[4096..8192], [round - 1; 4096]);
        disk.device.resume();
        disk.finish_all();
        assert_eq!(disk.read(0, 4096), [round; 4096]);
        assert_eq!(disk.read(8, 4096), [round; 4096]);
    }
    assert!(daemon.is_running());
}

#[test]
fn a_snapshot_is_told_where_a_disk_stopped() {
    let fixture = Fixture::new();
    let mut daemon = fixture.daemon();
    let mut disk = fixture.disk();
    let saved = |disk: &mut Disk| disk.device.save().recv_timeout(LIMIT).unwrap().unwrap();
    disk.device.pause();
    wait_for("the pause", || disk.device.is_paused());
    assert_eq!(saved(&mut disk), Saved::default());
    disk.device.resume();
    disk.start();
    for sector in 0..5 {
        disk.write(sector, &[1; 512]);
    }
    disk.device.pause();
    wait_for("the pause", || disk.device.is_paused());
    let expected = Saved {
        positions: [(0, 5)].into(),
        state: None,
    };
    assert_eq!(saved(&mut disk), expected);
    // Gone or not: everything it took is done.
    daemon.kill().unwrap();
    wait_for("the loss", || disk.device.condition().losses == 1);
    assert_eq!(saved(&mut disk), expected);
    let loaded = disk.device.load(0, vec![1]).recv_timeout(LIMIT).unwrap();
    assert_eq!(loaded, Err(SaveError::Gone));
    let _daemon = fixture.daemon();
    wait_for("the next daemon", || disk.device.condition().connected);
    let loaded = disk.device.load(0, vec![1]).recv_timeout(LIMIT).unwrap();
    assert_eq!(loaded, Err(SaveError::NotOffered));
    disk.device.resume();
    assert_eq!(disk.read(4, 512), [1; 512]);
}

/// An interrupt that the driver chose while the queue ran is that of the next daemon, and after a pause.
#[test]
fn a_changed_interrupt_stays_changed() {
    let fixture = Fixture::new();
    let mut daemon = fixture.daemon();
    let mut disk = fixture.disk();
    disk.start();
    disk.write(0, &[1; 512]);
    let later = EventFd::new(EFD_NONBLOCK).unwrap();
    disk.device.set_call(0, later.try_clone().unwrap());
    let interrupts = |disk: &mut Disk| {
        disk.submit_write(0, &[2; 512]);
        wait_for("the interrupt", || later.read().is_ok());
        disk.finish_all();
    };
    interrupts(&mut disk);
    disk.device.pause();
    wait_for("the pause", || disk.device.is_paused());
    disk.device.resume();
    wait_for("the call after the pause", || later.read().is_ok());
    interrupts(&mut disk);
    daemon.kill().unwrap();
    let mut daemon = fixture.daemon();
    wait_for("the call after the loss", || later.read().is_ok());
    interrupts(&mut disk);
    // Also one that was chosen while nobody was there.
    daemon.kill().unwrap();
    wait_for("the loss", || !disk.device.condition().connected);
    let last = EventFd::new(EFD_NONBLOCK).unwrap();
    disk.device.set_call(0, last.try_clone().unwrap());
    let _daemon = fixture.daemon();
    wait_for("the call after the next loss", || last.read().is_ok());
}

#[test]
fn a_daemon_that_is_gone_does_not_hold_up_a_reset() {
    let fixture = Fixture::new();
    let mut daemon = fixture.daemon();
    let mut disk = fixture.disk();
    disk.start();
    disk.write(0, &[1; 512]);
    daemon.kill().unwrap();
    disk.device.reset();
    wait_for("the reset", || disk.device.is_reset());
    disk.start();
    disk.submit_write(0, &[2; 512]);
    let _daemon = fixture.daemon();
    disk.finish_all();
    assert_eq!(disk.read(0, 512), [2; 512]);
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon();
    let mut disk = fixture.disk();
    disk.start();
    let larger = std::fs::File::options()
        .write(true)
        .open(fixture.scratch.join("disk"))
        .unwrap();
    larger.set_len(2 * IMAGE).unwrap();
    let grown = std::process::Command::new(binary("vhost-user-blk").unwrap())
        .arg("ctl")
        .arg(fixture.scratch.join("control"))
        .args(["resize", "disk"])
        .output()
        .unwrap();
    assert!(grown.status.success(), "{grown:?}");
    wait_for("the new size", || {
        disk.device.config()[..8] == (2 * IMAGE / SECTOR).to_le_bytes()
    });
    disk.write(2 * IMAGE / SECTOR - 1, &[7; 512]);
}

/// A guest may put its queues anywhere: it learns that, and can start over.
#[test]
fn queues_outside_memory_need_a_reset_and_no_new_daemon() {
    let fixture = Fixture::new();
    let mut daemon = fixture.daemon();
    let device = Arc::new(Mutex::new(fixture.connect()));
    let wiring = Arc::new(Remembered::default());
    let mut function = Transport::new(device.clone(), wiring, 0, &[24, 25]).unwrap();
    for address in [u64::MAX - 5, crate::layout::HOLE, 1 << 40] {
        function.write_memory(20, &[0]);
        wait_for("the reset", || status(&mut function) == 0);
        driver::start_with_queue_at(&mut function, address);
        wait_for("the refusal", || status(&mut function) & 0x40 != 0);
    }
    function.write_memory(20, &[0]);
    wait_for("the reset", || status(&mut function) == 0);
    drop(function);
    let device = Arc::into_inner(device).unwrap().into_inner().unwrap();
    let mut disk = Disk::new(device, &fixture.memory);
    disk.start();
    disk.write(0, &[1; 512]);
    assert!(daemon.is_running());
}

fn status(function: &mut Transport) -> u8 {
    let mut status = [0];
    function.read_memory(20, &mut status);
    status[0]
}

#[test]
fn what_a_daemon_cannot_be_is_told() {
    let fixture = Fixture::new();
    let sentence = |config| {
        FrontEnd::connect(config, &fixture.memory, Patience::None)
            .unwrap_err()
            .to_string()
    };
    let nobody = sentence(fixture.config());
    assert_eq!(nobody, "nobody listens there; start the daemon first");
    let silent = std::os::unix::net::UnixListener::bind(fixture.scratch.join("blk")).unwrap();
    let says_nothing = sentence(fixture.config());
    assert!(
        says_nothing.starts_with("the daemon did not"),
        "{says_nothing}"
    );
    drop(silent);
    std::fs::remove_file(fixture.scratch.join("blk")).unwrap();
    let _daemon = fixture.daemon();
    let queues = 3;
    let many = sentence(FrontEndConfig {
        queues,
        ..fixture.config()
    });
    assert_eq!(
        many,
        "queues=3: the daemon serves 2 in all, and 3 are needed"
    );
}

/// A network interface on a tap of the test's own, with every feature and queue that the daemon offers.
#[test]
fn a_network_interface_starts_and_stops_again_and_again() {
    use lab::netns::{NetNamespace, Tap};
    let scratch = Scratch::new("vmm-net").unwrap();
    let network = NetNamespace::new().unwrap();
    network.add_tap("tap0", &Tap::default()).unwrap();
    let socket = scratch.join("net");
    let builder = Daemon::builder(binary("vhost-user-net").unwrap())
        .arg("--socket-path")
        .arg(&socket)
        .args(["--tap", "tap0", "--sandbox", "none"]);
    let mut daemon = network.spawn(builder).unwrap();
    daemon.wait_listening(&socket, LIMIT).unwrap();
    let memory = Fixture::new().memory;
    let config = FrontEndConfig {
        kind: Kind::Net,
        mac: Some([2, 0, 0, 0, 0, 2]),
        ..config(&socket)
    };
    let mut device = FrontEnd::connect(config, &memory, Patience::Starting).unwrap();
    for _round in 0..3 {
        let queue = |index: usize| {
            let at = 0x10_0000 * (index as u64 + 1);
            crate::virtio::QueueSetup {
                index,
                size: 128,
                position: 0,
                descriptors: at,
                available: at + 0x1_0000,
                used: at + 0x2_0000,
                kick: vmm_sys_util::eventfd::EventFd::new(0).unwrap(),
                call: vmm_sys_util::eventfd::EventFd::new(0).unwrap(),
            }
        };
        device.start(crate::virtio::Setup {
            features: device.features(),
            queues: (0..device.queue_sizes().len()).map(queue).collect(),
        });
        std::thread::sleep(Duration::from_millis(200));
        device.reset();
        wait_for("reset", || device.is_reset());
    }
}
