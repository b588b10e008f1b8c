//! What a driver says on the network device's control queue, a line on its control socket, and the text
//! of `--port`.

use std::sync::Arc;

use vhost_daemon::control::{Answer, Controlled, Done, answer};
use vhost_user_net::commands::{Command, PortStats, Refusal};
use vhost_user_net::control;
use vhost_user_net::filter::{FRONT, Wishes};
use vhost_user_net::options::PortSpec;

/// Checks what would be carried out.
struct Checker;

impl Controlled for Checker {
    type Command = Command;
    type Report = Vec<PortStats>;
    type Refusal = Refusal;

    fn carry_out(self: &Arc<Self>, command: Command) -> Result<Done<Vec<PortStats>>, Refusal> {
        let written = serde_json::to_string(&command).unwrap();
        let again: Command = serde_json::from_str(&written).unwrap();
        assert_eq!(command, again, "{written}");
        Err(Refusal::TooManyCaptures)
    }
}

/// A driver's command, and a frame that its wishes are held against.
fn obey(bytes: &[u8]) {
    let mut wishes = Wishes::new(None, true);
    match control::Command::parse(bytes) {
        Ok(control::Command::ReceiveMode { mode, on }) => wishes.set_mode(mode, on),
        Ok(control::Command::MacTable { unicast, multicast }) => {
            wishes.set_table(&unicast, &multicast);
        }
        Ok(control::Command::Vlan { wanted, id }) => wishes.set_vlan(id, wanted),
        Ok(control::Command::MacAddress(own)) => wishes.set_own(own),
        _ => {}
    }
    if let Some(front) = bytes.first_chunk::<FRONT>() {
        wishes.want(front);
    }
}

/// What one input does.
pub fn run(bytes: &[u8]) {
    obey(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (reply, _) = answer(&Arc::new(Checker), text);
    assert!(matches!(reply, Answer::Error(_)));
    if let Ok(port) = text.parse::<PortSpec>() {
        let unowned = PortSpec {
            fd: None,
            tap_fd: Vec::new(),
            ..port
        };
        if let Ok(config) = unowned.validate(true, 1) {
            assert!((1..=31).contains(&config.pairs));
            assert!(!config.name.contains(['"', '\n', '/', '\0']));
        }
    }
}
