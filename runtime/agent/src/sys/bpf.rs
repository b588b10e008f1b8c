//! A program that decides which devices a cgroup's processes may use (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Of `enum bpf_cmd`, `bpf_prog_type` and `bpf_attach_type` in linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

/// One instruction (`struct bpf_insn`), as the kernel reads it.
pub(crate) type Instruction = u64;

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zeros.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    first: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

/// Loads a program and gives it to a cgroup, in the place of the one that it had.
pub(crate) fn limit_devices(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let program = load(program)?;
    let attach = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: both descriptors are open over the call, and it writes no memory.
    unsafe { bpf(PROG_ATTACH, &attach) }.map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        program_type: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        first: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: program and license are alive over the call, with the length told; without a log the kernel only reads.
    let fd = unsafe { bpf(PROG_LOAD, &load) }?;
    // SAFETY: the kernel has just opened it for this caller (close-on-exec), and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// Pointers within `attributes` must be valid for what the command does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel copies `size` bytes in, which are there; what they point to is the caller's to answer for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    let result = i32::try_from(result).map_err(io::Error::other)?;
    super::check(result).map(|()| result)
}
