//! What a daemon says unasked: its configuration changed.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost::vhost_user::{FrontendReqHandler, HandlerResult, VhostUserFrontendReqHandler};

use super::super::FrontEndError;

/// Our end of the channel.
pub(super) struct Requests {
    handler: FrontendReqHandler<Noted>,
    noted: Arc<Noted>,
}

#[derive(Default)]
struct Noted {
    config_changed: AtomicBool,
}

impl VhostUserFrontendReqHandler for Noted {
    fn handle_config_change(&self) -> HandlerResult<u64> {
        self.config_changed.store(true, Ordering::Relaxed);
        Ok(0)
    }
}

/// The daemon's end.
pub(super) struct Theirs(RawFd);

impl AsRawFd for Theirs {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Requests {
    pub(super) fn new(acknowledged: bool) -> Result<Self, FrontEndError> {
        let noted = Arc::new(Noted::default());
        let mut handler = FrontendReqHandler::new(noted.clone())
            .map_err(|error| FrontEndError::Thread(io::Error::other(error)))?;
        handler.set_reply_ack_flag(acknowledged);
        Ok(Self { handler, noted })
    }

    pub(super) fn theirs(&self) -> Theirs {
        Theirs(self.handler.get_tx_raw_fd())
    }

    /// Serves one request. Those that we do not know are refused, and are no reason to part.
    pub(super) fn serve(&mut self) -> Result<bool, FrontEndError> {
        use vhost::vhost_user::Error;
        match self.handler.handle_request() {
            Ok(_) | Err(Error::ReqHandlerError(_)) => {
                Ok(self.noted.config_changed.swap(false, Ordering::Relaxed))
            }
            Err(source) => Err(FrontEndError::Protocol {
                step: "send a proper request",
                source: vhost::Error::VhostUserProtocol(source),
            }),
        }
    }
}

impl AsRawFd for Requests {
    fn as_raw_fd(&self) -> RawFd {
        self.handler.as_raw_fd()
    }
}
