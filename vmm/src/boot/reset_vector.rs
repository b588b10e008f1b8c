//! What a PC's processor runs after a reset, at f000:fff0. A kernel that knows no other way to reset a
//! hardware-reduced machine without EFI jumps there in real mode (Linux `arch/x86/kernel/reboot.c`,
//! `BOOT_BIOS`): this code writes the reset register for it.

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::acpi::RESET_VALUE;
use crate::layout::{self, port};
use crate::memory::GuestMemory;

const PORT: [u8; 2] = port::ACPI_RESET.to_le_bytes();

/// `mov al, value; mov dx, port; out dx, al; 1: hlt; jmp 1b`.
const CODE: [u8; 9] = [
    0xb0,
    RESET_VALUE,
    0xba,
    PORT[0],
    PORT[1],
    0xee,
    0xf4,
    0xeb,
    0xfd,
];

pub(super) fn write(memory: &GuestMemory) -> Result<(), BootError> {
    memory
        .mapped()
        .write_slice(&CODE, GuestAddress(layout::RESET_VECTOR))
        .map_err(|_| BootError::Write("the reset code"))
}
