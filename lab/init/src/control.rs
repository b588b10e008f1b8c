//! The control port, seen from the machine.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lab_protocol::{Notice, Order, port, read_line, write_line};
use rustix::time::{ClockId, clock_gettime};

use crate::ports;
use crate::process::Target;

/// How long the host may take to collect the last output before the machine switches itself off.
/// A host that is slow to read its pipe is no reason to lose bytes; one that is gone is.
const HOST_PATIENCE: Duration = Duration::from_secs(3600);

/// Both directions of the control port.
pub(crate) struct Control {
    port: File,
    /// There until somebody serves the host's orders.
    orders: Option<BufReader<File>>,
    power_off: Option<Receiver<()>>,
}

impl Control {
    pub(crate) fn open() -> Result<Self> {
        let port = ports::open(port::CONTROL)?;
        let reader = port
            .try_clone()
            .context("cannot duplicate the control port")?;
        Ok(Self {
            port,
            orders: Some(BufReader::new(reader)),
            power_off: None,
        })
    }

    pub(crate) fn send(&mut self, notice: &Notice) -> io::Result<()> {
        write_line(&mut self.port, notice)
    }

    /// Tells the host that the command runs, and when it began.
    pub(crate) fn announce_start(&mut self) -> io::Result<()> {
        let uptime = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        self.send(&Notice::Started { uptime_ms })
    }

    /// From now on carries out the host's orders, on a thread of its own.
    pub(crate) fn serve_orders(&mut self, target: Target) {
        let Some(mut orders) = self.orders.take() else {
            return;
        };
        let (sender, receiver) = channel();
        self.power_off = Some(receiver);
        thread::spawn(move || {
            obey_until_power_off(&mut orders, Some(&target));
            // Nobody listens any more only when the machine already switches off.
            let _ = sender.send(());
        });
    }

    /// Returns when the host has everything, or is gone.
    pub(crate) fn wait_for_power_off(mut self) {
        if let Some(mut orders) = self.orders.take() {
            obey_until_power_off(&mut orders, None);
        } else if let Some(power_off) = self.power_off {
            let _ = power_off.recv_timeout(HOST_PATIENCE);
        }
    }
}

/// Returns at the order to switch off, or when the host went away.
fn obey_until_power_off(orders: &mut impl BufRead, target: Option<&Target>) {
    loop {
        match (read_line::<Order>(orders), target) {
            (Ok(Some(Order::PowerOff) | None), _) => return,
            (Ok(Some(order)), Some(target)) => target.obey(order),
            (Ok(Some(_)), None) => {}
            (Err(error), _) => {
                eprintln!("ringside-lab-init: bad order from the host: {error}");
                if error.kind() != io::ErrorKind::InvalidData {
                    return;
                }
            }
        }
    }
}
