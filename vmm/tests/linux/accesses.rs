//! What a processor was doing at a snapshot it has done once.

use super::payload;
use super::support::{Lab, TestResult};

/// Each machine says what follows the last byte of the one before.
const SCRIPT: &str = r#"
"$VMM" --kernel "$FILES/counts" --serial file=0.console --api-socket api.sock 2>>vmm.log &
for round in 0 1 2 3 4 5 6 7; do
    vmm=$!
    until [ -s $round.console ]; do sleep 0.1; done
    api POST /v1/snapshot "{\"folder\": \"$round\", \"stay-paused\": true}"
    api POST /v1/quit
    wait $vmm
    last=$(tail -c 1 $round.console | od -An -tu1)
    next=$((round + 1))
    "$VMM" --restore $round --serial file=$next.console --api-socket api.sock 2>>vmm.log &
    until [ -s $next.console ]; do sleep 0.1; done
    first=$(head -c 1 $next.console | od -An -tu1)
    echo "$last and $first: $(((first - last + 256) % 256)) further"
done
api POST /v1/quit
wait $!
cat vmm.log
"#;

/// The guest does hardly anything else, so that each snapshot comes while it writes to a port.
#[test]
fn an_access_that_a_snapshot_comes_upon_is_done_once() -> TestResult {
    let lab = Lab::new("accesses")?;
    lab.file("counts", &payload::elf(payload::COUNTS))?;
    let said = lab.run("poweroff -f", SCRIPT)?;
    let text = said.text();
    assert_eq!(text.matches(": 1 further").count(), 8, "{text}");
    Ok(())
}
