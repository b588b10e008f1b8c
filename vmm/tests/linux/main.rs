//! Linux boots in `ringside-vmm`, on disks and files that our daemons serve, in the lab.

mod accesses;
mod control;
mod exits;
mod huge;
mod killed;
mod late;
mod matrix;
mod payload;
mod sockets;
mod support;
mod work;

use payload::Messages;
use support::{Lab, TestResult};

#[test]
fn a_kernel_that_dies_is_told_with_its_registers() -> TestResult {
    let lab = Lab::new("dies")?;
    lab.file("dies", &payload::elf(payload::DIES))?;
    lab.file("nothing", b"not a kernel")?;
    let said = lab.run(
        "poweroff -f",
        r#"
        boot dies --kernel "$FILES/dies"
        boot nothing --kernel "$FILES/nothing"
        "$VMM" --check
        "#,
    )?;
    let dies = said.guest("dies");
    assert!(
        dies.contains("processor 0 stopped at a triple fault"),
        "{dies}"
    );
    // On AMD processors KVM has reset the registers before it tells (the lab's are AMD's).
    assert!(dies.contains("(rip=0x"), "{dies}");
    assert_eq!((said.code("dies"), said.code("nothing")), (1, 1));
    let nothing = said.guest("nothing");
    assert!(
        nothing.contains("neither a bzImage nor a 64-bit x86 ELF kernel"),
        "{nothing}"
    );
    assert!(said.contains("/dev/kvm is native"), "{said:?}");
    Ok(())
}

/// The VMM lives until the guest switches itself off, and both daemons serve the next guest, which works on disk and
/// files, starts again, and finds what it wrote.
#[test]
fn hostile_guests_hurt_neither_the_vmm_nor_the_daemons() -> TestResult {
    let lab = Lab::new("hostile")?;
    let guests = || (1..=6_u64).map(|number| (number, format!("hostile-{number}")));
    for (number, name) in guests() {
        let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        lab.file(&name, &payload::hostile(seed, messages(number)))?;
    }
    let said = lab.run(
        r#"
        load virtio_blk virtiofs
        mount -t virtiofs files /mnt
        echo "round $(cat /mnt/round)"
        if [ "$(cat /mnt/round)" = 1 ]; then
            dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
            dd if=/tmp/data of=/dev/vda bs=1M oflag=direct 2>/dev/null
            md5sum </tmp/data >/mnt/sum
            echo 2 >/mnt/round
            umount /mnt
            reboot -f
        fi
        test "$(dd if=/dev/vda bs=1M count=4 iflag=direct 2>/dev/null | md5sum)" = "$(cat /mnt/sum)" &&
            echo "the disk kept its data"
        umount /mnt
        poweroff -f"#,
        r#"
        mkdir files; truncate -s 64M disk
        blk --blk-file disk; fs --shared-dir files
        for guest in "$FILES"/hostile-*; do
            boot "$(basename "$guest")" --kernel "$guest" --rng \
                --disk socket=blk.sock --fs socket=fs.sock,tag=files
        done
        echo 1 >files/round
        boot after --kernel "$ELF" --disk socket=blk.sock --fs socket=fs.sock,tag=files
        "#,
    )?;
    let mut ended = 0;
    for (_, name) in guests() {
        let (code, guest) = (said.code(&name), said.guest(&name));
        // A device that it lets write anywhere may write over its own code, whatever its messages are.
        let killed_itself = code == 1 && guest.contains("processor 0 stopped at ");
        assert!(code == 0 || killed_itself, "{name}: {guest}");
        ended += u32::from(code == 0);
    }
    assert!(ended >= 2, "hardly any came to its end: {ended} of 6");
    let after = said.guest("after");
    for expected in ["round 1", "round 2", "the disk kept its data"] {
        assert!(after.contains(expected), "no {expected:?} in {after}");
    }
    assert_eq!(said.code("after"), 0, "{after}");
    Ok(())
}

fn messages(number: u64) -> Messages {
    if number > 4 {
        Messages::Any
    } else {
        Messages::Interrupts
    }
}
