//! Network daemons, driven over vhost-user at native speed, next to bare system calls on a tap.

mod aims;
mod bare;
mod config;
mod contestant;
mod driver;
mod error;
mod frame;
mod ground;
mod group;
mod guest;
mod line_up;
mod plan;
mod render;
mod results;
mod run;
mod turn;
mod workload;

pub use super::{Role, SystemCalls, Verdict};
pub use config::{NetConfig, NetOptions};
pub use error::Error;
pub use guest::{GuestComparison, GuestLoad, GuestOutcome, GuestRow, GuestSample, GuestSummary};
pub use render::render;
pub use results::{Comparison, ContestantFacts, Outcome, Report, Row, Sample, Settings, Summary};
pub use run::run;
pub use workload::{Direction, Target, Workload};
