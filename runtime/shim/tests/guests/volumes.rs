//! A pod's volumes that are no directories of the host: in the guest's memory, on disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, DeleteRequest, StartRequest, WaitRequest};
use containerd_shim_protos::ttrpc::context::with_duration;
use containerd_shim_protos::types::mount::Mount;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::containerd::{Containerd, eventually, kill};

/// What a container of the pod `a` says of itself.
const MEMBER: [&str; 4] = [
    "--annotation",
    "io.kubernetes.cri.container-type=container",
    "--annotation",
    "io.kubernetes.cri.sandbox-id=a",
];

/// All of them, in the pod `a`.
pub(crate) fn all(containerd: &Containerd, fast: &Memory) {
    memory(containerd, fast);
    raw_block(containerd);
    root_on_a_disk(containerd);
    // Nothing of the disks is left in the machine.
    let disks = containerd.exec("a", "ls /sys/block").ok();
    assert!(!disks.contains("vd"), "{disks}");
}

/// An `emptyDir` in memory is the guest's, with kubelet's size, and outlives the containers that use it.
fn memory(containerd: &Containerd, fast: &Memory) {
    let source = &fast.0;
    let mount = format!(
        "type=bind,src={},dst=/fast,options=rbind:rw",
        source.display()
    );
    let options = [&MEMBER[..], &["--mount", &mount]].concat();
    let script = "grep ' /fast ' /proc/mounts; echo kept >/fast/x";
    let seen = containerd.run("m1", &options, &["sh", "-c", script]).ok();
    assert!(
        seen.starts_with("tmpfs ") && seen.contains("size=8192k"),
        "{seen}"
    );
    let seen = containerd.run("m2", &options, &["cat", "/fast/x"]).ok();
    assert_eq!(seen, "kept\n");
    let is_empty = fs::read_dir(source).unwrap().next().is_none();
    assert!(is_empty, "the host has what is the guest's");
}

/// A disk of the host's under the same path in the container, read and written past a killed daemon.
pub(crate) fn raw_block(containerd: &Containerd) {
    let disk = Loop::new(containerd.scratch.join("disk"));
    let name = disk.0.to_str().unwrap();
    let options = [&["-d", "--device", name], &MEMBER[..]].concat();
    let command = ["sleep", "100000"];
    containerd
        .ctr(&Containerd::run_arguments("disk", &options, &command))
        .ok();
    let read = format!("head -c 8 {name}; test -b {name}");
    assert_eq!(containerd.exec("disk", &read).ok(), "RINGSIDE");
    let daemon = containerd.part("a", "vhost-user-blk-d0");
    kill(daemon, Signal::KILL);
    let write = format!("echo written | dd of={name} bs=512 seek=4 conv=fsync,sync");
    containerd.exec("disk", &write).ok();
    eventually("the disk's daemon is not started again", || {
        ![0, daemon].contains(&containerd.part("a", "vhost-user-blk-d0"))
    });
    containerd.remove("disk");
    let bytes = fs::read(&disk.0).unwrap();
    assert_eq!(&bytes[2048..2056], b"written\n");
}

/// A snapshot that is a block device, as devmapper's and blockfile's are: Debian's containerd has neither ready for
/// use, so the shim is asked as containerd would ask it.
fn root_on_a_disk(containerd: &Containerd) {
    let image = containerd.scratch.join("root.img");
    let files = containerd.scratch.join("bundle/rootfs");
    let made = [
        "-q",
        "-d",
        files.to_str().unwrap(),
        image.to_str().unwrap(),
        "32M",
    ];
    run(Command::new("mkfs.ext4").args(made));
    let bundle = containerd.scratch.join("disk-bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let script = "head -n 1 /proc/mounts >/data/root; echo x >/made; exit 6";
    fs::write(bundle.join("config.json"), spec_of_a(containerd, script)).unwrap();
    let task = containerd.calls("a");
    let patience = || with_duration(Duration::from_secs(120));
    let request = CreateTaskRequest {
        id: "root".to_owned(),
        bundle: bundle.display().to_string(),
        rootfs: vec![Mount {
            type_: "ext4".to_owned(),
            source: image.display().to_string(),
            options: vec!["loop".to_owned()],
            ..Mount::default()
        }],
        ..CreateTaskRequest::default()
    };
    task.create(patience(), &request).unwrap();
    let id = || "root".to_owned();
    let start = StartRequest {
        id: id(),
        ..StartRequest::default()
    };
    task.start(patience(), &start).unwrap();
    let wait = WaitRequest {
        id: id(),
        ..WaitRequest::default()
    };
    assert_eq!(task.wait(patience(), &wait).unwrap().exit_status, 6);
    let delete = DeleteRequest {
        id: id(),
        ..DeleteRequest::default()
    };
    task.delete(patience(), &delete).unwrap();
    let root = fs::read_to_string(containerd.scratch.join("data/root")).unwrap();
    assert!(root.contains(" / ext4 "), "{root}");
    // It was written back before the disk went.
    let cat = Command::new("debugfs")
        .args(["-R", "cat /made"])
        .arg(&image)
        .output();
    assert_eq!(cat.unwrap().stdout, b"x\n");
    let not_mounted = fs::read_dir(bundle.join("rootfs"))
        .unwrap()
        .next()
        .is_none();
    assert!(not_mounted, "the root was mounted on the host");
}

/// The specification of the pod's first container, with another command.
fn spec_of_a(containerd: &Containerd, script: &str) -> Vec<u8> {
    let bundle = "state/io.containerd.runtime.v2.task/default/a/config.json";
    let text = fs::read(containerd.scratch.join(bundle)).unwrap();
    let mut spec: Value = serde_json::from_slice(&text).unwrap();
    spec["process"]["args"] = json!(["sh", "-c", script]);
    serde_json::to_vec(&spec).unwrap()
}

/// A volume as kubelet makes it before a pod's shim starts: a host whose mounts are private shows later ones to nobody.
pub(crate) struct Memory(PathBuf);

impl Memory {
    pub(crate) fn new(containerd: &Containerd) -> Self {
        let source = containerd.scratch.join("kubernetes.io~empty-dir/fast");
        fs::create_dir_all(&source).unwrap();
        let tmpfs = ["-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs"];
        run(Command::new("mount").args(tmpfs).arg(&source));
        Self(source)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A block device of the host.
struct Loop(PathBuf);

impl Loop {
    fn new(file: PathBuf) -> Self {
        let mut bytes = vec![0; 1 << 20];
        bytes[..8].copy_from_slice(b"RINGSIDE");
        fs::write(&file, bytes).unwrap();
        let made = run(Command::new("losetup").args(["--show", "-f"]).arg(file));
        Self(Path::new(made.trim()).to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
