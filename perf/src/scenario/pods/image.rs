//! An image of busybox, built by umoci.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::need;

use super::error::Error;

const APPLETS: [&str; 4] = ["cat", "echo", "sh", "sleep"];

/// Builds the image `box` below `folder`, and returns a tar of its layout.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Error> {
    let (layout, bundle, tar) = (
        folder.join("layout"),
        folder.join("bundle"),
        folder.join("image.tar"),
    );
    let image = format!("{}:box", layout.display());
    let [layout, bundle, packed] = [&layout, &bundle, &tar].map(|it| it.display().to_string());
    let umoci = |arguments: &[&str]| run("umoci", arguments);
    umoci(&["init", "--layout", &layout])?;
    umoci(&["new", "--image", &image])?;
    umoci(&["unpack", "--image", &image, &bundle])?;
    fill(&folder.join("bundle/rootfs"))?;
    umoci(&["repack", "--image", &image, &bundle])?;
    umoci(&["config", "--image", &image, "--config.env", "PATH=/bin"])?;
    run("tar", &["-cf", &packed, "-C", &layout, "."])?;
    Ok(tar)
}

fn fill(root: &Path) -> Result<(), Error> {
    let written = |path: &Path, result: std::io::Result<()>| {
        result.map_err(|source| Error::Write(path.to_owned(), source))
    };
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        let path = root.join(folder);
        written(&path, fs::create_dir_all(&path))?;
    }
    let busybox = root.join("bin/busybox");
    let copied = fs::copy(need::program("busybox")?, &busybox);
    written(&busybox, copied.map(drop))?;
    for applet in APPLETS {
        let path = root.join("bin").join(applet);
        written(&path, symlink("busybox", &path))?;
    }
    Ok(())
}

fn run(program: &'static str, arguments: &[&str]) -> Result<(), Error> {
    let path = need::program(program)?;
    let output = Command::new(path).args(arguments).output();
    let output = output.map_err(|source| Error::Run { program, source })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Tool {
            program,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
    }
}
