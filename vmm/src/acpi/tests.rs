//! The tables as a guest finds them, judged by ACPICA's own compiler and interpreter.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::need;
use lab::scratch::Scratch;

use super::*;
use crate::memory::{ByteSize, MemoryConfig};

fn memory() -> GuestMemory {
    GuestMemory::new(MemoryConfig {
        size: ByteSize(32 << 20),
        hugepages: false,
        prefault: false,
    })
    .unwrap()
}

fn read(memory: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let at = GuestAddress(address);
    memory.mapped().read_slice(&mut bytes, at).unwrap();
    bytes
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// A table with its length from its own header; its bytes sum to zero.
fn table(memory: &GuestMemory, address: u64) -> Vec<u8> {
    let head = read(memory, address, 8);
    let len = u32::from_le_bytes(head[4..8].try_into().unwrap());
    let table = read(memory, address, len as usize);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0, "{:?}", String::from_utf8_lossy(&table[..4]));
    table
}

/// Root pointer → XSDT → tables, as a kernel walks.
fn tables(memory: &GuestMemory) -> Vec<Vec<u8>> {
    let root = read(memory, layout::RSDP, 36);
    assert_eq!(&root[..8], b"RSD PTR ");
    let xsdt = table(memory, u64_at(&root, 24));
    let mut tables: Vec<Vec<u8>> = xsdt[36..]
        .chunks(8)
        .map(|entry| table(memory, u64_at(entry, 0)))
        .collect();
    let dsdt = u64_at(&tables[0], 140);
    tables.push(table(memory, dsdt));
    tables.push(xsdt);
    tables
}

fn run(program: &str, directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(need::program(program).unwrap())
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// Disassembled and compiled again, every table is the same, without a remark.
#[test]
fn iasl_reads_every_table_and_writes_the_same() {
    let memory = memory();
    write(&memory, 2).unwrap();
    let scratch = Scratch::new("acpi").unwrap();
    for table in tables(&memory) {
        let name = String::from_utf8(table[..4].to_vec()).unwrap();
        let file = |extension: &str| format!("{name}.{extension}");
        fs::write(scratch.join(&file("dat")), &table).unwrap();
        run("iasl", scratch.path(), &["-d", &file("dat")]);
        let said = run("iasl", scratch.path(), &[&file("dsl")]);
        assert!(said.contains("0 Errors, 0 Warnings, 0 Remarks"), "{said}");
        let again = fs::read(scratch.join(&file("aml"))).unwrap();
        // The compiler signs with its own name and version, and sums anew.
        let without_creator = |table: &[u8]| [&table[..9], &table[10..28], &table[36..]].concat();
        if name == "DSDT" {
            // Constants get shorter forms: compare what they mean.
            assert!(again.len() <= table.len() + 8, "{}", again.len());
        } else {
            assert_eq!(without_creator(&again), without_creator(&table), "{name}");
        }
    }
}

#[test]
fn the_tables_say_what_the_machine_has() {
    let memory = memory();
    write(&memory, 3).unwrap();
    let scratch = Scratch::new("acpi").unwrap();
    let mut text = String::new();
    for table in tables(&memory) {
        let name = String::from_utf8(table[..4].to_vec()).unwrap();
        fs::write(scratch.join(&name), &table).unwrap();
        run("iasl", scratch.path(), &["-d", &name]);
        text += &fs::read_to_string(scratch.join(&format!("{name}.dsl"))).unwrap();
    }
    assert_eq!(text.matches("[Processor Local APIC]").count(), 3);
    for said in [
        "Hardware Reduced (V5) : 1",
        "PNP0A08",
        ": 00000000E0000000",
        "ACPI0013",
        "Notify (\\_SB.PWRB, 0x80)",
    ] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
}

/// ACPICA's interpreter loads the tables as a kernel does and carries out their code.
#[test]
fn acpica_carries_out_the_code() {
    let memory = memory();
    write(&memory, 1).unwrap();
    let scratch = Scratch::new("acpi").unwrap();
    let dsdt = tables(&memory).swap_remove(3);
    fs::write(scratch.join("dsdt.dat"), dsdt).unwrap();
    let evaluate = |object: &str| {
        let command = format!("evaluate {object}");
        let ports_are_ones = ["-fv", "0xff"];
        let arguments = [&["-b", &command], &ports_are_ones[..], &["dsdt.dat"]].concat();
        run("acpiexec", scratch.path(), &arguments)
    };
    let off = evaluate("\\_S5");
    assert!(off.contains("[Integer] = 0000000000000005"), "{off}");
    let bridge = evaluate("\\_SB.PCI0._CRS");
    assert!(bridge.contains("[Buffer] Length"), "{bridge}");
    let event = evaluate("\\_SB.GED0._EVT 9");
    assert!(!event.contains("AE_"), "{event}");
    // Ports read as ones there: every place is told that something came and that it shall go.
    let bus = evaluate("\\_SB.PCI0.PCNT");
    assert!(!bus.contains("AE_"), "{bus}");
    for place in [1, 31] {
        for what in ["0x01", "0x03"] {
            let (place, what) = (format!("[S{place:03}]"), format!("Value {what}"));
            let told = |line: &str| line.contains(&place) && line.contains(&what);
            assert!(bus.lines().any(told), "no {place} {what} in {bus}");
        }
    }
    let eject = evaluate("\\_SB.PCI0.S031._EJ0 1");
    assert!(!eject.contains("AE_"), "{eject}");
}

#[test]
fn too_many_processors_for_the_place_are_an_error() {
    let memory = memory();
    let mut place = Place {
        memory: &memory,
        next: layout::RESET_VECTOR - 8,
    };
    assert!(matches!(place.put(&[0; 9]), Err(AcpiError::Size)));
    assert!(write(&memory, 255).is_ok());
}
