//! A guest's programs work on disk, files and network while the daemons are killed: ten times, or for an hour.

use std::error::Error;
use std::time::Duration;

use super::support::{Lab, Said, TestResult};
use super::work::{DAEMONS, ENTER};

/// What the guest does until it is told to end.
const GUEST: &str = r#"
    state="/mnt$(sed 's/.*test.work=//' /proc/cmdline)/guest-state"
    patience=$(sed 's/.*test.patience=//; s/ .*//' /proc/cmdline)
    echo loop >"$state"
    # What waits for what, should it never end.
    (
        sleep "$patience"
        echo "not over yet"
        dmesg -n 8
        echo w >/proc/sysrq-trigger
        echo l >/proc/sysrq-trigger
        cat /proc/interrupts
    ) &
    over=$!
    (
        while [ "$(cat "$state")" = loop ]; do
            host iperf3 --client 10.0.2.1 --time 3 >/mnt/mnt/iperf3 || { echo FAILED; cat /mnt/mnt/iperf3; }
            echo sent
        done
    ) &
    sending=$!
    while [ "$(cat "$state")" = loop ]; do
        verify --size=2M || { echo FAILED; cat /mnt/mnt/fio; }
        echo verified
    done
    wait "$sending"
    kill "$over"
    dmesg | grep -iE 'i/o error|timed out|blocked for' && echo FAILED
    echo "to the end"
    "#;

/// Kills one daemon after the other, at least ten times each and for `$SECONDS_OF_KILLS`, at moments up to `$PAUSE` ms
/// apart; tells what the VMM holds after the tenth time and after the last.
const KILLS: &str = r#"
    mkdir fs-state
    # iperf3 works in a file that it has removed.
    "$FS" keep --socket-path keeper.sock &
    until [ -S keeper.sock ]; do sleep 0.05; done
    files="--shared-dir / --state-dir fs-state --keeper keeper.sock"
    fs $files
    seconds() { cut -d. -f1 /proc/uptime; }
    pause() { sleep "$(shuf -i "100-$PAUSE" -n 1)e-3"; }
    # killed DAEMON START...: is killed at some moment, and started again.
    killed() {
        pause
        kill -9 "$(cat "$1.pid")"
        sleep 0.2
        shift
        "$@"
    }
    held() {
        pid=$(pidof ringside-vmm)
        echo "$1: $(ls "/proc/$pid/fd" | wc -l) $(ls "/proc/$pid/task" | wc -l)" \
            "$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")" "$(ls -A state fs-state | wc -l)"
    }
    (
        until [ -e guest-state ]; do sleep 0.1; done
        end=$(($(seconds) + SECONDS_OF_KILLS))
        kills=0
        while [ "$kills" -lt 10 ] || [ "$(seconds)" -lt "$end" ]; do
            killed blk blk --blk-file disk --state-dir state
            killed net net
            killed fs fs $files
            kills=$((kills + 1))
            # All three are connected to again by then.
            [ "$kills" -ne 10 ] || { sleep 10; held first; }
        done
        sleep 10
        held last
        echo "killed $kills times"
        echo done >guest-state
        sleep 120
        kill -USR1 "$(cat blk.pid)" "$(cat net.pid)" "$(cat fs.pid)"
    ) &
    BOOT_LIMIT=$((SECONDS_OF_KILLS + 350))
    CMDLINE="console=ttyS0 quiet panic=-1 test.patience=$((SECONDS_OF_KILLS + 150)) test.work=$work"
    boot guest --kernel "$ELF" --disk socket=blk.sock \
        --net socket=net.sock,mac=02:00:00:00:00:02 --fs socket=fs.sock,tag=files
    tail -n 30 net.log; tail -n 30 blk.log; tail -n 30 fs.log
    ip -n guest -s link show tap0; ip -n guest neigh
    "#;

/// At least ten kills of each daemon, up to `pause` ms apart, and for `seconds`: nothing fails, and the VMM does not grow.
fn killed(lab: &Lab, seconds: u64, pause: u64) -> Result<Said, Box<dyn Error>> {
    let said = lab.run_longer(
        Duration::from_secs(seconds),
        &format!("{ENTER}{GUEST}"),
        &format!("SECONDS_OF_KILLS={seconds} PAUSE={pause}\n{DAEMONS}{KILLS}"),
    )?;
    let console = said.guest("guest");
    for expected in ["verified", "sent", "to the end"] {
        assert!(console.contains(expected), "no {expected:?} in {said:?}");
    }
    assert!(!console.contains("FAILED"), "{said:?}");
    assert_eq!(said.code("guest"), 0, "{console}");
    let first = Held::read(&said, "first: ")?;
    let last = Held::read(&said, "last: ")?;
    assert_eq!(
        (first.descriptors, first.threads, first.state_files),
        (last.descriptors, last.threads, last.state_files),
        "{said:?}"
    );
    assert!(last.private_kib < first.private_kib + 4096, "{said:?}");
    Ok(said)
}

/// What the VMM had at one moment.
#[derive(Debug)]
struct Held {
    descriptors: u64,
    threads: u64,
    private_kib: u64,
    /// Files in the daemons' state directories.
    state_files: u64,
}

impl Held {
    fn read(said: &Said, when: &str) -> Result<Self, Box<dyn Error>> {
        let line = said.after(when);
        let numbers: Vec<u64> = line.split(' ').map_while(|it| it.parse().ok()).collect();
        let [descriptors, threads, private_kib, state_files] = numbers[..] else {
            return Err(format!("{when}{line:?} are not four numbers").into());
        };
        Ok(Self {
            descriptors,
            threads,
            private_kib,
            state_files,
        })
    }
}

#[test]
fn a_guest_sees_no_error_when_disk_network_and_files_are_killed_ten_times() -> TestResult {
    killed(&Lab::new("killed")?, 0, 700)?;
    Ok(())
}

/// `make soak-guest`.
#[test]
#[ignore = "takes as long as SOAK_SECONDS says"]
fn a_guest_sees_no_error_while_disk_network_and_files_are_killed_all_the_time() -> TestResult {
    let seconds = std::env::var("SOAK_SECONDS")?.parse()?;
    let said = killed(&Lab::new("soak")?, seconds, 3000)?;
    let console = said.guest("guest");
    let times = |what| console.lines().filter(|line| line.trim() == what).count();
    println!("each daemon was killed {}", said.after("killed "));
    println!(
        "fio verified 2 MiB {} times, iperf3 sent for 3 s {} times",
        times("verified"),
        times("sent")
    );
    for when in ["first: ", "last: "] {
        println!("{when}{:?}", Held::read(&said, when)?);
    }
    Ok(())
}
