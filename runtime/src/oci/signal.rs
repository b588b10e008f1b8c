//! Signals by name or number.

use super::OciError;

/// Names without SIG, by number on x86-64 (signal(7)).
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// glibc's SIGRTMIN; the kernel's first two are glibc's own.
const REAL_TIME: u32 = 34;
const LAST: u32 = 64;

/// `TERM`, `sigterm`, `15`, `RTMIN+3`.
pub(super) fn parse(text: &str) -> Result<u32, OciError> {
    let wrong = || OciError::usage(format!("{text:?} is no signal"));
    if let Ok(number) = text.parse::<u32>() {
        return Some(number)
            .filter(|it| (1..=LAST).contains(it))
            .ok_or_else(wrong);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(after) = name.strip_prefix("RTMIN") {
        let offset = match after.strip_prefix('+') {
            Some(number) => number.parse().map_err(|_| wrong())?,
            None if after.is_empty() => 0u32,
            None => return Err(wrong()),
        };
        let number = REAL_TIME.checked_add(offset).filter(|it| *it <= LAST);
        return number.ok_or_else(wrong);
    }
    let found = NAMES.iter().skip(1).position(|it| *it == name);
    found
        .and_then(|index| u32::try_from(index + 1).ok())
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("2", 2),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "NO", "0", "65", "RTMIN+31", "RTMINx"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
