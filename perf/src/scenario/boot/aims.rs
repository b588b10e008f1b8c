//! The aims of the VMM (docs/vmm.md).

use super::Summary;
use super::results::Row;
use crate::scenario::verdict::Bound;
use crate::scenario::{Role, Verdict};

/// Clear Containers' aim for a boot, and the documents' own boot of QEMU with an ordinary kernel and distribution.
const BOOT_MS: f64 = 100.0;
const DOCUMENTS_QEMU_MS: f64 = 571.04;
/// Whose boot here stands for the documents' where the machine is not theirs.
const REFERENCE: &str = "qemu q35";

/// The aims; times of a machine that is itself a guest are scaled.
pub(super) fn verdicts(rows: &[Row], virtualised: bool) -> Vec<Verdict> {
    let ours = rows.iter().find(|row| row.role == Role::Ours);
    let ours = ours.and_then(|row| row.outcome.summary());
    let own = |of: fn(&Summary) -> f64| {
        let figure = ours.map(|it| (of(it), String::new()));
        figure.ok_or_else(|| "our VMM was not measured".to_owned())
    };
    let guest = || "1 CPU".to_owned();
    vec![
        Bound::AtMost(0.9).verdict("time to the first process", guest(), against_quickest(rows)),
        Bound::Below(BOOT_MS).verdict(
            "ms to the first process (Clear Containers' aim)",
            guest(),
            boot_ms(rows, virtualised),
        ),
        Bound::Below(10.0).verdict(
            "CPU ms to the first instruction",
            guest(),
            own(|it| it.first_cpu_ms.median),
        ),
        Bound::Below(3.0).verdict(
            "private MiB of the VMM",
            guest(),
            own(|it| it.private_kib.median / 1024.0),
        ),
    ]
}

/// Our time; on a machine that is a guest, as it would be if [`REFERENCE`] took what the documents' QEMU takes.
fn boot_ms(rows: &[Row], virtualised: bool) -> Result<(f64, String), String> {
    let ours = rows.iter().find(|row| row.role == Role::Ours);
    let ours = ours.and_then(|row| row.outcome.summary());
    let ours = ours.ok_or("our VMM was not measured")?.boot_ms.median;
    if !virtualised {
        return Ok((ours, String::new()));
    }
    let reference = rows.iter().find(|row| row.contestant == REFERENCE);
    let ratio = reference.and_then(|row| row.ours_by_it);
    let ratio = ratio.ok_or_else(|| format!("{REFERENCE}, by which to scale, was not measured"))?;
    let note = format!("scaled: {REFERENCE} here is the documents' QEMU, {DOCUMENTS_QEMU_MS} ms");
    Ok((ratio.median * DOCUMENTS_QEMU_MS, note))
}

/// Our time by that of the peer whose median is the lowest.
fn against_quickest(rows: &[Row]) -> Result<(f64, String), String> {
    let peers = rows.iter().filter(|row| row.role == Role::Peer);
    let timed = peers.filter_map(|row| {
        let median = row.outcome.summary()?.boot_ms.median;
        Some((median, row.ours_by_it?.median, &row.contestant))
    });
    timed
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, ratio, name)| (ratio, name.clone()))
        .ok_or_else(|| "no peer took part, or ours did not".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;
    use crate::scenario::Outcome;
    use crate::statistics::Spread;

    fn row(contestant: &str, role: Role, boot_ms: f64, ours_by_it: Option<f64>) -> Row {
        let sample = Sample {
            boot_ms,
            boot_cpu_ms: 1.0,
            first_ms: 1.0,
            first_cpu_ms: 1.0,
            private_kib: 1,
        };
        let samples = vec![sample];
        let summary = Summary::of(&samples);
        Row {
            contestant: contestant.to_owned(),
            role,
            command: String::new(),
            outcome: Outcome::of(&Ok(()), None, (samples, summary), None),
            ours_by_it: ours_by_it.and_then(|it| Spread::of([it])),
        }
    }

    #[test]
    fn only_a_guests_time_is_scaled() {
        let rows = [
            row("ringside", Role::Ours, 80.0, None),
            row(REFERENCE, Role::Peer, 160.0, Some(0.5)),
        ];
        let boot = |virtualised| verdicts(&rows, virtualised).swap_remove(1);
        assert_eq!(
            (boot(false).measured, boot(false).met),
            (Some(80.0), Some(true))
        );
        let scaled = boot(true);
        assert_eq!((scaled.measured, scaled.met), (Some(285.52), Some(false)));
        assert!(scaled.note.starts_with("scaled"), "{}", scaled.note);
        assert_eq!(verdicts(&rows[..1], true)[1].met, None);
    }
}
