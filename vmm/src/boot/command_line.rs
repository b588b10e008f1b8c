//! The kernel's command line.

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::kernel::Kernel;
use crate::layout;
use crate::memory::GuestMemory;

/// Refuses what no kernel can read, before anything is loaded.
///
/// # Errors
/// When a byte would end it early, or it is longer than its place.
pub fn check(text: &str) -> Result<(), BootError> {
    if text.bytes().any(|byte| matches!(byte, 0 | b'\n' | b'\r')) {
        return Err(BootError::CommandLineBytes);
    }
    fits(text, layout::COMMAND_LINE_MAX - 1)
}

/// Writes it with a zero at the end.
pub(super) fn write(text: &str, memory: &GuestMemory, kernel: &Kernel) -> Result<(), BootError> {
    check(text)?;
    fits(text, kernel.command_line_max())?;
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    memory
        .mapped()
        .write_slice(&bytes, GuestAddress(layout::COMMAND_LINE))
        .map_err(|_| BootError::Write("the command line"))
}

fn fits(text: &str, most: usize) -> Result<(), BootError> {
    let len = text.len();
    if len > most {
        return Err(BootError::CommandLineLength { len, most });
    }
    Ok(())
}
