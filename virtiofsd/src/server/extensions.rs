//! What comes after a request's arguments: the creator's groups, and labels for what it creates.

use super::decode::{Body, Malformed};
use crate::file_system::{Creator, Label};
use crate::fuse::abi::{EXTENSION_GROUPS, ExtensionHeader, SECURITY_CONTEXTS_MAX, SecurityContext};
use crate::fuse::{XATTR_NAME_MAX, XATTR_SIZE_MAX};

/// Records start on eight bytes (`FUSE_REC_ALIGN`).
const ALIGNMENT: usize = 8;

/// Takes all that `extensions` hold into `creator`.
///
/// # Errors
/// When a record does not fit.
pub(super) fn take(extensions: &mut Body<'_>, creator: &mut Creator) -> Result<(), Malformed> {
    while !extensions.rest().is_empty() {
        let header: ExtensionHeader = extensions.take()?;
        let len = (header.size as usize).checked_sub(size_of::<ExtensionHeader>());
        let len = len.ok_or(Malformed::OutOfRange)?;
        let mut record = Body::new(extensions.take_bytes(len)?);
        match header.kind {
            count @ ..=SECURITY_CONTEXTS_MAX => {
                for _ in 0..count {
                    creator.labels.push(label(&mut record)?);
                }
            }
            EXTENSION_GROUPS => {
                let count: u32 = record.take()?;
                for _ in 0..count {
                    creator.groups.push(record.take()?);
                }
            }
            // Newer than this server.
            _ => {}
        }
        skip_padding(extensions, len)?;
    }
    Ok(())
}

fn label(record: &mut Body<'_>) -> Result<Label, Malformed> {
    let before = record.rest().len();
    let context: SecurityContext = record.take()?;
    let size = context.size as usize;
    let name = record.take_string(XATTR_NAME_MAX)?;
    // Any other attribute has a request of its own, with its own checks.
    if size > XATTR_SIZE_MAX || !name.to_bytes().starts_with(b"security.") {
        return Err(Malformed::OutOfRange);
    }
    let label = Label {
        name: name.into(),
        value: record.take_bytes(size)?.to_vec(),
    };
    skip_padding(record, before - record.rest().len())?;
    Ok(label)
}

/// Skips what follows `len` bytes up to the next record; the last one may end without.
fn skip_padding(body: &mut Body<'_>, len: usize) -> Result<(), Malformed> {
    let padding = len.next_multiple_of(ALIGNMENT) - len;
    body.take_bytes(padding.min(body.rest().len())).map(drop)
}

#[cfg(test)]
mod tests {
    use fuse_backend_rs::api::filesystem::Context;
    use proptest::prelude::*;

    use super::*;

    fn taken(bytes: &[u8]) -> Result<Creator, Malformed> {
        let context = Context {
            uid: 0,
            gid: 0,
            pid: 0,
        };
        let mut creator = Creator::new(context);
        take(&mut Body::new(bytes), &mut creator).map(|()| creator)
    }

    fn record(kind: u32, content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(8 + content.len()).unwrap();
        let mut bytes = [size.to_le_bytes(), kind.to_le_bytes()].concat();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn context(name: &str, value: &[u8]) -> Vec<u8> {
        let size = u32::try_from(value.len()).unwrap();
        let mut bytes = [size.to_le_bytes(), [0; 4]].concat();
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn groups_and_labels_come_in_records() {
        let two = [context("security.a", b"one"), context("security.bc", b"")].concat();
        let groups = record(EXTENSION_GROUPS, &[1, 0, 0, 0, 7, 0, 0, 0]);
        let creator = taken(&[record(2, &two), record(99, b"new"), groups].concat()).unwrap();
        assert_eq!(creator.groups.as_slice(), [7]);
        let labels: Vec<_> = creator
            .labels
            .iter()
            .map(|label| (label.name.to_str().unwrap(), &label.value[..]))
            .collect();
        assert_eq!(labels, [("security.a", &b"one"[..]), ("security.bc", b"")]);
        // What a kernel without a security module sends: no label, in a record.
        assert!(taken(&record(0, b"")).unwrap().labels.is_empty());
    }

    #[test]
    fn labels_that_lie_or_are_none_are_refused() {
        let one = context("security.a", b"one");
        assert_eq!(taken(&record(2, &one)).unwrap_err(), Malformed::Truncated);
        let long = record(1, &context("security.a", &[0; XATTR_SIZE_MAX + 1]));
        assert_eq!(taken(&long).unwrap_err(), Malformed::OutOfRange);
        let other = record(1, &context("user.a", b"one"));
        assert_eq!(taken(&other).unwrap_err(), Malformed::OutOfRange);
        let unterminated = record(1, &[0, 0, 0, 0, 0, 0, 0, 0, b's', b'e', b'c', b'u']);
        assert_eq!(taken(&unterminated).unwrap_err(), Malformed::Unterminated);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = taken(&bytes);
        }
    }
}
