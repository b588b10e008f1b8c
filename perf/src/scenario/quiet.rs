//! Turns at quiet times: waits before a turn, and takes it again while it was disturbed.

use std::time::Duration;

use crate::interrupt::{Interrupt, Interrupted};
use crate::measure::Bystanders;

/// How often a disturbed turn is taken again at most.
const RETAKES: u32 = 5;
/// How long the host is watched before a turn, and how often at most.
const PROBE: Duration = Duration::from_millis(100);
const PROBES: u32 = 100;

/// Takes turns, where `limit` says so at a quiet time: others use less than that many percent of a
/// core. `others` reads from a sample how much it was.
pub(super) fn take<T, E: From<Interrupted>>(
    limit: Option<f64>,
    interrupt: &Interrupt,
    others: impl Fn(&T) -> f64,
    mut turn: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let Some(limit) = limit else {
        return turn();
    };
    wait(limit, interrupt)?;
    let mut best = turn()?;
    for _ in 0..RETAKES {
        if others(&best) <= limit {
            break;
        }
        wait(limit, interrupt)?;
        let again = turn()?;
        if others(&again) < others(&best) {
            best = again;
        }
    }
    Ok(best)
}

fn wait(limit: f64, interrupt: &Interrupt) -> Result<(), Interrupted> {
    for _ in 0..PROBES {
        let others = Bystanders::read();
        interrupt.sleep(PROBE)?;
        if others.percent_since(Duration::ZERO) <= limit {
            break;
        }
    }
    Ok(())
}
