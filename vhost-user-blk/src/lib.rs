//! vhost-user block device daemon on io_uring
