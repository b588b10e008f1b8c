//! What the rounds have in common: median, spread, and ratios of rounds that ran side by side.

mod bootstrap;

use serde::{Deserialize, Serialize};

pub use bootstrap::Interval;

/// Median and spread of one figure over the rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Median absolute deviation from the median.
    pub mad: f64,
}

impl Spread {
    /// Of finite values; nothing where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = middle(&values);
        let mut deviations: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
        deviations.sort_by(f64::total_cmp);
        let mad = middle(&deviations);
        Some(Self {
            median,
            min,
            max,
            mad,
        })
    }

    /// Of the ratios `ours[round] / theirs[round]`: a disturbance that lasts longer than a turn
    /// hits both and cancels out.
    #[must_use]
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        Self::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match (sorted.len() % 2, half.checked_sub(1)) {
        (0, Some(below)) => f64::midpoint(sorted[below], sorted[half]),
        _ => sorted[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_and_even_medians() {
        let odd = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!(
            (odd.median, odd.min, odd.max, odd.mad),
            (3.0, 1.0, 5.0, 2.0)
        );
        let even = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((even.median, even.mad), (2.5, 1.0));
        assert_eq!(Spread::of([7.0]).unwrap().mad, 0.0);
    }

    #[test]
    fn nothing_and_infinities_have_no_spread() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::INFINITY, f64::NAN]), None);
    }

    #[test]
    fn an_outlier_moves_neither_median_nor_mad() {
        let spread = Spread::of([10.0, 11.0, 10.0, 9.0, 1000.0]).unwrap();
        assert_eq!((spread.median, spread.mad), (10.0, 1.0));
    }

    #[test]
    fn ratios_pair_the_rounds() {
        // Both halve in the second round: the ratio does not move.
        let ratio = Spread::of_ratios(&[200.0, 100.0], &[100.0, 50.0]).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.0));
    }

    #[test]
    fn a_round_without_a_figure_is_left_out_of_the_ratio() {
        let ratio = Spread::of_ratios(&[3.0, 4.0], &[0.0, 2.0]).unwrap();
        assert_eq!(ratio.median, 2.0);
    }
}
