//! Measures Ringside's daemons and what people use today, alternating in one run.
//!
//! A scenario (`scenario::blk`) starts its contestants (`peer`), lets them take turns, reads what
//! a turn cost (`measure`), boils the rounds down (`statistics`) and says what came out
//! (`report`). What a run wrote can be drawn (`findings`, `page`) and held against another run (`compare`).

pub mod compare;
pub mod findings;
pub mod host;
pub mod interrupt;
pub mod measure;
pub mod options;
pub mod page;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod statistics;
mod sys;
