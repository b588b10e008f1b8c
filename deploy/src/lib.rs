#![doc = include_str!("../README.md")]

mod manual;

pub use manual::{Program, programs, write};
