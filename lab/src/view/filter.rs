//! What a filter of system calls would answer, found by following all of its paths.

use std::io;

use libc::sock_filter;

use crate::sys::ptrace;

/// seccomp(2): the answers' upper half.
const ACTION: u32 = 0xffff_0000;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;
/// Where `struct seccomp_data` has the call's number and the architecture; arguments follow.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It is made, whatever its arguments.
    Made,
    /// It is made with some arguments.
    Sometimes,
    /// It is answered by an error; the process goes on.
    Error,
    /// It ends the process.
    End,
}

/// What the filters of a thread do with each call from 0 to `calls`.
pub(super) fn fates(thread: u32, calls: u32) -> io::Result<Vec<Fate>> {
    let filters = ptrace::filters(thread)?;
    let fate = |number| {
        let all = filters.iter().map(|filter| Answers::of(filter, number));
        all.fold(Answers::allowed(), Answers::stricter).fate()
    };
    Ok((0..calls).map(fate).collect())
}

/// Which answers some path through a filter gives.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    allow: bool,
    error: bool,
    end: bool,
}

impl Answers {
    fn allowed() -> Self {
        Self {
            allow: true,
            ..Self::default()
        }
    }

    fn of(filter: &[sock_filter], number: u32) -> Self {
        let mut answers = Self::default();
        // A place in the filter and the accumulator, if it is known there. Filters have no loops.
        let mut open = vec![(0, Some(0))];
        while let Some((at, accumulator)) = open.pop() {
            answers.follow(filter, number, at, accumulator, &mut open);
        }
        answers
    }

    fn follow(
        &mut self,
        filter: &[sock_filter],
        number: u32,
        at: usize,
        accumulator: Option<u32>,
        open: &mut Vec<(usize, Option<u32>)>,
    ) {
        let Some(&sock_filter { code, jt, jf, k }) = filter.get(at) else {
            self.end = true;
            return;
        };
        let next = at + 1;
        match u32::from(code) {
            // Load a word, at a fixed place.
            0x20 => open.push((
                next,
                match k {
                    NUMBER => Some(number),
                    ARCHITECTURE => Some(X86_64),
                    _ => None,
                },
            )),
            // And.
            0x54 => open.push((next, accumulator.map(|value| value & k))),
            // Jump.
            0x05 => open.push((next + k as usize, accumulator)),
            code @ (0x15 | 0x25 | 0x35 | 0x45) => {
                let holds = accumulator.map(|value| match code {
                    0x15 => value == k,
                    0x25 => value > k,
                    0x35 => value >= k,
                    _ => value & k != 0,
                });
                if holds != Some(false) {
                    open.push((next + usize::from(jt), accumulator));
                }
                if holds != Some(true) {
                    open.push((next + usize::from(jf), accumulator));
                }
            }
            // Return a constant.
            0x06 => self.answer(k),
            // Nothing that our filters have: what it does is not known, and so nothing is allowed.
            _ => self.end = true,
        }
    }

    fn answer(&mut self, answer: u32) {
        match answer & ACTION {
            ALLOW | LOG => self.allow = true,
            ERRNO => self.error = true,
            _ => self.end = true,
        }
    }

    /// Of two filters the stricter answer holds.
    fn stricter(self, other: Self) -> Self {
        let error = (self.error && (other.error || other.allow)) || (other.error && self.allow);
        Self {
            allow: self.allow && other.allow,
            error,
            end: self.end || other.end,
        }
    }

    fn fate(self) -> Fate {
        match self {
            Self {
                allow: true,
                error: false,
                end: false,
            } => Fate::Made,
            Self { allow: true, .. } => Fate::Sometimes,
            Self { error: true, .. } => Fate::Error,
            _ => Fate::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
        sock_filter { code, jt, jf, k }
    }

    /// Call 1 is made, 2 with a first argument of 7, 3 is answered by an error, others end it.
    fn filter() -> Vec<sock_filter> {
        vec![
            instruction(0x20, 0, 0, NUMBER),
            instruction(0x15, 3, 0, 1),
            instruction(0x15, 3, 0, 2),
            instruction(0x15, 4, 0, 3),
            instruction(0x06, 0, 0, 0),
            instruction(0x06, 0, 0, ALLOW),
            instruction(0x20, 0, 0, 16),
            instruction(0x15, 1, 2, 7),
            instruction(0x06, 0, 0, ERRNO | 38),
            instruction(0x06, 0, 0, ALLOW),
            instruction(0x06, 0, 0, 0),
        ]
    }

    #[test]
    fn every_path_counts() {
        let fate = |number| Answers::of(&filter(), number).fate();
        let fates: Vec<_> = (0..4).map(fate).collect();
        assert_eq!(fates, [Fate::End, Fate::Made, Fate::Sometimes, Fate::Error]);
    }

    #[test]
    fn the_stricter_answer_holds() {
        let all = Answers::allowed();
        let some = Answers::of(&filter(), 2);
        let none = Answers::of(&filter(), 0);
        let error = Answers::of(&filter(), 3);
        assert_eq!(all.stricter(some).fate(), Fate::Sometimes);
        assert_eq!(all.stricter(none).fate(), Fate::End);
        assert_eq!(error.stricter(all).fate(), Fate::Error);
        assert_eq!(error.stricter(none).fate(), Fate::End);
    }
}
