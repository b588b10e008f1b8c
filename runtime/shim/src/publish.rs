//! Events for containerd.

use containerd_shim::Context;
use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::MessageDyn;
use containerd_shim::publisher::RemotePublisher;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Publishes events in the order they happened, without holding anybody up.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: UnboundedSender<(String, Box<dyn MessageDyn>)>,
}

impl Events {
    /// Publishes in containerd's `namespace`.
    pub(crate) fn new(publisher: RemotePublisher, namespace: String) -> Self {
        let (queue, events) = unbounded_channel();
        tokio::spawn(forward(publisher, namespace, events));
        Self { queue }
    }

    /// Tells containerd.
    pub(crate) fn publish(&self, event: impl Event) {
        // It is closed only when the process ends.
        let _ = self.queue.send((event.topic(), Box::new(event)));
    }
}

async fn forward(
    publisher: RemotePublisher,
    namespace: String,
    mut events: UnboundedReceiver<(String, Box<dyn MessageDyn>)>,
) {
    while let Some((topic, event)) = events.recv().await {
        let sent = publisher.publish(Context::default(), &topic, &namespace, event);
        if let Err(error) = sent.await {
            tracing::warn!(topic, %error, "containerd was not told");
        }
    }
}
