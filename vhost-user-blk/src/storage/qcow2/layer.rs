//! A host file as imago and the guest's requests use it.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use imago::StorageExt;
use imago::io_buffers::{IoVector, IoVectorMut};
use vhost_daemon::queue::Buffers;

use super::host_file::HostFile;

/// What is written through a [`Layer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Tables and the header. Each write is durable when it is done, because imago relies on the
    /// order of its writes: after a crash of the host a table must not point to what never arrived.
    Tables,
    /// Guest data. It is durable once the guest flushes.
    Data,
}

/// One of the uses of a file of the chain.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) file: Arc<HostFile>,
    pub(super) role: Role,
}

/// Memory of ours stands in for this much of a guest's request at a time.
const BOUNCE: usize = 65536;

impl Layer {
    /// Reads at byte `at` into `data`, the guest's buffers.
    pub(super) async fn read_guest(&self, at: u64, data: Buffers) -> io::Result<()> {
        match self.file.alignment {
            1 => self.file.read(at, data).await,
            align => Box::pin(self.read_guest_direct(at, data, align)).await,
        }
    }

    async fn read_guest_direct(
        &self,
        mut at: u64,
        mut data: Buffers,
        align: usize,
    ) -> io::Result<()> {
        if !is_aligned(at, data.len(), align) {
            while !data.is_empty() {
                let mut bytes = vec![0; data.len().min(BOUNCE)];
                self.read(&mut bytes, at).await?;
                data.write_all(&bytes)?;
                at += bytes.len() as u64;
            }
            return Ok(());
        }
        while let Some(guest) = next_piece(&mut data, align) {
            let ours = guest.aligned(align).ok_or(io::ErrorKind::OutOfMemory)?;
            let len = guest.len();
            let target = ours.as_ref().unwrap_or(&guest).share();
            self.file.read(at, target).await?;
            if let Some(ours) = ours {
                ours.copy_to(&guest, len);
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Writes `data`, the guest's buffers, at byte `at`.
    pub(super) async fn write_guest(&self, at: u64, data: Buffers) -> io::Result<()> {
        match self.file.alignment {
            1 => self.file.write(at, data, false).await,
            align => Box::pin(self.write_guest_direct(at, data, align)).await,
        }
    }

    async fn write_guest_direct(
        &self,
        mut at: u64,
        mut data: Buffers,
        align: usize,
    ) -> io::Result<()> {
        if !is_aligned(at, data.len(), align) {
            while !data.is_empty() {
                let mut bytes = vec![0; data.len().min(BOUNCE)];
                data.read_exact(&mut bytes)?;
                self.write(&bytes, at).await?;
                at += bytes.len() as u64;
            }
            return Ok(());
        }
        // imago reads, changes and writes whole blocks where its tables are smaller than one.
        let _no_such_write = self.weak_write_blocker(at..at + data.len() as u64).await;
        while let Some(guest) = next_piece(&mut data, align) {
            let len = guest.len();
            let source = match guest.aligned(align).ok_or(io::ErrorKind::OutOfMemory)? {
                None => guest,
                Some(ours) => {
                    guest.copy_to(&ours, len);
                    ours
                }
            };
            self.file.write(at, source, false).await?;
            at += len as u64;
        }
        Ok(())
    }

    /// Reads at byte `at` into memory of imago's. It is filled by copying: the kernel writes to memory
    /// of ours that stays until it is done, whatever becomes of this future.
    pub(super) async fn read_own(&self, bufv: IoVectorMut<'_>, at: u64) -> io::Result<()> {
        let mut ours = self.memory(bufv.len())?;
        self.file.read(at, ours.share()).await?;
        for mut part in bufv.into_inner() {
            ours.read_exact(&mut part)?;
        }
        Ok(())
    }

    /// Writes memory of imago's at byte `at`.
    pub(super) async fn write_own(&self, bufv: IoVector<'_>, at: u64) -> io::Result<()> {
        let ours = self.memory(bufv.len())?;
        let mut rest = ours.share();
        for part in bufv.into_inner() {
            rest.write_all(&part)?;
        }
        match self.role {
            Role::Tables => {
                self.file.sync_copies().await?;
                self.file.write(at, ours, true).await
            }
            Role::Data => {
                self.file.write(at, ours, false).await?;
                self.file.copied();
                Ok(())
            }
        }
    }

    /// Has a range read as zeroes.
    pub(super) async fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.role == Role::Tables {
            self.file.sync_copies().await?;
        }
        self.file.zero(offset, len).await?;
        match self.role {
            Role::Tables => self.file.sync().await,
            Role::Data => {
                self.file.copied();
                Ok(())
            }
        }
    }

    /// Makes what was written through this layer durable.
    pub(super) async fn make_durable(&self) -> io::Result<()> {
        match self.role {
            // It is.
            Role::Tables => Ok(()),
            Role::Data => self.file.sync().await,
        }
    }

    fn memory(&self, len: u64) -> io::Result<Buffers> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ours = Buffers::zeroed(len, self.file.alignment);
        ours.ok_or(io::ErrorKind::OutOfMemory.into())
    }
}

fn is_aligned(at: u64, len: usize, align: usize) -> bool {
    at.is_multiple_of(align as u64) && len.is_multiple_of(align)
}

/// The front of `data` that can go in one operation.
fn next_piece(data: &mut Buffers, align: usize) -> Option<Buffers> {
    let len = if data.is_aligned(align) {
        data.len()
    } else {
        data.len().min(BOUNCE)
    };
    (len > 0).then(|| data.split_front(len)).flatten()
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.path.display().fmt(f)
    }
}
