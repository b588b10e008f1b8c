//! The guest as a whole: what it is, and what makes it a pod's.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context;
use ringside_protocol::agent::{HelloResponse, StartSandboxRequest};
use rustix::mount::mount_bind;
use rustix::time::{ClockId, clock_gettime};

use super::error::{Error, Result};
use super::helper::{self, Job, Stdio3};
use super::{Pod, layout, network, spec, storage};
use crate::sys;

/// Whether the guest is a pod's already, and what of that each container shares.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    started: bool,
    share: spec::Pod,
}

/// What the guest is.
pub(super) fn hello() -> HelloResponse {
    let system = rustix::system::sysinfo();
    let memory = u64::from(system.mem_unit).saturating_mul(system.totalram);
    let uptime = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let own = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let mut response = HelloResponse::new();
    response.version = env!("CARGO_PKG_VERSION").to_owned();
    response.kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    response.uptime_us = u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX);
    response.memory_bytes = memory;
    response.cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    response.agent_anonymous_bytes = kilobytes(&own, "Anonymous:");
    response.agent_pss_bytes = kilobytes(&own, "Pss:");
    response
}

/// A line of /proc/PID/smaps_rollup, in bytes.
fn kilobytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_default().saturating_mul(1024)
}

pub(super) fn set_clock(ns: i64) -> Result<()> {
    sys::clock::set_realtime(ns).context("cannot set the clock")?;
    Ok(())
}

pub(super) fn add_entropy(bytes: &[u8]) -> Result<()> {
    sys::clock::add_entropy(bytes).context("cannot feed the random generator")?;
    Ok(())
}

impl Pod {
    /// Once, before the first container. What failed can be asked for again.
    pub(super) fn start_sandbox(&self, request: &StartSandboxRequest) -> Result<()> {
        let mut sandbox = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if sandbox.started {
            return Err(Error::State("the pod is started already".to_owned()));
        }
        if request.realtime_ns != 0 {
            set_clock(request.realtime_ns)?;
        }
        if !request.hostname.is_empty() {
            rustix::system::sethostname(request.hostname.as_bytes())
                .map_err(|error| Error::invalid("hostname", error))?;
        }
        network::start(&request.network)?;
        // As on a host, whose network is there before the pod's first container: an interface has its name, and IPv6 that is
        // switched off takes addresses away instead of refusing them.
        for (name, value) in &request.sysctls {
            let path = sysctl_path(name)?;
            fs::write(&path, value)
                .with_context(|| format!("cannot set the sysctl {name} to {value:?}"))?;
        }
        for storage in &request.storages {
            storage::mount_storage(storage)?;
        }
        if request.shared_pid_namespace {
            self.make_pid_namespace()?;
        }
        if !request.resolv_conf.is_empty() {
            fs::write(layout::RESOLV_CONF, &request.resolv_conf)
                .context("cannot write the pod's resolv.conf")?;
        }
        sandbox.share = spec::Pod {
            shared_pid_namespace: request.shared_pid_namespace,
            resolv_conf: !request.resolv_conf.is_empty(),
        };
        sandbox.started = true;
        Ok(())
    }

    /// What every container gets of the pod.
    pub(super) fn share(&self) -> spec::Pod {
        let sandbox = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        sandbox.share.clone()
    }

    /// A name space for all containers' processes, kept by a process that only reaps.
    fn make_pid_namespace(&self) -> Result<()> {
        let arguments: [&OsStr; 0] = [];
        let mut kept = Ok(());
        helper::have_done(
            &self.children,
            Job::Pod,
            &arguments,
            Stdio3::null(),
            |pid| {
                kept = fs::write(layout::POD_PID_NAMESPACE, "").and_then(|()| {
                    Ok(mount_bind(
                        format!("/proc/{pid}/ns/pid"),
                        layout::POD_PID_NAMESPACE,
                    )?)
                });
            },
        )?;
        kept.context("cannot keep the pod's process name space")?;
        Ok(())
    }
}

/// A sysctl's file. Dots separate, and a slash stands for a dot within a name; where the first of either is a slash, slashes
/// separate and dots are dots (sysctl.d(5)).
pub(super) fn sysctl_path(name: &str) -> Result<PathBuf> {
    let is_path = name
        .find(['.', '/'])
        .is_some_and(|at| name[at..].starts_with('/'));
    let swapped: String = name
        .chars()
        .map(|character| match character {
            '.' if !is_path => '/',
            '/' if !is_path => '.',
            other => other,
        })
        .collect();
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    if !swapped.split('/').all(is_name) {
        return Err(Error::invalid(
            "sysctls",
            format!("{name:?} is no sysctl's name"),
        ));
    }
    Ok(PathBuf::from("/proc/sys").join(swapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_stay_below_their_directory() {
        for name in [
            "net.ipv4.conf.eth0/1.forwarding",
            "net/ipv4/conf/eth0.1/forwarding",
        ] {
            let path = sysctl_path(name).unwrap();
            let expected = "/proc/sys/net/ipv4/conf/eth0.1/forwarding";
            assert_eq!(path, PathBuf::from(expected));
        }
        for bad in ["", "..a", "net..x", "//.x", ".x", "/x", "net/../x"] {
            assert!(sysctl_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_rollup_is_read() {
        let text = "55 ---p 0 00:00 0 [rollup]\nRss:  9 kB\nPss:     1234 kB\nPss_Anon: 7 kB\nAnonymous:   800 kB\n";
        assert_eq!(kilobytes(text, "Pss:"), 1234 * 1024);
        assert_eq!(kilobytes(text, "Anonymous:"), 800 * 1024);
        assert_eq!(kilobytes(text, "Gone:"), 0);
    }
}
