//! Block daemons, driven over vhost-user at native speed, next to fio on the same file.

mod aims;
mod config;
mod contestant;
mod driver;
mod error;
#[cfg(test)]
mod fixture;
mod group;
mod idle;
mod image;
mod line_up;
mod render;
mod results;
mod run;
mod turn;
mod workload;

pub use config::{BlkConfig, BlkOptions, OptionsError};
pub use error::Error;
pub use render::render;
pub use results::{
    Comparison, ContestantFacts, Idle, Outcome, Report, Role, Row, Sample, Settings, Summary,
    SystemCalls, Verdict,
};
pub use run::run;
pub use workload::{Mode, Pattern, Target, Workload};
