//! Measures Ringside's daemons and what people use today, alternating in one run.
//!
//! A scenario (`scenario::blk`) starts its contestants (`peer`), lets them take turns, reads what
//! a turn cost (`measure`), boils the rounds down (`statistics`) and says what came out
//! (`report`).

pub mod host;
pub mod interrupt;
pub mod measure;
pub mod options;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod statistics;
mod sys;
