//! vhost-user file system daemon (virtio-fs)
