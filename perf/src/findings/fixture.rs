//! A run for tests.

use super::{Better, Entry, Figure, Findings, Group, Told};
use crate::host::HostFacts;
use crate::scenario::Role;

/// A figure.
pub(crate) const RATE: Told = Told {
    what: "rate",
    unit: "1/s",
    better: Better::Higher,
};

/// One workload of these contestants.
pub(crate) fn findings(contestants: &[(&str, Role, [f64; 5])]) -> Findings {
    let entries = contestants.iter().map(|(who, role, samples)| Entry {
        who: (*who).to_owned(),
        role: *role,
        samples: samples.to_vec(),
        failure: None,
    });
    Findings {
        schema: super::SCHEMA.to_owned(),
        scenario: "blk".to_owned(),
        host: HostFacts::read(),
        method: vec!["Medians of 5 rounds.".to_owned()],
        complete: true,
        skipped: Vec::new(),
        groups: vec![Group {
            name: "tmpfs/4k-randread-d1".to_owned(),
            figures: vec![Figure {
                what: "requests".to_owned(),
                unit: "1/s".to_owned(),
                better: Better::Higher,
                entries: entries.collect(),
            }],
            curves: Vec::new(),
        }],
        verdicts: Vec::new(),
    }
}
