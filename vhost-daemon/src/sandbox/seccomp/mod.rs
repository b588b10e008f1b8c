//! Which system calls which thread may make (seccomp(2)).
//!
//! One list for each [`Role`], each call with its reason. The main thread starts all others, also
//! the library's, and a filter can only be narrowed: so the main thread's list is all lists
//! together, and each other thread takes its own when it starts to work. A call that is not on the
//! list does not happen.
//!
//! What a thread hands to its io_uring passes by these filters; its files, capabilities and
//! namespaces bound that.

mod lists;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use clap::ValueEnum;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use thiserror::Error;

use super::sys;

/// What becomes of a system call that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// It is allowed: there are no filters
    None,
    /// The daemon says which thread made which call, and ends with code 159
    Kill,
    /// It is allowed, and the kernel's audit log tells of it
    Log,
    /// The daemon ends by SIGSYS, with a core file where such are wanted
    Trap,
}

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts front ends and starts threads.
    Main,
    /// Speaks vhost-user with one front end.
    Session,
    /// Passes control messages on.
    Relay,
    /// Waits for signals.
    Signals,
    /// Serves the metrics socket.
    Metrics,
    /// Owns a queue.
    Queue,
    /// Serves requests for the queues' threads. Its list is theirs, but for the ring.
    Helper,
    /// Accepts front ends of one device of several, and starts threads. Its list is the main
    /// thread's.
    Device,
    /// Carries out commands, and starts threads. Its list is the main thread's.
    Control,
    /// Runs a guest's processor (a VMM, which has lists of its own).
    Processor,
}

/// What threads of one daemon need beyond those of all daemons.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Those that own queues.
    pub queue: &'static [Call],
    /// Those that speak vhost-user.
    pub session: &'static [Call],
    /// Those that carry out commands, and the main thread.
    pub control: &'static [Call],
}

/// A system call, or some uses of one, and why it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Which uses.
    pub arguments: Arguments,
    /// What for.
    pub why: &'static str,
}

/// Which uses of a system call: the argument's index, from 0, and what is in its low 32 bits.
#[derive(Clone, Copy, Debug)]
pub enum Arguments {
    /// All.
    Any,
    /// This value.
    Is(u8, u32),
    /// None of these bits.
    Without(u8, u32),
    /// All of these bits.
    With(u8, u32),
    /// This value in these bits: mask, value.
    Masked(u8, u32, u32),
    /// This process' id.
    OwnProcess(u8),
}

impl Call {
    /// Any use of call `number`.
    pub const fn any(number: libc::c_long, why: &'static str) -> Self {
        Self::only(number, Arguments::Any, why)
    }

    /// Some uses of call `number`.
    pub const fn only(number: libc::c_long, arguments: Arguments, why: &'static str) -> Self {
        Self {
            number,
            arguments,
            why,
        }
    }

    /// `None`: no condition.
    fn rule(&self) -> Result<Option<SeccompRule>, seccompiler::BackendError> {
        let (index, operator, value) = match self.arguments {
            Arguments::Any => return Ok(None),
            Arguments::Is(index, value) => (index, SeccompCmpOp::Eq, value),
            Arguments::Without(index, bits) => (index, SeccompCmpOp::MaskedEq(bits.into()), 0),
            Arguments::With(index, bits) => (index, SeccompCmpOp::MaskedEq(bits.into()), bits),
            Arguments::Masked(index, bits, value) => {
                (index, SeccompCmpOp::MaskedEq(bits.into()), value)
            }
            Arguments::OwnProcess(index) => (index, SeccompCmpOp::Eq, std::process::id()),
        };
        let length = SeccompCmpArgLen::Dword;
        let condition = SeccompCondition::new(index, length, operator, value.into())?;
        SeccompRule::new(vec![condition]).map(Some)
    }
}

