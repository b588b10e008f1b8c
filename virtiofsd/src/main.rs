//! vhost-user file system daemon (virtio-fs)

fn main() {}
