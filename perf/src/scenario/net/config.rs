//! Options of `net`: as typed, then as validated.

use clap::Args;

use super::workload::Target;
use crate::peer::ExternalPeer;
use crate::scenario::run_options::{OptionsError, RunConfig, RunOptions};

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct NetOptions {
    /// Those that all scenarios have.
    #[command(flatten)]
    pub run: RunOptions,

    /// A daemon that runs already, on a tap with the address 192.0.2.1/30 and the neighbour 192.0.2.2; it has to
    /// outlive its front ends (repeatable)
    #[arg(long, value_name = "NAME[@TARGET]=SOCKET:PID")]
    pub peer: Vec<ExternalPeer<Target>>,

    /// Targets to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Target::Tap, Target::Switch, Target::Qemu, Target::Uml])]
    pub targets: Vec<Target>,
}

/// The options as validated.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// What all scenarios have.
    pub run: RunConfig,
    /// Daemons that run already.
    pub peers: Vec<ExternalPeer<Target>>,
    /// Targets.
    pub targets: Vec<Target>,
}

impl NetOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<NetConfig, OptionsError> {
        let names: Vec<&str> = self.peer.iter().map(|peer| peer.name.as_str()).collect();
        Ok(NetConfig {
            run: self.run.validate("vhost-user-net", &names)?,
            peers: self.peer,
            targets: self.targets,
        })
    }
}
