//! What a client sends to the machine's API: the first byte says how long each part is.

use vmm::api::{Exchange, Target};
use vmm::machine::{Answer, Command, Refusal};
use vmm::options::DeviceDescription;

struct Machine;

impl Target for Machine {
    fn order(&self, command: Command) -> Result<Answer, Refusal> {
        match command {
            Command::Devices => Ok(Answer::Devices(Vec::new())),
            Command::Metrics => Ok(Answer::Metrics("text 1\n".into())),
            Command::Remove(id) => Err(Refusal::NoDevice(id)),
            Command::Pause => Ok(Answer::Done),
            _ => Ok(Answer::Begun),
        }
    }

    fn add(&self, device: DeviceDescription) -> Result<Answer, Refusal> {
        Err(Refusal::SameId(device.id.unwrap_or_default()))
    }
}

/// What one input does.
pub fn run(bytes: &[u8]) {
    let Some((part, text)) = bytes.split_first() else {
        return;
    };
    let mut exchange = Exchange::default();
    for part in text.chunks(usize::from(*part) + 1) {
        let part = &part[..part.len().min(exchange.room())];
        exchange.feed(part, &Machine);
        while !exchange.outgoing().is_empty() {
            assert!(exchange.outgoing().starts_with(b"HTTP/1.1 "));
            let all = exchange.outgoing().len();
            exchange.sent(all);
            exchange.feed(&[], &Machine);
        }
    }
}
