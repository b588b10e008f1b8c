//! `ringside run` with our VMM: the same flags as with QEMU.

use guest_image::Cache;
use lab::machine::Machine;
use lab::need;
use lab::process::binary;

use super::support::{LIMIT, TestResult};

const SCRIPT: &str = r#"
set -eu
cd "$(mktemp -d)"
mkdir -p root/bin root/tmp root/www xdg
cp "$BUSYBOX" root/bin/busybox
for applet in sh cat httpd md5sum mount sleep sync; do ln -s busybox root/bin/$applet; done
export XDG_RUNTIME_DIR=$PWD/xdg
ringside() { timeout 250 "$RINGSIDE" run --hypervisor vmm --memory 256M --keep-logs logs "$@"; }
head -c 3000000 /dev/urandom >sent

head -c 300000 /dev/urandom >root/www/page
ringside --rootfs root --net --publish 18000:80 -- sh -c '
    md5sum; echo errors >&2; echo "from the guest" >/tmp/file
    httpd -p 80 -h /www; until [ -e /tmp/fetched ]; do sleep 0.2; done; exit 7' <sent >said 2>errors &
run=$!
until [ -e root/tmp/file ] || ! kill -0 $run; do sleep 0.1; done
pgrep -x ringside-vmm >/dev/null && echo "our VMM runs it"
curl -sS --max-time 60 --retry 5 --retry-delay 1 --retry-all-errors http://127.0.0.1:18000/page >page || true
touch root/tmp/fetched
code=0; wait $run || code=$?
echo "virtiofs root: exit code $code"
[ "$(cat said)" = "$(md5sum <sent)" ] && echo "virtiofs root: standard input arrived"
cmp page root/www/page && echo "virtiofs root: the page came through the network"
cat errors; cat root/tmp/file

truncate -s 8M data
ringside --rootfs root --root block --image image --disk data -- sh -c '
    cat >/tmp/kept; cat /tmp/kept >/dev/disk/by-id/virtio-disk0; cat /tmp/kept' <sent >back
echo "block root: exit code $?"
cmp sent back && echo "block root: standard output arrived"
cmp -n 3000000 sent data && echo "block root: the disk has it"
e2fsck -fn image >/dev/null 2>&1 && debugfs -R 'dump /tmp/kept kept' image 2>/dev/null
cmp sent kept && echo "block root: the image is clean and has it"
ls xdg/ringside
pgrep -l 'virtiofsd|vhost-user|ringside-vmm' || echo "nothing is left"
"#;

#[test]
fn ringside_run_works_on_our_vmm() -> TestResult {
    let cache = Cache::open_default()?;
    let output = Machine::new(["sh", "-c", SCRIPT])
        .env("RINGSIDE", binary("ringside")?)
        .env("RINGSIDE_CACHE", cache.path(""))
        .env("BUSYBOX", need::program("busybox")?)
        .folder("/tmp")
        .limit(LIMIT)
        .run()?;
    let text = format!("{output:?}").replace("\\n", "\n");
    let said = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "our VMM runs it",
        "virtiofs root: exit code 7",
        "virtiofs root: standard input arrived",
        "virtiofs root: the page came through the network",
        "errors",
        "from the guest",
        "block root: exit code 0",
        "block root: standard output arrived",
        "block root: the disk has it",
        "block root: the image is clean and has it",
        "nothing is left",
    ] {
        let found = said.lines().any(|line| line == expected);
        assert!(found, "no {expected:?} in {text}");
    }
    Ok(())
}
