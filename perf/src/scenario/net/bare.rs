//! The limit: plain writes and reads on a tap, one for each frame, without a daemon.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::time::{ClockId, clock_gettime};

use super::driver::{Load, PATIENCE};
use super::error::TurnError;
use crate::interrupt::Interrupt;
use crate::measure::Cost;
use crate::sys::packet_socket::Generator;

/// Frames between two looks at the clock.
const LOOKS: u32 = 256;

/// Writes `frames` in turn for that long: as many as a driver has in its ring, so that the processor's
/// caches help neither more nor less.
pub(super) fn send(
    tap: &OwnedFd,
    frames: &[Vec<u8>],
    time: Duration,
    stop: &Interrupt,
) -> Result<(Load, Cost), TurnError> {
    let (started, before) = (Instant::now(), processor_time());
    let mut load = Load::default();
    while started.elapsed() < time {
        stop.check()?;
        for frame in frames {
            write(tap, frame).map_err(|error| TurnError::Tap(error.into()))?;
        }
        load.packets += frames.len() as u64;
    }
    load.elapsed = started.elapsed();
    Ok((load, since(before)))
}

/// Reads for that long what `generator` sends meanwhile.
pub(super) fn receive(
    tap: &OwnedFd,
    generator: &Generator,
    time: Duration,
    stop: &Interrupt,
) -> Result<(Load, Cost), TurnError> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                generator.send();
            }
        });
        let outcome = read_frames(tap, time, stop);
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

fn read_frames(tap: &OwnedFd, time: Duration, stop: &Interrupt) -> Result<(Load, Cost), TurnError> {
    rustix::io::ioctl_fionbio(tap, true).map_err(|error| TurnError::Tap(error.into()))?;
    let mut frame = vec![0; 70_000];
    let (started, before) = (Instant::now(), processor_time());
    let mut load = Load::default();
    // A turn in which nothing passed has no figures.
    while started.elapsed() < time || load.packets == 0 {
        if started.elapsed() > time + PATIENCE {
            return Err(TurnError::Stuck(PATIENCE));
        }
        stop.check()?;
        for _ in 0..LOOKS {
            match read(tap, &mut frame) {
                Ok(_) => load.packets += 1,
                Err(Errno::AGAIN) => {
                    await_frame(tap);
                    break;
                }
                Err(error) => return Err(TurnError::Tap(error.into())),
            }
        }
    }
    load.elapsed = started.elapsed();
    Ok((load, since(before)))
}

fn await_frame(tap: &OwnedFd) {
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    // Interrupted or not: the next read tells.
    let _ = poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&tick));
}

fn since(before: u64) -> Cost {
    Cost {
        cpu_ns: processor_time().saturating_sub(before),
        switches: 0,
    }
}

/// Of this thread, in nanoseconds.
fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
