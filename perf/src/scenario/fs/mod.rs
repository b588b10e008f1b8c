//! File system daemons on the host's own kernel, by the lab's bridge, next to the bare directory.

mod aims;
mod config;
mod contestant;
mod error;
#[cfg(test)]
mod fixture;
mod ground;
mod group;
mod line_up;
mod load;
mod metadata;
mod render;
mod results;
mod run;
mod turn;
mod workload;

pub use super::{Pattern, Role, SystemCalls, Verdict};
pub use config::{FsConfig, FsOptions};
pub(super) use contestant::Entry as FileDaemon;
pub use error::Error;
pub(super) use line_up::find_rust as find_rust_virtiofsd;
pub use render::render;
pub use results::{Comparison, ContestantFacts, Outcome, Report, Row, Sample, Settings, Summary};
pub use run::run;
pub use workload::{Cache, Load, Step, Target, Workload};
