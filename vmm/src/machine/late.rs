//! Devices that left the bus before their daemons had completed what they began.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::devices::{lock, wait_until_reset};
use crate::virtio::{Device, SharedDevice};

/// How often one is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// They may write into the guest's memory, though nothing of the machine's knows them any more.
#[derive(Default)]
pub(super) struct LateDevices(Vec<(String, Weak<Mutex<dyn Device>>)>);

impl LateDevices {
    /// Takes one that was told to stop. Its daemon's connection ends when it has.
    pub(super) fn push(&mut self, id: String, device: SharedDevice) {
        self.0.retain(|(_, it)| it.strong_count() > 0);
        self.0.push((id, Arc::downgrade(&device)));
        let kept = device.clone();
        let waits = std::thread::Builder::new().name("late".to_owned());
        let waits = waits.spawn(move || {
            while !lock(&device).is_reset() {
                std::thread::sleep(LOOK);
            }
        });
        if let Err(error) = waits {
            tracing::warn!(%error, "nobody ends the connection of a device that was removed");
            std::mem::forget(kept);
        }
    }

    /// Waits a while for each; the name of one that is late still.
    pub(super) fn still_busy(&self) -> Option<&str> {
        let busy = self.0.iter().find(|(_, device)| {
            let device = device.upgrade();
            device.is_some_and(|device| !wait_until_reset(&device))
        });
        busy.map(|(id, _)| id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::Receiver;

    use vmm_sys_util::eventfd::EventFd;

    use super::super::DeviceSet;
    use super::*;
    use crate::virtio::{Condition, Kind, SaveError, Saved, Setup, Signals};

    /// A disk whose daemon stops when it is let.
    struct Stuck {
        lets: Arc<AtomicBool>,
        dropped: Arc<AtomicBool>,
    }

    impl Drop for Stuck {
        fn drop(&mut self) {
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    impl Device for Stuck {
        fn kind(&self) -> Kind {
            Kind::Block
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_sizes(&self) -> Vec<u16> {
            vec![8]
        }
        fn attach(&mut self, _: Arc<Signals>) {}
        fn config(&self) -> Vec<u8> {
            Vec::new()
        }
        fn write_config(&mut self, _: usize, _: &[u8]) {}
        fn start(&mut self, _: Setup) {}
        fn set_call(&mut self, _: usize, _: EventFd) {}
        fn reset(&mut self) {}
        fn is_reset(&self) -> bool {
            self.lets.load(Ordering::Relaxed)
        }
        fn pause(&mut self) {}
        fn is_paused(&self) -> bool {
            true
        }
        fn resume(&mut self) {}
        fn condition(&self) -> Condition {
            Condition::default()
        }
        fn save(&mut self) -> Receiver<Result<Saved, SaveError>> {
            unreachable!("nobody asks")
        }
        fn load(&mut self, _: u64, _: Vec<u8>) -> Receiver<Result<(), SaveError>> {
            unreachable!("nobody asks")
        }
        fn follow_log(&mut self) -> Receiver<Result<(), SaveError>> {
            unreachable!("nobody asks")
        }
    }

    #[test]
    fn who_left_before_it_had_stopped_is_waited_for() {
        const SLOT: usize = 3;
        let [lets, dropped] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let mut devices = DeviceSet::default();
        let stuck = Stuck {
            lets: lets.clone(),
            dropped: dropped.clone(),
        };
        // It has its kind's name.
        devices.add_own(Arc::new(Mutex::new(stuck)));
        devices.find("disk").unwrap().slot = Some(SLOT);
        assert_eq!(devices.remove(SLOT).as_deref(), Some("disk"));
        assert!(!devices.has("disk"));
        let refused = devices.wait_for_all().unwrap_err().to_string();
        let expected =
            "the daemon of disk does not stop, and may still write into the guest's memory";
        assert_eq!(refused, expected);
        assert!(
            devices.pause().is_err(),
            "what it writes would be in no snapshot"
        );
        assert!(!dropped.load(Ordering::Relaxed));
        lets.store(true, Ordering::Relaxed);
        devices.wait_for_all().unwrap();
        devices.pause().unwrap();
        // Its daemon may serve somebody else.
        let give_up = std::time::Instant::now() + Duration::from_secs(20);
        while !dropped.load(Ordering::Relaxed) {
            assert!(std::time::Instant::now() < give_up, "the connection stays");
            std::thread::sleep(LOOK);
        }
    }
}
