//! The PC's real-time clock (Motorola MC146818): shows the host's time in UTC, takes no setting and
//! gives no alarm.

use std::time::{SystemTime, UNIX_EPOCH};

use super::calendar::Moment;

/// Registers (MC146818 data sheet, figure 9; century as ACPI and Linux know it).
mod register {
    pub(super) const SECONDS: u8 = 0x00;
    pub(super) const MINUTES: u8 = 0x02;
    pub(super) const HOURS: u8 = 0x04;
    pub(super) const WEEKDAY: u8 = 0x06;
    pub(super) const DAY: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const STATUS_A: u8 = 0x0a;
    pub(super) const STATUS_B: u8 = 0x0b;
    pub(super) const STATUS_D: u8 = 0x0d;
    pub(super) const CENTURY: u8 = 0x32;
}

/// 32.768 kHz base, no update in progress.
const STATUS_A: u8 = 0x26;
/// 24 hours, binary-coded decimal.
const STATUS_B: u8 = 0x02;
/// The time is valid.
const STATUS_D: u8 = 0x80;
/// Bit 7 of the index port masks the NMI; it is no part of the index.
const INDEX: u8 = 0x7f;

/// The clock's only state is which register the data port shows.
#[derive(Debug, Default)]
pub struct Rtc {
    index: u8,
}

impl Rtc {
    /// Chooses the register.
    pub fn select(&mut self, value: u8) {
        self.index = value & INDEX;
    }

    /// Which register was chosen.
    #[must_use]
    pub fn selected(&self) -> u8 {
        self.index
    }

    /// The chosen register at the present time.
    #[must_use]
    pub fn read(&self) -> u8 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.read_at(now.map_or(0, |since| since.as_secs()))
    }

    fn read_at(&self, seconds: u64) -> u8 {
        let now = Moment::at(seconds);
        match self.index {
            register::SECONDS => bcd(now.second),
            register::MINUTES => bcd(now.minute),
            register::HOURS => bcd(now.hour),
            register::WEEKDAY => bcd(now.weekday),
            register::DAY => bcd(now.day),
            register::MONTH => bcd(now.month),
            register::YEAR => bcd(now.year % 100),
            register::CENTURY => bcd(now.year / 100 % 100),
            register::STATUS_A => STATUS_A,
            register::STATUS_B => STATUS_B,
            register::STATUS_D => STATUS_D,
            _ => 0,
        }
    }
}

/// Two decimal digits.
fn bcd(value: u64) -> u8 {
    u8::try_from((value / 10 % 10) << 4 | (value % 10)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_show_the_time_in_decimal() {
        let mut clock = Rtc::default();
        let mut at = |register: u8| {
            clock.select(register | 0x80);
            clock.read_at(1_709_210_096)
        };
        assert_eq!(
            [9, 8, 7, 6, 4, 2, 0, 0x32].map(&mut at),
            [0x24, 0x02, 0x29, 0x05, 0x12, 0x34, 0x56, 0x20]
        );
        assert_eq!((at(0x0b), at(0x0d), at(0x5f)), (2, 0x80, 0));
    }
}
