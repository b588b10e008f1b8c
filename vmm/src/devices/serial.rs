//! The first serial port, a 16550.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::console::Output;

/// The port; what the guest sends goes to a console.
pub struct SerialPort {
    registers: Mutex<Serial<Line, NoEvents, Output>>,
}

/// The interrupt line.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

impl SerialPort {
    /// A port after its reset, and its interrupt: to be connected to
    /// [`SERIAL_IRQ`](crate::layout::SERIAL_IRQ).
    ///
    /// # Errors
    /// When there is no descriptor for its interrupt.
    pub fn new(output: Output) -> io::Result<(Self, EventFd)> {
        let interrupt = EventFd::new(EFD_NONBLOCK)?;
        let line = Line(interrupt.try_clone()?);
        let registers = Mutex::new(Serial::new(line, output));
        Ok((Self { registers }, interrupt))
    }

    /// A register, by its offset from the port's first.
    #[must_use]
    pub fn read(&self, register: u8) -> u8 {
        self.registers().read(register)
    }

    /// Sets a register.
    pub fn write(&self, register: u8, value: u8) {
        // An interrupt that cannot be counted any more is pending already; the output never fails.
        let _ = self.registers().write(register, value);
    }

    /// Gives the guest what was typed; how much of it there was room for.
    pub fn receive(&self, typed: &[u8]) -> usize {
        let mut registers = self.registers();
        let room = registers.fifo_capacity().min(typed.len());
        // In loopback mode a port hears nobody: what is typed is lost, as on a real line.
        registers
            .enqueue_raw_bytes(&typed[..room])
            .map_or(typed.len(), |_| room)
    }

    fn registers(&self) -> MutexGuard<'_, Serial<Line, NoEvents, Output>> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Buffer;

    const DATA: u8 = 0;
    const INTERRUPT_ENABLE: u8 = 1;
    const MODEM_CONTROL: u8 = 4;
    const LINE_STATUS: u8 = 5;

    #[test]
    fn bytes_pass_both_ways() {
        let buffer = Buffer::new();
        let (port, interrupt) = SerialPort::new(buffer.output()).unwrap();
        for byte in *b"hello" {
            port.write(DATA, byte);
        }
        assert_eq!(buffer.take_now(), b"hello");
        port.write(INTERRUPT_ENABLE, 1);
        assert_eq!(port.receive(b"yes"), 3);
        assert!(interrupt.read().is_ok());
        let read: Vec<u8> =
            std::iter::from_fn(|| (port.read(LINE_STATUS) & 1 == 1).then(|| port.read(DATA)))
                .collect();
        assert_eq!(read, b"yes");
    }

    #[test]
    fn what_the_port_has_no_room_for_stays_outside() {
        let (port, _interrupt) = SerialPort::new(Buffer::new().output()).unwrap();
        let taken = port.receive(&[b'x'; 1000]);
        assert!((1..1000).contains(&taken));
        assert_eq!(port.receive(b"y"), 0);
    }

    #[test]
    fn a_port_that_hears_itself_hears_nobody_else() {
        let (port, _interrupt) = SerialPort::new(Buffer::new().output()).unwrap();
        port.write(MODEM_CONTROL, 1 << 4);
        assert_eq!(port.receive(b"typed"), 5);
        assert_eq!(port.read(LINE_STATUS) & 1, 0);
    }
}
