//! The documents' figures as ratios: ours are to keep their shape.

use super::column::{OUR_BLOCK, OUR_FS, P9_LOOSE, P9_NONE, PLAIN};
use crate::findings::Collector;
use crate::scenario::Verdict;
use crate::scenario::verdict::Bound;

/// The documents: kata on block storage and on 9p, requests a second.
const KATA_BLOCK_BY_9P: f64 = 38.0;

/// A load and how far the documents have vhost-9p ahead of 9p in it: ours are to be as far ahead or further.
const AHEAD: [(&str, &str, f64); 4] = [
    ("dd-read", "throughput", 216.0 / 147.0),
    ("dd-write", "throughput", 179.0 / 120.0),
    ("fio-4k-d32x16-randread", "operations", 126_511.0 / 58_797.0),
    (
        "fio-4k-d32x16-randwrite",
        "operations",
        132_077.0 / 97_687.0,
    ),
];

/// Every aim; those that could not be measured are there too.
pub(super) fn verdicts(found: &Collector) -> Vec<Verdict> {
    let nginx = |whose: &str| ratio(found, ("nginx", "requests"), OUR_BLOCK, whose);
    let mut all = vec![
        Bound::AtLeast(1.0).verdict(
            "block at least level with the plain process (documents: 47702 / 46510)",
            "nginx".to_owned(),
            nginx(PLAIN),
        ),
        Bound::AtLeast(KATA_BLOCK_BY_9P).verdict(
            "block over 9p without a cache (documents: 47702 / 1237)",
            "nginx".to_owned(),
            nginx(P9_NONE),
        ),
    ];
    for (load, what, margin) in AHEAD {
        for ours in [OUR_FS, OUR_BLOCK] {
            // Rounded up: 1.469 is not 1.47.
            let bound = Bound::AtLeast((margin * 100.0).ceil() / 100.0);
            let aim = format!("{ours} over the better of 9p");
            all.push(bound.verdict(&aim, load.to_owned(), against_9p(found, (load, what), ours)));
        }
    }
    all
}

/// By the quicker of both ways to mount 9p.
fn against_9p(found: &Collector, load: (&str, &str), ours: &str) -> Result<(f64, String), String> {
    let both = [P9_NONE, P9_LOOSE].map(|it| ratio(found, load, ours, it));
    let [none, loose] = both;
    match (none, loose) {
        (Ok(none), Ok(loose)) if loose.0 < none.0 => Ok(loose),
        (Ok(none), _) => Ok(none),
        (Err(_), loose) => loose,
    }
}

fn ratio(
    found: &Collector,
    (load, what): (&str, &str),
    whose: &str,
    by: &str,
) -> Result<(f64, String), String> {
    let ratio = found.ratio(load, what, whose, by)?;
    Ok((ratio, by.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{Better, Told};
    use crate::scenario::Role;

    #[test]
    fn the_quicker_9p_counts_and_nothing_is_left_out() {
        let mut found = Collector::default();
        let told = Told {
            what: "throughput",
            unit: "MB/s",
            better: Better::Higher,
        };
        let mut add = |who: &str, role, value| found.add("dd-read", told, who, role, value);
        add(OUR_FS, Role::Ours, 300.0);
        add(OUR_BLOCK, Role::Ours, 250.0);
        add(P9_NONE, Role::Peer, 100.0);
        add(P9_LOOSE, Role::Peer, 200.0);
        let verdicts = verdicts(&found);
        assert_eq!(verdicts.len(), 10);
        let met = |ours: &str| {
            let is_it = |it: &&Verdict| it.place == "dd-read" && it.aim.starts_with(ours);
            verdicts.iter().find(is_it).unwrap()
        };
        assert_eq!(met(OUR_FS).met, Some(true));
        assert_eq!(
            (met(OUR_BLOCK).met, met(OUR_BLOCK).measured),
            (Some(false), Some(1.25))
        );
        assert_eq!(verdicts[0].met, None);
    }
}
