//! A qcow2 image of nonsense: opened, read and written all over.
//!
//! Byte 0 chooses whether it is opened for writing; the rest is the image.

use std::fs;
use std::path::PathBuf;

use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::queue::Buffers;
use vhost_user_blk::storage::qcow2::{BackingFiles, Qcow2Image, Qcow2Options};
use vhost_user_blk::storage::{Operation, RawOptions, Storage};
use vhost_user_blk::tasks::block_on;
use vm_memory::GuestAddress;

/// Bytes of a request.
const REQUEST: u64 = 4096;
/// No disk is looked at beyond this; a request at its end is one that is far away in the tables.
const SPAN: u64 = 1 << 40;

/// An image of this process; it lies in memory.
struct Image(PathBuf);

impl Image {
    fn new(bytes: &[u8]) -> Self {
        let path = PathBuf::from(format!("/dev/shm/fuzz-{}.qcow2", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// Any result will do, but there is one.
fn finish(operation: Operation) {
    match operation {
        Operation::Task(task) => {
            let _ = block_on(task);
        }
        Operation::Io(_) => panic!("a qcow2 image has tasks only"),
    }
}

/// What one input does.
pub fn run(input: &[u8]) {
    let [choice, bytes @ ..] = input else {
        return;
    };
    let image = Image::new(bytes);
    let options = Qcow2Options {
        file: RawOptions {
            read_only: choice & 1 == 0,
            direct: false,
            discard: choice & 2 == 0,
        },
        backing: BackingFiles::None,
        outlive_process: choice & 4 == 0,
    };
    let Ok(disk) = Qcow2Image::open(&image.0, options) else {
        return;
    };
    let capacity = disk.capacity().unwrap();
    let memory = PinnedMemory::new(Memory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap());
    let memory = memory.unwrap();
    let data = || {
        let mut buffers = Buffers::new(memory.clone());
        let len = usize::try_from(REQUEST).unwrap();
        buffers.append(GuestAddress(0), len).unwrap();
        buffers
    };
    let last = capacity.saturating_sub(REQUEST).min(SPAN);
    let places = [0, 3 * 512, 65536, (last / 2) & !511, last & !511];
    for offset in places.into_iter().filter(|at| at + REQUEST <= capacity) {
        finish(disk.read(offset, data()));
        if !disk.read_only() {
            finish(disk.write(offset, data(), false));
            finish(disk.write_zeroes(offset, REQUEST, true));
        }
    }
    finish(disk.flush());
}
