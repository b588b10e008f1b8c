//! What a snapshot keeps of a function: all that the driver wrote, and where its queues were.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Transport, status};
use crate::pci::MsixState;
use crate::virtio::Setup;
use crate::virtio::common::ChoiceState;
use crate::virtio::queue::QueueState;

/// A function of a paused machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransportState {
    config: Vec<u8>,
    msix: MsixState,
    choices: ChoiceState,
    queues: Vec<QueueState>,
    generation: u8,
    isr: u8,
    needs_reset: bool,
    /// The driver had asked for a reset, which was not over.
    resetting: bool,
}

/// The next entry of each queue's available ring, by the queue's number.
pub type Positions = BTreeMap<usize, u16>;

impl TransportState {
    /// Features that the driver chose, if the device serves it.
    #[must_use]
    pub fn served_features(&self) -> Option<u64> {
        let serves = self.choices.status & status::DRIVER_OK != 0 && !self.resetting;
        serves.then_some(self.choices.chosen)
    }
}

impl Transport {
    /// What the driver of a paused device wrote; `positions` is where the device stopped.
    #[must_use]
    pub fn save(&mut self, positions: &Positions) -> TransportState {
        self.finish_reset();
        let position = |index| positions.get(&index).copied().unwrap_or(0);
        let queues = self.queues.iter().enumerate();
        TransportState {
            config: self.config.bytes().to_vec(),
            msix: self.msix.save(),
            choices: self.common.save(),
            queues: queues
                .map(|(index, queue)| queue.save(position(index)))
                .collect(),
            generation: self.signals.generation(),
            isr: self.signals.isr(),
            needs_reset: self.signals.is_reset_needed(),
            resetting: self.resetting,
        }
    }

    /// Makes a new function what the saved one was; its device must be paused. False where the state is
    /// not one of such a device.
    #[must_use]
    pub fn restore(&mut self, state: &TransportState) -> bool {
        let offered = self.common.offered;
        let fits = state.queues.len() == self.queues.len()
            && state.msix.count() == self.msix.count()
            && state.choices.chosen & !offered == 0
            && self.config.restore(&state.config);
        if !fits || !self.msix.restore(&state.msix, &self.config) {
            return false;
        }
        for (queue, saved) in self.queues.iter_mut().zip(&state.queues) {
            if !queue.restore(saved) {
                return false;
            }
        }
        self.common.restore(&state.choices);
        self.signals
            .restore(state.generation, state.isr, state.needs_reset);
        let vector = self.common.config_vector;
        self.set_config_vector(vector);
        if state.resetting {
            self.begin_reset();
        } else if state.served_features().is_some() {
            return self.go_on(&state.queues).is_ok();
        }
        true
    }

    /// Has the device serve its queues where they were. What may have been signalled is signalled again.
    fn go_on(&mut self, saved: &[QueueState]) -> std::io::Result<()> {
        let mut queues = Vec::new();
        for (index, (queue, saved)) in self.queues.iter().zip(saved).enumerate() {
            if queue.enabled {
                let mut setup = queue.setup(index, self.call(queue.vector)?)?;
                setup.position = saved.position;
                let _ = setup.kick.write(1);
                let _ = setup.call.write(1);
                queues.push(setup);
            }
        }
        let features = self.common.chosen;
        self.device().start(Setup { features, queues });
        self.started = true;
        self.connect_kicks();
        Ok(())
    }
}
