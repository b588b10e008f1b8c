//! Builds the guest's kernel and initramfs out of Debian packages
