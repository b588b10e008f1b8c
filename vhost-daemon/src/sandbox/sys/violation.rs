//! What is said when a thread makes a system call that it may not make.

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::exit_now;

/// Names the calling thread's role. It is called from a signal handler.
type RoleName = fn() -> &'static str;

static ROLE_NAME: OnceLock<RoleName> = OnceLock::new();

/// What a shell shows for a process that SIGSYS ended.
const EXIT_CODE: i32 = 128 + libc::SIGSYS;

/// Where `siginfo_t` has the number of the system call (`_sifields._sigsys._syscall`, after an
/// address), in 32-bit words: asm-generic/siginfo.h.
const SYSTEM_CALL_WORD: usize = 6;

/// From now on a call that a filter traps is reported on standard error and ends the process.
/// `role_name` must do nothing that a signal handler may not do.
pub(crate) fn report_violations(role_name: RoleName) -> io::Result<()> {
    let _ = ROLE_NAME.set(role_name);
    // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = report as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the form that SA_SIGINFO asks for and uses only what is allowed in a
    // handler; the former action is not asked for.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn report(
    _signal: libc::c_int,
    info: *const libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a siginfo_t of 128 bytes, aligned for words and filled in; of a
    // SIGSYS that seccomp did not send the word means something else, and is a number all the same.
    let words: [i32; 8] = unsafe { info.cast::<[i32; 8]>().read() };
    let number = words[SYSTEM_CALL_WORD];
    let role = ROLE_NAME.get().map_or("unknown", |name| name());
    let mut line = Line::default();
    line.text("seccomp: a thread (");
    line.text(role);
    line.text(") made system call ");
    line.number(number);
    line.text(
        ", which is not on its list: the daemon ends. If that is no attack, say --seccomp log\n",
    );
    // SAFETY: pointer and length are those of a live buffer.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
    exit_now(EXIT_CODE)
}

/// Text put together without allocation. What does not fit is left out.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 256],
            len: 0,
        }
    }
}

impl Line {
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, number: i32) {
        if number < 0 {
            self.byte(b'-');
        }
        let mut rest = number.unsigned_abs();
        let mut digits = [0; 10];
        let mut count = 0;
        while count == 0 || rest > 0 {
            digits[count] = b'0' + (rest % 10).to_le_bytes()[0];
            rest /= 10;
            count += 1;
        }
        for digit in digits[..count].iter().rev() {
            self.byte(*digit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_allocation() {
        for number in [0, 7, 10, 435, -1, i32::MAX, i32::MIN] {
            let mut line = Line::default();
            line.number(number);
            assert_eq!(&line.bytes[..line.len], number.to_string().as_bytes());
        }
    }
}
