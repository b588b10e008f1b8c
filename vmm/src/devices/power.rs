//! Registers of the hardware-reduced ACPI machine: sleep, reset, events; and the keyboard controller's
//! reset, which kernels fall back to.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::acpi::{EVENT_POWER_BUTTON, RESET_VALUE, SLEEP_TYPE_OFF};
use crate::layout::port;

/// Sleep control register: enable in bit 5, type in bits 2 to 4 (ACPI 6.4, table 4.19).
const SLEEP_ENABLE: u8 = 1 << 5;
/// Keyboard controller command that pulses the processor's reset line.
const I8042_RESET: u8 = 0xfe;

/// What the guest wants of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// Switch it off.
    Off,
    /// Start again.
    Reset,
}

/// The registers. The only state are events that the guest has not seen.
#[derive(Debug)]
pub struct Power {
    events: AtomicU32,
    interrupt: EventFd,
}

impl Power {
    /// A machine that is on.
    ///
    /// # Errors
    /// When there is no descriptor for its interrupt.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            events: AtomicU32::new(0),
            interrupt: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// To be connected to [`ACPI_EVENT_IRQ`](crate::layout::ACPI_EVENT_IRQ).
    #[must_use]
    pub fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Tells the guest that somebody pressed its power button.
    pub fn press_button(&self) {
        self.tell(EVENT_POWER_BUTTON);
    }

    /// Sets a bit of the event register, and interrupts the guest.
    pub fn tell(&self, event: u32) {
        self.events.fetch_or(event, Ordering::AcqRel);
        // Full only when the guest ignores billions of events: it has one waiting then.
        let _ = self.interrupt.write(1);
    }

    /// Events that the guest has not seen.
    #[must_use]
    pub fn events(&self) -> u32 {
        self.events.load(Ordering::Acquire)
    }

    /// What a byte written to a port means.
    #[must_use]
    pub fn write(&self, number: u16, value: u8) -> Option<PowerEvent> {
        let sleep_type = value >> 2 & 7;
        match number {
            port::ACPI_SLEEP_CONTROL if value & SLEEP_ENABLE != 0 => {
                (sleep_type == SLEEP_TYPE_OFF).then_some(PowerEvent::Off)
            }
            port::ACPI_RESET if value == RESET_VALUE => Some(PowerEvent::Reset),
            port::I8042_COMMAND if value == I8042_RESET => Some(PowerEvent::Reset),
            _ => None,
        }
    }

    /// Fills `data` from a port. Reading the event register clears it.
    pub fn read(&self, number: u16, data: &mut [u8]) {
        data.fill(0);
        if number == port::ACPI_EVENTS && data.len() == 4 {
            let events = self.events.swap(0, Ordering::AcqRel);
            data.copy_from_slice(&events.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_values_end_the_machine() {
        let power = Power::new().unwrap();
        let off = SLEEP_ENABLE | SLEEP_TYPE_OFF << 2;
        let ended: Vec<(u16, u8, PowerEvent)> = (0..=u16::MAX)
            .flat_map(|number| (0..=u8::MAX).map(move |value| (number, value)))
            .filter_map(|(number, value)| Some((number, value, power.write(number, value)?)))
            .collect();
        // Bits 0, 1, 6 and 7 of the sleep register mean nothing.
        let offs = ended.iter().filter(|it| it.2 == PowerEvent::Off);
        assert!(offs.clone().all(|it| it.0 == 0x600 && it.1 & 0x3c == off) && offs.count() == 16);
        let resets = ended.iter().filter(|it| it.2 == PowerEvent::Reset);
        assert!(resets.map(|it| (it.0, it.1)).eq([(0x64, 0xfe), (0x602, 1)]));
    }

    #[test]
    fn a_pressed_button_is_seen_once() {
        let power = Power::new().unwrap();
        let mut data = [0xff; 4];
        power.read(port::ACPI_EVENTS, &mut data);
        assert_eq!(data, [0; 4]);
        power.press_button();
        power.press_button();
        assert_eq!(power.interrupt().read().unwrap(), 2);
        power.read(port::ACPI_EVENTS, &mut data);
        assert_eq!(data, [1, 0, 0, 0]);
        power.read(port::ACPI_EVENTS, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
