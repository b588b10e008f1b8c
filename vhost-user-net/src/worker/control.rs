//! Commands of the driver.

use std::io::Read;
use std::sync::Arc;

use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::worker::Context;
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

use crate::backend::Port;
use crate::control::{Command, MAX_COMMAND};
use crate::station::Station;

/// The worker of the control queue.
pub struct Control<P: Port> {
    pub(crate) station: Arc<Station<P>>,
}

impl<P: Port> Control<P> {
    pub(super) fn start(&self, cx: &mut Context<()>) {
        let queue = cx.queue();
        self.station
            .commands_begin(queue.identity(), queue.size(), queue.next_used());
    }

    /// Carries out what the guest made available; returns how many commands.
    pub(super) fn turn(&self, cx: &mut Context<()>) -> usize {
        for done in 0..Context::<()>::BATCH {
            match cx.pop() {
                Some((token, chain)) => self.answer(cx, token, chain),
                None => return done,
            }
        }
        Context::<()>::BATCH
    }

    /// Carries one command out and writes the ack byte (virtio 1.2, 5.1.6.5).
    fn answer(&self, cx: &mut Context<()>, token: Token, mut chain: Chain) {
        if chain.writable.is_empty() {
            cx.guest_fault(&"a control command without room for its answer");
            return self.complete(cx, token, 0);
        }
        let done = self.carry_out(cx, &mut chain);
        let ack = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        chain.writable.write_obj(&u8::try_from(ack).unwrap_or(1));
        self.complete(cx, token, 1);
    }

    /// What the command set is remembered before the driver can see that it is done.
    fn complete(&self, cx: &mut Context<()>, token: Token, written: u32) {
        self.station
            .answering(cx.queue().next_used().wrapping_add(1));
        cx.complete(token, written);
    }

    fn carry_out(&self, cx: &mut Context<()>, chain: &mut Chain) -> bool {
        if chain.readable.len() > MAX_COMMAND {
            cx.guest_fault(&"a control command of over 64 KiB");
            return false;
        }
        // Copied once: the guest may change its memory while we look.
        let mut bytes = vec![0; chain.readable.len()];
        if chain.readable.read_exact(&mut bytes).is_err() {
            return false;
        }
        match Command::parse(&bytes) {
            Ok(command) => {
                let done = self.station.obey(&command);
                tracing::debug!(?command, done, "control command");
                done
            }
            Err(fault) => {
                cx.guest_fault(&fault);
                false
            }
        }
    }
}
