//! `linux.resources.devices`: which devices a container may use, as a program for its cgroup.
//!
//! cgroup2 has no file for this, but asks a program for each use. The rules mean what they meant for cgroup1's
//! controller (the kernel's Documentation/admin-guide/cgroup-v1/devices.rst): a rule for everything says what is so,
//! later rules make exceptions from it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;

use anyhow::Context;
use serde_json::Value;

use super::error::{Error, Result};
use super::layout;
use crate::sys::bpf::{self, Instruction};

/// `BPF_DEVCG_*` in linux/bpf.h.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MAKE | READ | WRITE;

/// What every container may use (runtime-spec, config-linux.md, "Default Devices"), as major, minor (`None`: any):
/// null, zero, full, random, urandom, tty, console, ptmx and terminals.
const DEFAULTS: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// More rules than a container can need: the kernel takes a million instructions.
const MOST_RULES: usize = 4096;

/// Type, major, minor; `None`: any.
type Device = (u32, Option<u32>, Option<u32>);

/// What is so, and the exceptions from it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    allowed: bool,
    exceptions: BTreeMap<Device, u32>,
}

/// Limits a container's devices as its specification says. One that says nothing is not limited.
pub(super) fn apply(container: &str, spec: &Value) -> Result<()> {
    let Some(program) = program_of(spec)? else {
        return Ok(());
    };
    let directory = layout::cgroup_directory(container);
    // Before anything runs in it. The library takes it as it is.
    let cgroup = fs::create_dir(&directory)
        .and_then(|()| File::open(&directory))
        .with_context(|| format!("cannot make the cgroup {}", directory.display()))?;
    bpf::limit_devices(cgroup.as_fd(), &program).context("cannot limit the container's devices")?;
    Ok(())
}

/// The program that a specification's rules come to; `None` where it has none.
pub(super) fn program_of(spec: &Value) -> Result<Option<Vec<Instruction>>> {
    let given = spec.pointer("/linux/resources/devices");
    let Some(given) = given.and_then(Value::as_array).filter(|it| !it.is_empty()) else {
        return Ok(None);
    };
    let rules = Rules::read(given).map_err(|why| Error::invalid("linux.resources.devices", why))?;
    Ok(Some(rules.program()))
}

impl Rules {
    fn read(given: &[Value]) -> std::result::Result<Self, String> {
        if given.len() > MOST_RULES {
            return Err(format!("has more than {MOST_RULES} rules"));
        }
        let mut rules = Self::default();
        for rule in given {
            rules.add(rule)?;
        }
        // Nodes are harmless that cannot be opened, and these can always be.
        for kind in [BLOCK, CHARACTER] {
            rules.set(true, (kind, None, None), MAKE);
        }
        for (major, minor) in DEFAULTS {
            rules.set(true, (CHARACTER, Some(major), minor), ALL);
        }
        Ok(rules)
    }

    fn add(&mut self, rule: &Value) -> std::result::Result<(), String> {
        let allow = rule["allow"] == true;
        let number = |name: &str| match rule[name].as_i64() {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number)
                .map(Some)
                .map_err(|_| format!("has the {name} {number}")),
        };
        let (major, minor) = (number("major")?, number("minor")?);
        let mut access = 0;
        for letter in rule["access"].as_str().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MAKE,
                other => return Err(format!("has the access {other:?}")),
            };
        }
        match rule["type"].as_str().unwrap_or("a") {
            "a" if (major, minor) == (None, None) && access == ALL => {
                self.allowed = allow;
                self.exceptions.clear();
            }
            "a" => {
                self.set(allow, (BLOCK, major, minor), access);
                self.set(allow, (CHARACTER, major, minor), access);
            }
            "b" => self.set(allow, (BLOCK, major, minor), access),
            "c" | "u" => self.set(allow, (CHARACTER, major, minor), access),
            other => return Err(format!("has the type {other:?}")),
        }
        Ok(())
    }

    fn set(&mut self, allow: bool, device: Device, access: u32) {
        if allow != self.allowed {
            *self.exceptions.entry(device).or_default() |= access;
        } else if let Some(excepted) = self.exceptions.get_mut(&device) {
            *excepted &= !access;
        }
    }

    /// What is asked for is in `struct bpf_cgroup_dev_ctx`: access and type in one word, major, minor.
    fn program(&self) -> Vec<Instruction> {
        let mut program = vec![load(2, 0), copy(3, 2), and(2, 0xffff), shift_right(3, 16)];
        program.extend([load(4, 4), load(5, 8)]);
        for ((kind, major, minor), access) in &self.exceptions {
            let mut checks = vec![(2, *kind)];
            checks.extend(major.map(|major| (4, major)));
            checks.extend(minor.map(|minor| (5, minor)));
            // To allow, all that is asked for must be excepted; to deny, something of it.
            let of_interest = if self.allowed {
                *access
            } else {
                !access & 0xffff
            };
            let decision = [
                copy(1, 3),
                and(1, of_interest),
                jump(if self.allowed { EQUAL } else { NOT_EQUAL }, 1, 0, 2),
                put(0, u32::from(!self.allowed)),
                EXIT,
            ];
            let mut left = checks.len() + decision.len();
            for (register, value) in checks {
                left -= 1;
                program.push(jump(NOT_EQUAL, register, value, left));
            }
            program.extend(decision);
        }
        program.extend([put(0, u32::from(self.allowed)), EXIT]);
        program
    }
}

