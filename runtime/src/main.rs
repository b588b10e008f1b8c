//! Containers in microVMs: the ringside command line

fn main() {}