/// Filters cannot be used.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// A list makes no filter.
    #[error("the list of system calls cannot be compiled")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refuses it.
    #[error(
        "the kernel takes no seccomp filter; give --seccomp none if it cannot be built in there"
    )]
    Install(#[from] seccompiler::Error),
    /// The handler of SIGSYS.
    #[error("violations cannot be reported")]
    Report(#[source] io::Error),
}

thread_local! {
    static ROLE: Cell<Option<Role>> = const { Cell::new(None) };
}

/// The filters of a daemon's threads.
#[derive(Debug, Default)]
pub struct ThreadFilters {
    programs: Vec<(Role, BpfProgram)>,
}

impl ThreadFilters {
    /// The filters of a daemon that needs `more`.
    ///
    /// # Errors
    /// When a list makes no filter, or violations cannot be reported.
    pub fn new(action: Action, more: Calls) -> Result<Self, SeccompError> {
        Self::compiled(
            action,
            lists::ROLES.map(|role| (role, lists::calls(role, more))),
        )
    }

    /// The filters of a program that is no daemon: these lists, and what every thread does.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(
        action: Action,
        own: impl IntoIterator<Item = (Role, Vec<Call>)>,
    ) -> Result<Self, SeccompError> {
        let whole = |(role, calls)| (role, lists::with_any_thread(calls));
        Self::compiled(action, own.into_iter().map(whole))
    }

    fn compiled(
        action: Action,
        lists: impl IntoIterator<Item = (Role, Vec<Call>)>,
    ) -> Result<Self, SeccompError> {
        let mismatch = match action {
            Action::None => return Ok(Self::default()),
            Action::Kill => {
                sys::report_violations(current_role).map_err(SeccompError::Report)?;
                SeccompAction::Trap
            }
            Action::Trap => SeccompAction::Trap,
            Action::Log => SeccompAction::Log,
        };
        let mut programs = Vec::new();
        for (role, calls) in lists {
            let mut program = refuse(&lists::refused(&calls));
            program.extend(compile(&calls, mismatch.clone())?);
            programs.push((role, program));
        }
        Ok(Self { programs })
    }

    /// Binds the calling thread, and those it starts, to the list of `role`. The first time counts.
    ///
    /// # Errors
    /// When the kernel refuses: then the thread must not work.
    pub fn enter(&self, role: Role) -> Result<(), SeccompError> {
        let Some((_, program)) = self.programs.iter().find(|(of, _)| *of == role) else {
            ROLE.set(Some(role));
            return Ok(());
        };
        if ROLE.get() == Some(role) {
            return Ok(());
        }
        seccompiler::apply_filter(program)?;
        ROLE.set(Some(role));
        Ok(())
    }
}

/// For the report: the calling thread's role.
fn current_role() -> &'static str {
    match ROLE.get() {
        None => "starting",
        Some(Role::Main) => "main",
        Some(Role::Session) => "session",
        Some(Role::Relay) => "relay",
        Some(Role::Signals) => "signals",
        Some(Role::Metrics) => "metrics",
        Some(Role::Queue) => "queue",
        Some(Role::Helper) => "helper",
        Some(Role::Device) => "device",
        Some(Role::Control) => "control",
        Some(Role::Processor) => "processor",
    }
}

fn compile(calls: &[Call], mismatch: SeccompAction) -> Result<BpfProgram, SeccompError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        if let Some(rule) = call.rule()? {
            rules.entry(call.number).or_default().push(rule);
        }
    }
    // Without rules any use is allowed: that wins, wherever it stands.
    for call in calls {
        if matches!(call.arguments, Arguments::Any) {
            rules.insert(call.number, Vec::new());
        }
    }
    let filter = SeccompFilter::new(rules, mismatch, SeccompAction::Allow, architecture()?)?;
    Ok(filter.try_into()?)
}

/// The beginning of a filter that answers these calls with an errno. (Numbers of another architecture's
/// calls are answered like that, too, which does no harm.)
fn refuse(calls: &[(i64, i32)]) -> BpfProgram {
    // linux/bpf_common.h and linux/seccomp.h; the number is the first word of `struct seccomp_data`.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let instruction = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let mut program = vec![instruction(LOAD_WORD, 0, 0, 0)];
    for (number, errno) in calls {
        let Ok(number) = u32::try_from(*number) else {
            continue;
        };
        let answer = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        program.push(instruction(JUMP_IF_EQUAL, 0, 1, number));
        program.push(instruction(RETURN, 0, 0, answer));
    }
    program
}

fn architecture() -> Result<TargetArch, SeccompError> {
    Ok(std::env::consts::ARCH.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_on_every_list_has_a_reason() {
        for role in lists::ROLES {
            let calls = lists::calls(role, Calls::default());
            assert!(!calls.is_empty());
            for call in calls {
                assert!(call.why.len() > 3, "{role:?} {}", call.number);
            }
        }
    }

    #[test]
    fn no_list_lets_a_thread_run_programs_or_look_into_others() {
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_kill,
            libc::SYS_bpf,
            libc::SYS_chroot,
        ];
        for call in lists::calls(Role::Main, Calls::default()) {
            assert!(!never.contains(&call.number), "{}", call.why);
            // Else the report of a violation could be switched off.
            if call.number == libc::SYS_rt_sigaction {
                let Arguments::Is(0, signal) = call.arguments else {
                    panic!("any signal");
                };
                assert_ne!(signal, libc::SIGSYS.unsigned_abs());
            }
        }
    }
}
