//! Many real guests at once (`make many`): User-Mode Linux, each with a disk of one process, a port of one switch, and
//! a share with a daemon of its own. MANY_GUESTS says how many.

use std::fs;
use std::io::Read as _;
use std::time::{Duration, Instant};

use lab::guest::{Guest, UmlGuest};
use lab::inside::{Holdings, Process};
use lab::process::{Daemon, binary};
use lab::scratch::Scratch;
use rustix::process::{Resource, getrlimit};

use super::number;
use super::subject::SOON;

const GUESTS: u64 = 64;
/// Of the host's for each guest, with its daemons, in MiB. A guest takes what it touches.
const EACH: u32 = 160;
const DISK: u64 = 16 << 20;
/// What the kernel counts of `RLIMIT_MEMLOCK` for the io_urings of a guest's five queues, of 1024 entries each, in KiB.
const LOCKED: u64 = 5 * 104;
/// What each writes and reads back.
const DATA: usize = 1 << 20;
/// All of them boot at once.
const LIMIT: Duration = Duration::from_secs(1500);

#[test]
#[ignore = "takes minutes and gigabytes: make many"]
fn many_uml_guests_at_once_have_their_disks_shares_and_each_other() {
    lab::need::root().unwrap();
    let count = number("MANY_GUESTS", GUESTS) as usize;
    lab::need::memory_mib(EACH * count as u32).unwrap();
    let locked = getrlimit(Resource::Memlock).current;
    let wanted = LOCKED * count as u64;
    assert!(
        locked.is_none_or(|bytes| bytes >> 10 >= wanted),
        "{count} guests need {wanted} KiB of RLIMIT_MEMLOCK (ulimit -l): raise it, or say GUESTS="
    );
    let (mut host, began) = (Host::start(count), Instant::now());
    host.tell("before");
    let mut guests: Vec<Guest> = (0..count).map(|number| host.guest(number, count)).collect();
    wait(&mut guests, "ready");
    host.tell("all have booted, written and mounted");
    println!("{count} guests are up after {:.0?}", began.elapsed());
    order(&mut guests, "reach");
    wait(&mut guests, "reached");
    host.tell("each has read its data back and reached the next");
    order(&mut guests, "end");
    for guest in guests {
        guest.wait().unwrap().success().unwrap();
    }
    println!("done after {:.0?}", began.elapsed());
    for number in 0..count {
        host.compare(number);
    }
    host.stop();
}

fn wait(guests: &mut [Guest], text: &str) {
    for guest in guests {
        guest.wait_output(text).unwrap();
    }
}

fn order(guests: &mut [Guest], word: &str) {
    for guest in guests {
        guest.write(format!("{word}\n").as_bytes()).unwrap();
    }
}

/// The daemons of all guests.
struct Host {
    disks: Daemon,
    switch: Daemon,
    shares: Vec<Daemon>,
    scratch: Scratch,
}

impl Host {
    fn start(count: usize) -> Self {
        let scratch = Scratch::in_memory("many").unwrap();
        let at = |kind: &str, number: usize| scratch.join(&format!("{kind}{number}"));
        let mut disks = Daemon::builder(binary("vhost-user-blk").unwrap());
        let mut switch = Daemon::builder(binary("vhost-user-net").unwrap()).arg("--switch");
        let mut shares = Vec::new();
        for number in 0..count {
            let image = scratch.image(&format!("image{number}"), DISK).unwrap();
            let (image, disk) = (image.display(), at("disk", number));
            let spec = format!("path={image},socket={},name=d{number}", disk.display());
            disks = disks.arg("--disk").arg(spec);
            let port = at("port", number);
            switch = switch.arg(format!("--port=name=p{number},socket={}", port.display()));
            let (share, directory) = (at("share", number), format!("shared{number}"));
            let daemon = Daemon::builder(binary("virtiofsd").unwrap())
                .args(["--tag", "share", "--shared-dir"])
                .arg(scratch.dir(&directory).unwrap())
                .arg("--socket-path")
                .arg(&share);
            shares.push(daemon.spawn_listening(&share, SOON).unwrap());
        }
        let (mut disks, mut switch) = (disks.spawn().unwrap(), switch.spawn().unwrap());
        for number in 0..count {
            disks.wait_listening(&at("disk", number), SOON).unwrap();
            switch.wait_listening(&at("port", number), SOON).unwrap();
        }
        Self {
            disks,
            switch,
            shares,
            scratch,
        }
    }

    /// Boots guest `number` of `count`.
    fn guest(&self, number: usize, count: usize) -> Guest {
        let script = script(number, (number + 1) % count);
        let socket = |kind: &str| self.scratch.join(&format!("{kind}{number}"));
        let guest = UmlGuest::new(script)
            .memory_mib(128)
            .limit(LIMIT)
            .blk(socket("disk"))
            .net(socket("port"))
            .fs(socket("share"));
        guest.start().unwrap()
    }

    /// Prints what the daemons hold.
    fn tell(&self, when: &str) {
        println!("{when}:");
        for (what, daemon) in [("blk", &self.disks), ("net", &self.switch)] {
            println!("  {what}: {:?}", Process::serving(daemon).holdings());
        }
        let each = self.shares.iter().map(|it| Process::serving(it).holdings());
        let each: Vec<Holdings> = each.collect();
        let sum = |of: fn(&Holdings) -> u64| each.iter().map(of).sum::<u64>();
        println!(
            "  virtiofsd, all together: {} threads, {} descriptors, {} KiB, {} KiB of their own",
            sum(|it| it.threads),
            sum(|it| it.descriptors),
            sum(|it| it.resident_kib),
            sum(|it| it.private_kib)
        );
    }

    /// What a guest wrote to its disk is what it wrote to its share, and no other's.
    fn compare(&self, number: usize) {
        let mut disk = Vec::new();
        let image = fs::File::open(self.scratch.join(&format!("image{number}")));
        image
            .unwrap()
            .take(DATA as u64)
            .read_to_end(&mut disk)
            .unwrap();
        let share = self.scratch.join(&format!("shared{number}/data"));
        assert!(disk == fs::read(share).unwrap(), "guest {number}");
        assert!(disk.starts_with(format!("guest {number}\n").as_bytes()));
    }

    fn stop(&mut self) {
        for daemon in self
            .shares
            .iter_mut()
            .chain([&mut self.disks, &mut self.switch])
        {
            let exit = daemon.terminate(SOON).unwrap();
            assert!(exit.status.success(), "{}", exit.stderr);
            for word in ["panicked", "ERROR", "WARN"] {
                assert!(!exit.stderr.contains(word), "{}", exit.stderr);
            }
        }
    }
}

fn address(number: usize) -> String {
    format!("10.9.{}.{}", 1 + number / 250, 1 + number % 250)
}

fn script(number: usize, next: usize) -> String {
    let (own, next) = (address(number), address(next));
    format!(
        r#"
set -e
busybox ip addr add {own}/16 dev eth0
busybox ip link set eth0 up
{{ echo guest {number}; head -c {DATA} /dev/urandom; }} | head -c {DATA} >/run/data
dd if=/run/data of=/dev/vda bs=64k conv=fsync 2>/dev/null
mount -t virtiofs share /mnt
cp /run/data /mnt/data
sync
echo ready
read order
echo 3 >/proc/sys/vm/drop_caches
cmp -n {DATA} /run/data /dev/vda
cmp /run/data /mnt/data
tries=0
until busybox ping -c 3 -W 10 {next}; do
    tries=$((tries + 1))
    [ $tries -lt 20 ]
done
echo reached
read order
umount /mnt
"#
    )
}
