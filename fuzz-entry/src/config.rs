//! The runtime's configuration file, and annotations of a pod that change it.
//!
//! The file ends at the first zero byte; behind it each line is an annotation, `NAME=TEXT`.

use std::fs;

use ringside_config::Settings;
use tempfile::TempDir;

thread_local! {
    /// In memory; no drop-ins beside it. Goes with its thread: what is static never goes.
    static DIRECTORY: TempDir = TempDir::new_in("/dev/shm").unwrap();
}

/// What one input does.
pub fn run(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == 0);
    let (file, annotations) = input.split_at(end.unwrap_or(input.len()));
    let path = DIRECTORY.with(|it| it.path().join("config.toml"));
    fs::write(&path, file).unwrap();
    let settings = match Settings::load_from(&path) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let text = String::from_utf8_lossy(annotations.get(1..).unwrap_or_default());
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    match settings.with_annotations(pairs) {
        Ok(changed) => {
            let config = changed.config();
            assert!((1..=64).contains(&config.machine.cpus.get()));
            let most = config.machine.max_memory;
            assert!(most.is_none_or(|most| config.machine.memory.0 <= most.0));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
