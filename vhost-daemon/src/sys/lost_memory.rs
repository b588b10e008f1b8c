//! Mapped memory whose file is cut short behind our back.
//!
//! Touching a page of a shared mapping that lies behind the end of its file, or that the file system
//! has no room for, is answered with SIGBUS, which ends a process. Guest memory is a file of the front
//! end's, a disk image in memory is a file that others may open: neither may end a daemon that
//! serves others too.
//!
//! So ranges that may vanish are [`Guarded`]: a signal handler notes the loss and puts zeroed memory of
//! the process's own in the place of the *whole* range. The access that failed then goes on, into
//! memory that nobody else sees. Whoever copied looks at [`Guarded::is_lost`] afterwards and trusts
//! nothing that came from or went into a range that is lost; it stays lost.
//!
//! Whole, because a page at a time would leave a mapping for each page, of which a process may have few
//! (`vm.max_map_count`), and because pages of hugetlbfs cannot be replaced in part.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, c_void, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Most ranges that can be guarded at a time: some 500 for each of the memory tables that are mapped.
const CAPACITY: usize = 4096;

/// A range as the signal handler reads it: without locks, while it may be changing.
struct Slot {
    /// First address; zero while the slot is free.
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; CAPACITY] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; CAPACITY];

/// How many hold each slot. The lock is taken by those who guard, never by the signal handler.
static HOLDERS: Mutex<[u32; CAPACITY]> = Mutex::new([0; CAPACITY]);

/// Whether any range was ever lost: lets those who look often look at one word.
static ANY_LOST: AtomicBool = AtomicBool::new(false);

