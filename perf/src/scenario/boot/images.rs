//! What the guests run: a first process that writes a port, and a kernel that does nothing else.

use guest_image::cpio::Archive;

/// The byte that both write to the serial port. Consoles carry text only.
pub(super) const MARK: u8 = 1;

/// The mark's guests write this port: the first serial port's data register. From:
///
/// ```text
///  mov $173, %eax          # ioperm(0x3f8, 1, 1)
///  mov $0x3f8, %edi
///  mov $1, %esi
///  mov $1, %edx
///  syscall
///  test %eax, %eax
///  jnz 1f
///  mov $0x3f8, %edx
///  mov $1, %al
///  out %al, %dx
///  jmp 2f
/// 1: mov $2, %eax          # open("/dev/port", O_WRONLY)
///  lea path(%rip), %rdi
///  mov $1, %esi
///  xor %edx, %edx
///  syscall
///  mov %eax, %edi
///  mov $18, %eax           # pwrite(fd, "\1", 1, 0x3f8)
///  lea mark(%rip), %rsi
///  mov $1, %edx
///  mov $0x3f8, %r10d
///  syscall
/// 2: mov $34, %eax         # pause()
///  syscall
///  jmp 2b
/// path: .asciz "/dev/port"
/// mark: .byte 1
/// ```
const INIT: [u8; 104] = [
    0xb8, 0xad, 0x00, 0x00, 0x00, 0xbf, 0xf8, 0x03, 0x00, 0x00, 0xbe, 0x01, 0x00, 0x00, 0x00, 0xba,
    0x01, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x85, 0xc0, 0x75, 0x0a, 0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0,
    0x01, 0xee, 0xeb, 0x30, 0xb8, 0x02, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x3d, 0x2d, 0x00, 0x00, 0x00,
    0xbe, 0x01, 0x00, 0x00, 0x00, 0x31, 0xd2, 0x0f, 0x05, 0x89, 0xc7, 0xb8, 0x12, 0x00, 0x00, 0x00,
    0x48, 0x8d, 0x35, 0x20, 0x00, 0x00, 0x00, 0xba, 0x01, 0x00, 0x00, 0x00, 0x41, 0xba, 0xf8, 0x03,
    0x00, 0x00, 0x0f, 0x05, 0xb8, 0x22, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xeb, 0xf7, 0x2f, 0x64, 0x65,
    0x76, 0x2f, 0x70, 0x6f, 0x72, 0x74, 0x00, 0x01,
];

/// `mov $0x3f8, %edx; mov $1, %al; out %al, %dx; 1: hlt; jmp 1b`, the same in 32-bit and 64-bit mode.
const FIRST: [u8; 11] = [
    0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd,
];

/// Where the programs are loaded.
const PROGRAM: u64 = 0x40_0000;
const KERNEL: u64 = 0x100_0000;
/// ELF (System V ABI): header, program header, their sizes; types of segments and of the file.
const HEADER: usize = 64;
const SEGMENT: usize = 56;
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// Xen's note with the 32-bit entry of PVH (`xen/include/public/elfnote.h`).
const PHYS32_ENTRY: u32 = 18;

/// The archive whose `/init` writes the mark.
pub(super) fn initramfs() -> Result<Vec<u8>, guest_image::Error> {
    let mut archive = Archive::new();
    archive.directory("/dev", 0o755);
    archive.character_device("/dev/console", 0o600, 5, 1);
    archive.character_device("/dev/port", 0o600, 1, 4);
    archive.file("/init", 0o755, &elf(&INIT, PROGRAM, &[]))?;
    Ok(archive.finish())
}

/// A kernel whose first instructions write the mark. VMMs enter it by PVH.
pub(super) fn kernel() -> Vec<u8> {
    let mut note = [4_u32, 8, PHYS32_ENTRY].map(u32::to_le_bytes).concat();
    note.extend(b"Xen\0");
    let entry = KERNEL + 64 + 2 * 56;
    note.extend(entry.to_le_bytes());
    elf(&FIRST, KERNEL, &note)
}

/// An ELF file of one segment, entered at its start, and a note if there is one.
fn elf(code: &[u8], address: u64, note: &[u8]) -> Vec<u8> {
    let segments = 1 + usize::from(!note.is_empty());
    let begin = HEADER + segments * SEGMENT;
    let long = |value: usize| u64::try_from(value).unwrap_or(0);
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([EXECUTABLE, X86_64].map(u16::to_le_bytes).concat());
    image.extend(1_u32.to_le_bytes());
    let entry = address + long(begin);
    image.extend([entry, long(HEADER), 0].map(u64::to_le_bytes).concat());
    image.extend(0_u32.to_le_bytes());
    let count = u16::try_from(segments).unwrap_or(1);
    image.extend([64_u16, 56, count, 0, 0, 0].map(u16::to_le_bytes).concat());
    let size = long(begin + code.len() + note.len());
    image.extend(segment(LOAD, [0, address, address, size, size, 4096]));
    if !note.is_empty() {
        let (offset, len) = (long(begin + code.len()), long(note.len()));
        let at = address + offset;
        image.extend(segment(NOTE, [offset, at, at, len, len, 4]));
    }
    image.extend(code);
    image.extend(note);
    image
}

fn segment(kind: u32, fields: [u64; 6]) -> Vec<u8> {
    const READ_AND_EXECUTE: u32 = 5;
    let mut header = [kind, READ_AND_EXECUTE].map(u32::to_le_bytes).concat();
    header.extend(fields.map(u64::to_le_bytes).concat());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pvh_entry_is_where_the_code_is() {
        let image = kernel();
        let at = usize::try_from(u64::from_le_bytes(image[24..32].try_into().unwrap()) - KERNEL);
        let at = at.unwrap();
        assert_eq!(image[at..at + FIRST.len()], FIRST);
        let note = &image[at + FIRST.len()..];
        assert_eq!(note[16..24], (KERNEL + at as u64).to_le_bytes());
    }

    #[test]
    fn the_first_process_runs_on_this_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        // A copy that ends where it would write the port: `mov $60, %eax; xor %edi, %edi; syscall`.
        let mut code = INIT;
        code[..9].copy_from_slice(&[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
        std::fs::write(&path, elf(&code, PROGRAM, &[])).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        assert!(
            std::process::Command::new(&path)
                .status()
                .unwrap()
                .success()
        );
    }
}
