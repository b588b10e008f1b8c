//! What a device needs of the hypervisor.

use vmm_sys_util::eventfd::EventFd;

use crate::kvm::{KvmError, Message, Vm};

/// Interrupts and kicks without a thread of ours in between.
pub trait Wiring: Send + Sync {
    /// Sets what an interrupt number sends.
    ///
    /// # Errors
    /// When the hypervisor has no room for it.
    fn route_message(&self, number: u32, message: Option<Message>) -> Result<(), KvmError>;
    /// Lets an event cause an interrupt; at once if it is signalled already.
    ///
    /// # Errors
    /// When the event is connected already.
    fn connect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError>;
    /// Undoes it; the event keeps what it counts.
    ///
    /// # Errors
    /// When it was not connected.
    fn disconnect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError>;
    /// Lets a write to an address signal an event.
    ///
    /// # Errors
    /// When another event has this address.
    fn connect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError>;
    /// Undoes it.
    ///
    /// # Errors
    /// When it was not connected.
    fn disconnect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError>;
}

impl Wiring for Vm {
    fn route_message(&self, number: u32, message: Option<Message>) -> Result<(), KvmError> {
        Self::route_message(self, number, message)
    }

    fn connect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError> {
        Self::connect_interrupt(self, event, number)
    }

    fn disconnect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError> {
        Self::disconnect_interrupt(self, event, number)
    }

    fn connect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        Self::connect_kick(self, event, address)
    }

    fn disconnect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        Self::disconnect_kick(self, event, address)
    }
}

/// A hypervisor that remembers what it was told, as strict as KVM.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;
    use std::os::fd::AsRawFd;
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    pub(crate) struct Remembered {
        pub(crate) routes: Mutex<BTreeMap<u32, Message>>,
        /// Descriptor by interrupt number.
        pub(crate) interrupts: Mutex<BTreeMap<u32, i32>>,
        /// Descriptor by address.
        pub(crate) kicks: Mutex<BTreeMap<u64, i32>>,
    }

    fn refused(step: &'static str, errno: i32) -> KvmError {
        let source = kvm_ioctls::Error::new(errno);
        KvmError::Step { step, source }
    }

    impl Wiring for Remembered {
        fn route_message(&self, number: u32, message: Option<Message>) -> Result<(), KvmError> {
            let mut routes = self.routes.lock().unwrap();
            match message {
                Some(message) => routes.insert(number, message),
                None => routes.remove(&number),
            };
            Ok(())
        }

        fn connect_interrupt(&self, event: &EventFd, number: u32) -> Result<(), KvmError> {
            let mut interrupts = self.interrupts.lock().unwrap();
            if interrupts.contains_key(&number) {
                return Err(refused("connect an interrupt", libc::EBUSY));
            }
            interrupts.insert(number, event.as_raw_fd());
            Ok(())
        }

        fn disconnect_interrupt(&self, _: &EventFd, number: u32) -> Result<(), KvmError> {
            let removed = self.interrupts.lock().unwrap().remove(&number);
            removed
                .map(drop)
                .ok_or_else(|| refused("disconnect an interrupt", libc::ENOENT))
        }

        fn connect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
            let mut kicks = self.kicks.lock().unwrap();
            if kicks.contains_key(&address) {
                return Err(refused("connect a kick", libc::EEXIST));
            }
            kicks.insert(address, event.as_raw_fd());
            Ok(())
        }

        fn disconnect_kick(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
            let mut kicks = self.kicks.lock().unwrap();
            if kicks.get(&address) != Some(&event.as_raw_fd()) {
                return Err(refused("disconnect a kick", libc::ENOENT));
            }
            kicks.remove(&address);
            Ok(())
        }
    }
}
