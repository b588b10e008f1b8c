//! qcow2 images that cannot be served, each refused in one sentence, and hostile ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;
mod image;

use std::path::{Path, PathBuf};

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::process::Daemon;
use lab::scratch::Scratch;

const BYTES: u64 = 4 << 20;
/// Where the incompatible feature bits are: big-endian, so that the last byte has the first eight.
const INCOMPATIBLE: u64 = 72 + 7;
/// The last byte of the big-endian encryption method.
const CRYPT_METHOD: u64 = 32 + 3;
/// The method LUKS. qemu-img makes no such image here: it first measures how fast it can derive a key, and gives
/// up where the machine is too noisy for that.
const LUKS: u8 = 2;

struct Images(Scratch);

impl Images {
    fn new(test: &str) -> Self {
        Self(Scratch::new(test).unwrap())
    }

    fn create(&self, name: &str, options: &str) -> PathBuf {
        image::create(&self.0.join(name), BYTES, options)
    }

    /// Fails unless the daemon refuses `image` with a sentence that has all of `words`.
    fn refused(&self, image: &Path, options: &[&str], words: &[&str]) {
        let mut daemon = Daemon::builder(PROGRAM)
            .arg("--socket-path")
            .arg(self.0.join("s.sock"))
            .arg("--blk-file")
            .arg(image)
            .args(options)
            .spawn()
            .unwrap();
        let exit = daemon.wait_exit(SOON).unwrap();
        assert!(!exit.status.success(), "{} was served", image.display());
        for word in words {
            assert!(
                exit.stderr.contains(word),
                "no '{word}' in:\n{}",
                exit.stderr
            );
        }
        assert_eq!(exit.stderr.lines().count(), 1, "{}", exit.stderr);
    }
}

const QCOW2: &[&str] = &["--format", "qcow2"];

#[test]
fn what_is_not_supported_is_named() {
    let images = Images::new("qcow2-refused");
    let name = "disk.qcow2";
    let data_file = format!(",data_file={}", images.0.join("data.raw").display());
    let cases = [
        (
            ",compression_type=zstd",
            "is compressed with something else",
        ),
        (",extended_l2=on", "has extended L2 entries"),
        (&data_file, "keeps its data in an external file"),
    ];
    for (options, words) in cases {
        let image = images.create(name, options);
        images.refused(&image, QCOW2, &[name, words, "qemu-img convert"]);
    }
    let secret = images.0.join("secret.qcow2");
    image::run([
        "create",
        "-q",
        "-fqcow2",
        "--object=secret,id=key,data=ringside",
        "-o",
        "encrypt.format=aes,encrypt.key-secret=key",
        secret.to_str().unwrap(),
        "4M",
    ]);
    images.refused(&secret, QCOW2, &["secret.qcow2 is encrypted"]);
    image::patch(&secret, CRYPT_METHOD, &[LUKS]);
    images.refused(&secret, QCOW2, &["secret.qcow2 is encrypted"]);
    for (bit, words) in [(1, "was not closed cleanly"), (2, "is marked corrupt")] {
        let image = images.create(name, "");
        image::patch(&image, INCOMPATIBLE, &[bit]);
        images.refused(&image, QCOW2, &[name, words, "qemu-img check -r all"]);
    }
    let raw = images.0.image("disk.raw", BYTES).unwrap();
    images.refused(
        &raw,
        QCOW2,
        &["disk.raw is not a qcow2 image", "--format raw"],
    );
}

#[test]
fn a_format_is_never_guessed() {
    let images = Images::new("qcow2-guess");
    let image = images.create("disk.qcow2", "");
    images.refused(&image, &[], &["begins like a qcow2 image", "--format"]);
    let options = ["--format", "raw"];
    let disk = Disk::serve(images.0, image, |daemon| daemon.args(options));
    let (_front_end, mut blk) = disk.driver(ALL);
    let (_, start) = blk.read(0, 512).unwrap();
    assert_eq!(start[..4], *b"QFI\xfb");
}

