//! A request as the guest's kernel sent it.

use std::sync::Arc;

use fuse_backend_rs::api::filesystem::Context;

use super::decode::{Body, Malformed};
use super::extensions;
use super::interrupt::Interrupt;
use crate::file_system::Creator;
use crate::fuse::Opcode;
use crate::fuse::abi::{InHeader, WriteIn};
use crate::state::Entry;

/// Most bytes of arguments in a request, a write's data aside: an extended attribute of the
/// largest size with its name, or some thousand `FORGET`s in one, with room to spare.
pub const BODY_MAX: usize = 128 << 10;

/// How many bytes after the header are arguments, to be copied out of guest memory and decoded.
/// A write's data are not: they stay where they are until they go into the file.
///
/// # Errors
/// When the header's length is less than a header, or more than any request needs.
pub fn body_len(header: &InHeader) -> Result<usize, Malformed> {
    let len = (header.len as usize).checked_sub(size_of::<InHeader>());
    let len = len.ok_or(Malformed::Truncated)?;
    if header.opcode == Opcode::Write as u32 {
        return if len < size_of::<WriteIn>() {
            Err(Malformed::Truncated)
        } else {
            Ok(size_of::<WriteIn>())
        };
    }
    if len > BODY_MAX {
        Err(Malformed::OutOfRange)
    } else {
        Ok(len)
    }
}

/// A request: who asks for what, and the arguments.
#[derive(Debug)]
pub struct Request<'a> {
    /// What is asked for.
    pub opcode: Opcode,
    /// The kernel's number for this request; the reply repeats it.
    pub unique: u64,
    /// The node it is about.
    pub node: u64,
    /// Who asks.
    pub creator: Creator,
    /// The arguments.
    pub body: Body<'a>,
    /// What may end it early, where it takes long.
    pub interrupt: Option<Arc<Interrupt>>,
    /// Its place in the journal, if it must not happen twice.
    pub entry: Option<Arc<Entry>>,
}

impl<'a> Request<'a> {
    /// Decodes what is common to all requests. `None`: there is no such request.
    ///
    /// # Errors
    /// When the extensions do not fit the body.
    pub fn decode(header: &InHeader, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(opcode) = Opcode::from_number(header.opcode) else {
            return Ok(None);
        };
        let (body, extensions) = split_extensions(header, body)?;
        let mut creator = Creator::new(Context::from(header));
        extensions::take(&mut Body::new(extensions), &mut creator)?;
        Ok(Some(Self {
            opcode,
            unique: header.unique,
            node: header.nodeid,
            creator,
            body: Body::new(body),
            interrupt: None,
            entry: None,
        }))
    }

    /// Takes the security labels that kernels before 7.38 send after all arguments.
    ///
    /// # Errors
    /// When they do not fit the body.
    pub fn take_late_labels(&mut self) -> Result<(), Malformed> {
        extensions::take(&mut self.body, &mut self.creator)
    }

    /// Who asks, without groups.
    pub fn context(&self) -> &Context {
        &self.creator.context
    }
}

/// `fuse_in_header.total_extlen` (7.38): so many units of eight bytes at the end are extensions.
/// Older kernels leave the field 0.
fn split_extensions<'a>(
    header: &InHeader,
    body: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let len = (header.padding & 0xffff) as usize * 8;
    let arguments = body.len().checked_sub(len).ok_or(Malformed::Truncated)?;
    Ok(body.split_at(arguments))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(opcode: Opcode, extensions: u32) -> InHeader {
        InHeader {
            opcode: opcode as u32,
            padding: extensions,
            ..Default::default()
        }
    }

    #[test]
    fn groups_come_after_the_arguments() {
        let body: Vec<u8> = [
            &b"ab\0"[..],
            &[16, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
        ]
        .concat();
        let request = Request::decode(&header(Opcode::Mkdir, 2), &body)
            .unwrap()
            .unwrap();
        assert_eq!(request.creator.groups.as_slice(), [7]);
        assert_eq!(request.body.rest(), b"ab\0");
    }

    #[test]
    fn extensions_that_lie_are_refused() {
        // More than there is; a record shorter than its header; more groups than the record has.
        let short = Request::decode(&header(Opcode::Mkdir, 3), &[0; 16]);
        assert_eq!(short.unwrap_err(), Malformed::Truncated);
        let zero = Request::decode(&header(Opcode::Mkdir, 1), &[0; 8]);
        assert_eq!(zero.unwrap_err(), Malformed::OutOfRange);
        let many = [16, 0, 0, 0, 32, 0, 0, 0, 255, 255, 255, 255, 7, 0, 0, 0];
        let many = Request::decode(&header(Opcode::Mkdir, 2), &many);
        assert_eq!(many.unwrap_err(), Malformed::Truncated);
    }

    #[test]
    fn a_write_keeps_its_data_out_of_the_body() {
        let mut write = header(Opcode::Write, 0);
        write.len = 40 + 40 + (1 << 20);
        assert_eq!(body_len(&write), Ok(40));
        write.len = 79;
        assert_eq!(body_len(&write), Err(Malformed::Truncated));
        let mut other = header(Opcode::Setxattr, 0);
        other.len = u32::MAX;
        assert_eq!(body_len(&other), Err(Malformed::OutOfRange));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(
            opcode in 0..60u32,
            extensions in 0..20u32,
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let header = InHeader { opcode, padding: extensions, ..Default::default() };
            let _ = Request::decode(&header, &body);
        }
    }
}
