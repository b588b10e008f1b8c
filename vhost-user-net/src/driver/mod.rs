//! What the driver has asked for on the control queue, for the daemon or the connection that comes next.
//!
//! A driver gives its commands once. When the front end connects again, to this process or to the next one, the
//! driver does not know of it and repeats none. What tells it from a new one is the control ring: a new driver's
//! begins with index 0, an old one's goes on. All that was asked for came through that ring, so an old driver
//! is known where ring, features and index are those of the last command.
//!
//! A command is remembered before its answer is shown. A process that dies in between has it given again by the
//! ring, and what half of it left is made whole: every command sets something, none adds to what was before.

mod file;

use std::sync::{Mutex, MutexGuard, PoisonError};

use vhost_daemon::queue::RingIdentity;

use crate::backend::Offloads;
use crate::filter::Wishes;

pub use file::DriverFile;

/// All that a driver can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Queue pairs in use; `None`: those that the driver gave buffers.
    pub pairs: Option<usize>,
    /// What frames to it may leave undone.
    pub offloads: Offloads,
    /// What it wants to receive, with its address.
    pub wishes: Wishes,
}

/// A driver, and what it has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// What it acknowledged.
    pub features: u64,
    /// Its control ring.
    pub ring: RingIdentity,
    /// The ring's used index behind its last command.
    pub used: u16,
    /// What it has set.
    pub choices: Choices,
}

/// Whose control ring begins to run.
#[derive(Debug, PartialEq, Eq)]
pub enum Beginning {
    /// That of the driver that is served already.
    Known,
    /// That of a driver that has asked for nothing yet.
    New,
    /// That of one that has, before this connection.
    Old(Box<Choices>),
    /// The same, and nobody knows for what.
    Unknown,
}

/// The driver that is served, and what is known of it.
#[derive(Debug, Default)]
pub struct DriverMemory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    file: Option<DriverFile>,
    driver: Option<Driver>,
    /// The ring that runs, once it is known whose it is.
    ring: Option<RingIdentity>,
}

impl DriverMemory {
    /// One that also is in `file`, and begins with what an earlier process put there. `lanes` is how many
    /// the port has.
    #[must_use]
    pub fn in_file(file: DriverFile, lanes: usize) -> Self {
        Self(Mutex::new(Remembered {
            driver: file.load(lanes),
            file: Some(file),
            ring: None,
        }))
    }

    /// Features were acknowledged: perhaps by another driver.
    pub fn negotiated(&self) {
        self.lock().ring = None;
    }

    /// The control ring begins to run, of `size` entries and with this used index.
    pub fn begin(&self, features: u64, ring: &RingIdentity, size: u16, used: u16) -> Beginning {
        let mut remembered = self.lock();
        if remembered.ring.replace(*ring).is_some() {
            return Beginning::Known;
        }
        let known = remembered.driver.as_ref().filter(|driver| {
            // Commands whose answers were not shown any more will be given again.
            let again = driver.used.wrapping_sub(used);
            driver.features == features && driver.ring == *ring && again <= size
        });
        match known {
            Some(driver) if used != 0 => Beginning::Old(Box::new(driver.choices.clone())),
            _ => {
                remembered.forget();
                match used {
                    0 => Beginning::New,
                    _ => Beginning::Unknown,
                }
            }
        }
    }

    /// A command was carried out that is answered with the used index `used`.
    pub fn remember(&self, features: u64, used: u16, choices: Choices) {
        let mut remembered = self.lock();
        let Some(ring) = remembered.ring else {
            return;
        };
        let driver = Driver {
            features,
            ring,
            used,
            choices,
        };
        if let Some(file) = &remembered.file {
            file.store(&driver);
        }
        remembered.driver = Some(driver);
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn forget(&mut self) {
        self.driver = None;
        if let Some(file) = &self.file {
            file.clear();
        }
    }
}

#[cfg(test)]
mod tests;