#[test]
fn a_backing_file_is_where_the_host_allows_it() {
    let images = Images::new("qcow2-backing");
    let elsewhere = Scratch::new("qcow2-elsewhere").unwrap();
    let base = elsewhere.image("base.raw", BYTES).unwrap();
    let far = image::create_on(&images.0.join("far.qcow2"), &base, "raw", "");
    images.refused(&far, QCOW2, &["far.qcow2", "base.raw", "--backing any"]);
    // A link is not a way around it.
    let link = images.0.join("near.raw");
    std::os::unix::fs::symlink(&base, &link).unwrap();
    let linked = image::create_on(&images.0.join("linked.qcow2"), &link, "raw", "");
    images.refused(&linked, QCOW2, &["linked.qcow2", "--backing any"]);
    let near = images.0.image("below.raw", BYTES).unwrap();
    let near = image::create_on(&images.0.join("near.qcow2"), &near, "raw", "");
    let none = [QCOW2, &["--backing", "none"]].concat();
    images.refused(&near, &none, &["--backing none forbids"]);
    for (image, options) in [
        (near, QCOW2),
        (far, &[QCOW2, &["--backing", "any"]].concat()),
    ] {
        let scratch = Scratch::new("qcow2-allowed").unwrap();
        let disk = Disk::serve(scratch, image, |daemon| daemon.args(options));
        disk.assert_serves();
    }
}

#[test]
fn a_broken_chain_is_named() {
    let images = Images::new("qcow2-chain");
    let join = |name: &str| images.0.join(name);
    let base = images.create("base.qcow2", "");
    let top = image::create_on(&join("top.qcow2"), &base, "qcow2", "");

    image::patch(&base, INCOMPATIBLE, &[1]);
    images.refused(&top, QCOW2, &["base.qcow2 was not closed cleanly"]);
    std::fs::remove_file(&base).unwrap();
    images.refused(&top, QCOW2, &["base.qcow2: No such file"]);
    image::rebase(&images.create("base.qcow2", ""), "top.qcow2", "qcow2");
    images.refused(&top, QCOW2, &["lead back to", "top.qcow2"]);

    let mut below = images.create("deep0.qcow2", "");
    for depth in 1..=16 {
        let path = join(&format!("deep{depth}.qcow2"));
        below = image::create_on(&path, &below, "qcow2", "");
    }
    images.refused(&below, QCOW2, &["deep16.qcow2 stands on more than 16"]);

    // Without a format, as old programs left it.
    let untold = images.create("untold.qcow2", "");
    image::rebase(&untold, "base.qcow2", "raw");
    let header = std::fs::read(&untold).unwrap();
    let at = header
        .windows(4)
        .position(|word| word == 0xe279_2aca_u32.to_be_bytes());
    image::patch(&untold, at.unwrap() as u64, &[0x11; 4]);
    images.refused(
        &untold,
        QCOW2,
        &["untold.qcow2", "qemu-img rebase -u -b base.qcow2 -F"],
    );
}

#[test]
fn two_daemons_never_write_one_image() {
    let images = Images::new("qcow2-lock");
    let base = images.create("base.qcow2", "");
    let top = image::create_on(&images.0.join("top.qcow2"), &base, "qcow2", "");
    let scratch = Scratch::new("qcow2-locked").unwrap();
    let _disk = Disk::serve(scratch, top.clone(), |daemon| daemon.args(QCOW2));
    images.refused(&top, QCOW2, &["top.qcow2 is in use"]);
    // Others may stand on the same base, nobody may write it.
    images.refused(&base, QCOW2, &["base.qcow2 is in use"]);
    let other = image::create_on(&images.0.join("other.qcow2"), &base, "qcow2", "");
    let scratch = Scratch::new("qcow2-shared").unwrap();
    Disk::serve(scratch, other, |daemon| daemon.args(QCOW2)).assert_serves();
}

