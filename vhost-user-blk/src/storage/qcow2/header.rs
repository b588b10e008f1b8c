//! The header of a qcow2 image (QEMU, docs/interop/qcow2.txt), read with suspicion: images come from
//! people the host need not trust. Nothing here does I/O.

use std::ops::Range;

use thiserror::Error;

use super::super::format::{Format, QCOW2_MAGIC};

/// Length of the header's fixed part in version 2, in bytes.
const V2_BYTES: usize = 72;
/// The same in version 3.
pub(super) const V3_BYTES: usize = 104;
/// Header extension: the backing file's format.
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Header extension: names of feature bits, 48 bytes each.
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const FEATURE_NAME_BYTES: usize = 48;
/// Largest disk: what the format's tables can describe (QEMU, same document: 64 PiB).
const MAX_SIZE: u64 = 1 << 56;

/// What a header says that we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub(super) version: u32,
    /// Bytes in a cluster, a power of two.
    pub(super) cluster_size: u64,
    /// The image below this one.
    pub(super) backing: Option<Backing>,
    /// Where its tables are.
    pub(super) tables: Tables,
}

/// Where an image keeps its tables, in bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    /// Bytes in a cluster.
    pub(super) cluster_size: u64,
    /// The table of the blocks of reference counts.
    pub(super) reference_table: Range<u64>,
    /// A reference count has `1 << reference_order` bits; at most 6.
    pub(super) reference_order: u32,
    /// The active L1 table.
    pub(super) l1: Range<u64>,
}

/// The file that blocks come from which the image does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backing {
    /// Its path, relative to the directory of the image that names it.
    pub(super) file: String,
    pub(super) format: Format,
}

/// Why an image cannot be served. The sentence continues "PATH ...".
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Another format.
    #[error("is not a qcow2 image; serve a raw image with --format raw")]
    NotQcow2,
    /// A version of the format from before or after our time.
    #[error("is qcow2 version {0}; convert it with `qemu-img convert -O qcow2`")]
    Version(u32),
    /// AES or LUKS.
    #[error("is encrypted; decrypt it with `qemu-img convert -O qcow2`")]
    Encrypted,
    /// Someone did not close it.
    #[error("was not closed cleanly (dirty); repair it with `qemu-img check -r all`")]
    Dirty,
    /// Someone found it broken.
    #[error("is marked corrupt; repair it with `qemu-img check -r all`")]
    Corrupt,
    /// Its own tables lie on clusters that it counts as free.
    #[error(
        "does not count the clusters of its own tables; repair it with `qemu-img check -r all`, or serve \
         it with --read-only"
    )]
    ReferenceCounts,
    /// Guest data in another file.
    #[error("keeps its data in an external file; convert it with `qemu-img convert -O qcow2`")]
    ExternalData,
    /// zstd.
    #[error(
        "is compressed with something else than zlib (zstd?); convert it with `qemu-img convert -O \
         qcow2 -o compression_type=zlib`"
    )]
    CompressionType,
    /// Subclusters.
    #[error(
        "has extended L2 entries; convert it with `qemu-img convert -O qcow2 -o extended_l2=off`"
    )]
    ExtendedL2,
    /// Features newer than we are.
    #[error("needs features that are not known here (bits {0:#x})")]
    UnknownFeatures(u64),
    /// Larger than the format allows, or without a sector.
    #[error("is a disk of {0} bytes, which is out of range")]
    Size(u64),
    /// Guessing is not safe, see [`Format::unnamed`].
    #[error(
        "does not tell the format of its backing file {0}; set it with `qemu-img rebase -u -b {0} -F \
         raw|qcow2`"
    )]
    NoBackingFormat(String),
    /// Neither raw nor qcow2.
    #[error("has a backing file of format '{0}'; only raw and qcow2 are supported")]
    BackingFormat(String),
    /// A URL or `json:` instead of a path.
    #[error("has a backing file that is not a plain path: {0}")]
    BackingName(String),
    /// Anything that no program writes.
    #[error("has a broken header: {0}")]
    Malformed(&'static str),
}

/// Reads fields, all of them big-endian.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&self, at: usize, len: usize) -> Result<&'a [u8], Refusal> {
        let end = at.checked_add(len);
        end.and_then(|end| self.0.get(at..end))
            .ok_or(Refusal::Malformed("it ends too early"))
    }

    fn u32(&self, at: usize) -> Result<u32, Refusal> {
        let bytes = self.bytes(at, 4)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn u64(&self, at: usize) -> Result<u64, Refusal> {
        Ok(u64::from(self.u32(at)?) << 32 | u64::from(self.u32(at + 4)?))
    }

    fn offset(&self, at: usize) -> Result<usize, Refusal> {
        usize::try_from(self.u64(at)?).map_err(|_| Refusal::Malformed("an offset is out of range"))
    }

    fn length(&self, at: usize) -> Result<usize, Refusal> {
        usize::try_from(self.u32(at)?).map_err(|_| Refusal::Malformed("a length is out of range"))
    }
}

