//! How often a guest at work leaves to KVM and to the VMM, and what the VMM may do meanwhile.

use lab::view::assert_documented;

use super::payload::{self, Messages};
use super::support::{Lab, TestResult};

/// Blocks that the guest reads one after the other.
const READS: u64 = 4000;

const GUEST: &str = r#"
    load virtio_blk virtiofs
    mount -t virtiofs files /mnt
    reads() { dd if=/dev/vda of=/dev/null bs=4k count=$1 iflag=direct 2>/dev/null; }
    reads 64
    # Interrupts by way of the I/O APIC, and by message.
    by() { awk -v way="$1" '$0 ~ way { n += $2 } END { print n + 0 }' /proc/interrupts; }
    touch /mnt/begin
    until [ -e /mnt/go ]; do sleep 0.1; done
    pins=$(by IO-APIC) messages=$(by PCI-MSI)
    reads 4000
    pins=$(($(by IO-APIC) - pins)) messages=$(($(by PCI-MSI) - messages))
    touch /mnt/end
    until [ -e /mnt/off ]; do sleep 0.1; done
    # Only now: the console's exits are not the requests'.
    echo "interrupts: $pins by I/O APIC, $messages by message"
"#;

/// Counts what the VMM and KVM counted between the guest's two files.
const SCRIPT: &str = r#"
    mount -t debugfs debug /sys/kernel/debug 2>/dev/null || true
    truncate -s 64M disk
    blk --blk-file disk
    mkdir files; fs --shared-dir files
    counters() {
        api GET /metrics | sed -n 's/^ringside_vmm_exits_total{.*kind="\([a-z]*\)"} /vmm_\1 /p'
        for counter in exits halt_exits irq_exits irq_window_exits irq_injections; do
            echo "kvm_$counter $(cat /sys/kernel/debug/kvm/"$(pidof ringside-vmm)"-*/$counter)"
        done
    }
    (
        until [ -e files/begin ]; do sleep 0.1; done
        vmm=/proc/$(pidof ringside-vmm)
        for task in "$vmm"/task/*; do
            echo "thread $(cat $task/comm):" $(grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' $task/status)
        done
        [ "$(readlink "$vmm/ns/net")" != "$(readlink /proc/self/ns/net)" ] && echo "a network of its own"
        "$LAB" view ${vmm#/proc/} --name "$PWD=DIRECTORY" --name "$FILES=FILES" --name "$ELF=KERNEL" | sed 's/^/view: /'
        counters >before; touch files/go
        until [ -e files/end ]; do sleep 0.1; done
        counters >after; touch files/off
    ) &
    counting=$!
    boot guest --kernel "$ELF" --api-socket api.sock --disk socket=blk.sock --fs socket=fs.sock,tag=files
    wait $counting
    chmod 666 /dev/kvm; chmod 711 .; mkdir -m 777 user; cp "$VMM" "$FILES/payload" user
    setpriv --reuid 1000 --regid 1000 --clear-groups timeout 100 user/ringside-vmm --kernel user/payload \
        --rng --serial file=user/console --api-socket user/api 2>&1 && echo "an ordinary user's guest ended"
    mkdir jail; truncate -s 16M jail/disk
    "$BLK" --socket-path jail/blk.sock --sandbox none --blk-file jail/disk 2>>blk.log &
    until [ -S jail/blk.sock ]; do sleep 0.05; done
    "$VMM" --jail jail --kernel "$FILES/payload" --rng --paused --disk socket=/blk.sock \
        --serial file=console --api-socket /api --cmdline "$CMDLINE" 2>jail.log &
    jailer=$!
    for _ in $(seq 200); do [ -S jail/api ] && break; sleep 0.1; done
    inner=$(cat /proc/$jailer/task/$jailer/children)
    inner=/proc/${inner% }
    echo "the jail holds:" $(ls -A $inner/root/)
    for space in mnt pid_for_children net ipc; do
        [ "$(readlink $inner/ns/$space)" != "$(readlink /proc/self/ns/$space)" ] && echo "its own $space"
    done
    curl -sS --max-time 60 --unix-socket jail/api -X POST http://vmm/v1/resume || cat jail.log
    if wait $jailer; then echo "the jail's guest ended"; else echo "jail: $?"; cat jail.log; fi
    ls jail
    paste -d ' ' before after | awk '{ print "counted", $1, $4 - $2 }'
"#;

#[test]
fn a_disk_request_is_no_work_for_the_vmm_which_has_no_powers() -> TestResult {
    let lab = Lab::new("exits")?;
    lab.file("payload", &payload::hostile(1, Messages::Interrupts))?;
    let said = lab.run(GUEST, SCRIPT)?;
    assert_powerless(said.text());
    let view = said
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("view: "));
    let view: String = view.flat_map(|line| [line.trim_end(), "\n"]).collect();
    assert_documented("ringside-vmm", &view);
    // Where the I/O APIC is, in KVM or in the VMM, is nothing to a request.
    let console = said.guest("guest");
    assert!(console.contains("interrupts: 0 by I/O APIC, "), "{console}");
    let interrupts = console.lines().filter(|line| line.contains(" by message"));
    interrupts.for_each(|line| println!("{line}"));
    let counted: Vec<(&str, u64)> = said.text().lines().filter_map(counted).collect();
    for (counter, count) in &counted {
        println!("{counter} for {READS} reads: {count}");
    }
    let own = counted.iter().filter(|(name, _)| name.starts_with("vmm_"));
    let (kinds, exits) = own.fold((0, 0), |(kinds, sum), (_, count)| (kinds + 1, sum + count));
    assert!(kinds > 0 && said.code("guest") == 0, "{said:?}");
    // What is left are the two files, the waits between them, and the clock.
    assert!(exits * 20 < READS, "{exits} exits to the VMM: {counted:?}");
    Ok(())
}

/// No capability, no way to any, a filter for each thread.
fn assert_powerless(said: &str) {
    let threads = said.lines().filter(|line| line.starts_with("thread "));
    let powers = threads.map(|line| line.split_once(": ").unwrap_or_default());
    let powers: Vec<(&str, &str)> = powers.collect();
    assert!(
        powers.iter().any(|(name, _)| *name == "thread vcpu0"),
        "{said}"
    );
    let none = "0000000000000000";
    let expected = format!("CapPrm: {none} CapEff: {none} CapBnd: {none} NoNewPrivs: 1 Seccomp: 2");
    for (name, power) in powers {
        assert_eq!(power, expected, "{name}");
    }
    assert!(said.contains("a network of its own"), "{said}");
    assert!(said.contains("an ordinary user's guest ended"), "{said}");
    assert!(
        said.contains("the jail holds: api blk.sock console disk\n"),
        "{said}"
    );
    for space in ["mnt", "pid_for_children", "net", "ipc"] {
        assert!(said.contains(&format!("its own {space}\n")), "{said}");
    }
    assert!(said.contains("the jail's guest ended"), "{said}");
}

fn counted(line: &str) -> Option<(&str, u64)> {
    let (name, count) = line.strip_prefix("counted ")?.split_once(' ')?;
    Some((name, count.parse().ok()?))
}
