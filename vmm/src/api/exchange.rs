//! One client's requests and their answers, as bytes: what a connection is without its socket.

use super::http::{self, Arrived, MOST_BODY, MOST_HEAD, Response};
use super::routes::{self, Target};

/// Bytes that have arrived and wait, and bytes that wait to be sent.
#[derive(Debug, Default)]
pub struct Exchange {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// The client was told that it may send the body it is sending.
    continued: bool,
    /// After what is outgoing the connection ends.
    ends: bool,
}

impl Exchange {
    /// Takes bytes, and answers the next request, if it is whole and the last answer was sent.
    pub fn feed(&mut self, bytes: &[u8], target: &dyn Target) {
        if self.ends {
            return;
        }
        self.incoming.extend_from_slice(bytes);
        while self.outgoing.is_empty() && !self.ends && self.answer_next(target) {}
    }

    /// How many more bytes it takes now. Clients that send requests on requests without reading answers
    /// wait.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.ends || !self.outgoing.is_empty() {
            return 0;
        }
        (MOST_HEAD + MOST_BODY).saturating_sub(self.incoming.len())
    }

    /// What waits to be sent.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// So many of the bytes were sent.
    pub fn sent(&mut self, count: usize) {
        self.outgoing.drain(..count.min(self.outgoing.len()));
    }

    /// There is nothing more to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ends && self.outgoing.is_empty()
    }

    /// Neither a part of a request nor an answer waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.incoming.is_empty() && self.outgoing.is_empty()
    }

    /// Whether there was a whole request.
    fn answer_next(&mut self, target: &dyn Target) -> bool {
        let incoming = std::mem::take(&mut self.incoming);
        let (taken, answered) = match http::parse(&incoming) {
            Ok(Arrived::Part { wants_continue }) => {
                if wants_continue && !std::mem::replace(&mut self.continued, true) {
                    self.outgoing = http::CONTINUE.to_vec();
                }
                (0, false)
            }
            Ok(Arrived::Whole(request, length)) => {
                let response = routes::answer(target, &request);
                self.outgoing = response.bytes(request.keep_alive);
                self.ends = !request.keep_alive;
                self.continued = false;
                (length, true)
            }
            Err(error) => {
                self.outgoing = Response::error(error.status(), &error).bytes(false);
                self.ends = true;
                (incoming.len(), false)
            }
        };
        self.incoming = incoming;
        self.incoming.drain(..taken);
        answered
    }
}
