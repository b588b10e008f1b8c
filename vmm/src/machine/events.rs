//! What the machine's owner waits for: the guest's and processors' news, and orders from outside.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Answer, Command, Refusal};
use crate::devices::PowerEvent;
use crate::kvm::Report;
use crate::memory::GuestMemory;
use crate::options::DeviceDescription;
use crate::vhost_user::{FrontEnd, Patience};

/// What happens to a machine.
pub(super) enum Event {
    Power(PowerEvent),
    Stopped(Report),
    /// The guest let go of the device in this place.
    Ejected(usize),
    Order(Command, Sender<Result<Answer, Refusal>>),
    Quit,
}

/// Ends a machine from outside, from any thread.
#[derive(Debug, Clone)]
pub struct QuitHandle(Sender<Event>);

impl QuitHandle {
    /// The machine ends as if its plug was pulled.
    pub fn quit(&self) {
        // It has ended already when nobody listens.
        let _ = self.0.send(Event::Quit);
    }
}

/// Gives a machine orders, from any thread. It outlives resets.
#[derive(Debug, Clone)]
pub struct Controller {
    sender: Sender<Event>,
    memory: GuestMemory,
}

impl Controller {
    /// Waits until the order is carried out.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn order(&self, command: Command) -> Result<Answer, Refusal> {
        let (sender, receiver) = channel();
        self.sender
            .send(Event::Order(command, sender))
            .map_err(|_| Refusal::Ended)?;
        receiver.recv().unwrap_or(Err(Refusal::Ended))
    }

    /// Connects to a device's daemon, and plugs it in.
    ///
    /// # Errors
    /// When the daemon cannot serve it, its name is taken, or there is no place.
    pub fn add(&self, described: DeviceDescription) -> Result<Answer, Refusal> {
        // A daemon that serves the device of this name would not answer a second front end.
        if let (Some(id), Answer::Devices(devices)) = (&described.id, self.order(Command::Devices)?)
            && devices.iter().any(|device| device.id == *id)
        {
            return Err(Refusal::SameId(id.clone()));
        }
        let label = described.label();
        let front_end = described.front_end.clone();
        let device = FrontEnd::connect(front_end, &self.memory, Patience::None);
        let device = device.map_err(|source| Refusal::Device { label, source })?;
        self.order(Command::Add(described, Box::new(device)))
    }
}

/// Where events arrive. It outlives resets.
#[derive(Debug)]
pub struct Events {
    pub(super) sender: Sender<Event>,
    pub(super) receiver: Receiver<Event>,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }
}

impl Events {
    /// Forgets what the guest and its processors said: the next machine is another one. Orders stay, those that came
    /// `earlier` and were put off among them.
    pub(super) fn forget_guest(&self, earlier: VecDeque<Event>) {
        let waiting: Vec<Event> = earlier
            .into_iter()
            .chain(self.receiver.try_iter())
            .collect();
        for event in waiting {
            if matches!(event, Event::Order(..) | Event::Quit) {
                // The receiver is here.
                let _ = self.sender.send(event);
            }
        }
    }

    /// A way to end the machine.
    #[must_use]
    pub fn quit_handle(&self) -> QuitHandle {
        QuitHandle(self.sender.clone())
    }

    /// A way to give it orders.
    #[must_use]
    pub fn controller(&self, memory: &GuestMemory) -> Controller {
        Controller {
            sender: self.sender.clone(),
            memory: memory.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_outlive_a_guest_and_what_it_said_does_not() {
        let events = Events::default();
        let (reply, _answer) = channel();
        for event in [Event::Power(PowerEvent::Reset), Event::Quit] {
            events.sender.send(event).unwrap();
        }
        let earlier = [Event::Ejected(3), Event::Order(Command::Info, reply)];
        events.forget_guest(earlier.into());
        let left: Vec<Event> = events.receiver.try_iter().collect();
        assert!(matches!(
            left[..],
            [Event::Order(Command::Info, _), Event::Quit]
        ));
    }
}
