//! qcow2 images as qemu-img makes and judges them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn qemu_img<I, A>(arguments: I) -> Output
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let program = lab::need::program("qemu-img").unwrap();
    Command::new(program).args(arguments).output().unwrap()
}

/// Runs qemu-img, which has to succeed.
pub fn run<I, A>(arguments: I)
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let output = qemu_img(arguments);
    assert!(output.status.success(), "{}", told(&output));
}

/// An empty image of `bytes`.
pub fn create(path: &Path, bytes: u64, options: &str) -> PathBuf {
    let (size, options) = (bytes.to_string(), format!("refcount_bits=16{options}"));
    let file = path.as_os_str();
    run([
        OsStr::new("create"),
        "-qfqcow2".as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        file,
        size.as_ref(),
    ]);
    path.to_owned()
}

/// An empty image on top of `backing`, whose format is `format`.
pub fn create_on(path: &Path, backing: &Path, format: &str, options: &str) -> PathBuf {
    let options = format!("refcount_bits=16{options}");
    run([
        OsStr::new("create"),
        "-qfqcow2".as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        "-F".as_ref(),
        format.as_ref(),
        "-b".as_ref(),
        backing.as_os_str(),
        path.as_os_str(),
    ]);
    path.to_owned()
}

/// Has the image name `backing`, whatever that is.
pub fn rebase(image: &Path, backing: &str, format: &str) {
    let fixed = ["rebase", "-u", "-b", backing, "-F", format].map(OsStr::new);
    run(fixed.into_iter().chain([image.as_os_str()]));
}

/// `raw` as a qcow2 image.
pub fn convert(raw: &Path, path: &Path, arguments: &[&str]) -> PathBuf {
    let fixed = ["convert", "-fraw", "-Oqcow2"].map(OsStr::new);
    let files = [raw.as_os_str(), path.as_os_str()];
    run(fixed
        .into_iter()
        .chain(arguments.iter().map(OsStr::new))
        .chain(files));
    path.to_owned()
}

/// Fails unless the image is without fault, and without leaked clusters unless these are `allowed`.
pub fn check(image: &Path, leaks_allowed: bool) {
    let output = qemu_img([OsStr::new("check"), "-fqcow2".as_ref(), image.as_os_str()]);
    // qemu-img(1): 3 says that clusters are leaked, but the image is not corrupt.
    let sound = output.status.success() || leaks_allowed && output.status.code() == Some(3);
    assert!(sound, "{}", told(&output));
}

/// Fails unless the image's disk holds `bytes`.
pub fn compare(image: &Path, bytes: &[u8]) {
    let expected = image.with_extension("expected");
    std::fs::write(&expected, bytes).unwrap();
    run([
        OsStr::new("compare"),
        "-fqcow2".as_ref(),
        "-Fraw".as_ref(),
        image.as_os_str(),
        expected.as_os_str(),
    ]);
}

/// Overwrites bytes of the file.
pub fn patch(image: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}
