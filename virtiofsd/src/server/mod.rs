//! The FUSE server: a decoded request in, a reply or a piece of work for the queue's worker out.
//!
//! Nothing here knows of virtqueues or guest memory: [`Request`] is decoded from a copy of the
//! guest's bytes, a [`Reply`] is built in the daemon's own memory.

mod appended;
mod attr;
mod decode;
mod dir;
mod dispatch;
mod entry;
mod extensions;
mod init;
mod interrupt;
mod io;
mod lock;
mod once;
mod pace;
mod reply;
mod request;
mod sync;
#[cfg(test)]
mod tests;
mod work;
mod xattr;

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use vhost_daemon::log::Limiter;

use crate::file_system::GuestFileSystem;
use crate::fuse::abi::CopyFileRangeIn;
use crate::fuse::{Features, Opcode};
use crate::state::{State, StateError};
use interrupt::Interrupts;
use pace::Pace;

pub use decode::{Body, Malformed};
pub use interrupt::Interrupt;
pub use once::happens_once;
pub use reply::{HEADER, Reply, errno_of, header};
pub use request::{BODY_MAX, Request, body_len};
pub use work::{CopyIn, CopyOut, Work};

/// Largest write or directory listing in one request.
pub const MAX_IO: u32 = 1 << 20;

/// Most pages of data in one request, of the guest's size: it does not tell that. This many of 4 KiB are
/// [`MAX_IO`].
const MAX_PAGES: u16 = 256;

/// Largest read in one request. Writes are bounded in bytes (`max_write`), reads in pages alone, and Linux
/// has pages of up to 64 KiB (arm64, ppc64).
pub const MAX_READ: u32 = MAX_PAGES as u32 * (64 << 10);

/// A copy of more than this takes longer than a helper thread costs.
const SHORT_COPY: u64 = 1 << 20;

/// Serves one file system to one guest, from any number of queues at a time.
pub struct Server<F> {
    file_system: F,
    /// A guest's kernel has sent `FUSE_INIT`.
    initialised: AtomicBool,
    features: AtomicU64,
    interrupts: Interrupts,
    pace: Pace,
    /// For what a guest may say as often as it likes.
    limiter: Limiter,
    /// What outlives this process.
    state: Option<Arc<State>>,
    found: appended::Found,
}

impl<F: GuestFileSystem> Server<F> {
    /// A server that waits for a guest's `FUSE_INIT`.
    pub fn new(file_system: F) -> Self {
        Self {
            file_system,
            initialised: AtomicBool::new(false),
            features: AtomicU64::new(Features::NONE.bits()),
            interrupts: Interrupts::default(),
            pace: Pace::default(),
            limiter: Limiter::default(),
            state: None,
            found: appended::Found::default(),
        }
    }

    /// Goes on with the guest that an earlier process served, if there is one in `state`, and lets the
    /// next process do so.
    ///
    /// # Errors
    /// When the guest has mounted with features that this server's file system does not give.
    pub fn surviving(mut self, state: Arc<State>) -> std::result::Result<Self, StateError> {
        if let Some(features) = state.session.features() {
            self.go_on_with(features).map_err(|missing| {
                let path = state.path().to_owned();
                StateError::Features { path, missing }
            })?;
        }
        self.state = Some(state);
        Ok(self)
    }

    /// Goes on with a guest that has agreed on `features`; else which of them are not given here.
    fn go_on_with(&self, features: Features) -> std::result::Result<(), u64> {
        let given = self.file_system.negotiate(features);
        let given = given.unwrap_or(Features::NONE) | init::SERVERS_OWN;
        let missing = features.without(given);
        if missing != Features::NONE {
            return Err(missing.bits());
        }
        self.features.store(features.bits(), Ordering::Release);
        self.initialised.store(true, Ordering::Release);
        Ok(())
    }

    /// What another daemon needs to go on with the guest. No queue runs meanwhile.
    ///
    /// # Errors
    /// Why the guest cannot move.
    pub fn save(&self) -> Result<Vec<u8>> {
        let mounted = self.initialised.load(Ordering::Acquire);
        self.file_system.save(mounted.then(|| self.features()))
    }

    /// Goes on with a guest that another daemon has saved.
    ///
    /// # Errors
    /// Why that is not possible; then nothing of it stays.
    pub fn load(&self, saved: &[u8]) -> Result<()> {
        self.reset();
        let loaded = self.file_system.load(saved).and_then(|features| {
            let Some(features) = features else {
                return Ok(());
            };
            if let Some(state) = &self.state {
                state.session.begin(features);
            }
            self.go_on_with(features).map_err(|missing| {
                let message = format!("the guest uses features {missing:#x}, not given here");
                Error::other(message)
            })
        });
        if loaded.is_err() {
            self.reset();
        }
        loaded
    }

    /// What outlives this process.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.state.as_ref()
    }

    /// The file system served.
    pub fn file_system(&self) -> &F {
        &self.file_system
    }

    /// What was agreed on with the guest's kernel.
    pub fn features(&self) -> Features {
        Features::from_bits(self.features.load(Ordering::Acquire))
    }

    /// Forgets the guest: its handles are closed, its lookups undone.
    pub fn reset(&self) {
        self.initialised.store(false, Ordering::Release);
        if let Some(state) = &self.state {
            state.forget_session();
        }
        self.interrupts.forget_early();
        self.file_system.destroy();
    }

    /// Carries out `request`: writes the reply's body into `reply`, or tells the caller what is
    /// left to do.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn serve(&self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<Work> {
        let (opcode, may_wait) = (request.opcode, request.creator.may_wait);
        if !pace::can_go_elsewhere(opcode) {
            return self.dispatch(request, reply);
        }
        if !may_wait && self.takes_long(request) {
            return Ok(Work::Elsewhere);
        }
        let since = Instant::now();
        let result = self.dispatch(request, reply);
        self.pace.took(opcode, since);
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !may_wait => Ok(Work::Elsewhere),
            other => other,
        }
    }

    fn dispatch(&self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<Work> {
        match request.entry.clone() {
            Some(entry) => once::dispatch_once(self, request, reply, &entry),
            None => dispatch::dispatch(self, request, reply),
        }
    }

    /// Whether a request is expected to hold its thread up.
    fn takes_long(&self, request: &Request<'_>) -> bool {
        let copied = |copy: CopyFileRangeIn| copy.len > SHORT_COPY;
        match request.opcode {
            Opcode::Syncfs => true,
            Opcode::CopyFileRange | Opcode::CopyFileRange64
                if request.body.clone().take().is_ok_and(copied) =>
            {
                true
            }
            opcode => self.pace.is_slow(opcode),
        }
    }

    /// Request `unique` waits from now on, or takes long: `INTERRUPT` finds it.
    pub fn waits(&self, unique: u64, interrupt: &Arc<Interrupt>) {
        self.interrupts.register(unique, interrupt);
    }

    /// It does not any more.
    pub fn waited(&self, unique: u64, interrupt: &Arc<Interrupt>) {
        self.interrupts.remove(unique, interrupt);
    }
}

/// An errno as an error.
fn errno(number: i32) -> Error {
    Error::from_raw_os_error(number)
}