// The instruction set: the kernel's Documentation/bpf/standardization/instruction-set.rst.
// Both of 32 bits (BPF_JMP32): with 64, a large number would be taken for a negative one.
const EQUAL: u64 = 0x16;
const NOT_EQUAL: u64 = 0x56;
const EXIT: Instruction = 0x95;

fn instruction(code: u64, to: u64, from: u64, offset: usize, value: u32) -> Instruction {
    code | to << 8 | from << 12 | (offset as u64 & 0xffff) << 16 | u64::from(value) << 32
}

/// A word of what register 1 points to.
fn load(to: u64, offset: usize) -> Instruction {
    instruction(0x61, to, 1, offset, 0)
}

fn copy(to: u64, from: u64) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

fn and(to: u64, value: u32) -> Instruction {
    instruction(0x57, to, 0, 0, value)
}

fn shift_right(to: u64, bits: u32) -> Instruction {
    instruction(0x77, to, 0, 0, bits)
}

/// 32 bits, without a sign.
fn put(to: u64, value: u32) -> Instruction {
    instruction(0xb4, to, 0, 0, value)
}

/// Over so many instructions.
fn jump(when: u64, register: u64, value: u32, over: usize) -> Instruction {
    instruction(when, register, 0, over, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(given: Value) -> Rules {
        Rules::read(given.as_array().unwrap()).unwrap()
    }

    /// Runs a program as the kernel would: what it answers for this access to this device.
    fn asked(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let it = program[at];
            let (to, from) = ((it >> 8 & 15) as usize, (it >> 12 & 15) as usize);
            let (offset, value) = ((it >> 16 & 0xffff) as usize, it >> 32);
            at += 1;
            match it & 0xff {
                0x61 => registers[to] = context[offset / 4].into(),
                0xbf => registers[to] = registers[from],
                0x57 => registers[to] &= value,
                0x77 => registers[to] >>= value,
                0xb4 => registers[to] = value,
                0x16 if registers[to] == value => at += offset,
                0x56 if registers[to] != value => at += offset,
                0x16 | 0x56 => {}
                0x95 => return registers[0] == 1,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let rules = rules(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 254, "access": "r"},
        ]));
        let program = rules.program();
        let may = |kind, access, major, minor| asked(&program, kind, access, major, minor);
        assert!(may(CHARACTER, READ | WRITE, 10, 229) && may(CHARACTER, READ, 10, 229));
        assert!(!may(CHARACTER, READ, 10, 228) && !may(BLOCK, READ, 10, 229));
        assert!(may(BLOCK, READ, 254, 16) && !may(BLOCK, READ | WRITE, 254, 16));
        assert!(may(CHARACTER, ALL, 1, 3) && may(CHARACTER, READ, 136, 7));
        assert!(may(BLOCK, MAKE, 8, 0) && !may(BLOCK, READ, 8, 0));
    }

    #[test]
    fn what_a_rule_denies_is_the_exception() {
        let rules = rules(json!([
            {"allow": true},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]));
        let program = rules.program();
        let may = |access| asked(&program, CHARACTER, access, 10, 229);
        assert!(may(READ) && !may(WRITE) && !may(READ | WRITE));
        assert!(asked(&program, BLOCK, ALL, 8, 0));
    }

    #[test]
    fn nonsense_is_named() {
        for (rule, word) in [
            (json!({"access": "x"}), "access"),
            (json!({"type": "z"}), "type"),
            (json!({"major": -7}), "major"),
        ] {
            let error = Rules::read(&[rule]).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
