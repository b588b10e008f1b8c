//! Completions: the used ring and the interrupts that tell of it.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::{DriverQueue, Error, Result};

/// An entry that the device put into the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain that is done.
    pub id: u32,
    /// Bytes that the device wrote into the chain.
    pub len: u32,
}

impl DriverQueue {
    /// Takes what is in the used ring, without waiting and without asking for an interrupt.
    ///
    /// # Errors
    /// When the device completed what was not in flight (unless the ring was tampered with).
    pub fn poll_used(&mut self) -> Result<Vec<Used>> {
        let moved = self.pending()?;
        if usize::from(moved) > self.chains.len() && !self.tampered {
            let (queue, in_flight) = (self.index, self.chains.len());
            return Err(Error::UsedOverrun {
                queue,
                moved,
                in_flight,
            });
        }
        let mut done = Vec::with_capacity(usize::from(moved));
        for _ in 0..moved {
            let (id, len) = self.ring.used_entry(self.used_next)?;
            self.used_next = self.used_next.wrapping_add(1);
            self.reclaim(id)?;
            done.push(Used { id, len });
        }
        Ok(done)
    }

    fn reclaim(&mut self, id: u32) -> Result<()> {
        match u16::try_from(id)
            .ok()
            .and_then(|head| self.chains.remove(&head))
        {
            Some(chain) => {
                if let Some((table, len)) = chain.table {
                    self.ring.memory.free(table, len, 16);
                }
                self.free.extend(chain.descriptors.into_iter().rev());
                Ok(())
            }
            None if self.tampered => Ok(()),
            None => Err(Error::UnknownUsed {
                queue: self.index,
                id,
            }),
        }
    }

    /// Waits for an interrupt until something is used; empty after `timeout`.
    ///
    /// # Errors
    /// [`Error::InterruptLost`] when there are used entries that no interrupt told of, and as
    /// [`poll_used`](Self::poll_used).
    pub fn wait_used(&mut self, timeout: Duration) -> Result<Vec<Used>> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.pending()? == 0 {
                self.ask_for_interrupt()?;
            }
            if self.pending()? != 0 {
                self.take_interrupts()?;
                return self.poll_used();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let count = self
                .call
                .wait(left)
                .map_err(Error::os("cannot wait for an interrupt"))?;
            self.interrupts += count;
            let pending = self.pending()?;
            if count == 0 && deadline <= Instant::now() {
                return match pending {
                    0 => Ok(Vec::new()),
                    _ => Err(Error::InterruptLost {
                        queue: self.index,
                        pending,
                        timeout,
                    }),
                };
            }
        }
    }

    pub(super) fn ask_for_interrupt(&self) -> Result<()> {
        if self.event_idx {
            self.ring.set_used_event(self.used_next)?;
            // The device must see the event index before we look at the used index again.
            fence(Ordering::SeqCst);
        }
        Ok(())
    }

    fn take_interrupts(&mut self) -> Result<()> {
        self.interrupts += self
            .call
            .take()
            .map_err(Error::os("cannot read the call eventfd"))?;
        Ok(())
    }

    /// Interrupts that the device sent so far.
    ///
    /// # Errors
    /// When the eventfd cannot be read.
    pub fn interrupts(&mut self) -> Result<u64> {
        self.take_interrupts()?;
        Ok(self.interrupts)
    }

    /// Entries in the used ring that were not taken yet.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn pending(&self) -> Result<u16> {
        Ok(self.ring.used_idx()?.wrapping_sub(self.used_next))
    }
}
