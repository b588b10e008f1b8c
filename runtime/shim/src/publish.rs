//! Events for containerd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use containerd_shim::Context;
use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::MessageDyn;
use containerd_shim::publisher::RemotePublisher;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long nothing of the same kind is told after what a guest may cause as often as it likes.
const REST: Duration = Duration::from_secs(1);

/// An event on its way.
pub(crate) struct Waiting {
    pub(crate) topic: String,
    event: Box<dyn MessageDyn>,
    /// Of an event that is not told again before this one was: whether it still waits.
    once: Option<Arc<AtomicBool>>,
}

/// Publishes events in the order they happened, without holding anybody up. There are as many as processes begin and
/// end and calls are made.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: UnboundedSender<Waiting>,
}

impl Events {
    /// Publishes in containerd's `namespace`.
    pub(crate) fn new(publisher: RemotePublisher, namespace: String) -> Self {
        let (queue, events) = unbounded_channel();
        tokio::spawn(forward(publisher, namespace, events));
        Self { queue }
    }

    /// Tells whoever takes them out of the queue.
    #[cfg(test)]
    pub(crate) fn queued() -> (Self, UnboundedReceiver<Waiting>) {
        let (queue, events) = unbounded_channel();
        (Self { queue }, events)
    }

    /// Tells containerd.
    pub(crate) fn publish(&self, event: impl Event) {
        self.push(event, None);
    }

    /// The same, unless an event with this mark waits or was told within the last second.
    pub(crate) fn publish_once(&self, event: impl Event, waits: &Arc<AtomicBool>) {
        if !waits.swap(true, Ordering::Relaxed) {
            self.push(event, Some(Arc::clone(waits)));
        }
    }

    fn push(&self, event: impl Event, once: Option<Arc<AtomicBool>>) {
        let waiting = Waiting {
            topic: event.topic(),
            event: Box::new(event),
            once,
        };
        // It is closed only when the process ends.
        let _ = self.queue.send(waiting);
    }
}

async fn forward(
    publisher: RemotePublisher,
    namespace: String,
    mut events: UnboundedReceiver<Waiting>,
) {
    while let Some(Waiting { topic, event, once }) = events.recv().await {
        let sent = publisher.publish(Context::default(), &topic, &namespace, event);
        if let Err(error) = sent.await {
            tracing::warn!(topic, %error, "containerd was not told");
        }
        if let Some(waits) = once {
            tokio::spawn(async move {
                tokio::time::sleep(REST).await;
                waits.store(false, Ordering::Relaxed);
            });
        }
    }
}
