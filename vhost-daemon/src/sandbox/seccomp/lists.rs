//! The lists.

use super::{Arguments, Call, Calls, Role};

/// The roles that have lists.
pub(super) const ROLES: [Role; 7] = [
    Role::Main,
    Role::Session,
    Role::Relay,
    Role::Signals,
    Role::Metrics,
    Role::Queue,
    Role::Helper,
];

/// The list of `role` in a daemon that needs `more`.
pub(super) fn calls(role: Role, more: Calls) -> Vec<Call> {
    let lists: &[&[Call]] = match role {
        Role::Main | Role::Device | Role::Control => &[
            MAIN,
            SESSION,
            RELAY,
            SIGNALS,
            METRICS,
            QUEUE,
            FILES,
            more.queue,
            more.session,
            more.control,
        ],
        Role::Session => &[SESSION, more.session],
        Role::Relay => &[RELAY],
        Role::Signals => &[SIGNALS],
        Role::Metrics => &[METRICS],
        Role::Queue => &[QUEUE, FILES, more.queue],
        Role::Helper => &[FILES, more.queue],
        Role::Processor => &[],
    };
    with_any_thread(lists.concat())
}

/// A list, after what every thread does.
pub(super) fn with_any_thread(calls: Vec<Call>) -> Vec<Call> {
    [ANY_THREAD.to_vec(), calls].concat()
}

/// Calls that are not made, but whose asking is no crime: each with what it is answered.
pub(super) fn refused(calls: &[Call]) -> Vec<(i64, i32)> {
    // Its flags are where a filter does not see them. Without it the C library uses clone(2).
    let mut refused = vec![(libc::SYS_clone3, libc::ENOSYS)];
    // The allocator looks how many processors there are, and whether memory is overcommitted; it
    // does without.
    if !calls.iter().any(|call| call.number == libc::SYS_openat) {
        refused.push((libc::SYS_openat, libc::EACCES));
    }
    refused
}

const PROT_EXEC: u32 = libc::PROT_EXEC.unsigned_abs();

/// What every thread does: memory, locks, log lines, its own beginning and end.
const ANY_THREAD: &[Call] = &[
    Call::any(libc::SYS_write, "log lines; eventfds"),
    Call::only(
        libc::SYS_sendto,
        Arguments::Is(4, 0),
        "log lines to syslog; a reply on a connected socket",
    ),
    Call::any(libc::SYS_close, "owners close their descriptors"),
    Call::only(
        libc::SYS_fcntl,
        Arguments::Is(1, libc::F_GETFD.unsigned_abs()),
        "whether a descriptor is open, before a debug build closes it",
    ),
    Call::any(libc::SYS_futex, "locks, and waiting for threads"),
    Call::only(
        libc::SYS_mmap,
        Arguments::Without(2, PROT_EXEC),
        "allocator, stacks, guest memory: data, never code",
    ),
    Call::only(
        libc::SYS_mprotect,
        Arguments::Without(2, PROT_EXEC),
        "allocator, guard pages of stacks",
    ),
    Call::any(libc::SYS_munmap, "allocator, stacks, guest memory"),
    Call::any(libc::SYS_mremap, "allocator"),
    Call::any(libc::SYS_madvise, "allocator, a thread's stack at its end"),
    Call::any(libc::SYS_brk, "allocator"),
    Call::any(libc::SYS_getrandom, "keys of hash tables"),
    Call::any(libc::SYS_geteuid, "whether who gives orders may"),
    Call::any(
        libc::SYS_clock_gettime,
        "times, where the vDSO has no clock",
    ),
    Call::any(libc::SYS_clock_nanosleep, "waiting before a new try"),
    Call::any(libc::SYS_nanosleep, "waiting before a new try"),
    Call::any(libc::SYS_restart_syscall, "a wait that a stop interrupted"),
    Call::any(libc::SYS_sched_yield, "spinning politely"),
    Call::any(libc::SYS_sched_getaffinity, "allocator: how many arenas"),
    Call::any(libc::SYS_rt_sigprocmask, "a thread's beginning and end"),
    Call::any(libc::SYS_rt_sigreturn, "the end of a signal handler"),
    Call::any(libc::SYS_sigaltstack, "a thread's beginning and end"),
    Call::any(libc::SYS_set_robust_list, "a thread's beginning"),
    Call::any(libc::SYS_rseq, "a thread's beginning"),
    Call::any(libc::SYS_gettid, "a thread's beginning; abort"),
    Call::any(libc::SYS_getpid, "abort"),
    Call::only(
        libc::SYS_tgkill,
        Arguments::OwnProcess(0),
        "abort, after a panic within a panic; a queue that its call descriptor holds up",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, libc::SIGSEGV.unsigned_abs()),
        "a bad access, told and then left to the default action",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, libc::SIGBUS.unsigned_abs()),
        "a bad access, told and then left to the default action",
    ),
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, libc::SIGABRT.unsigned_abs()),
        "abort, where the signal was caught",
    ),
    Call::any(libc::SYS_exit, "a thread's end"),
    Call::any(libc::SYS_exit_group, "the end"),
    Call::only(
        libc::SYS_prctl,
        Arguments::Is(0, libc::PR_SET_NAME.unsigned_abs()),
        "a thread's name",
    ),
    Call::only(
        libc::SYS_prctl,
        Arguments::Is(0, libc::PR_SET_NO_NEW_PRIVS.unsigned_abs()),
        "comes with a filter",
    ),
    Call::only(
        libc::SYS_seccomp,
        Arguments::Is(0, libc::SECCOMP_SET_MODE_FILTER),
        "a narrower filter",
    ),
];

