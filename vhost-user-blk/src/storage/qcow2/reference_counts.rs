//! Whether an image counts the clusters of its own tables as used.
//!
//! What is not counted is free, and the next cluster that is allocated may lie on it: an image made for
//! the purpose would have the guest write its tables, or imago look for a free cluster without end. So
//! nothing is written to an image whose header, L1 table or reference counts are not counted. What it
//! counts wrongly of its data hurts only its own content.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::header::Tables;
use super::host_file::read;

/// Largest reference count table, as QEMU has it (block/qcow2.h): 8 MiB.
const MAX_TABLE: u64 = 8 << 20;
/// Largest L1 table (same place): 32 MiB.
const MAX_L1: u64 = 32 << 20;

/// Whether everything that the tables lie on is counted.
///
/// # Errors
/// When the image cannot be read.
pub(super) fn are_sound(image: &impl FileExt, tables: &Tables) -> io::Result<bool> {
    let table_bytes = tables.reference_table.end - tables.reference_table.start;
    let l1_bytes = tables.l1.end - tables.l1.start;
    if !(1..=MAX_TABLE).contains(&table_bytes) || l1_bytes > MAX_L1 {
        return Ok(false);
    }
    let Some(blocks) = blocks(image, tables)? else {
        return Ok(false);
    };
    let size = tables.cluster_size;
    let clusters = |range: &Range<u64>| range.start / size..range.end.div_ceil(size);
    let mut used: BTreeSet<u64> = [0].into();
    used.extend(clusters(&tables.reference_table));
    used.extend(clusters(&tables.l1));
    for block in blocks.iter().filter(|block| **block != 0) {
        // A cluster for two purposes would be two tables in one.
        if !used.insert(block / size) {
            return Ok(false);
        }
    }
    all_counted(image, tables, &blocks, &used)
}

/// Where the blocks of reference counts are, 0 for none. `None` if that cannot be.
fn blocks(image: &impl FileExt, tables: &Tables) -> io::Result<Option<Vec<u64>>> {
    let bytes = read(image, &tables.reference_table)?;
    let entries = bytes.as_chunks::<8>().0.iter();
    let blocks: Vec<u64> = entries.map(|entry| u64::from_be_bytes(*entry)).collect();
    let aligned = blocks
        .iter()
        .all(|block| block.is_multiple_of(tables.cluster_size) && *block <= MAX_OFFSET);
    Ok(aligned.then_some(blocks))
}

/// Offsets have 56 bits (docs/interop/qcow2.txt).
const MAX_OFFSET: u64 = 1 << 56;

fn all_counted(
    image: &impl FileExt,
    tables: &Tables,
    blocks: &[u64],
    used: &BTreeSet<u64>,
) -> io::Result<bool> {
    let in_block = (tables.cluster_size * 8) >> tables.reference_order;
    let mut open = (0, Vec::new());
    for cluster in used {
        let block = usize::try_from(cluster / in_block)
            .ok()
            .and_then(|index| blocks.get(index).copied());
        let Some(block) = block.filter(|block| *block != 0) else {
            return Ok(false);
        };
        if open.0 != block {
            open = (block, read(image, &(block..block + tables.cluster_size))?);
        }
        if !is_counted(&open.1, cluster % in_block, tables.reference_order) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether count `index` of a block is more than zero. Counts have `1 << order` bits, in a byte from
/// the lowest bit on.
fn is_counted(block: &[u8], index: u64, order: u32) -> bool {
    let bit = index << order;
    let Ok(byte) = usize::try_from(bit / 8) else {
        return false;
    };
    if order < 3 {
        let mask = ((1_u8 << (1 << order)) - 1) << (bit % 8);
        return block.get(byte).is_some_and(|counts| counts & mask != 0);
    }
    let count = block.get(byte..byte + (1 << (order - 3)));
    count.is_some_and(|count| count.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_found() {
        for order in 0..=6 {
            for index in 0..64 {
                let mut block = vec![0; 512];
                let bit = index << order;
                block[bit / 8] = if order < 3 { 1 << (bit % 8) } else { 0 };
                if order >= 3 {
                    // The last byte of a big-endian number.
                    block[bit / 8 + (1 << (order - 3)) - 1] = 1;
                }
                for other in 0..64 {
                    let counted = is_counted(&block, other as u64, order);
                    assert_eq!(
                        counted,
                        other == index,
                        "order {order}, {index} and {other}"
                    );
                }
            }
        }
        assert!(!is_counted(&[0xff; 512], 4096, 0), "behind the block");
    }
}
