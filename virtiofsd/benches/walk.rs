//! What walking a large tree with few files open takes: `make walk`. Prints, for each way of keeping
//! nodes, the most descriptors that the daemon had open, times, and memory for each node.
//! `FILES` and `LIMIT` change the tree's size and the limit of open files. Then it makes and removes half as
//! many files with the longest names, and prints what a node of such a file takes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that fails says where"
)]

#[path = "../tests/share/mod.rs"]
mod share;
#[path = "../tests/walking/mod.rs"]
mod walking;

/// A number from the environment.
fn chosen(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(number) => number.parse().expect("a number"),
        Err(_) => default,
    }
}

fn main() {
    let files = chosen("FILES", 1_000_000);
    let limit = chosen("LIMIT", 4096).to_string();
    println!("{files} files, --rlimit-nofile {limit}");
    println!("handles    nodes   open     walk   again/node  bytes/node");
    for handles in ["as-needed", "never", "prefer"] {
        let options = ["--rlimit-nofile", &limit, "--inode-file-handles", handles];
        let walked = walking::walk("fs-walk-bench", files, &options);
        println!(
            "{handles:9} {:7} {:6} {:7.2}s {:9.1}us {:11}",
            walked.nodes,
            walked.most_open,
            walked.took.as_secs_f64(),
            walked.again.as_secs_f64() * 1e6,
            walked.bytes_per_node,
        );
        let limit: usize = limit.parse().expect("a number");
        assert!(walked.most_open <= limit);
    }
    println!("handles   bytes/node  in --state-dir");
    for handles in ["as-needed", "never"] {
        let options = ["--rlimit-nofile", &limit, "--inode-file-handles", handles];
        let (bytes, state) = walking::cost_of_a_node("fs-forget-bench", files / 2, &options);
        println!("{handles:9} {bytes:10} {state:15}");
    }
}
