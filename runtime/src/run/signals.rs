//! Signals to this process, as something to wait for.

use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals as Watched;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Their numbers, one after another.
pub(crate) type Signals = UnboundedReceiver<i32>;

/// Reports signals from now on, instead of dying of them.
pub(crate) fn watch() -> Result<Signals> {
    let (sender, signals) = unbounded_channel();
    let mut watched = Watched::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH])
        .context("cannot handle signals")?;
    thread::spawn(move || tell(&mut watched, &sender));
    Ok(signals)
}

fn tell(watched: &mut Watched, sender: &UnboundedSender<i32>) {
    for signal in watched.forever() {
        if sender.send(signal).is_err() {
            return;
        }
    }
}

/// Every watched signal but the news of a new window size.
pub(super) fn ends_a_run(signal: i32) -> bool {
    signal != SIGWINCH
}

/// The next signal that ends a run.
pub(super) async fn next_ending(signals: &mut Signals) -> i32 {
    loop {
        match signals.recv().await {
            Some(signal) if ends_a_run(signal) => return signal,
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}