const AF_UNIX: u32 = libc::AF_UNIX.unsigned_abs();

/// Accepting, and starting what serves a connection.
const MAIN: &[Call] = &[
    Call::only(
        libc::SYS_rt_sigaction,
        Arguments::Is(0, 33),
        "the C library's own signal (SIGSETXID), with the first thread",
    ),
    Call::any(libc::SYS_accept4, "front ends"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll, "waiting for front ends"),
    Call::any(libc::SYS_ppoll, "waiting for front ends"),
    Call::any(libc::SYS_recvfrom, "whether a front end speaks"),
    Call::only(
        libc::SYS_socket,
        Arguments::Is(0, AF_UNIX),
        "the relay's two ends",
    ),
    Call::only(
        libc::SYS_socketpair,
        Arguments::Is(0, AF_UNIX),
        "waking the thread of signals",
    ),
    Call::any(libc::SYS_bind, "the relay's listener"),
    Call::any(libc::SYS_listen, "the relay's listener"),
    Call::any(libc::SYS_getsockname, "the relay's listener"),
    Call::any(libc::SYS_connect, "the relay's other end"),
    Call::only(
        libc::SYS_ioctl,
        Arguments::Is(1, 0x5421),
        "FIONBIO: the relay's two ends wait",
    ),
    Call::any(libc::SYS_getsockopt, "what an inherited socket is"),
    Call::any(libc::SYS_shutdown, "the end of a connection"),
    Call::any(libc::SYS_fcntl, "copies of descriptors; their flags"),
    Call::any(libc::SYS_eventfd2, "wake-ups of threads"),
    Call::any(libc::SYS_epoll_create1, "the library's loop"),
    Call::any(libc::SYS_epoll_ctl, "the library's loop"),
    Call::any(libc::SYS_read, "eventfds"),
    Call::only(
        libc::SYS_clone,
        Arguments::With(0, libc::CLONE_THREAD.unsigned_abs()),
        "threads, never processes",
    ),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_unlink, "sockets' files, where they are in reach"),
    Call::any(
        libc::SYS_unlinkat,
        "sockets' files, where they are in reach",
    ),
];

