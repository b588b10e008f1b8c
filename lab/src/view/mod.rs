//! What a process that is closed in can still do, as the kernel has it: rights, namespaces, mounts,
//! descriptors, and for each thread the system calls that its filters let through. As text, to be compared
//! with what is documented (`docs/sandbox/`).

mod filter;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

use filter::Fate;
use libseccomp::ScmpSyscall;
use rustix::thread::CapabilitySet;

use crate::inside::{descriptors, field};

/// Numbers that x86-64 may have calls at.
const CALLS: u32 = 512;
/// What namespaces there are (namespaces(7)).
const SPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// Set to anything, it makes [`assert_documented`] write what it sees.
const UPDATE: &str = "UPDATE_SANDBOX";

/// The view of process `pid`. Paths that begin with one of `names` are shown by the name beside it.
///
/// # Errors
/// When the process is gone, or whoever asks may not look: root may.
pub fn view(pid: u32, names: &[(&Path, &str)]) -> io::Result<String> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut text = String::new();
    let status = fs::read_to_string(process.join("status"))?;
    let mut line = |name: &str, value: String| {
        let value = if value.is_empty() {
            "none".into()
        } else {
            value
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {value}");
    };
    line("capabilities", capabilities(&status, "CapEff"));
    line("capabilities to be had", capabilities(&status, "CapBnd"));
    line(
        "may gain rights by execve",
        yes(field(&status, "NoNewPrivs") != Some("1")),
    );
    line("namespaces of its own", spaces(&process)?);
    line("mounts in sight", mounts(&process, names)?);
    line("descriptors", kinds(&process, names)?);
    for (thread, calls) in threads(&process)? {
        let _ = write!(text, "\nthread {thread}\n{calls}");
    }
    Ok(text)
}

/// Compares a view with `docs/sandbox/NAME.txt` of the repository.
///
/// # Panics
/// When they differ. With `UPDATE_SANDBOX` in the environment the file is written instead.
#[expect(
    clippy::expect_used,
    clippy::panic,
    reason = "it is there to end a test"
)]
pub fn assert_documented(name: &str, view: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sandbox");
    let path = folder.join(format!("{name}.txt"));
    if env::var_os(UPDATE).is_some() {
        fs::create_dir_all(&folder).expect("docs/sandbox");
        fs::write(&path, view).expect("what a process can do, in docs/sandbox");
        return;
    }
    let documented = fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, said)) in view.lines().zip(documented.lines()).enumerate() {
        assert_eq!(is, said, "line {} of {}", number + 1, path.display());
    }
    if view != documented {
        panic!("{} is not what {name} can do:\n{view}", path.display());
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.into()
}

fn capabilities(status: &str, set: &str) -> String {
    let bits = u64::from_str_radix(field(status, set).unwrap_or_default(), 16).unwrap_or(u64::MAX);
    let set = CapabilitySet::from_bits_retain(bits);
    let names: Vec<&str> = set.iter_names().map(|(name, _)| name).collect();
    // A kernel without a name for some knows fewer than all.
    if set.contains(CapabilitySet::all()) {
        return "all".into();
    }
    names.join(" ")
}

fn spaces(process: &Path) -> io::Result<String> {
    let mut own = Vec::new();
    for space in SPACES {
        let ours = fs::read_link(Path::new("/proc/self/ns").join(space))?;
        if fs::read_link(process.join("ns").join(space))? != ours {
            own.push(space);
        }
    }
    Ok(own.join(" "))
}

/// The places of mounts, where they are not the host's.
fn mounts(process: &Path, names: &[(&Path, &str)]) -> io::Result<String> {
    let host = fs::read_link("/proc/self/ns/mnt")?;
    if fs::read_link(process.join("ns/mnt"))? == host {
        return Ok("the host's".into());
    }
    let table = fs::read_to_string(process.join("mountinfo"))?;
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let at = named(Path::new(fields.next()?), names);
        // Times of access are the host's business.
        let options = fields.next()?.split(',');
        let options: Vec<&str> = options.filter(|it| !it.contains("atime")).collect();
        Some(format!("{at} ({})", options.join(",")))
    });
    Ok(mounts
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join(", "))
}

fn named(path: &Path, names: &[(&Path, &str)]) -> String {
    let name = names.iter().find_map(|(prefix, name)| {
        let rest = path.strip_prefix(prefix).ok()?;
        Some(Path::new(name).join(rest).display().to_string())
    });
    let name = name.unwrap_or_else(|| path.display().to_string());
    name.trim_end_matches('/').to_owned() + if name == "/" { "/" } else { "" }
}

/// What kinds there are.
fn kinds(process: &Path, names: &[(&Path, &str)]) -> io::Result<String> {
    let descriptors = descriptors(process)?;
    let kinds = descriptors.iter().map(|(_, target)| kind(target, names));
    Ok(kinds
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join(", "))
}

fn kind(target: &Path, names: &[(&Path, &str)]) -> String {
    let text = target.to_string_lossy();
    if let Some((kind, _)) = text
        .split_once(":[")
        .filter(|(kind, _)| *kind != "anon_inode")
    {
        return kind.to_owned();
    }
    if let Some(rest) = text.strip_prefix("anon_inode:") {
        return rest.trim_matches(['[', ']']).to_owned();
    }
    if text.starts_with("/memfd:") {
        return "memory".into();
    }
    named(target, names)
}

/// The calls of each thread, by name. Threads of one name have the same.
fn threads(process: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(process.join("task"))? {
        let entry = entry?;
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        let name = name.trim();
        // Kernel threads of an io_uring have their creator's.
        let number = entry.file_name().to_string_lossy().parse();
        let Some(number) = number.ok().filter(|_| !name.starts_with("iou-")) else {
            continue;
        };
        let role = name.trim_end_matches(|it: char| it.is_ascii_digit());
        let calls = calls(&filter::fates(number, CALLS)?);
        if let Some(other) = threads.insert(role.to_owned(), calls.clone())
            && other != calls
        {
            return Err(io::Error::other(format!(
                "two threads called {role} may do different things"
            )));
        }
    }
    Ok(threads)
}

fn calls(fates: &[Fate]) -> String {
    let mut by_fate: BTreeMap<Fate, Vec<String>> = BTreeMap::new();
    for (number, fate) in (0..).zip(fates) {
        if let Ok(name) = ScmpSyscall::from_raw_syscall(number).get_name() {
            by_fate.entry(*fate).or_default().push(name);
        }
    }
    let ended = by_fate.remove(&Fate::End).unwrap_or_default().len();
    if ended == 0 {
        return "  any system call\n".into();
    }
    let mut text = String::new();
    for (fate, mut names) in by_fate {
        names.sort();
        let title = match fate {
            Fate::Made => "made",
            Fate::Sometimes => "made with some arguments",
            Fate::Error | Fate::End => "answered by an error",
        };
        let _ = writeln!(text, "  {title}: {}", names.join(" "));
    }
    text
}
