//! An image of busybox, built by umoci.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::need;
use lab::scratch::Scratch;

const APPLETS: &str = "sh cat chmod cp dd echo env false grep head hostname id ip kill ls md5sum mkdir mount \
                       ping ps pwd rm seq sleep stty tail test touch true tty wc yes";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n";

/// Names a tar that [`build`] made before, for a test in the lab.
pub(crate) const PREBUILT: &str = "RINGSIDE_TEST_IMAGE";

/// The image of this process's tests.
pub(crate) fn obtain(scratch: &Scratch) -> PathBuf {
    std::env::var_os(PREBUILT).map_or_else(|| build(scratch), PathBuf::from)
}

/// Builds the image as `box`, as `user` with an ordinary user, and returns a tar of its layout.
pub(crate) fn build(scratch: &Scratch) -> PathBuf {
    let layout = scratch.join("layout");
    let image = format!("{}:box", layout.display());
    let bundle = scratch.join("bundle");
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
    fill(&bundle.join("rootfs"));
    umoci(&["repack", "--image", &image, bundle.to_str().unwrap()]);
    umoci(&["config", "--image", &image, "--config.env", "PATH=/bin"]);
    umoci(&[
        "config",
        "--image",
        &image,
        "--tag",
        "user",
        "--config.user",
        "1000:1000",
    ]);
    let tar = scratch.join("image.tar");
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&tar)
        .arg("-C")
        .arg(&layout)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    tar
}

fn fill(root: &Path) {
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = need::program("busybox").unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
}

fn umoci(arguments: &[&str]) {
    let program = need::program("umoci").unwrap();
    let output = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "umoci {arguments:?}: {words}");
}
