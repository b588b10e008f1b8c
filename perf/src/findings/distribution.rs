//! How latencies are distributed: what so many of the requests did not exceed.

use super::curve::Curve;
use super::{Better, Seat, Told};
use crate::measure::Latency;

const TOLD: Told = Told {
    what: "latency",
    unit: "us",
    better: Better::Lower,
};

/// A point and how a sample tells it.
type Share = (&'static str, fn(&Latency) -> Option<f64>);

const SHARES: [Share; 5] = [
    ("50 %", |it| Some(it.p50_ns)),
    ("90 %", |it| it.p90_ns),
    ("99 %", |it| Some(it.p99_ns)),
    ("99.9 %", |it| Some(it.p999_ns)),
    ("99.99 %", |it| it.p9999_ns),
];

/// The curve of one workload; nothing where no latencies were taken.
pub(super) fn distribution<S, M>(
    seats: &[Seat<'_, S, M>],
    latency: impl Fn(&S) -> Option<Latency>,
) -> Option<Curve> {
    let samples = || seats.iter().flat_map(|seat| seat.outcome.samples());
    let told = |share: &Share| {
        samples()
            .filter_map(&latency)
            .any(|it| (share.1)(&it).is_some())
    };
    let shares: Vec<Share> = SHARES.into_iter().filter(told).collect();
    let at = shares.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut curve = Curve::new("share of requests that took no longer", TOLD, at);
    for seat in seats {
        for (name, share) in &shares {
            let samples = seat.outcome.samples().iter().filter_map(&latency);
            let values = samples.filter_map(|it| Some(share(&it)? / 1e3));
            let values: Vec<f64> = values.collect();
            if !values.is_empty() {
                curve.add(&seat.who, seat.role, name, &values);
            }
        }
    }
    (!curve.lines.is_empty()).then_some(curve)
}
