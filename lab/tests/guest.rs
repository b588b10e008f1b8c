//! QEMU and User-Mode Linux on daemons that none of us wrote.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::{QemuGuest, UmlGuest, VhostUser};
use lab::process::Daemon;
use lab::scratch::Scratch;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);

fn storage_daemon(scratch: &Scratch) -> Result<(Daemon, PathBuf), Box<dyn Error>> {
    let (image, socket) = (scratch.image("disk", 16 << 20)?, scratch.join("blk.sock"));
    let daemon = Daemon::builder(lab::need::program("qemu-storage-daemon")?)
        .args([
            "--blockdev",
            &format!("driver=file,node-name=disk,filename={}", image.display()),
        ])
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={}",
            socket.display()
        ))
        .spawn_listening(&socket, 5 * SECOND)?;
    Ok((daemon, socket))
}

fn virtiofsd(scratch: &Scratch, shared: &Path) -> Result<(Daemon, PathBuf), Box<dyn Error>> {
    lab::need::root()?;
    let socket = scratch.join("fs.sock");
    let daemon = Daemon::builder(lab::need::file(
        "/usr/lib/qemu/virtiofsd",
        "qemu-system-common",
    )?)
    .arg(format!("--socket-path={}", socket.display()))
    .args([
        "-o",
        &format!("source={}", shared.display()),
        "-o",
        "sandbox=chroot",
    ])
    .spawn_listening(&socket, 5 * SECOND)?;
    Ok((daemon, socket))
}

#[test]
fn qemu_runs_on_a_disk_and_a_file_system() -> TestResult {
    let scratch = Scratch::new("guest-qemu")?;
    let shared = scratch.dir("shared")?;
    std::fs::write(shared.join("in"), "from the host\n")?;
    let (_disk, blk) = storage_daemon(&scratch)?;
    let (_files, fs) = virtiofsd(&scratch, &shared)?;
    let script = "set -e
        mount -t virtiofs files /mnt
        cat /mnt/in
        echo from the guest >/mnt/out
        umount /mnt
        dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null
        dd if=/tmp/data of=/dev/vda bs=64k conv=fsync 2>/dev/null
        echo 3 >/proc/sys/vm/drop_caches
        cmp -n 1048576 /tmp/data /dev/vda
        cat /sys/block/vda/size";
    let guest = QemuGuest::new(script)
        .blk(VhostUser::new(blk))
        .fs(fs, "files");
    assert_eq!(guest.run()?.success()?, "from the host\n32768\n");
    assert_eq!(
        std::fs::read_to_string(shared.join("out"))?,
        "from the guest\n"
    );
    Ok(())
}

#[test]
fn uml_runs_on_a_disk() -> TestResult {
    let scratch = Scratch::new("guest-uml")?;
    let (_disk, blk) = storage_daemon(&scratch)?;
    let script = "set -e
        mkfs.ext4 -q /dev/vda
        mkdir /run/disk
        mount /dev/vda /run/disk
        cp /usr/bin/dash /run/disk
        umount /run/disk
        mount -r /dev/vda /run/disk
        cmp /usr/bin/dash /run/disk/dash
        ! touch /etc/written-by-the-lab 2>/dev/null
        cat /sys/block/vda/size";
    let guest = UmlGuest::new(script).blk(&blk);
    assert_eq!(guest.run()?.success()?, "32768\n");
    Ok(())
}

#[test]
fn qemu_connects_again_to_a_restarted_daemon() -> TestResult {
    let scratch = Scratch::new("guest-reconnect")?;
    let (disk, blk) = storage_daemon(&scratch)?;
    let script =
        "echo ready; read go; dd if=/dev/vda bs=4k count=8 iflag=direct 2>/dev/null | wc -c";
    let mut guest = QemuGuest::new(script)
        .blk(VhostUser::new(&blk).reconnect())
        .start()?;
    guest.wait_output("ready")?;
    drop(disk);
    std::fs::remove_file(scratch.join("disk"))?;
    let (_restarted, _) = storage_daemon(&scratch)?;
    guest.write(b"go\n")?;
    assert_eq!(guest.wait()?.success()?, "ready\n32768\n");
    Ok(())
}

#[test]
fn a_script_can_talk_and_fail() -> TestResult {
    let mut guest = UmlGuest::new("echo ready; read answer; echo got $answer; exit 7").start()?;
    guest.wait_output("ready")?;
    guest.write(b"yes\n")?;
    let outcome = guest.wait()?;
    assert_eq!(
        (outcome.code, outcome.output.as_str()),
        (7, "ready\ngot yes\n")
    );
    let error = outcome.success().unwrap_err().to_string();
    assert!(
        error.contains("exit code 7") && error.contains("got yes"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_guest_that_hangs_ends_with_its_limit() -> TestResult {
    let guest = UmlGuest::new("echo on my way; sleep 100")
        .limit(4 * SECOND)
        .start()?;
    let group = guest.pid();
    let error = guest.wait().unwrap_err().to_string();
    assert!(
        error.contains("within 4s") && error.contains("on my way"),
        "{error}"
    );
    assert!(!lab::process::group_is_alive(group), "children are left");
    Ok(())
}
