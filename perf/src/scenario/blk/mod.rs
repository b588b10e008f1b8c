//! Block daemons, driven over vhost-user at native speed, next to fio on the same file.

mod aims;
mod config;
mod contestant;
mod driver;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod group;
mod idle;
mod image;
mod line_up;
mod render;
mod results;
mod run;
mod turn;
mod workload;

pub use super::{Pattern, Role, SystemCalls, Verdict};
pub use config::{BlkConfig, BlkOptions};
pub use error::Error;
pub use render::render;
pub use results::{
    Comparison, ContestantFacts, Idle, Outcome, Report, Row, Sample, Settings, Summary,
};
pub use run::run;
pub use workload::{Mode, Target, Workload};
