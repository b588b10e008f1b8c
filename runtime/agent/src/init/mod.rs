//! Turns a bare kernel into a machine that can run something.

mod disks;
mod modules;
mod mounts;

pub(crate) use disks::find as find_disk;
pub use modules::load_modules;
pub use mounts::{
    MOVED, attach, free_initramfs, mount_kernel_file_systems, mount_process_file_systems,
    switch_root,
};
