//! The command line.

use clap::{Parser, Subcommand};

use crate::scenario::blk::BlkOptions;
use crate::scenario::boot::BootOptions;
use crate::scenario::fs::FsOptions;
use crate::scenario::net::NetOptions;

/// Measures Ringside's daemons and what people use today, alternating in one run
#[derive(Debug, Parser)]
#[command(name = "ringside-perf", version, about)]
pub struct Options {
    /// What to measure.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Block daemons: any vhost-user-blk socket, driven at native speed
    Blk(BlkOptions),
    /// File system daemons: any virtio-fs socket, mounted on the host's own kernel
    Fs(FsOptions),
    /// Network daemons: any vhost-user-net socket on a tap, driven at native speed
    Net(NetOptions),
    /// VMMs: time from exec to the guest's first process, and to its first instruction
    Boot(BootOptions),
    /// VMMs: their own memory, outside the guest's
    Memory(BootOptions),
}
