//! Which system calls which thread of the VMM may make, beyond what every thread does
//! (`vhost_daemon::sandbox::seccomp`).

use std::sync::OnceLock;

use vhost_daemon::sandbox::seccomp::{Action, Arguments, Call, Role, SeccompError, ThreadFilters};

/// All of the process, as threads are made where they are needed: by a processor that starts a device, by
/// an order that plugs one.
static FILTERS: OnceLock<ThreadFilters> = OnceLock::new();

/// Binds this thread, and those it starts, to the main thread's list.
///
/// # Errors
/// When the kernel takes no filter.
pub fn enter_main(action: Action) -> Result<(), SeccompError> {
    let lists = [
        (Role::Main, [MAIN, PROCESSOR].concat()),
        (Role::Processor, PROCESSOR.to_vec()),
    ];
    let filters = ThreadFilters::of(action, lists)?;
    filters.enter(Role::Main)?;
    // The second time nothing changes: a process has one main thread.
    let _ = FILTERS.set(filters);
    Ok(())
}

/// Binds this thread, and those it starts, to a processor's list, if there are lists.
///
/// # Errors
/// When the kernel takes no filter: then the thread must not work.
pub fn enter_processor() -> Result<(), SeccompError> {
    FILTERS
        .get()
        .map_or(Ok(()), |filters| filters.enter(Role::Processor))
}

const AF_UNIX: u32 = libc::AF_UNIX.unsigned_abs();
/// KVM's calls have this type (linux/kvm.h, `KVMIO`), in bits 8 to 15.
const KVM: Arguments = Arguments::Masked(1, 0xff00, 0xae00);
/// The signal that brings a processor out of its guest, the second after the C library's own.
const KICK: u32 = 34;

/// A guest's processor, and what it starts: a source of random numbers, say.
const PROCESSOR: &[Call] = &[
    Call::only(libc::SYS_ioctl, KVM, "the guest; its interrupts and kicks"),
    Call::any(libc::SYS_read, "eventfds; random numbers"),
    Call::any(libc::SYS_eventfd2, "an event for each queue and vector"),
    Call::any(libc::SYS_fcntl, "copies of events; their flags"),
    Call::any(libc::SYS_epoll_create1, "a thread of a device"),
    Call::any(libc::SYS_epoll_ctl, "a thread of a device"),
    Call::any(libc::SYS_epoll_pwait, "a thread of a device"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_epoll_wait, "a thread of a device"),
    Call::any(libc::SYS_fallocate, "memory that the guest gives back"),
    Call::only(
        libc::SYS_clone,
        Arguments::With(0, libc::CLONE_THREAD.unsigned_abs()),
        "a thread of a device",
    ),
];

/// Setting up a machine, its devices' daemons, the console, orders.
const MAIN: &[Call] = &[
    Call::any(
        libc::SYS_openat,
        "/dev/kvm, the console's file, what orders name",
    ),
    Call::any(libc::SYS_fstat, "kernel, initramfs, memory"),
    Call::any(libc::SYS_newfstatat, "kernel, initramfs, memory"),
    Call::any(libc::SYS_statx, "kernel, initramfs, memory"),
    Call::any(libc::SYS_fstatfs, "the size of memory's pages"),
    Call::any(libc::SYS_lseek, "kernel and initramfs"),
    Call::any(libc::SYS_pread64, "kernel and initramfs"),
    Call::any(libc::SYS_preadv, "kernel and initramfs"),
    Call::any(libc::SYS_pwrite64, "files that orders name"),
    Call::any(libc::SYS_readv, "kernel and initramfs"),
    Call::any(libc::SYS_writev, "answers; files that orders name"),
    Call::any(libc::SYS_fsync, "files that orders name"),
    Call::any(libc::SYS_fdatasync, "files that orders name"),
    Call::any(libc::SYS_ftruncate, "the guest's memory"),
    Call::any(libc::SYS_memfd_create, "the guest's memory"),
    Call::only(
        libc::SYS_ioctl,
        Arguments::Masked(1, 0xff00, 0x5400),
        "the terminal; sockets that do not wait",
    ),
    Call::only(
        libc::SYS_socket,
        Arguments::Is(0, AF_UNIX),
        "daemons, the console, orders",
    ),
    Call::only(
        libc::SYS_socketpair,
        Arguments::Is(0, AF_UNIX),
        "signals; daemons' requests",
    ),
    Call::any(libc::SYS_connect, "daemons"),
    Call::any(libc::SYS_bind, "the console, orders"),
    Call::any(libc::SYS_listen, "the console, orders"),
    Call::any(libc::SYS_accept4, "the console, orders"),
    Call::any(libc::SYS_getsockname, "the console, orders"),
    Call::any(libc::SYS_getsockopt, "what a socket is"),
    Call::any(libc::SYS_setsockopt, "time limits"),
    Call::any(libc::SYS_shutdown, "the end of a connection"),
    Call::any(libc::SYS_sendmsg, "messages with descriptors"),
    Call::any(libc::SYS_recvmsg, "messages with descriptors"),
    Call::any(libc::SYS_recvfrom, "messages"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll, "daemons, orders"),
    Call::any(libc::SYS_ppoll, "daemons, orders"),
    Call::any(libc::SYS_timerfd_create, "time limits"),
    Call::any(libc::SYS_timerfd_settime, "time limits"),
    Call::any(libc::SYS_pipe2, "signals"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_unlink, "sockets' files"),
    Call::any(libc::SYS_unlinkat, "sockets' files"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_mkdir, "a snapshot's folder"),
    Call::any(libc::SYS_mkdirat, "a snapshot's folder"),
    Call::any(libc::SYS_copy_file_range, "a snapshot"),
    Call::any(libc::SYS_sendfile, "a snapshot"),
    Call::any(libc::SYS_syncfs, "a snapshot"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_rename, "files that orders name"),
    Call::any(libc::SYS_renameat, "files that orders name"),
    Call::any(libc::SYS_fchmod, "who may connect"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_chmod, "who may connect"),
    Call::any(libc::SYS_fchmodat, "who may connect"),
    Call::any(libc::SYS_umask, "who may connect"),
    Call::any(libc::SYS_set_robust_list, "threads"),
    Call::any(libc::SYS_getppid, "orders"),
    Call::any(libc::SYS_sysinfo, "allocator"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_readlink, "where files are"),
    Call::any(libc::SYS_sched_getaffinity, "allocator: how many arenas"),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, KICK),
        "the signal that brings a processor out",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, 33),
        "the C library's own signal (SIGSETXID), with the first thread",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, libc::SIGTERM.unsigned_abs()),
        "the end",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, libc::SIGINT.unsigned_abs()),
        "the end",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, libc::SIGHUP.unsigned_abs()),
        "the end",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_runs_programs_or_looks_into_others() {
        let never = [
            libc::SYS_execve,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_kill,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
        ];
        for call in MAIN.iter().chain(PROCESSOR) {
            assert!(!never.contains(&call.number), "{}", call.why);
            assert!(call.why.len() > 3, "{}", call.number);
        }
    }

    #[test]
    fn a_processor_opens_and_connects_nothing() {
        let never = [libc::SYS_openat, libc::SYS_socket, libc::SYS_connect];
        assert!(PROCESSOR.iter().all(|call| !never.contains(&call.number)));
    }
}
