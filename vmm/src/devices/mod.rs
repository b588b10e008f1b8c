//! The few devices that are not on the PCI bus.

mod calendar;
mod power;
mod rtc;
mod serial;

pub use power::{Power, PowerEvent};
pub use rtc::Rtc;
pub use serial::SerialPort;
