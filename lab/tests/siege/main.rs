//! Attackers in the guest's place and in the front end's, for as long as SIEGE_SECONDS says (`make siege`: an hour):
//! whatever stands in rings, requests and messages, and however it changes while it is read, the daemon goes on,
//! serves the next front end, and grows by nothing. SIEGE_SEED repeats a run's choices; threads' turns stay the
//! machine's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod dice;
mod fort;
mod guest;
mod kind;
mod liar;
mod meddler;

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dice::Dice;
use fort::Fort;
use kind::Kind;

/// Some dozens of attacks on each daemon; `make siege` says more.
const SHORT: u64 = 15;

/// Attacks one daemon until it is time; says what was done.
fn besiege(kind: Kind, seed: u64, until: Instant) -> String {
    let mut dice = Dice::new(seed, kind.name());
    let mut fort = Fort::new(kind);
    let (mut guests, mut liars, mut moves) = (0_u64, 0_u64, 0_u64);
    while Instant::now() < until {
        match dice.below(4) {
            0 => {
                moves += liar::attack(&fort, &mut dice);
                liars += 1;
            }
            _ => {
                moves += guest::attack(&fort, &mut dice);
                guests += 1;
            }
        }
        fort.stands();
    }
    let held = fort.end();
    format!(
        "| {} | {guests} | {liars} | {moves} | {held} |",
        kind.name()
    )
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_attack_ends_a_daemon_or_makes_it_grow() {
    lab::need::root().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SIEGE_SEED", now.as_secs());
    let until = Instant::now() + Duration::from_secs(number("SIEGE_SECONDS", SHORT));
    println!("SIEGE_SEED={seed}");
    let running = Kind::ALL.map(|kind| thread::spawn(move || besiege(kind, seed, until)));
    let ended = running.map(thread::JoinHandle::join);
    println!(
        "| daemon | guests | front ends | moves | descriptors | threads | private KiB |\n\
         | --- | --- | --- | --- | --- | --- | --- |"
    );
    let mut fell = false;
    for report in ended {
        match report {
            Ok(report) => println!("{report}"),
            Err(_) => fell = true,
        }
    }
    assert!(!fell, "with SIEGE_SEED={seed}");
}
