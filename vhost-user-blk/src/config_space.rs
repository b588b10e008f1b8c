//! The configuration space, `struct virtio_blk_config` (virtio 1.2, 5.2.4).

use crate::request::{MAX_SEGMENTS, SECTOR};

/// Block sizes that the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    /// Physical block size in bytes, a power of two of logical blocks.
    pub physical_block_size: u32,
}

/// The block size asked for does not do for direct I/O.
#[derive(Debug, thiserror::Error)]
#[error("--block-size {asked}: direct I/O on this image needs blocks of {needed} bytes")]
pub struct BlockSizeError {
    asked: u32,
    needed: usize,
}

impl Geometry {
    /// The block size asked for, or else the smallest on which every request is a multiple of
    /// `alignment`.
    ///
    /// # Errors
    /// When the block size asked for is smaller than that.
    pub fn choose(asked: Option<u32>, alignment: usize) -> Result<Self, BlockSizeError> {
        let needed = if alignment <= 512 { 512 } else { 4096 };
        let block_size = asked.unwrap_or(needed);
        if block_size < needed || alignment > 4096 {
            return Err(BlockSizeError {
                asked: block_size,
                needed: alignment,
            });
        }
        Ok(Self {
            block_size,
            physical_block_size: 4096,
        })
    }
}

/// What the configuration space is made of.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// Capacity in bytes.
    pub capacity: u64,
    /// Block sizes.
    pub geometry: Geometry,
    /// Number of queues.
    pub queues: u16,
    /// Whether the write cache is on.
    pub writeback: bool,
}

/// Most data segments of one request: what fits a queue of 128 beside header and status.
const SEG_MAX: u32 = 126;

/// Largest discard or write-zeroes segment, in sectors: 1 GiB.
const MAX_DISCARD_SECTORS: u32 = 1 << 21;

/// Offset of the field `writeback`, the one field that a driver may write.
pub const WRITEBACK_OFFSET: usize = 32;

impl Contents {
    /// The bytes as the guest reads them, all fields little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        let Geometry {
            block_size,
            physical_block_size,
        } = self.geometry;
        let exponent = (physical_block_size / block_size).max(1).trailing_zeros();
        let sectors_per_block = block_size / u32::try_from(SECTOR).unwrap_or(512);
        let mut bytes = Vec::with_capacity(64);
        bytes.extend((self.capacity / SECTOR).to_le_bytes()); // capacity
        bytes.extend(0_u32.to_le_bytes()); // size_max, not offered
        bytes.extend(SEG_MAX.to_le_bytes()); // seg_max
        bytes.extend([0; 4]); // geometry (cylinders, heads, sectors), not offered
        bytes.extend(block_size.to_le_bytes()); // blk_size
        bytes.push(u8::try_from(exponent).unwrap_or(0)); // topology.physical_block_exp
        bytes.push(0); // topology.alignment_offset
        bytes.extend(1_u16.to_le_bytes()); // topology.min_io_size, in logical blocks
        bytes.extend(0_u32.to_le_bytes()); // topology.opt_io_size: none known
        debug_assert_eq!(bytes.len(), WRITEBACK_OFFSET);
        bytes.push(u8::from(self.writeback)); // writeback
        bytes.push(0); // unused0
        bytes.extend(self.queues.to_le_bytes()); // num_queues
        bytes.extend(MAX_DISCARD_SECTORS.to_le_bytes()); // max_discard_sectors
        bytes.extend(MAX_SEGMENTS.to_le_bytes()); // max_discard_seg
        bytes.extend(sectors_per_block.to_le_bytes()); // discard_sector_alignment
        bytes.extend(MAX_DISCARD_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        bytes.extend(MAX_SEGMENTS.to_le_bytes()); // max_write_zeroes_seg
        bytes.push(1); // write_zeroes_may_unmap
        bytes.extend([0; 3]); // unused1
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_puts_them() {
        let geometry = Geometry {
            block_size: 512,
            physical_block_size: 4096,
        };
        let contents = Contents {
            capacity: 1 << 30,
            geometry,
            queues: 4,
            writeback: true,
        };
        let bytes = contents.bytes();
        assert_eq!(bytes[0..8], (1_u64 << 21).to_le_bytes());
        assert_eq!(bytes[12..16], 126_u32.to_le_bytes());
        assert_eq!(bytes[20..24], 512_u32.to_le_bytes());
        assert_eq!(bytes[24], 3);
        assert_eq!(bytes[WRITEBACK_OFFSET], 1);
        assert_eq!(bytes[34..36], 4_u16.to_le_bytes());
        assert_eq!(bytes[36..40], MAX_DISCARD_SECTORS.to_le_bytes());
        assert_eq!(bytes[56], 1);
        assert_eq!(bytes.len(), 60);
    }
}