/// With such an image imago looked for a free cluster until the stack was used up (found by fuzzing).
#[test]
fn an_image_that_does_not_count_its_own_tables_is_not_written() {
    let images = Images::new("qcow2-uncounted");
    let sound = images.create("sound.qcow2", ",cluster_size=512");
    let bytes = std::fs::read(&sound).unwrap();
    let field = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let (l1, table) = (field(40), field(48));
    let block = field(table as usize);
    let cases = [
        ("no-block", table, 0),
        ("header", block, 0),
        ("table", block + 2 * (table / 512), 0),
        ("block", block + 2 * (block / 512), 0),
        ("l1", block + 2 * (l1 / 512), 0),
        ("unaligned", table, block + 8),
    ];
    for (name, at, value) in cases {
        let mut bytes = bytes.clone();
        let width = if at < block { 8 } else { 2 };
        let value = u64::to_be_bytes(value);
        bytes[at as usize..at as usize + width].copy_from_slice(&value[8 - width..]);
        let image = images.0.file(&format!("{name}.qcow2"), &bytes).unwrap();
        let words = [
            "does not count the clusters of its own tables",
            "--read-only",
        ];
        images.refused(&image, QCOW2, &words);
        let scratch = Scratch::new("qcow2-uncounted-read").unwrap();
        let options = ["--format", "qcow2", "--read-only"];
        let disk = Disk::serve(scratch, image, |daemon| daemon.args(options));
        assert_eq!(disk.driver(ALL).1.read(0, 512).unwrap().1, [0; 512]);
    }
    let scratch = Scratch::new("qcow2-counted").unwrap();
    Disk::serve(scratch, sound, |daemon| daemon.args(QCOW2)).assert_serves();
}

#[test]
fn an_image_of_nonsense_harms_nobody() {
    let scratch = Scratch::new("qcow2-nonsense").unwrap();
    let content = lab::pattern(3, BYTES as usize / 2);
    let raw = scratch.file("disk.raw", &content).unwrap();
    let path = scratch.join("sound.qcow2");
    let sound = image::convert(&raw, &path, &["-c", "-ocluster_size=4096"]);
    let sound = std::fs::read(sound).unwrap();
    let mut served = 0;
    for seed in 0..40_u64 {
        let mut bytes = sound.clone();
        // Tables are in the first clusters and at the end; a few bytes of each are wrong.
        for (number, noise) in lab::pattern(seed, 48).chunks(3).enumerate() {
            let at = usize::from(noise[0]) << 8 | usize::from(noise[1]);
            let at = match number % 3 {
                0 => 104 + at % 400,
                1 => 4096 + at % 32768,
                _ => bytes.len() - 1 - at % 16384,
            };
            bytes[at] = noise[2];
        }
        let nonsense = scratch.file(&format!("{seed}.qcow2"), &bytes).unwrap();
        served += u32::from(is_harmless(nonsense));
    }
    assert!(served > 10, "hardly any of the images was opened: {served}");
}

/// Reads and writes all over the image; whether it could be opened.
fn is_harmless(image: PathBuf) -> bool {
    let scratch = Scratch::new("qcow2-harmless").unwrap();
    let socket = scratch.join("s.sock");
    let mut daemon = Daemon::builder(PROGRAM)
        .args(["--format", "qcow2", "--queues", "1", "--socket-path"])
        .arg(&socket)
        .arg("--blk-file")
        .arg(&image)
        .spawn()
        .unwrap();
    if daemon.wait_stderr("waiting for a front end", SOON).is_err() {
        let exit = daemon.wait_exit(SOON).unwrap();
        assert_eq!(exit.stderr.lines().count(), 1, "{}", exit.stderr);
        return false;
    }
    let disk = Disk {
        daemon,
        socket,
        image,
        scratch,
    };
    let (_front_end, mut blk) = disk.driver(ALL);
    for sector in (0..BYTES / 2 / 512).step_by(61) {
        // Any status will do, but there is one.
        blk.read(sector, 16384).unwrap();
        blk.write(sector + 7, &[5; 3072]).unwrap();
    }
    blk.flush().unwrap();
    assert!(
        !disk.daemon.stderr().contains("panicked"),
        "{}",
        disk.daemon.stderr()
    );
    true
}
