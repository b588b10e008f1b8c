//! How often a guest at work leaves to KVM, and to the VMM.

use super::support::{Lab, TestResult};

/// The second guest reads so many more blocks than the first.
const READS: u64 = 4000;

const GUEST: &str = r#"
    load virtio_blk virtiofs
    mount -t virtiofs files /mnt
    reads() { dd if=/dev/vda of=/dev/null bs=4k count=$1 iflag=direct 2>/dev/null; }
    reads 64
    touch /mnt/begin
    until [ -e /mnt/go ]; do sleep 0.1; done
    reads "$(cat /mnt/reads)"
    touch /mnt/end
    until [ -e /mnt/off ]; do sleep 0.1; done
"#;

/// Counts what KVM counted between the guest's two files.
const SCRIPT: &str = r#"
    mount -t debugfs debug /sys/kernel/debug 2>/dev/null || true
    truncate -s 64M disk
    blk --blk-file disk
    mkdir files; fs --shared-dir files
    counters() { (cd /sys/kernel/debug/kvm/"$(pidof ringside-vmm)"-* && grep -H . exits halt_exits io_exits mmio_exits irq_window_exits irq_injections); }
    count() {
        rm -f files/*; echo "$2" >files/reads
        (
            until [ -e files/begin ]; do sleep 0.1; done
            counters >before; touch files/go
            until [ -e files/end ]; do sleep 0.1; done
            counters >after; touch files/off
        ) &
        boot "$1" --kernel "$ELF" --log-level debug --disk socket=blk.sock --fs socket=fs.sock,tag=files
        wait $! || true
        paste -d : before after | awk -F : -v name="$1" '{ print name, "kvm", $1, $4 - $2 }'
    }
    count few 64
    count many 4064
"#;

#[test]
fn a_disk_request_is_no_work_for_the_vmm() -> TestResult {
    let said = Lab::new("exits")?.run(GUEST, SCRIPT)?;
    let count = |guest: &str| -> u64 {
        assert_eq!(said.code(guest), 0, "{}", said.guest(guest));
        assert!(
            said.guest(guest).contains("exits=Exits"),
            "{}",
            said.guest(guest)
        );
        let kinds = ["ports: ", "memory: ", "others: "];
        kinds
            .map(|kind| number(said.guest(guest), kind))
            .iter()
            .sum()
    };
    let (few, many) = (count("few"), count("many"));
    let kvm = |counter: &str| {
        let of = |guest: &str| number(said.text(), &format!("{guest} kvm {counter} "));
        of("many").saturating_sub(of("few"))
    };
    let counters = [
        "exits",
        "halt_exits",
        "io_exits",
        "mmio_exits",
        "irq_injections",
    ];
    let each = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 4000.0;
    let told = counters.map(|it| format!("{it} {:.2}", each(kvm(it))));
    let own = many.saturating_sub(few);
    println!(
        "a read of 4 KiB: exits to the VMM {:.3}; KVM: {}",
        each(own),
        told.join(", ")
    );
    assert!(own * 50 < READS, "{own} exits to the VMM for {READS} reads");
    Ok(())
}

fn number(text: &str, after: &str) -> u64 {
    let rest = text.split_once(after).map_or("", |(_, rest)| rest);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}
