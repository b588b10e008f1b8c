//! The aims of the VMM (docs/vmm.md).

use super::Summary;
use super::results::Row;
use crate::scenario::verdict::Bound;
use crate::scenario::{Role, Verdict};

pub(super) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let ours = rows.iter().find(|row| row.role == Role::Ours);
    let ours = ours.and_then(|row| row.outcome.summary());
    let own = |of: fn(&Summary) -> f64| {
        let figure = ours.map(|it| (of(it), String::new()));
        figure.ok_or_else(|| "our VMM was not measured".to_owned())
    };
    let guest = || "1 CPU".to_owned();
    vec![
        Bound::AtMost(0.9).verdict("time to the first process", guest(), against_quickest(rows)),
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
