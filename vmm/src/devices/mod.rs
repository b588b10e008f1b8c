//! The few devices that are not on the PCI bus.

mod calendar;
mod hot_plug;
mod power;
mod rtc;
mod serial;

pub use hot_plug::HotPlug;
pub use power::{Power, PowerEvent};
pub use rtc::Rtc;
pub use serial::{SerialPort, SerialRegisters};
