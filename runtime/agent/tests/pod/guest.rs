//! A pod's guest under QEMU, emulated: the agent, a directory over virtiofs, a vsock device.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest_image::{Cache, GuestImage, Kernel, MODULES};
use lab::need;
use lab::process::{Daemon, binary};
use lab::scratch::Scratch;
use ringside_protocol::agent::blocking::AgentClient;
use ringside_protocol::{port, stream};

const BOOTS_WITHIN: Duration = Duration::from_secs(60);
const DAEMON_STARTS_WITHIN: Duration = Duration::from_secs(20);
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const MEMORY_MIB: u32 = 512;

/// The guest's network interface.
pub(crate) const MAC: &str = "52:54:00:01:02:03";

/// A running guest. It and its daemons end when it is dropped.
pub(crate) struct Guest {
    pub(crate) agent: AgentClient,
    pub(crate) scratch: Scratch,
    hypervisor: Daemon,
    _daemons: [Daemon; 2],
}

impl Guest {
    pub(crate) fn boot(test: &str) -> Self {
        need::root().unwrap();
        let scratch = Scratch::in_memory(test).unwrap();
        root_file_system(&scratch);
        let sockets = ["fs", "vsock"].map(|name| scratch.join(&format!("{name}.sock")));
        let files = Daemon::builder(binary("virtiofsd").unwrap())
            .arg("--shared-dir")
            .arg(scratch.join("shared"))
            .arg("--socket-path")
            .arg(&sockets[0])
            .args(["--tag", "shared", "--log-level=warn"])
            .spawn_listening(&sockets[0], DAEMON_STARTS_WITHIN)
            .unwrap();
        let vsock = Daemon::builder(binary("vhost-user-vsock").unwrap())
            .args(["--cid", "3", "--uds-path"])
            .arg(scratch.join("hybrid"))
            .arg("--socket-path")
            .arg(&sockets[1])
            .arg("--log-level=warn")
            .spawn_listening(&sockets[1], DAEMON_STARTS_WITHIN)
            .unwrap();
        let hypervisor = qemu(&scratch, &sockets);
        let mut guest = Self {
            agent: AgentClient::new(placeholder()),
            scratch,
            hypervisor,
            _daemons: [files, vsock],
        };
        guest.agent = guest.client();
        guest
    }

