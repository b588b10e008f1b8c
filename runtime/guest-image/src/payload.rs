//! Finds and unpacks the ELF kernel inside a bzImage.

use std::path::Path;

use crate::Error;
use crate::tool::Tool;

// Offsets in the setup header: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL_VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first protocol version that says where the payload lies.
const FIRST_WITH_PAYLOAD: u16 = 0x0208;
const SECTOR: usize = 512;
/// `setup_sects` of zero means four, for old kernels' sake.
const DEFAULT_SETUP_SECTS: usize = 4;
/// The build appends the unpacked size to the compressed data (arch/x86/boot/compressed/Makefile);
/// a gzip stream ends with the same word by itself.
const SIZE_WORD: usize = 4;

/// How a kernel's payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadFormat {
    /// LZ4's legacy frame.
    Lz4,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Not compressed at all.
    Elf,
}

impl PayloadFormat {
    fn detect(payload: &[u8]) -> Option<Self> {
        let formats: [(&[u8], Self); 5] = [
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            (&[0x1f, 0x8b], Self::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Self::Xz),
            (b"\x7fELF", Self::Elf),
        ];
        formats
            .into_iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map(|(_, format)| format)
    }

    fn tool(self) -> Option<Tool> {
        let tool = |program, package| Some(Tool { program, package });
        match self {
            Self::Lz4 => tool("lz4", "lz4"),
            Self::Zstd => tool("zstd", "zstd"),
            Self::Gzip => tool("gzip", "gzip"),
            Self::Xz => tool("xz", "xz-utils"),
            Self::Elf => None,
        }
    }
}

/// The compressed kernel inside a bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How it is compressed.
    pub format: PayloadFormat,
    /// The compressed bytes alone.
    pub bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Finds the payload of a bzImage.
    ///
    /// # Errors
    /// In a few words, what does not fit the boot protocol.
    pub fn find(image: &'a [u8]) -> Result<Self, &'static str> {
        if image.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
            return Err("its setup header has no magic \"HdrS\"");
        }
        let version = image.get(PROTOCOL_VERSION..PROTOCOL_VERSION + 2);
        let version = version
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_le_bytes);
        if version < Some(FIRST_WITH_PAYLOAD) {
            return Err("its boot protocol is older than 2.08 (Linux 2.6.26)");
        }
        let sectors = match image.get(SETUP_SECTS) {
            Some(0) | None => DEFAULT_SETUP_SECTS,
            Some(&sectors) => sectors.into(),
        };
        let bytes = word(image, PAYLOAD_OFFSET)
            .and_then(|offset| offset.checked_add((sectors + 1) * SECTOR))
            .zip(word(image, PAYLOAD_LENGTH))
            .and_then(|(start, length)| image.get(start..start.checked_add(length)?))
            .ok_or("its payload lies outside the file")?;
        let format = PayloadFormat::detect(bytes)
            .ok_or("its payload is compressed in a way other than lz4, zstd, gzip or xz")?;
        let kept = match format {
            PayloadFormat::Gzip | PayloadFormat::Elf => bytes.len(),
            _ => bytes.len().saturating_sub(SIZE_WORD),
        };
        Ok(Self {
            format,
            bytes: &bytes[..kept],
        })
    }

    /// Unpacks the kernel with the format's own program.
    ///
    /// # Errors
    /// When the program is missing or fails, or what came out is no ELF file.
    pub fn unpack(&self, image: &Path) -> Result<Vec<u8>, Error> {
        let elf = match self.format.tool() {
            Some(tool) => tool.filter(self.bytes, |command| command.args(["-d", "-c"]))?,
            None => self.bytes.to_vec(),
        };
        if !elf.starts_with(b"\x7fELF") {
            let reason = "its payload does not unpack to an ELF kernel";
            return Err(Error::NotBzImage {
                path: image.to_owned(),
                reason,
            });
        }
        Ok(elf)
    }
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bzimage(payload: &[u8], offset: u32) -> Vec<u8> {
        let mut image = vec![0; 3 * SECTOR];
        image[SETUP_SECTS] = 1;
        image[HEADER_MAGIC..][..4].copy_from_slice(b"HdrS");
        image[PROTOCOL_VERSION..][..2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..][..4].copy_from_slice(&offset.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
        let start = 2 * SECTOR + usize::try_from(offset).unwrap_or(usize::MAX - 2 * SECTOR);
        if start < 1 << 20 {
            image.resize(start, 0);
            image.extend_from_slice(payload);
        }
        image
    }

    #[test]
    fn each_format_is_found_and_its_size_word_dropped() {
        let lz4 = [0x02, 0x21, 0x4c, 0x18, 9, 9, 1, 0, 0, 0];
        let image = bzimage(&lz4, 700);
        let payload = Payload::find(&image).unwrap();
        assert_eq!(
            payload,
            Payload {
                format: PayloadFormat::Lz4,
                bytes: &lz4[..6]
            }
        );
        let gzip = [0x1f, 0x8b, 9, 1, 0, 0, 0];
        let image = bzimage(&gzip, 700);
        assert_eq!(Payload::find(&image).unwrap().bytes, gzip);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Payload::find(b"short").unwrap_err().contains("HdrS"));
        assert!(
            Payload::find(&bzimage(b"???", 700))
                .unwrap_err()
                .contains("compressed")
        );
        assert!(
            Payload::find(&bzimage(b"", u32::MAX))
                .unwrap_err()
                .contains("outside")
        );
        let mut old = bzimage(b"", 0);
        old[PROTOCOL_VERSION] = 7;
        old[PROTOCOL_VERSION + 1] = 2;
        assert!(Payload::find(&old).unwrap_err().contains("older"));
    }

    #[test]
    fn an_lz4_payload_unpacks() {
        let elf = [b"\x7fELF".as_slice(), &[5; 9000]].concat();
        let lz4 = Tool {
            program: "lz4",
            package: "lz4",
        };
        let mut packed = lz4.filter(&elf, |lz4| lz4.args(["-l", "-c"])).unwrap();
        packed.extend_from_slice(&9004_u32.to_le_bytes());
        let image = bzimage(&packed, 700);
        assert_eq!(
            Payload::find(&image)
                .unwrap()
                .unpack("image".as_ref())
                .unwrap(),
            elf
        );
    }

    proptest! {
        #[test]
        fn no_image_makes_it_panic(mut image in prop::collection::vec(any::<u8>(), 0..2048), magic: bool) {
            if magic && image.len() > 0x206 {
                image[HEADER_MAGIC..][..4].copy_from_slice(b"HdrS");
            }
            let _ = Payload::find(&image);
        }
    }
}
