//! `ringside run ID`: a bundle's container from `create` to `delete`.

use std::io::IsTerminal;
use std::path::Path;

use ringside_pod::chain;

use super::OciError;
use super::holder::{self, Ends};
use super::lifecycle;
use super::state::{Entry, StateRoot};
use super::{start_holder, status};
use crate::options::{BundleOptions, CreateOptions, DeleteOptions, GlobalOptions};
use crate::sys::descriptor;

/// Runs it; returns its exit code, or 0 for one that goes on alone.
pub(super) fn run(
    global: &GlobalOptions,
    root: &StateRoot,
    id: &str,
    options: &BundleOptions,
) -> Result<u8, OciError> {
    let bundle = options.bundle.as_deref().unwrap_or(Path::new("."));
    if options.detach {
        return detached(global, root, id, bundle, options).map(|()| 0);
    }
    let mut ends = Ends::Own;
    let entry = lifecycle::prepare(root, id, bundle, |terminal| {
        if terminal {
            ends = Ends::OwnTerminal;
        }
        match !terminal || (std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            true => Ok(()),
            false => Err(OciError::usage(
                "process.terminal of config.json is true: standard input and output must be a terminal, \
                 or say with --detach and --console-socket where the terminal goes",
            )),
        }
    })?;
    let held = hold(global, root, &entry, ends, options);
    if held.is_err() || !options.keep {
        let removed = remove(root, &entry);
        match &held {
            Ok(_) => removed?,
            Err(_) => removed.unwrap_or_else(|error| tracing::warn!("{}", chain(&error))),
        }
    }
    Ok(u8::try_from(held?).unwrap_or(u8::MAX))
}

fn detached(
    global: &GlobalOptions,
    root: &StateRoot,
    id: &str,
    bundle: &Path,
    options: &BundleOptions,
) -> Result<(), OciError> {
    let create = CreateOptions {
        bundle: bundle.to_owned(),
        pid_file: options.pid_file.clone(),
        console_socket: options.console_socket.clone(),
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        id: id.to_owned(),
    };
    lifecycle::create(global, root, &create)?;
    let started = lifecycle::start(root, id);
    if started.is_err() {
        let delete = DeleteOptions {
            force: true,
            id: id.to_owned(),
        };
        lifecycle::delete(root, &delete)?;
    }
    started
}

/// Stands for the container until it has ended, as its holder.
fn hold(
    global: &GlobalOptions,
    root: &StateRoot,
    entry: &Entry,
    ends: Ends<'_>,
    options: &BundleOptions,
) -> Result<u32, OciError> {
    descriptor::close_on_exec().map_err(OciError::system("keep descriptors"))?;
    let mut start = |pid| {
        if let Some(file) = &options.pid_file {
            start_holder::write_pid_file(file, pid)?;
        }
        status::task(root, entry, &entry.read()?)?.start("")
    };
    holder::hold_container(global, root, entry, ends, &mut start)
}

fn remove(root: &StateRoot, entry: &Entry) -> Result<(), OciError> {
    let record = entry.read()?;
    let _lock = entry.lock()?;
    // In a pod that goes on it may be there, made and never started: then it ends.
    lifecycle::forget(root, entry, &record)?;
    entry.remove()
}
