//! The daemon gets the guest's memory.

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::GuestMemoryBackend;

use super::super::FrontEndError;
use super::super::error::failed;
use super::Session;
use crate::memory::GuestMemory;

impl Session {
    /// All of it in one table, or region by region where the daemon takes that: then once is enough, and
    /// queues that stop and go on cost it no new mapping.
    pub(super) fn share_memory(&mut self, memory: &GuestMemory) -> Result<(), FrontEndError> {
        let regions = regions(memory)?;
        if self.slots()? < regions.len() as u64 {
            let taken = self.front_end.set_mem_table(&regions);
            return taken.map(drop).map_err(failed("take the guest's memory"));
        }
        if !self.has_memory {
            for region in &regions {
                self.front_end
                    .add_mem_region(region)
                    .map_err(failed("take a region of the guest's memory"))?;
            }
            self.has_memory = true;
        }
        Ok(())
    }

    /// Regions that the daemon takes one by one; 0 if it wants a table.
    fn slots(&mut self) -> Result<u64, FrontEndError> {
        let by_region =
            VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS | VhostUserProtocolFeatures::REPLY_ACK;
        if !self.protocol.contains(by_region) {
            return Ok(0);
        }
        if self.has_memory {
            return Ok(u64::MAX);
        }
        self.front_end
            .get_max_mem_slots()
            .map_err(failed("tell how many regions of memory it takes"))
    }
}

fn regions(memory: &GuestMemory) -> Result<Vec<VhostUserMemoryRegionInfo>, FrontEndError> {
    memory
        .mapped()
        .iter()
        .map(VhostUserMemoryRegionInfo::from_guest_region)
        .collect::<Result<_, _>>()
        .map_err(FrontEndError::Memory)
}
