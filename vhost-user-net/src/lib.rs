//! vhost-user network device daemon
