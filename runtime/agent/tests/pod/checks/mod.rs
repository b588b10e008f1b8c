//! What is checked, in order.

mod inside;
mod limits;
mod network;
mod refusals;
mod streams;

use ringside_protocol::agent::StartSandboxRequest;

use crate::pod::Pod;

/// A check and its name.
type Check = (&'static str, fn(&mut Pod));

/// What the checks below need of the pod.
pub(crate) fn sandbox(request: &mut StartSandboxRequest) {
    request.shared_pid_namespace = true;
    request.resolv_conf = "nameserver 10.9.8.7\n".to_owned();
    request
        .sysctls
        .insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    network::sandbox(request);
}

pub(crate) const ALL: &[Check] = &[
    ("it says and ends", inside::it_says_and_ends),
    ("name spaces", inside::name_spaces),
    ("a shared process name space", inside::shared_processes),
    ("mounts", inside::mounts),
    ("storages", inside::storages),
    ("disks", inside::disks),
    ("user, capabilities, limits", inside::user),
    ("seccomp", inside::seccomp),
    ("hooks", inside::hooks),
    ("devices and sysctls", inside::devices),
    ("device rules", inside::device_rules),
    ("cgroup limits and their change", limits::cgroup),
    ("cgroups of its own", limits::inner_cgroups),
    ("out of memory", limits::out_of_memory),
    ("pause and resume", limits::pause),
    ("statistics and processes", limits::statistics),
    ("signals", limits::signals),
    ("20 MB", streams::much),
    ("standard input ends", streams::input_ends),
    ("a terminal", streams::terminal),
    ("a process left behind", streams::left_behind),
    ("50 at once", streams::storm),
    ("the network", network::configured),
    ("clock and entropy", limits::clock),
    ("refusals", refusals::named),
];
