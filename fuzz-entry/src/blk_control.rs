//! A line on the block daemon's control socket, and the text of `--disk`.

use std::sync::Arc;

use vhost_daemon::control::{Answer, Controlled, Done, answer};
use vhost_daemon::listen::Endpoint;
use vhost_user_blk::control::{Command, DiskStats, Refusal};
use vhost_user_blk::options::DiskSpec;

/// Checks what would be carried out.
struct Checker;

impl Controlled for Checker {
    type Command = Command;
    type Report = Vec<DiskStats>;
    type Refusal = Refusal;

    fn carry_out(self: &Arc<Self>, command: Command) -> Result<Done<Vec<DiskStats>>, Refusal> {
        let written = serde_json::to_string(&command).unwrap();
        let again: Command = serde_json::from_str(&written).unwrap();
        assert_eq!(command, again, "{written}");
        if let Command::Add { disk } = command {
            check(disk);
        }
        Err(Refusal::NoDisk)
    }
}

/// A disk that is accepted has a name that is safe as a file's.
fn check(disk: DiskSpec) {
    if let Ok(config) = disk.at(Endpoint::Path("/nowhere".into())) {
        let name = &config.name;
        assert!(
            !name.is_empty() && name.len() <= 64 && !name.starts_with('.'),
            "{name}"
        );
        assert!(!name.contains(['/', '"', '\n', '\0']), "{name}");
        assert!((1..=64).contains(&config.queues));
    }
}

/// What one input does.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(matches!(
        answer(&Arc::new(Checker), text).0,
        Answer::Error(_)
    ));
    if let Ok(disk) = text.parse::<DiskSpec>() {
        check(disk);
    }
}