/// How many bytes [`Header::parse`] wants to see, from the first [`V3_BYTES`] of an image.
pub(super) fn wanted(start: &[u8]) -> u64 {
    let bits = Fields(start).u32(20).unwrap_or(9);
    1 << bits.clamp(9, 21)
}

impl Header {
    /// The header in an image's first cluster.
    pub(super) fn parse(cluster: &[u8]) -> Result<Self, Refusal> {
        let fields = Fields(cluster);
        if fields.bytes(0, 4).ok() != Some(&QCOW2_MAGIC) {
            return Err(Refusal::NotQcow2);
        }
        let version = fields.u32(4)?;
        if !(2..=3).contains(&version) {
            return Err(Refusal::Version(version));
        }
        let cluster_bits = fields.u32(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Refusal::Malformed("clusters of no valid size"));
        }
        if fields.u32(32)? != 0 {
            return Err(Refusal::Encrypted);
        }
        let size = fields.u64(24)?;
        if !(512..=MAX_SIZE).contains(&size) {
            return Err(Refusal::Size(size));
        }
        if version == 3 {
            check_features(&fields)?;
        }
        Ok(Self {
            version,
            cluster_size: 1 << cluster_bits,
            backing: backing(&fields, version, 1 << cluster_bits)?,
            tables: tables(&fields, version, cluster_bits)?,
        })
    }
}

fn tables(fields: &Fields<'_>, version: u32, cluster_bits: u32) -> Result<Tables, Refusal> {
    let reference_order = if version == 3 { fields.u32(96)? } else { 4 };
    if reference_order > 6 {
        return Err(Refusal::Malformed("reference counts of no valid width"));
    }
    let range = |at: u64, len: u64| match at.checked_add(len) {
        Some(end) if at.is_multiple_of(1 << cluster_bits) && end <= MAX_SIZE => Ok(at..end),
        _ => Err(Refusal::Malformed("a table is out of place")),
    };
    let reference_clusters = u64::from(fields.u32(56)?);
    Ok(Tables {
        cluster_size: 1 << cluster_bits,
        reference_table: range(fields.u64(48)?, reference_clusters << cluster_bits)?,
        reference_order,
        l1: range(fields.u64(40)?, u64::from(fields.u32(36)?) * 8)?,
    })
}

fn check_features(fields: &Fields<'_>) -> Result<(), Refusal> {
    let incompatible = fields.u64(72)?;
    let header_length = fields.length(100)?;
    if header_length < V3_BYTES || !header_length.is_multiple_of(8) {
        return Err(Refusal::Malformed("its length is out of range"));
    }
    // Byte 104, present where the header reaches that far: 0 is zlib.
    let compression = header_length > V3_BYTES && fields.bytes(V3_BYTES, 1)? != [0];
    let known = [
        (1 << 0, Refusal::Dirty),
        (1 << 1, Refusal::Corrupt),
        (1 << 2, Refusal::ExternalData),
        (1 << 3, Refusal::CompressionType),
        (1 << 4, Refusal::ExtendedL2),
    ];
    for (bit, refusal) in known {
        if incompatible & bit != 0 {
            return Err(refusal);
        }
    }
    match incompatible {
        0 if compression => Err(Refusal::CompressionType),
        0 => Ok(()),
        bits => Err(Refusal::UnknownFeatures(bits)),
    }
}

fn backing(
    fields: &Fields<'_>,
    version: u32,
    cluster_size: usize,
) -> Result<Option<Backing>, Refusal> {
    let format = backing_format(fields, version, cluster_size)?;
    let at = fields.offset(8)?;
    if at == 0 {
        return Ok(None);
    }
    let len = fields.length(16)?;
    if !(1..=1023).contains(&len) {
        return Err(Refusal::Malformed(
            "its backing file's name has no valid length",
        ));
    }
    let name = std::str::from_utf8(fields.bytes(at, len)?)
        .map_err(|_| Refusal::Malformed("its backing file's name is not UTF-8"))?;
    let file = name.to_owned();
    let protocol = name
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'));
    if protocol || name.contains('\0') {
        return Err(Refusal::BackingName(file));
    }
    let format = match format {
        None => return Err(Refusal::NoBackingFormat(file)),
        Some(b"raw") => Format::Raw,
        Some(b"qcow2") => Format::Qcow2,
        Some(other) => {
            let other = String::from_utf8_lossy(other).into_owned();
            return Err(Refusal::BackingFormat(other));
        }
    };
    Ok(Some(Backing { file, format }))
}

