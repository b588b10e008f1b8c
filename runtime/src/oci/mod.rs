//! `ringside` as an OCI runtime: the verbs of runc's command line, on containerd's shim.
//!
//! A container that [`lifecycle`] made is a directory of [`state`] and a process of [`holder`], which stands for it
//! on the host and is the parent of its pod's shim. Every other verb reads the one and asks the shim's task
//! service ([`task`]), so what a verb means is what it means under containerd. docs/runtime.md tells more.

mod error;
mod events;
mod exec;
mod features;
mod holder;
mod lifecycle;
mod lists;
mod member;
mod metrics;
mod report;
mod rights;
mod run;
mod signal;
mod specification;
mod start_holder;
mod state;
mod status;
mod task;
mod update;

pub use error::OciError;

use std::io::Write;

use ringside_pod::chain;
use serde_json::Value;

use crate::options::{BundleOptions, GlobalOptions, OciCommand};
use state::StateRoot;

/// What engines take for a failure of the runtime.
const FAILED: u8 = 1;
/// What `exec` says of a process that could not be run, for it says the process's own code otherwise.
const NOT_RUN: u8 = 255;
/// The same for `run`, as for a run without a bundle.
const RUN_FAILED: u8 = 125;

/// Carries out a verb, reports what went wrong, and returns the exit code.
#[must_use]
pub fn run(global: &GlobalOptions, command: OciCommand) -> u8 {
    let is_exec = matches!(command, OciCommand::Exec(_));
    match dispatch(global, command) {
        Ok(code) => code,
        Err(error) => {
            report::error(global, &chain(&error));
            if is_exec { NOT_RUN } else { FAILED }
        }
    }
}

/// Runs a bundle's container to its end, reports what went wrong, and returns the exit code.
#[must_use]
pub fn run_bundle(global: &GlobalOptions, options: &BundleOptions) -> u8 {
    let id = options.id.as_deref().unwrap_or_default();
    run::run(global, &StateRoot::of(global), id, options).unwrap_or_else(|error| {
        report::error(global, &chain(&error));
        RUN_FAILED
    })
}

fn dispatch(global: &GlobalOptions, command: OciCommand) -> Result<u8, OciError> {
    let root = StateRoot::of(global);
    let done = match command {
        OciCommand::Create(options) => lifecycle::create(global, &root, &options),
        OciCommand::Start(options) => lifecycle::start(&root, &options.id),
        OciCommand::Kill(options) => lifecycle::kill(&root, &options),
        OciCommand::Delete(options) => lifecycle::delete(&root, &options),
        OciCommand::Exec(options) => return exec::exec(global, &root, &options),
        OciCommand::Pause(options) => lifecycle::pause(&root, &options.id),
        OciCommand::Resume(options) => lifecycle::resume(&root, &options.id),
        OciCommand::State(options) => lists::state(&root, &options.id),
        OciCommand::Ps(options) => lists::processes(&root, &options),
        OciCommand::List(options) => lists::list(&root, &options),
        OciCommand::Logs(options) => lists::logs(&root, &options.id),
        OciCommand::Update(options) => update::update(&root, &options),
        OciCommand::Events(options) => events::events(&root, &options),
        OciCommand::Metrics(options) => metrics::metrics(&root, &options.id),
        OciCommand::Spec(options) => specification::write(&options.bundle),
        OciCommand::Features => print_json(&features::features()),
        OciCommand::Hold(options) => return Ok(holder::hold(global, &root, &options)),
    };
    done.map(|()| 0)
}

/// On standard output; a reader that has seen enough, as `head`, is no failure.
fn print(text: &str) -> Result<(), OciError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(OciError::system("print")(error))
        }
        _ => Ok(()),
    }
}

fn print_json(value: &Value) -> Result<(), OciError> {
    print(&format!("{value:#}\n"))
}
