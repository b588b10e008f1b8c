//! Who is alive in a process group, and who is whose child.

use std::fs;
use std::io;

/// Whether any process of the group runs. A zombie that PID 1 has yet to reap does not.
#[must_use]
pub fn group_is_alive(group: u32) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .any(|stat| is_alive_in(&stat, group))
}

/// A child of `parent`, if it has one.
pub(super) fn child_of(parent: u32) -> io::Result<Option<u32>> {
    let is_child = |stat: &str| {
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        fields.and_then(|fields| fields.split(' ').nth(1)?.parse().ok()) == Some(parent)
    };
    Ok(fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter(|entry| {
            fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| is_child(&stat))
        })
        .find_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// `pid (command) state parent group ...` (proc(5)); the command may contain anything.
fn is_alive_in(stat: &str, group: u32) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    let fields: Vec<&str> = fields.split(' ').take(3).collect();
    let [state, _, of] = fields[..] else {
        return false;
    };
    !matches!(state, "Z" | "X") && of.parse() == Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_and_strangers_do_not_count() {
        assert!(is_alive_in("7 (a) b) S 1 42 42 0", 42));
        assert!(!is_alive_in("7 (a) b) Z 1 42 42 0", 42));
        assert!(!is_alive_in("7 (a) b) S 1 43 42 0", 42));
    }
}
