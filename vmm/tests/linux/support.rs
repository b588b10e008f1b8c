//! A lab with our programs, and a guest that runs a script.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a part of a test, where what is missing fails it"
)]

use std::error::Error;
use std::fs;
use std::time::Duration;

use guest_image::cpio::Archive;
use guest_image::{Cache, Kernel};
use lab::machine::Machine;
use lab::need;
use lab::process::binary;
use lab::scratch::Scratch;

pub(crate) type TestResult = Result<(), Box<dyn Error>>;

/// The lab takes seconds, a guest in it ten, and on a busy host many times as long.
const LIMIT: Duration = Duration::from_secs(520);

/// What a guest's script can `load`; the bus is there from the start.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtiofs",
    "virtio_net",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    "ext4",
    "button",
    "evdev",
];

/// Functions of the lab's script. Each guest's console ends up between marks in the output.
const FUNCTIONS: &str = r#"
set -eu
cd "$(mktemp -d)"
CMDLINE='console=ttyS0 quiet panic=-1'
blk() {
    "$BLK" --socket-path blk.sock --sandbox none "$@" 2>>blk.log &
    echo $! >blk.pid
    until [ -S blk.sock ]; do sleep 0.05; done
}
fs() {
    "$FS" --socket-path fs.sock --sandbox none "$@" 2>>fs.log &
    echo $! >fs.pid
    until [ -S fs.sock ]; do sleep 0.05; done
}
# api METHOD PATH [BODY]: the answer's body, or a line that says what went wrong.
api() {
    curl -sS --fail-with-body --max-time 60 --unix-socket api.sock -X "$1" ${3:+-d "$3"} \
        "http://vmm$2" || echo "api $1 $2 FAILED"
}
# until_is FILE TEXT: waits for the guest.
until_is() {
    for _ in $(seq 500); do
        [ "$(cat "$1" 2>/dev/null)" = "$2" ] && return
        sleep 0.2
    done
    echo "$1 is not $2 FAILED"
}
# A network of its own, whose only interface is the daemon's tap.
net() {
    if ! [ -e /run/netns/guest ]; then
        ip netns add guest
        ip -n guest tuntap add tap0 mode tap vnet_hdr
        ip -n guest address add 10.0.2.1/24 dev tap0
        ip -n guest link set lo up
        ip -n guest link set tap0 up
    fi
    ip netns exec guest "$NET" --socket-path net.sock --tap tap0 --sandbox none "$@" 2>>net.log &
    echo $! >net.pid
    until [ -S net.sock ]; do sleep 0.05; done
}
boot() {
    name=$1; shift
    code=0
    begin=$(cut -d. -f1 /proc/uptime)
    timeout "${BOOT_LIMIT:-350}" "$VMM" --initramfs "$INITRAMFS" --cmdline "$CMDLINE" \
        --serial "file=$name.console" "$@" </dev/null 2>"$name.log" || code=$?
    echo "<$name $code>"
    echo "(from $begin s to $(cut -d. -f1 /proc/uptime) s)"
    cat "$name.console" "$name.log" 2>/dev/null || true
    echo "</$name>"
}
"#;

pub(crate) struct Lab {
    scratch: Scratch,
}

/// All that the lab's script said.
#[derive(Debug)]
pub(crate) struct Said(String);

impl Lab {
    pub(crate) fn new(test: &str) -> Result<Self, Box<dyn Error>> {
        let scratch = Scratch::new(test)?;
        Ok(Self { scratch })
    }

    /// A file that the lab's script finds in `$FILES`.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> TestResult {
        self.scratch.file(name, content)?;
        Ok(())
    }

    /// Runs `script` in the lab; each `boot NAME OPTION...` there is a guest that runs `guest`.
    pub(crate) fn run(&self, guest: &str, script: &str) -> Result<Said, Box<dyn Error>> {
        self.run_longer(Duration::ZERO, guest, script)
    }

    /// The same, where the guest has so much `more` to do.
    pub(crate) fn run_longer(
        &self,
        more: Duration,
        guest: &str,
        script: &str,
    ) -> Result<Said, Box<dyn Error>> {
        let cache = Cache::open_default()?;
        let kernel = Kernel::obtain(&cache)?;
        let initramfs = self.scratch.file("initramfs", initramfs(&kernel, guest)?)?;
        let script = format!("{FUNCTIONS}{script}");
        let output = Machine::new(["sh", "-c", &script])
            .env("VMM", env!("CARGO_BIN_EXE_ringside-vmm"))
            .env("BLK", binary("vhost-user-blk")?)
            .env("LAB", binary("ringside-lab")?)
            .env("FS", binary("virtiofsd")?)
            .env("NET", binary("vhost-user-net")?)
            .env("VSOCK", binary("vhost-user-vsock")?)
            .env("BZIMAGE", kernel.bzimage())
            .env("ELF", kernel.vmlinux(&cache)?)
            .env("INITRAMFS", initramfs)
            .env("FILES", self.scratch.path())
            .folder("/tmp")
            .limit(LIMIT + more)
            .run()?;
        Ok(Said(output.success()?))
    }
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    /// The rest of the first line that begins so.
    pub(crate) fn after(&self, begin: &str) -> &str {
        let found = self.0.lines().find_map(|line| line.strip_prefix(begin));
        found.unwrap_or_else(|| panic!("no line begins with {begin:?}: {}", self.0))
    }

    /// What a guest's console and its VMM said.
    pub(crate) fn guest(&self, name: &str) -> &str {
        let from = self.0.split_once(&format!("<{name} "));
        let from = from.unwrap_or_else(|| panic!("{name} did not run: {}", self.0));
        let end = from.1.split_once(&format!("</{name}>"));
        end.map_or(from.1, |(text, _)| text)
    }

    /// The VMM's exit code.
    pub(crate) fn code(&self, name: &str) -> i32 {
        let first = self.guest(name).split('>').next().unwrap_or_default();
        first.parse().unwrap()
    }
}

fn initramfs(kernel: &Kernel, script: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut archive = Archive::new();
    for directory in ["/bin", "/dev", "/proc", "/sys", "/tmp", "/mnt", "/modules"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("/dev/console", 0o600, 5, 1);
    archive.file("/bin/busybox", 0o755, &fs::read(need::program("busybox")?)?)?;
    archive.symlink("/bin/sh", "busybox")?;
    for module in MODULES {
        let mut order = String::new();
        for path in kernel.modules()?.load_order(&[module])? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("/modules/{name}"), 0o600, &fs::read(&path)?)?;
            order += &format!("/modules/{name}\n");
        }
        archive.file(&format!("/modules/{module}.order"), 0o600, order.as_bytes())?;
    }
    archive.file(
        "/init",
        0o755,
        format!("{INIT}{script}\npoweroff -f\n").as_bytes(),
    )?;
    Ok(archive.finish())
}

/// The beginning of every guest's script.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
# One may be there already, with another's.
load() {
    for module; do
        while read -r file; do insmod "$file" 2>/dev/null; done </modules/$module.order
    done
}
load virtio_pci
"#;
