//! Made-up kernels in every format, loaded and read back from memory.

use std::io::Write;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::memory::{ByteSize, MemoryConfig};

const MIB: u64 = 1 << 20;
const CODE: &[u8] = b"\xf4 the kernel's code";

fn memory(size: u64) -> GuestMemory {
    GuestMemory::new(MemoryConfig {
        size: ByteSize(size),
        hugepages: false,
        prefault: false,
    })
    .unwrap()
}

fn named(content: &[u8]) -> NamedFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    NamedFile {
        path: "made-up".into(),
        file,
    }
}

fn config(kernel: &[u8], initramfs: Option<&[u8]>) -> BootConfig {
    BootConfig {
        kernel: named(kernel),
        initramfs: initramfs.map(named),
        command_line: "console=ttyS0 quiet".into(),
        protocol: None,
    }
}

/// A header as of protocol 2.15, one setup sector, and the code.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x211] = 1;
    image[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    image[0x236] = 1;
    image[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[0x260..0x264].copy_from_slice(&(4_u32 << 20).to_le_bytes());
    image.extend(CODE);
    image
}

/// One loadable segment at 16 MiB, and a PVH note if wanted.
fn elf(pvh_entry: Option<u32>) -> Vec<u8> {
    let note: Vec<u8> = pvh_entry.map_or(vec![], |entry| {
        let words = [4, 4, 18].map(u32::to_le_bytes).concat();
        [&words[..], b"Xen\0", &entry.to_le_bytes()].concat()
    });
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2_u16, 62].map(u16::to_le_bytes).concat());
    image.extend(1_u32.to_le_bytes());
    image.extend([16 * MIB, 64, 0].map(u64::to_le_bytes).concat());
    image.extend(0_u32.to_le_bytes());
    image.extend([64_u16, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let program = |kind: u32, offset: usize, len: usize| {
        let (offset, len) = (offset as u64, len as u64);
        let fields = [offset, 16 * MIB, 16 * MIB, len, len, 4];
        let head = [kind, 7].map(u32::to_le_bytes).concat();
        [head, fields.map(u64::to_le_bytes).concat()].concat()
    };
    let code_at = 64 + 2 * 56;
    image.extend(program(1, code_at, CODE.len()));
    image.extend(program(4, code_at + CODE.len(), note.len()));
    image.extend(CODE);
    image.extend(note);
    image
}

fn bytes(memory: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory
        .mapped()
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

fn number(memory: &GuestMemory, address: u64, len: usize) -> u64 {
    let mut wide = bytes(memory, address, len);
    wide.resize(8, 0);
    u64::from_le_bytes(wide.try_into().unwrap())
}

#[test]
fn a_bzimage_is_entered_behind_its_first_half_kilobyte() {
    let memory = memory(64 * MIB);
    let entry = load(&config(&bzimage(), Some(b"archive")), &memory).unwrap();
    assert_eq!(
        entry,
        Entry {
            address: MIB + 0x200,
            protocol: Protocol::Linux
        }
    );
    assert_eq!(bytes(&memory, MIB, CODE.len()), CODE);
    let at = |offset| layout::ZERO_PAGE + offset;
    assert_eq!(number(&memory, at(0x202), 4), 0x5372_6448);
    assert_eq!(number(&memory, at(0x210), 1), 0xff);
    assert_eq!(number(&memory, at(0x228), 4), layout::COMMAND_LINE);
    assert_eq!(number(&memory, at(0x218), 4), 64 * MIB - 4096);
    assert_eq!(number(&memory, at(0x21c), 4), 7);
    assert_eq!(bytes(&memory, 64 * MIB - 4096, 8), b"archive\0");
    assert_eq!(number(&memory, at(0x70), 8), layout::RSDP);
    assert_eq!(
        bytes(&memory, layout::COMMAND_LINE, 20),
        b"console=ttyS0 quiet\0"
    );
}

#[test]
fn the_memory_map_has_the_hole_and_the_tables() {
    let memory = memory(4 << 30);
    load(&config(&bzimage(), None), &memory).unwrap();
    let count = number(&memory, layout::ZERO_PAGE + 0x1e8, 1);
    let entry = |index: u64| {
        let at = layout::ZERO_PAGE + 0x2d0 + index * 20;
        [(0, 8), (8, 8), (16, 4)].map(|(offset, len)| number(&memory, at + offset, len))
    };
    let entries: Vec<[u64; 3]> = (0..count).map(entry).collect();
    assert_eq!(
        entries,
        [
            [0, 0xa_0000, 1],
            [0xe_0000, 0x2_0000, 2],
            [0x10_0000, 0xbff0_0000, 1],
            [0xe000_0000, 0x10_0000, 2],
            [1 << 32, 1 << 30, 1],
        ]
    );
}

#[test]
fn the_first_four_gibibytes_map_to_themselves() {
    let memory = memory(64 * MIB);
    load(&config(&bzimage(), None), &memory).unwrap();
    for address in [0, 0x1234_5678, layout::HOLE + 5, (4 << 30) - 1_u64] {
        let entry = |table: u64, shift: u32| {
            let index = (address >> shift) & 511;
            number(&memory, (table & !0xfff) + index * 8, 8)
        };
        let pdpt = entry(layout::PAGE_TABLES, 39);
        let directory = entry(pdpt, 30);
        let page = entry(directory, 21);
        assert!([pdpt, directory, page].iter().all(|it| it & 3 == 3));
        assert_eq!(page & 0x80, 0x80);
        let mapped = (page & !0x1f_ffff) | (address & 0x1f_ffff);
        assert_eq!(mapped, address);
    }
    assert_eq!(number(&memory, layout::PAGE_TABLES + 8, 8), 0);
    assert_eq!(
        number(&memory, layout::GDT + 0x10, 8),
        0x00af_9b00_0000_ffff
    );
    assert_eq!(
        number(&memory, layout::GDT + 0x18, 8),
        0x00cf_9300_0000_ffff
    );
}

#[test]
fn an_elf_with_the_note_is_entered_by_pvh() {
    let memory = memory(64 * MIB);
    let image = elf(Some(0x100_0040));
    let entry = load(&config(&image, Some(b"archive")), &memory).unwrap();
    assert_eq!(
        entry,
        Entry {
            address: 0x100_0040,
            protocol: Protocol::Pvh
        }
    );
    assert_eq!(bytes(&memory, 16 * MIB, CODE.len()), CODE);
    let at = |offset| layout::PVH_START_INFO + offset;
    assert_eq!(number(&memory, at(0), 4), 0x336e_c578);
    assert_eq!(number(&memory, at(4), 4), 1);
    assert_eq!(number(&memory, at(12), 4), 1);
    assert_eq!(number(&memory, at(24), 8), layout::COMMAND_LINE);
    assert_eq!(number(&memory, at(32), 8), layout::RSDP);
    let module = number(&memory, at(16), 8);
    assert_eq!(number(&memory, module, 8), 64 * MIB - 4096);
    assert_eq!(number(&memory, module + 8, 8), 7);
    let map = number(&memory, at(40), 8);
    assert_eq!(number(&memory, at(48), 4), 4);
    assert_eq!(number(&memory, map + 2 * 24, 8), MIB);
    assert_eq!(number(&memory, map + 2 * 24 + 8, 8), 63 * MIB);
}

#[test]
fn who_jumps_to_the_reset_vector_writes_the_reset_register() {
    let memory = memory(64 * MIB);
    load(&config(&bzimage(), None), &memory).unwrap();
    let code = bytes(&memory, 0xf_fff0, 9);
    assert_eq!(code, b"\xb0\x01\xba\x02\x06\xee\xf4\xeb\xfd");
}

#[test]
fn the_protocol_can_be_chosen() {
    let memory = memory(64 * MIB);
    let linux = BootConfig {
        protocol: Some(Protocol::Linux),
        ..config(&elf(Some(0x100_0040)), None)
    };
    assert_eq!(load(&linux, &memory).unwrap().address, 16 * MIB);
    let entry = load(&config(&elf(None), None), &memory).unwrap();
    assert_eq!(entry.protocol, Protocol::Linux);
    assert_eq!(number(&memory, layout::ZERO_PAGE + 0x202, 4), 0x5372_6448);
    let pvh = BootConfig {
        protocol: Some(Protocol::Pvh),
        ..config(&elf(None), None)
    };
    let message = load(&pvh, &memory).unwrap_err().to_string();
    assert!(message.contains("no PVH entry point"), "{message}");
}

#[test]
fn what_is_no_kernel_is_refused() {
    let memory = memory(32 * MIB);
    let message = |image: &[u8]| load(&config(image, None), &memory).unwrap_err().to_string();
    let neither = "made-up: neither a bzImage nor a 64-bit x86 ELF kernel";
    assert_eq!(message(b""), neither);
    assert_eq!(message(&[0; 4096]), neither);
    let mut arm = elf(None);
    arm[18] = 183;
    assert_eq!(message(&arm), neither);
    let mut elsewhere = elf(None);
    elsewhere[24..32].copy_from_slice(&(16 * MIB).wrapping_neg().to_le_bytes());
    for (image, address) in [
        (elsewhere, "0xffffffffff000000"),
        (elf(Some(0xffff_f000)), "0xfffff000"),
    ] {
        let entry = format!(
            "made-up: this kernel's entry point, {address}, is not in the guest's low memory"
        );
        assert_eq!(message(&image), entry);
    }
    let mut only_32 = bzimage();
    only_32[0x236] = 0;
    assert_eq!(
        message(&only_32),
        "made-up: this bzImage has no 64-bit entry point"
    );
    let mut cut = elf(None);
    cut.truncate(180);
    assert_eq!(message(&cut), "cannot load the kernel made-up");
}

#[test]
fn what_does_not_fit_is_told_with_its_size() {
    let memory = memory(32 * MIB);
    let mut large = bzimage();
    large[0x260..0x264].copy_from_slice(&(17_u32 << 20).to_le_bytes());
    let message = |config: &BootConfig| load(config, &memory).unwrap_err().to_string();
    assert_eq!(
        message(&config(&large, None)),
        "made-up needs memory up to 33M; give the guest more with --memory"
    );
    let archive = vec![1; 13 << 20];
    assert_eq!(
        message(&config(&bzimage(), Some(&archive))),
        "made-up (13M) does not fit behind the kernel; give the guest more with --memory"
    );
    let long = BootConfig {
        command_line: "x".repeat(2048),
        ..config(&bzimage(), None)
    };
    assert_eq!(
        message(&long),
        "--cmdline has 2048 bytes, this kernel takes 2047"
    );
    assert!(check_command_line("two\nlines").is_err());
}

proptest::proptest! {
    /// A kernel file is not hostile, but a broken one must end in a sentence.
    #[test]
    fn broken_kernels_never_panic(offset in 0_usize..1100, byte: u8, is_elf: bool) {
        let mut image = if is_elf { elf(Some(1 << 24)) } else { bzimage() };
        let offset = offset % image.len();
        image[offset] = byte;
        let _ = load(&config(&image, Some(b"archive")), &memory(32 * MIB));
    }
}
