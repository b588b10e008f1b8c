//! Device 0, the host's end of the bus. It does nothing; kernels expect it.

use std::ops::Range;

use super::{ConfigSpace, Function, Identity};

/// "QEMU PCIe host bridge" of Red Hat's, a bridge that no driver binds to.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: [0, 0, 6],
    subsystem: (0, 0),
};

/// The bridge.
#[derive(Debug)]
pub struct HostBridge(ConfigSpace);

impl Default for HostBridge {
    fn default() -> Self {
        Self(ConfigSpace::new(IDENTITY, None))
    }
}

impl Function for HostBridge {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn decoded(&self) -> Option<Range<u64>> {
        None
    }

    fn read_memory(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write_memory(&mut self, _offset: u64, _data: &[u8]) {}
}
