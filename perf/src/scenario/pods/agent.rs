//! What a pod's agent holds, as it says itself.

use std::path::Path;

use ringside_pod::VSOCK;
use ringside_pod::agent::Agent;

use super::error::Error;
use crate::findings::Collector;
use crate::scenario::Verdict;
use crate::scenario::verdict::Bound;

/// The documents' figure for an agent in Rust, in MB of 10^6 bytes.
const DOCUMENTS_MB: f64 = 1.1;

/// Where its figures are told.
pub(super) const GROUP: &str = "memory of the agent";
/// What they are.
pub(super) const ANONYMOUS: &str = "anonymous memory while the container sleeps";

/// Its anonymous memory (`/proc/self/smaps_rollup` in the guest) in KiB.
pub(super) fn anonymous_kib(pod: &Path) -> Result<f64, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let (_, hello) = runtime.block_on(Agent::try_connect(&pod.join(VSOCK)))?;
    // Far below 2^52.
    Ok(hello.agent_anonymous_bytes as f64 / 1024.0)
}

/// The aim, held against each of our pods.
pub(super) fn verdicts<'a>(found: &Collector, ours: impl Iterator<Item = &'a str>) -> Vec<Verdict> {
    let verdict = |name: &str| {
        let median = found.median(GROUP, ANONYMOUS, name);
        let figure = median.map(|kib| (kib * 1024.0 / 1e6, String::new()));
        let figure = figure.ok_or_else(|| "it was not measured".to_owned());
        let aim = "anonymous MB of an idle agent (documents: 1.1)";
        Bound::AtMost(DOCUMENTS_MB).verdict(aim, name.to_owned(), figure)
    };
    ours.map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::super::start::lower;
    use super::*;
    use crate::scenario::Role;

    #[test]
    fn megabytes_are_told_and_a_missing_figure_is() {
        let mut found = Collector::default();
        let told = lower(ANONYMOUS, "KiB");
        for kib in [430.0, 1200.0, 440.0] {
            found.add(GROUP, told, "small", Role::Ours, kib);
            found.add(GROUP, told, "large", Role::Ours, kib * 3.0);
        }
        let verdicts = verdicts(&found, ["small", "large", "absent"].into_iter());
        let met: Vec<_> = verdicts.iter().map(|it| it.met).collect();
        assert_eq!(met, [Some(true), Some(false), None]);
        assert_eq!(verdicts[0].measured, Some(0.45056));
    }
}
