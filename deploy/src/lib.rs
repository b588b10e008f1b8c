#![doc = include_str!("../README.md")]

mod manual;
mod shim;

pub use manual::{Program, programs, write};