/// vhost-user's messages.
const SESSION: &[Call] = &[
    Call::any(libc::SYS_accept4, "the relay's connection"),
    Call::any(libc::SYS_recvmsg, "messages with their descriptors"),
    Call::any(libc::SYS_recvfrom, "messages"),
    Call::any(libc::SYS_ppoll, "whether a kick is there"),
    Call::any(libc::SYS_sendmsg, "answers"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll, "whether a kick is there"),
    Call::any(libc::SYS_read, "eventfds"),
    Call::any(libc::SYS_fcntl, "copies of descriptors; their flags"),
    Call::any(libc::SYS_fstat, "whether memory is as large as its file"),
    Call::any(
        libc::SYS_newfstatat,
        "whether memory is as large as its file",
    ),
    Call::any(libc::SYS_statx, "whether memory is as large as its file"),
    Call::any(libc::SYS_lseek, "whether memory is as large as its file"),
    Call::any(libc::SYS_fstatfs, "the size of memory's pages"),
    Call::any(libc::SYS_getsockopt, "what the channel to the front end is"),
    Call::any(libc::SYS_epoll_ctl, "kicks of rings that rest"),
    Call::any(libc::SYS_eventfd2, "wake-ups of queues"),
    Call::any(libc::SYS_shutdown, "the end of the connection"),
];

/// Control messages, passed on.
const RELAY: &[Call] = &[
    Call::any(libc::SYS_recvmsg, "messages with their descriptors"),
    Call::any(libc::SYS_sendmsg, "messages with their descriptors"),
    Call::any(libc::SYS_fcntl, "a copy of the channel to the front end"),
    Call::any(
        libc::SYS_getsockopt,
        "whether a descriptor of the front end's is a socket",
    ),
    Call::any(libc::SYS_fstatfs, "the size of memory's pages"),
    Call::any(libc::SYS_shutdown, "the end of the connection"),
];

/// Signals, and what they ask for.
const SIGNALS: &[Call] = &[
    Call::any(libc::SYS_read, "what the handler wrote"),
    Call::any(libc::SYS_recvfrom, "what the handler wrote"),
    Call::any(libc::SYS_ppoll, "waiting for that"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll, "waiting for that"),
    Call::any(libc::SYS_shutdown, "the end of the connection at hand"),
];

/// Readers of the metrics.
const METRICS: &[Call] = &[
    Call::any(libc::SYS_accept4, "readers"),
    Call::any(libc::SYS_setsockopt, "a slow reader's time limit"),
];

/// A ring and its io_uring.
const QUEUE: &[Call] = &[
    Call::any(libc::SYS_io_uring_setup, "the queue's ring"),
    Call::any(libc::SYS_io_uring_enter, "all that waits, and data"),
    Call::any(libc::SYS_io_uring_register, "registered files"),
    Call::any(
        libc::SYS_epoll_pwait,
        "the library's loop, while the ring rests",
    ),
    #[cfg(target_arch = "x86_64")]
    Call::any(
        libc::SYS_epoll_wait,
        "the library's loop, while the ring rests",
    ),
    Call::any(libc::SYS_epoll_ctl, "the library's loop"),
    #[cfg(target_arch = "x86_64")]
    Call::any(
        libc::SYS_poll,
        "whether a call descriptor has room; waiting for the call to stop",
    ),
    Call::any(libc::SYS_ppoll, "waiting for the call to stop"),
    Call::any(libc::SYS_read, "eventfds"),
    Call::any(libc::SYS_eventfd2, "the call to stop"),
    Call::any(libc::SYS_fstatfs, "the size of memory's pages"),
    Call::any(libc::SYS_fstat, "whether memory is as large as its file"),
    Call::any(libc::SYS_statx, "whether memory is as large as its file"),
];

/// Data of requests, and what they need descriptors for.
const FILES: &[Call] = &[
    Call::any(libc::SYS_fcntl, "copies of descriptors; their flags"),
    Call::any(libc::SYS_preadv, "data, inline"),
    Call::any(libc::SYS_preadv2, "data, inline"),
    Call::any(libc::SYS_pwritev, "data, inline"),
    Call::any(libc::SYS_pwritev2, "data, inline"),
];
