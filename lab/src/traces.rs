//! What the start and end of machines may leave on a host, to compare before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All that was there at one time: processes, mounts, control groups, network namespaces, interfaces, named unix
/// sockets. Two of a machine that does nothing else, such as the lab's, can be compared; those of a busy host differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// What there is now.
    #[must_use]
    pub fn now() -> Self {
        let mut all = BTreeSet::new();
        let mut add = |kind: &str, name: &str| {
            all.insert(format!("{kind} {name}"));
        };
        for process in numbers() {
            let folder = Path::new("/proc").join(process.to_string());
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            // The kernel's own threads come and go, and have none.
            if !line.is_empty() {
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                add("process", &format!("{process} {line}"));
                if let Ok(namespace) = fs::read_link(folder.join("ns/net")) {
                    add("namespace", &namespace.display().to_string());
                }
            }
        }
        for line in lines("/proc/self/mounts") {
            add("mount", &line);
        }
        // Only a socket with a name has an eighth column (proc(5)).
        for line in lines("/proc/net/unix") {
            if let Some(name) = line.split_whitespace().nth(7) {
                add("socket", name);
            }
        }
        for interface in names("/sys/class/net") {
            add("interface", &interface);
        }
        groups(Path::new("/sys/fs/cgroup"), &mut |group| {
            add("cgroup", &group.display().to_string());
        });
        Self(all)
    }

    /// What is here and was not in `before`.
    #[must_use]
    pub fn since<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        self.0.difference(&before.0).map(String::as_str).collect()
    }
}

fn numbers() -> impl Iterator<Item = u32> {
    names("/proc")
        .into_iter()
        .filter_map(|name| name.parse().ok())
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn groups(folder: &Path, found: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found(&entry.path());
            groups(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_process_and_a_socket_are_seen_and_go() {
        let scratch = Scratch::new("traces").unwrap();
        let before = Traces::now();
        let path = scratch.join("listens");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Command::new("sleep").arg("98765").spawn().unwrap();
        let process = format!("process {} sleep 98765 ", child.id());
        let socket = format!("socket {}", path.display());
        let ours = |traces: &Traces| {
            let since = traces.since(&before);
            [&process, &socket].map(|it| since.contains(&it.as_str()))
        };
        // Until it has become `sleep` it is called as this test is.
        let mut seen = Traces::now();
        while ours(&seen) == [false, true] {
            seen = Traces::now();
        }
        assert_eq!(ours(&seen), [true, true]);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(listener);
        assert_eq!(ours(&Traces::now()), [false, false]);
    }
}
