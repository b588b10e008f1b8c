//! The guest that all columns share.

use std::time::Duration;

use guest_image::{Cache, Flavour, unpacked};
use lab::guest::{Guest, QemuGuest};
use lab::need;

use super::column::{Column, PLAIN};
use super::error::Error;
use super::ground::Ground;
use super::options::DocumentsConfig;
use crate::measure::Processes;
use crate::scenario::Role;

const SCRIPT: &str = include_str!("guest.sh");
const SMALL: &str = include_str!("files.pl");
/// Of the whole run.
const LIMIT: Duration = Duration::from_secs(4 * 3600);
/// QEMU's names of threads that run the guest's processors, with `debug-threads=on`.
const PROCESSOR: &str = "CPU ";
/// The guest's.
pub(super) const CPUS: u16 = 2;
pub(super) const MEMORY_MIB: u32 = 2048;

/// The guest, which obeys one order after another.
pub(super) struct Machine {
    guest: Guest,
    orders: u32,
    /// Bytes of its output that were read.
    read: usize,
}

impl Machine {
    /// Boots it with the devices of all columns, and mounts those. What cannot be mounted takes no part.
    pub(super) fn boot(
        config: &DocumentsConfig,
        ground: &Ground,
        columns: &mut [Column],
        nginx: bool,
    ) -> Result<Self, Error> {
        let flavour = match config.smoke {
            true => Flavour::Cloud,
            false => Flavour::Generic,
        };
        let mut guest = QemuGuest::new(SCRIPT)
            .kernel(flavour)
            .cpus(CPUS)
            .memory_mib(MEMORY_MIB)
            .limit(LIMIT)
            .file("/files.pl", 0o644, SMALL)
            .options(["-name", "documents,debug-threads=on"]);
        for module in ["brd", "9p", "9pnet_virtio"] {
            guest = guest.module(module);
        }
        for program in ["dd", "fio", "perl"] {
            guest = guest.program(program);
        }
        if nginx {
            guest = guest.program("ab").program(&nginx_path()?);
        }
        for column in columns.iter() {
            guest = column.plug(guest, ground);
        }
        let mut machine = Self {
            guest: guest.start()?,
            orders: 0,
            read: 0,
        };
        for column in columns {
            machine.mount(column)?;
        }
        if nginx {
            machine.order("serve")?;
        }
        Ok(machine)
    }

    fn mount(&mut self, column: &mut Column) -> Result<(), Error> {
        let Ok(seat) = &column.seat else {
            return Ok(());
        };
        match self.order(&seat.mount) {
            Err(error @ Error::Order { .. })
                if column.name != PLAIN && column.role != Role::Ours =>
            {
                column.seat = Err(error.to_string());
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Gives an order, and returns what was said.
    pub(super) fn order(&mut self, order: &str) -> Result<String, Error> {
        self.orders += 1;
        let mark = format!("\ndone {} ", self.orders);
        self.guest.write(format!("{order}\n").as_bytes())?;
        self.guest.wait_output(&mark)?;
        // The exit code may come a moment later than what stands before it.
        let (said, code) = loop {
            let output = self.guest.output();
            let rest = output.get(self.read..).unwrap_or_default();
            let (said, after) = rest.split_once(&mark).unwrap_or((rest, ""));
            if let Some((code, _)) = after.split_once('\n') {
                let (said, code) = (said.to_owned(), code.trim().to_owned());
                self.read += said.len() + mark.len() + code.len() + 1;
                break (said, code);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        match code.as_str() {
            "0" => Ok(said),
            _ => Err(Error::Order {
                order: order.to_owned(),
                code,
                said,
            }),
        }
    }

    /// Processor time in nanoseconds of what does not run the guest's processors: devices in the hypervisor.
    pub(super) fn device_nanoseconds(&self) -> Result<u64, Error> {
        let processes = Processes::of(self.guest.pid());
        let all = processes.cost().map_err(Error::Measure)?.cpu_ns;
        Ok(all.saturating_sub(processes.threads_cpu_ns(|name| name.starts_with(PROCESSOR))))
    }

    /// The guest's kernel.
    pub(super) fn kernel(&mut self) -> Result<String, Error> {
        Ok(self.order("uname -r")?.trim().to_owned())
    }
}

/// The host's, else the package's, unpacked: to install it would start it.
fn nginx_path() -> Result<String, Error> {
    if let Ok(path) = need::program("nginx") {
        return Ok(path.display().to_string());
    }
    let package = unpacked(&Cache::open_default()?, "nginx")?;
    Ok(package.join("usr/sbin/nginx").display().to_string())
}
