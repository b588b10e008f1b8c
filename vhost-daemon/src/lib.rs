//! What Ringside's vhost-user daemons share: session, queue worker, options, logs, metrics
