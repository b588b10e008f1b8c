//! The same daemons under a guest's own driver: iperf3 and ping between a guest and its tap, next to the
//! device that the hypervisor brings along.

mod aims;
mod group;
mod line_up;
mod load;
mod machine;
mod render;
mod results;
mod tools;
mod turn;

pub(super) use aims::verdicts;
pub(super) use group::Group;
pub(super) use line_up::line_up;
pub use load::GuestLoad;
pub(super) use render::render;
pub use results::{GuestComparison, GuestOutcome, GuestRow, GuestSample, GuestSummary};
pub(super) use turn::Turns;
