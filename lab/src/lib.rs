//! Machines and front ends for tests: QEMU and UML guests, a vhost-user front end of our own
