//! Log lines go to `log` in the bundle: a FIFO that containerd reads, or a file that `ringside` made.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use ringside_config::Config;
use tracing_subscriber::EnvFilter;

/// What to log, in `tracing`'s words.
const VARIABLE: &str = "RINGSIDE_LOG";

/// Starts logging, as the variable, containerd's debugging or the configuration says; without a FIFO
/// nothing is logged.
pub(crate) fn start(debug: bool) {
    // containerd must be able to go away: with a reader of our own the FIFO breaks never, and when it
    // is full a line is lost, for writing does not wait.
    let fifo = OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("log");
    let Ok(fifo) = fifo else {
        return;
    };
    // A configuration that cannot be read is told of when the pod is to start.
    let usual = Config::load().map_or_else(|_| "info".to_owned(), |config| config.log.level);
    let usual = if debug { "debug" } else { &usual };
    let filter = EnvFilter::try_from_env(VARIABLE)
        .or_else(|_| EnvFilter::try_new(usual))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start is a test's business.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Mutex::new(fifo))
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .try_init();
}