/// What SIGBUS did before; set when our handler is there.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Slot {
    /// The range, if there is one. One that is replaced meanwhile is seen as one of both or as none.
    fn range(&self) -> Option<(usize, usize)> {
        // A writer sets `start` to zero before it changes `end`: an `end` of another range than
        // `start`'s is found out by looking at `start` again.
        let start = self.start.load(Ordering::SeqCst);
        let end = self.end.load(Ordering::SeqCst);
        (start != 0 && self.start.load(Ordering::SeqCst) == start).then_some((start, end))
    }

    fn set(&self, start: usize, end: usize) {
        self.start.store(0, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.lost.store(false, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
    }
}

/// Too many ranges are guarded.
#[derive(Debug, thiserror::Error)]
#[error("more than {CAPACITY} memory regions are mapped")]
pub struct TooManyRanges;

/// A range of mapped memory whose loss does not end the process. Whoever guards a range that someone
/// guards already (each queue guards its guest's memory) shares what is known of it.
#[derive(Debug)]
pub(super) struct Guarded {
    slot: usize,
}

impl Guarded {
    /// Guards the mapping of `len` bytes at `start`.
    ///
    /// # Errors
    /// [`TooManyRanges`], and sigaction(2)'s.
    ///
    /// # Safety
    /// The range is one or more whole pages (of the mapping's page size) of mappings that the caller
    /// owns, that stay mapped for as long as the value lives, and that hold nothing but bytes for
    /// which any value is valid: the handler may replace them at any time. Ranges that overlap belong
    /// to one mapping.
    pub(super) unsafe fn new(start: *const u8, len: usize) -> io::Result<Self> {
        let start = start as usize;
        let end = start.saturating_add(len);
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        install()?;
        let held = |slot: &usize| holders[*slot] > 0 && SLOTS[*slot].range() == Some((start, end));
        let slot = match (0..CAPACITY).find(held) {
            Some(slot) => slot,
            None => {
                let free = holders.iter().position(|count| *count == 0);
                let free = free.ok_or_else(|| io::Error::other(TooManyRanges))?;
                SLOTS[free].set(start, end);
                free
            }
        };
        holders[slot] += 1;
        Ok(Self { slot })
    }

    /// Whether the range is lost. What was copied from or to it before this call came to nothing then.
    pub(super) fn is_lost(&self) -> bool {
        // Copies before it must not be seen to happen after it, also on processors where another
        // one's mapping can change without an interrupt.
        fence(Ordering::SeqCst);
        self.known_lost()
    }

    /// Whether the range was found lost some time ago. Says nothing of copies just made.
    pub(super) fn known_lost(&self) -> bool {
        SLOTS[self.slot].lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        holders[self.slot] -= 1;
        if holders[self.slot] == 0 {
            SLOTS[self.slot].start.store(0, Ordering::SeqCst);
        }
    }
}

/// Whether any range that was ever guarded was lost.
pub(super) fn any_lost() -> bool {
    ANY_LOST.load(Ordering::Relaxed)
}

/// Puts the handler in place now: later a filter of system calls may forbid it.
///
/// # Errors
/// sigaction(2)'s.
pub(crate) fn expect_lost_memory() -> io::Result<()> {
    let _holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    install()
}

/// Puts the handler in place, once. The caller holds the lock.
fn install() -> io::Result<()> {
    // Miri knows no signals, and nothing that it runs on can be lost.
    if cfg!(miri) || BEFORE.get().is_some() {
        return Ok(());
    }
    // SAFETY: a C struct of integers, for which zero is valid.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: with no new action the call only fills `before`.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // Known before the handler can run.
    let _ = BEFORE.set(before);
    // SAFETY: as above; an empty signal mask is zero.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_bus_error;
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the thread's signal stack, as the standard library's own handler: a stack that is used up is
    // SIGSEGV's business, but the two share what they hand on to.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature of SA_SIGINFO and does nothing but what is safe in a
    // signal handler (atomic loads and stores, system calls).
    let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a SA_SIGINFO handler a siginfo that is valid until it returns.
    let told = unsafe { &*info };
    // SAFETY: SIGBUS by the kernel has an address; one that a process sent is told by its code.
    let address = unsafe { told.si_addr() } as usize;
    let by_access = matches!(told.si_code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR);
    if !(by_access && replace(address)) {
        hand_on(signal, info, context, by_access);
    }
}

/// Replaces the guarded ranges that contain `address`; `false` if there is none or it cannot be done.
fn replace(address: usize) -> bool {
    let mut replaced = false;
    for slot in &SLOTS {
        let Some((start, end)) = slot.range().filter(|(s, e)| (*s..*e).contains(&address)) else {
            continue;
        };
        // Before the mapping changes: who finds the new memory must find this.
        slot.lost.store(true, Ordering::SeqCst);
        ANY_LOST.store(true, Ordering::SeqCst);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        let place = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the thread that was interrupted touched `address`, so that it holds a guard on a
        // range around it, and `Guarded::new` had its caller promise: the range (and any that overlaps
        // it, being of the same mapping) is mapped now, belongs to the guards' owner and may be
        // replaced. The call is one system call and takes no lock.
        let mapped = unsafe { mmap_anonymous(place, end - start, protection, flags) };
        if mapped.is_err() {
            return false;
        }
        replaced = true;
    }
    replaced
}

/// Not ours: does what SIGBUS did before.
fn hand_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, by_access: bool) {
    let before = BEFORE.get().map_or((libc::SIG_DFL, 0), |action| {
        (action.sa_sigaction, action.sa_flags)
    });
    match before {
        (libc::SIG_IGN, _) if !by_access => {}
        (libc::SIG_DFL | libc::SIG_IGN, _) => {
            // SAFETY: restores the default action; takes no pointer.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            if !by_access {
                // An access is made again on return, and then ends the process; this one came once.
                // SAFETY: takes no pointer; the signal is delivered when this handler returns.
                unsafe { libc::raise(signal) };
            }
        }
        (handler, flags) if flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            // SAFETY: sigaction(2) said that this handler has three arguments.
            let handler = unsafe { mem::transmute::<libc::sighandler_t, Handler>(handler) };
            handler(signal, info, context);
        }
        (handler, _) => {
            // SAFETY: without SA_SIGINFO a handler has one argument.
            let handler =
                unsafe { mem::transmute::<libc::sighandler_t, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests;
