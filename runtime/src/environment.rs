//! `ringside env`: versions, paths and facts of a host.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ringside_config::{DEFAULT_PATH, PATH_VARIABLE};
use serde_json::{Map, Value};

use crate::options::EnvOptions;
use crate::programs::{self, Program};

/// A name and what is so named.
type Fact = (String, String);

/// Prints all facts and returns the exit code.
///
/// # Errors
/// When they cannot be printed.
pub fn report(options: &EnvOptions) -> io::Result<u8> {
    let facts = facts();
    let text = if options.json {
        let object: Map<_, _> = facts
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        format!("{:#}\n", Value::Object(object))
    } else {
        let line = |(name, value): &Fact| format!("{name:<22} {value}\n");
        facts.iter().map(line).collect()
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(0),
    }
}

fn facts() -> Vec<Fact> {
    let mut facts = vec![
        ("ringside".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("configuration".to_owned(), configuration()),
        ("kernel".to_owned(), kernel()),
        ("system".to_owned(), system()),
        ("processors".to_owned(), processors()),
        ("memory".to_owned(), memory()),
        ("cgroup".to_owned(), cgroup().to_owned()),
        (
            "user".to_owned(),
            rustix::process::geteuid().as_raw().to_string(),
        ),
    ];
    facts.extend(programs::ALL.map(|program| (program.name.to_owned(), found(program))));
    let peers = ["containerd", "runc", "podman", "kubelet"];
    facts.extend(peers.map(|name| (name.to_owned(), version_of(Path::new(name)))));
    let set = std::env::vars_os().filter(|(name, _)| {
        name.to_string_lossy().starts_with("RINGSIDE_") || name == "XDG_RUNTIME_DIR"
    });
    facts.extend(set.map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            one_line(&value.to_string_lossy()),
        )
    }));
    facts
}

fn configuration() -> String {
    let path = std::env::var(PATH_VARIABLE).unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    match ringside_config::Settings::load() {
        Ok(_) if Path::new(&path).exists() => path,
        Ok(_) => format!("{path} (not there: defaults)"),
        Err(error) => one_line(&format!("{path} (refused: {error})")),
    }
}

fn kernel() -> String {
    let name = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    format!("{} {}", part(name.release()), part(name.machine()))
}

fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn processors() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{count} x {}", model.map_or("unknown", |(_, model)| model))
}

fn memory() -> String {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line?.split_whitespace().next()?.parse().ok()?;
        Some(kib >> 10)
    };
    let [total, available] = ["MemTotal:", "MemAvailable:"].map(|name| value(name).unwrap_or(0));
    format!("{total} MiB, {available} MiB available")
}

/// Which hierarchy `/sys/fs/cgroup` is.
pub(crate) fn cgroup() -> &'static str {
    let root = Path::new("/sys/fs/cgroup");
    match (
        root.join("cgroup.controllers").exists(),
        root.join("unified/cgroup.controllers").exists(),
    ) {
        (true, _) => "v2",
        (false, true) => "hybrid of v1 and v2",
        (false, false) if root.join("memory").exists() => "v1",
        (false, false) => "none",
    }
}

fn found(program: Program) -> String {
    match program.find() {
        // It would take over this process's place: it is the first process of a guest.
        Ok(path) if program.must_be_static => path.display().to_string(),
        Ok(path) => format!("{} ({})", path.display(), version_of(&path)),
        Err(_) => "not found".to_owned(),
    }
}

/// The first line that a program says of its version.
pub(crate) fn version_of(program: &Path) -> String {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            one_line(said.lines().next().unwrap_or("says no version"))
        }
        Err(_) => "not found".to_owned(),
    }
}

/// No control characters: nothing of a host breaks a report's lines.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_one_line_and_named_once() {
        let facts = facts();
        let mut names: Vec<_> = facts.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), facts.len());
        for (name, value) in &facts {
            assert!(
                !value.is_empty() && !value.contains('\n'),
                "{name}: {value}"
            );
        }
        let kernel = &facts.iter().find(|(name, _)| name == "kernel").unwrap().1;
        assert!(kernel.ends_with("x86_64"), "{kernel}");
    }

    #[test]
    fn versions_are_first_lines() {
        assert!(version_of("bash".as_ref()).starts_with("GNU bash"));
        assert_eq!(version_of("/no/such/program".as_ref()), "not found");
    }
}