/// Walks the header extensions for the backing file's format.
fn backing_format<'a>(
    fields: &Fields<'a>,
    version: u32,
    cluster_size: usize,
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut at = if version == 3 {
        fields.length(100)?
    } else {
        V2_BYTES
    };
    // They end with an extension of type 0, or where the backing file's name begins.
    let name = fields.offset(8)?;
    let end = if name == 0 { cluster_size } else { name };
    let mut format = None;
    while at.saturating_add(8) <= end {
        let (kind, len) = (fields.u32(at)?, fields.length(at + 4)?);
        if kind == 0 {
            break;
        }
        let data = fields.bytes(at + 8, len)?;
        match kind {
            EXTENSION_BACKING_FORMAT if format.is_some() => {
                return Err(Refusal::Malformed("it names two backing formats"));
            }
            EXTENSION_BACKING_FORMAT => format = Some(data),
            EXTENSION_FEATURE_NAMES if !len.is_multiple_of(FEATURE_NAME_BYTES) => {
                return Err(Refusal::Malformed("its feature names have no valid length"));
            }
            _ => {}
        }
        at = at.saturating_add(8 + len.next_multiple_of(8));
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header as `qemu-img create` writes it, with a backing file.
    fn sound() -> Vec<u8> {
        let mut bytes = vec![0; 65536];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &QCOW2_MAGIC);
        put(4, &3_u32.to_be_bytes());
        put(8, &136_u64.to_be_bytes());
        put(16, &8_u32.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 30).to_be_bytes());
        put(36, &2_u32.to_be_bytes());
        put(40, &(3_u64 << 16).to_be_bytes());
        put(48, &(1_u64 << 16).to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &112_u32.to_be_bytes());
        put(112, &EXTENSION_BACKING_FORMAT.to_be_bytes());
        put(116, &3_u32.to_be_bytes());
        put(120, b"raw");
        put(136, b"base.img");
        bytes
    }

    fn with(at: usize, field: &[u8]) -> Result<Header, Refusal> {
        let mut bytes = sound();
        bytes[at..at + field.len()].copy_from_slice(field);
        Header::parse(&bytes)
    }

    #[test]
    fn a_sound_header_reads_as_written() {
        let header = Header::parse(&sound()).unwrap();
        let backing = Backing {
            file: "base.img".to_owned(),
            format: Format::Raw,
        };
        assert_eq!(header.backing, Some(backing));
        assert_eq!((header.version, header.cluster_size), (3, 65536));
        let tables = Tables {
            cluster_size: 65536,
            reference_table: 0x1_0000..0x2_0000,
            reference_order: 4,
            l1: 0x3_0000..0x3_0010,
        };
        assert_eq!(header.tables, tables);
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        let cases: [(usize, &[u8], Refusal); 12] = [
            (0, b"QFI\0", Refusal::NotQcow2),
            (4, &4_u32.to_be_bytes(), Refusal::Version(4)),
            (32, &2_u32.to_be_bytes(), Refusal::Encrypted),
            (72, &1_u64.to_be_bytes(), Refusal::Dirty),
            (72, &2_u64.to_be_bytes(), Refusal::Corrupt),
            (72, &4_u64.to_be_bytes(), Refusal::ExternalData),
            (72, &8_u64.to_be_bytes(), Refusal::CompressionType),
            (104, &[1], Refusal::CompressionType),
            (72, &16_u64.to_be_bytes(), Refusal::ExtendedL2),
            (72, &32_u64.to_be_bytes(), Refusal::UnknownFeatures(32)),
            (24, &u64::MAX.to_be_bytes(), Refusal::Size(u64::MAX)),
            (
                136,
                b"nbd:host",
                Refusal::BackingName("nbd:host".to_owned()),
            ),
        ];
        for (at, field, refusal) in cases {
            assert_eq!(with(at, field), Err(refusal), "{field:?} at {at}");
        }
        for (at, field) in [(96, 7_u32), (44, 0x3_0001), (52, 0x1_0200), (40, 1 << 30)] {
            let refused = with(at, &field.to_be_bytes());
            assert!(
                matches!(refused, Err(Refusal::Malformed(_))),
                "{field:#x} at {at}"
            );
        }
        let no_format = Refusal::NoBackingFormat("base.img".to_owned());
        assert_eq!(with(112, &[0; 8]), Err(no_format));
        let vmdk = Refusal::BackingFormat("vmd".to_owned());
        assert_eq!(with(120, b"vmd"), Err(vmdk));
    }

    proptest! {
        #[test]
        fn no_header_is_trouble(
            changes in prop::collection::vec((0_usize..160, any::<u8>()), 0..12),
            len in 0_usize..1024,
        ) {
            let mut bytes = sound();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _ = Header::parse(&bytes);
            let _ = Header::parse(&bytes[..len]);
            prop_assert!((512..=1 << 21).contains(&wanted(&bytes[..len])));
        }
    }
}
