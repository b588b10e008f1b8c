//! vhost-user network device daemon

fn main() {}
