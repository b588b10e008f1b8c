//! Every key, once: its name, what it means, who may change it, and where its value goes.

use crate::Config;
use crate::field::{Field, Given};

/// A setting's key.
pub struct Key {
    /// Its full name, with its table's: `machine.memory`.
    pub name: &'static str,
    /// What it is for, as Markdown.
    pub about: &'static str,
    /// Whether a pod's annotation can change it. What leads to files or programs of the host cannot.
    pub overridable: bool,
    takes: fn() -> String,
    pub(crate) set: fn(&mut Config, Given<'_>) -> Result<(), String>,
    pub(crate) set_text: fn(&mut Config, &str) -> Result<(), String>,
    pub(crate) show: fn(&Config) -> Option<String>,
}

impl Key {
    /// The table it stands in, and its name there.
    #[must_use]
    pub fn parts(&self) -> (Option<&'static str>, &'static str) {
        match self.name.split_once('.') {
            Some((table, name)) => (Some(table), name),
            None => (None, self.name),
        }
    }

    /// What it takes, as Markdown.
    #[must_use]
    pub fn takes(&self) -> String {
        (self.takes)()
    }

    /// Its value as a file would say it; `None` where nothing is set.
    #[must_use]
    pub fn value(&self, config: &Config) -> Option<String> {
        (self.show)(config)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// `takes_of(|config| &config.machine.cpus)`: what the type of that setting takes.
fn takes_of<T: Field>(_: fn(&Config) -> &T) -> String {
    T::takes()
}

macro_rules! keys {
    ($($who:ident $($part:ident).+ : $about:literal,)+) => {
        &[$(Key {
            name: keys!(@name $($part).+),
            about: $about,
            overridable: keys!(@who $who),
            takes: || takes_of(|config| &config.$($part).+),
            set: |config, given| {
                config.$($part).+ = Field::read(given)?;
                Ok(())
            },
            set_text: |config, text| {
                config.$($part).+ = Field::read_text(text)?;
                Ok(())
            },
            show: |config| config.$($part).+.show(),
        },)+]
    };
    (@name $first:ident) => { stringify!($first) };
    (@name $first:ident . $second:ident) => { concat!(stringify!($first), ".", stringify!($second)) };
    (@who pod) => { true };
    (@who host) => { false };
}

/// All keys, those without a table first. `pod`: an annotation may change it; `host`: only a file.
pub const KEYS: &[Key] = keys! {
    pod hypervisor: "What runs a pod's machine: `auto` is `ringside-vmm` where KVM is native (`ringside check`), else QEMU.",
    pod rootfs: "How a container's root file system reaches the guest: its directory is shared, or it is a disk where the snapshotter makes block devices (others are shared all the same).",
    host sandbox: "Whether VMM and daemons close themselves in ([security](security.md)). `false` is for debugging only.",
    host metrics: "Whether VMM and daemons serve metrics in the pod's directory, for `ringside metrics`.",
    host pod_overrides: "Which keys a pod may change by annotations, of those that say so below. `[]`: none.",
    pod machine.cpus: "Processors of a pod that has no CPU limit of its own.",
    pod machine.memory: "Memory of a pod, or its memory limit plus 192 MiB where that is more: whole MiB, at least 128M.",
    host machine.max_memory: "The most memory that any pod may ask for, by its limits or by an annotation. Not set: no such limit.",
    host machine.huge_pages: "Whether guests' memory comes from the host's reserved 2 MiB pages (`vm.nr_hugepages`).",
    host machine.kernel: "The guests' kernel. Not set: the one that `ringside check` names.",
    host machine.initramfs: "Its initramfs, with the agent in it. Not set: made when it is first needed. Needs `machine.kernel`.",
    host machine.kernel_arguments: "More words for the kernel's command line.",
    host programs.agent: "Path of `ringside-agent` (statically linked). Not set, as for all programs: beside the program that starts it, then in `PATH`.",
    host programs.vmm: "Path of `ringside-vmm`.",
    host programs.qemu: "Path of `qemu-system-x86_64`, 7.2 or later.",
    host programs.virtiofsd: "Path of `virtiofsd`.",
    host programs.vhost_user_blk: "Path of `vhost-user-blk`.",
    host programs.vhost_user_net: "Path of `vhost-user-net`.",
    host programs.vhost_user_vsock: "Path of `vhost-user-vsock`.",
    pod virtiofs.cache: "What guests may keep of shared files (`virtiofsd --cache`): `always` is for files that nobody else changes.",
    pod virtiofs.writeback: "Whether guests write shared files back when they like. Quicker, and only for files that nobody else reads meanwhile.",
    host virtiofs.queues: "Request queues of a shared file system, each with a thread of its own.",
    host virtiofs.options: "More options of `virtiofsd`.",
    pod block.direct: "Whether disks go around the host's page cache.",
    pod block.discard: "Whether what guests discard is given back to the host.",
    host block.queues: "Queues of a disk.",
    host block.options: "More options of `vhost-user-blk`.",
    pod network.queue_pairs: "Queue pairs of an interface; a guest does not use more than it has processors.",
    host log.level: "What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `ringside=debug,info`.",
    host log.directory: "Where the parts' logs and the guest's console are kept, in a directory for each pod. Not set: they go with the pod, and a failure's message has their last lines.",
    host timeouts.boot: "How long a guest may take from the hypervisor's start to the agent's first answer.",
    host timeouts.stop: "How long a guest may take to switch itself off before it is killed.",
};

/// The names of all keys that annotations can change.
pub(crate) fn overridable() -> Vec<String> {
    let can = KEYS.iter().filter(|key| key.overridable);
    can.map(|key| key.name.to_owned()).collect()
}

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// The name that was meant, if one is near.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &'_ str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |key: &&'static str| strsim::osa_distance(key, name);
    let names = KEYS.iter().map(|key| key.name);
    // A key in the wrong table, or without one.
    let elsewhere = names.clone().find(|key| last(key) == last(name));
    let near = names.min_by_key(distance).filter(|key| distance(key) <= 3);
    near.or(elsewhere)
}
