//! A guest in reserved pages, which are all its own however often it starts.

use super::support::{Lab, TestResult};

const GUEST: &str = "echo ready; while :; do sleep 1; done";

const SCRIPT: &str = r#"
echo 64 >/proc/sys/vm/nr_hugepages
free() { awk '/HugePages_Free/ { print $1, $2 }' /proc/meminfo; }
# ready TIMES: waits until the guest has started so often.
ready() {
    for _ in $(seq 500); do
        [ "$(grep -c ready guest.console 2>/dev/null)" = "$1" ] && return
        sleep 0.2
    done
    echo "the guest did not start $1 times FAILED"
}
free
boot guest --kernel "$ELF" --memory 128M --hugepages --api-socket api.sock &
guest=$!
ready 1; free
api POST /v1/reset
ready 2; free
api POST /v1/quit
wait $guest
"#;

#[test]
fn reserved_pages_stay_the_guests_when_it_starts_again() -> TestResult {
    let said = Lab::new("huge")?.run(GUEST, SCRIPT)?;
    let free: Vec<&str> = said
        .text()
        .lines()
        .filter(|it| it.starts_with("HugePages_Free"))
        .collect();
    let expected = [
        "HugePages_Free: 64",
        "HugePages_Free: 0",
        "HugePages_Free: 0",
    ];
    assert_eq!(free, expected, "{said:?}");
    assert!(!said.contains("FAILED"), "{said:?}");
    Ok(())
}
