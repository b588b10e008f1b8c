//! A machine into a snapshot, and out of one.

use std::path::PathBuf;
use std::time::Duration;

use super::devices::{Attached, lock};
use super::{Answer, DeviceSet, Machine, MachineError, Refusal};
use crate::options::Description;
use crate::snapshot::{DeviceState, MachineState, Writer};
use crate::virtio::{Kind, SaveError};

/// How long a daemon has to hand out its state, or to take it.
const TRANSFER: Duration = Duration::from_secs(60);

/// A snapshot, as somebody wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOrder {
    /// Where it is put.
    pub folder: PathBuf,
    /// The guest runs while its memory is written, and is paused only for what it writes last.
    pub live: bool,
    /// The machine stays paused, as it is in the snapshot.
    pub stay_paused: bool,
}

impl Machine<'_> {
    /// Writes the machine into a folder; it goes on afterwards if it was running, and shall.
    pub(super) fn snapshot(&mut self, order: &SnapshotOrder) -> Result<Answer, Refusal> {
        let writer = Writer::new(&order.folder)?;
        let mut memory = writer.memory()?;
        if order.live && self.paused_at.is_none() {
            let (state, copied) = self.copy_while_it_runs(&mut memory, order.stay_paused)?;
            writer.finish(memory, &state)?;
            return Ok(Answer::Copied(copied));
        }
        let was_running = self.paused_at.is_none();
        self.pause()?;
        let saved = self.state();
        let written = saved.and_then(|state| {
            memory.write(self.vm.memory())?;
            Ok(writer.finish(memory, &state)?)
        });
        if was_running && !order.stay_paused {
            self.resume()?;
        }
        written.map(|()| Answer::Done)
    }

    pub(super) fn state(&self) -> Result<MachineState, Refusal> {
        let processors = self.processors.iter().map(|it| it.save(&self.vm));
        Ok(MachineState {
            description: self.devices.describe(self.config.description.clone()),
            clock: self.paused_at.unwrap_or(0),
            processors: processors.collect::<Result<_, _>>()?,
            chips: self.vm.save_chips()?,
            platform: self.platform.save(),
            devices: self.devices.save()?,
        })
    }
}

impl DeviceSet {
    /// The description of a machine with these devices.
    fn describe(&self, mut description: Description) -> Description {
        (description.disk, description.net, description.fs) = Default::default();
        description.vsock = None;
        // A guest may have let go of what it was given.
        description.rng = Some(self.has_kind(Kind::Rng));
        description.balloon = description.balloon.filter(|_| self.has_kind(Kind::Balloon));
        for attached in self.iter() {
            let Some(named) = &attached.named else {
                continue;
            };
            let described = named.describe();
            match named.front_end.kind {
                Kind::Block => description.disk.push(described),
                Kind::Net => description.net.push(described),
                Kind::Fs => description.fs.push(described),
                Kind::Vsock => description.vsock = Some(described),
                _ => {}
            }
        }
        description
    }

    fn save(&self) -> Result<Vec<DeviceState>, Refusal> {
        self.iter().filter_map(save).collect()
    }

    /// Gives every device what the snapshot has for it. They are paused, and not on the bus.
    pub(super) fn restore(&mut self, states: &[DeviceState]) -> Result<(), MachineError> {
        for state in states {
            let id = state.id.clone();
            let Some(attached) = self.find(&id) else {
                return Err(MachineError::NotInSnapshot(id));
            };
            attached.slot = Some(state.slot);
            attached.leaving = state.leaving;
            let Some(served) = state.transport.served_features() else {
                continue;
            };
            if let Some(blob) = &state.state {
                let answer = lock(&attached.device).load(served, blob.clone());
                let loaded = answer
                    .recv_timeout(TRANSFER)
                    .unwrap_or(Err(SaveError::Gone));
                loaded.map_err(|source| MachineError::Saved { id, source })?;
            }
        }
        Ok(())
    }
}

impl DeviceSet {
    /// Has every device mark what it writes, if the memory has a log.
    pub(super) fn follow_log(&self) -> Result<(), Refusal> {
        for attached in self.iter() {
            let answer = lock(&attached.device).follow_log();
            let follows = answer
                .recv_timeout(TRANSFER)
                .unwrap_or(Err(SaveError::Gone));
            follows.map_err(|source| Refusal::Save {
                id: attached.id.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

fn save(attached: &Attached) -> Option<Result<DeviceState, Refusal>> {
    let slot = attached.slot?;
    let transport = attached.transport.as_ref()?;
    let answer = lock(&attached.device).save();
    let saved = answer
        .recv_timeout(TRANSFER)
        .unwrap_or(Err(SaveError::Gone));
    Some(match saved {
        Ok(saved) => Ok(DeviceState {
            id: attached.id.clone(),
            slot,
            leaving: attached.leaving,
            transport: lock(transport).save(&saved.positions),
            state: saved.state,
        }),
        Err(source) => Err(Refusal::Save {
            id: attached.id.clone(),
            source,
        }),
    })
}
