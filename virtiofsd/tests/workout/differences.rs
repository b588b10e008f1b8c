//! Where a guest may differ from the host: what docs/virtiofs.md lists, as the transcript's lines begin.

/// ACLs have to be asked for (`--posix-acl`).
pub const ACLS: &[&str] = &["ACL: "];

/// There is no ioctl(2).
pub const FLAGS: &[&str] = &["flags: "];

/// A set-group-ID bit without the group's execute bit stays: the daemon does not know all groups of who
/// writes.
pub const STRANGERS: &[&str] = &["a stranger's write"];

/// Linux's FUSE client takes nothing out of files, and puts nothing in (`fuse_file_fallocate`).
pub const RANGES: &[&str] = &[
    "collapse a range",
    "collapsed",
    "insert a range",
    "inserted",
];

/// Before 6.6 it does not ask for the time of birth.
pub const BIRTH: &[&str] = &["time of birth"];

/// Files that bypass the page cache are not mapped shared.
pub const MAPPINGS: &[&str] = &["written through a mapping", "seen in the file", "mapped"];

/// With the write-back cache Linux asks for data and holes without writing back first.
pub const HOLES: &[&str] = &["data: ", "hole: ", "hole after the data"];

/// With the write-back cache the guest's kernel keeps times itself, also those that the host's file
/// system cannot.
pub const TIMES: &[&str] = &["a time far away is"];

/// Kernels with BPF's security module, before 6.12, let a file's writers change security.* that no
/// security module is in charge of.
pub const LABELS: &[&str] = &[
    "a stranger sets security.u",
    "a stranger removes security.u",
    "a stranger lists",
];