    /// A connection to a port of the guest's, as soon as somebody listens there.
    pub(crate) fn connect(&mut self, port: u32) -> UnixStream {
        let deadline = Instant::now() + BOOTS_WITHIN;
        loop {
            if let Some(connection) = self.try_connect(port) {
                return connection;
            }
            let said = || self.hypervisor.stdout();
            assert!(
                Instant::now() < deadline,
                "nobody listens on port {port}: {}",
                said()
            );
            assert!(
                self.hypervisor.is_running(),
                "the guest ended: {}",
                self.hypervisor.stdout()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_connect(&self, port: u32) -> Option<UnixStream> {
        let mut connection = UnixStream::connect(self.scratch.join("hybrid")).ok()?;
        connection
            .write_all(format!("CONNECT {port}\n").as_bytes())
            .ok()?;
        connection.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
        let mut line = String::new();
        // Not a byte more than the line: what follows belongs to whoever talks next.
        BufReader::with_capacity(1, &connection)
            .read_line(&mut line)
            .ok()?;
        connection.set_read_timeout(None).ok()?;
        line.starts_with("OK ").then_some(connection)
    }

    pub(crate) fn client(&mut self) -> AgentClient {
        let connection = self.connect(port::AGENT);
        AgentClient::new(ttrpc::Client::new(connection.into_raw_fd()).unwrap())
    }

    /// A connection that the agent keeps under this name.
    pub(crate) fn stream(&mut self, name: &str) -> UnixStream {
        let mut connection = self.connect(port::STREAM);
        connection
            .write_all(stream::announcement(name).unwrap().as_bytes())
            .unwrap();
        let mut answer = [0; stream::ACCEPTED.len()];
        connection.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
        connection.read_exact(&mut answer).unwrap();
        connection.set_read_timeout(None).unwrap();
        assert_eq!(answer, stream::ACCEPTED.as_bytes(), "{name}");
        connection
    }

    pub(crate) fn console(&self) -> String {
        self.hypervisor.stdout()
    }

    pub(crate) fn hypervisor(&mut self) -> &mut Daemon {
        &mut self.hypervisor
    }
}

/// A client of nobody, for the time before the guest has booted.
fn placeholder() -> ttrpc::Client {
    let (near, _) = UnixStream::pair().unwrap();
    ttrpc::Client::new(near.into_raw_fd()).unwrap()
}

/// `shared/root`: busybox, and the directories that a container's file systems are mounted on.
fn root_file_system(scratch: &Scratch) {
    let root = scratch.join("shared/root");
    for name in [
        "bin", "dev", "proc", "sys", "tmp", "etc", "mnt", "root", "run",
    ] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = need::program("busybox").unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .unwrap();
}

const APPLETS: &str = "sh cat echo env false head id ip kill ls md5sum mkdir mount mv nc printf ps pwd rm seq \
                       sha256sum sleep stty sync touch true tty wc yes grep dd hostname cut mknod nproc readlink \
                       find chmod date stat test tr sed sysctl tail umount trap ulimit od";

fn qemu(scratch: &Scratch, sockets: &[PathBuf; 2]) -> Daemon {
    let cache = Cache::open_default().unwrap();
    let kernel = Kernel::obtain(&cache).unwrap();
    let image = GuestImage::build(&cache, &kernel, &agent(), MODULES).unwrap();
    let disk = disk(scratch);
    let [files, vsock] = sockets.each_ref().map(|path| path.display().to_string());
    Daemon::builder(need::program("qemu-system-x86_64").unwrap())
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max,-la57",
            "-smp",
            "2",
        ])
        .args([
            "-M",
            "q35,memory-backend=mem",
            "-m",
            &format!("{MEMORY_MIB}M"),
        ])
        .args([
            "-object",
            &format!("memory-backend-memfd,id=mem,size={MEMORY_MIB}M,share=on"),
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .args(["-chardev", &format!("socket,id=fs,path={files}")])
        .args([
            "-device",
            "vhost-user-fs-pci,chardev=fs,tag=shared,num-request-queues=1",
        ])
        .args(["-chardev", &format!("socket,id=vsock,path={vsock}")])
        .args(["-device", "vhost-user-vsock-pci,chardev=vsock"])
        .args([
            "-blockdev",
            &format!("driver=file,node-name=disk,filename={}", disk.display()),
        ])
        .args(["-device", "virtio-blk-pci,drive=disk,serial=disk-0"])
        .args(["-netdev", "hubport,id=net,hubid=0", "-device"])
        .arg(format!("virtio-net-pci,netdev=net,mac={MAC},romfile="))
        .args(["-device", "virtio-rng-pci"])
        .arg("-kernel")
        .arg(&image.vmlinux)
        .arg("-initrd")
        .arg(&image.initramfs)
        .args([
            "-append",
            "console=ttyS0 quiet loglevel=4 reboot=t panic=-1 mitigations=off nokaslr tsc=reliable",
        ])
        .arg("-D")
        .arg(scratch.join("qemu.log"))
        .bound()
        .spawn()
        .unwrap()
}

/// An ext4 file system.
fn disk(scratch: &Scratch) -> PathBuf {
    let path = scratch.image("disk", 32 << 20).unwrap();
    let mut make = std::process::Command::new(need::program("mkfs.ext4").unwrap());
    assert!(make.arg("-q").arg(&path).status().unwrap().success());
    path
}

/// The static agent, of the same profile as this test.
fn agent() -> PathBuf {
    let dynamic = PathBuf::from(env!("CARGO_BIN_EXE_ringside-agent"));
    let profile = dynamic.parent().and_then(|path| path.file_name()).unwrap();
    let target = dynamic.ancestors().nth(2).unwrap();
    let path = target
        .join("x86_64-unknown-linux-gnu")
        .join(profile)
        .join("ringside-agent");
    assert!(
        path.is_file(),
        "{} is not there: make agent builds it",
        path.display()
    );
    path
}
