//! The first serial port, a 16550.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::console::Output;

/// The port; what the guest sends goes to a console.
pub struct SerialPort {
    registers: Mutex<Serial<Line, NoEvents, Output>>,
    interrupt: EventFd,
    output: Output,
}

/// What a snapshot keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SerialRegisters {
    /// Divisor latch low and high, interrupt enable, interrupt identification, line control, line status,
    /// modem control, modem status, scratch.
    registers: [u8; 9],
    received: Vec<u8>,
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
        let port = Self {
            registers: Mutex::new(Serial::new(line, output.clone())),
            interrupt: interrupt.try_clone()?,
            output,
        };
        Ok((port, interrupt))
    }

    /// Its registers.
    #[must_use]
    pub fn save(&self) -> SerialRegisters {
        let state = self.registers().state();
        SerialRegisters {
            registers: [
                state.baud_divisor_low,
                state.baud_divisor_high,
                state.interrupt_enable,
                state.interrupt_identification,
                state.line_control,
                state.line_status,
                state.modem_control,
                state.modem_status,
                state.scratch,
            ],
            received: state.in_buffer,
        }
    }

    /// Sets them.
    ///
    /// # Errors
    /// When there is no descriptor, or more was received than a port keeps.
    pub fn restore(&self, saved: &SerialRegisters) -> io::Result<()> {
        let [low, high, enable, identification, line_control, rest @ ..] = saved.registers;
        let [line_status, modem_control, modem_status, scratch] = rest;
        let state = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: saved.received.clone(),
        };
        let line = Line(self.interrupt.try_clone()?);
        let registers = Serial::from_state(&state, line, NoEvents, self.output.clone())
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        *self.registers() = registers;
        Ok(())
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
    fn a_restored_port_goes_on_where_the_saved_one_was() {
        let (saved, _interrupt) = SerialPort::new(Buffer::new().output()).unwrap();
        saved.write(INTERRUPT_ENABLE, 1);
        saved.write(7, 0x5a);
        assert_eq!(saved.receive(b"typed"), 5);
        let text = serde_json::to_string(&saved.save()).unwrap();
        let (port, interrupt) = SerialPort::new(Buffer::new().output()).unwrap();
        port.restore(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!((port.read(INTERRUPT_ENABLE), port.read(7)), (1, 0x5a));
        assert!(interrupt.read().is_ok());
        assert_eq!([0; 5].map(|_| port.read(DATA)), *b"typed");
        let mut long = saved.save();
        long.received = vec![0; 1000];
        assert!(port.restore(&long).is_err());
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
