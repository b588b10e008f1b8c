//! A kernel image: bzImage or ELF, loaded into a machine's memory.
//!
//! Byte 0 chooses the way it is to be entered; the rest is the image.

use std::io::Write;

use vmm::boot::{BootConfig, NamedFile, Protocol, load};
use vmm::memory::{ByteSize, GuestMemory, MemoryConfig};

const MEMORY: u64 = 32 << 20;

/// What one input does.
pub fn run(input: &[u8]) {
    let Some((choice, image)) = input.split_first() else {
        return;
    };
    let memory = GuestMemory::new(MemoryConfig {
        size: ByteSize(MEMORY),
        hugepages: false,
        prefault: false,
    });
    let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.write_all(image).unwrap();
    let config = BootConfig {
        kernel: NamedFile {
            path: "made-up".into(),
            file,
        },
        initramfs: None,
        command_line: "console=ttyS0".into(),
        protocol: match choice % 3 {
            0 => None,
            1 => Some(Protocol::Linux),
            _ => Some(Protocol::Pvh),
        },
    };
    if let Ok(entry) = load(&config, &memory.unwrap()) {
        assert!(entry.address < MEMORY, "{entry:?}");
    }
}
