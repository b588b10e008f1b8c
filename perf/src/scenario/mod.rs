//! What can be measured.

pub mod blk;
