//! How sure a ratio is: the bootstrap (Efron 1979). Samples are drawn again and again from the samples
//! there are; what the ratio does then is what it might have done in another run.

use serde::{Deserialize, Serialize};

use super::middle;

/// Draws. The ends of the interval then move by less than what a reader sees.
const DRAWS: usize = 4000;
/// The interval holds 95 of 100 draws.
const OUTSIDE: f64 = 0.025;

/// A ratio and where 95 of 100 draws of its rounds put it. Of five rounds and fewer that is the smallest to the largest.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Interval {
    /// As measured.
    pub ratio: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Of the rounds' ratios `ours[round] / theirs[round]`, drawn round by round.
    #[must_use]
    pub fn paired(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        let ratios: Vec<f64> = ratios.filter(|it| it.is_finite()).collect();
        let mut random = Random::default();
        let draw = |random: &mut Random| median_of_draw(&ratios, random);
        Self::of(median(&ratios)?, || draw(&mut random))
    }

    /// Of two runs: the median of one over the other's.
    #[must_use]
    pub fn of_medians(new: &[f64], old: &[f64]) -> Option<Self> {
        let ratio = median(new)? / median(old)?;
        let mut random = Random::default();
        Self::of(ratio, || {
            median_of_draw(new, &mut random) / median_of_draw(old, &mut random)
        })
    }

    fn of(ratio: f64, mut draw: impl FnMut() -> f64) -> Option<Self> {
        let mut draws: Vec<f64> = (0..DRAWS)
            .map(|_| draw())
            .filter(|it| it.is_finite())
            .collect();
        draws.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = u32::try_from(draws.len().checked_sub(1)?).ok()?;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within the draws"
            )]
            let place = (f64::from(last) * part).round() as usize;
            draws.get(place).copied()
        };
        Some(Self {
            ratio: ratio.is_finite().then_some(ratio)?,
            low: at(OUTSIDE)?,
            high: at(1.0 - OUTSIDE)?,
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| middle(&values))
}

/// As many values as there are, any of them any number of times.
fn median_of_draw(values: &[f64], random: &mut Random) -> f64 {
    let drawn = values.iter().map(|_| values[random.below(values.len())]);
    median(&drawn.collect::<Vec<_>>()).unwrap_or(f64::NAN)
}

/// SplitMix64 (Steele, Lea, Flood 2014), the same each time: a report read twice says the same.
#[derive(Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is small: the remainder's bias is below 2^-50.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_agree_leave_no_doubt() {
        let interval = Interval::of_medians(&[200.0; 5], &[100.0; 5]).unwrap();
        assert_eq!(
            (interval.ratio, interval.low, interval.high),
            (2.0, 2.0, 2.0)
        );
    }

    #[test]
    fn doubt_grows_with_the_spread() {
        let calm = Interval::of_medians(&[100.0, 101.0, 99.0, 100.0, 102.0], &[100.0; 5]).unwrap();
        let wild = Interval::of_medians(&[100.0, 140.0, 60.0, 95.0, 130.0], &[100.0; 5]).unwrap();
        assert!(
            wild.high - wild.low > 5.0 * (calm.high - calm.low),
            "{calm:?} {wild:?}"
        );
        assert!(wild.low < 1.0 && wild.high > 1.0);
    }

    #[test]
    fn rounds_that_were_disturbed_together_cancel_out() {
        let ours = [200.0, 100.0, 190.0, 20.0, 210.0];
        let theirs = [100.0, 50.0, 95.0, 10.0, 105.0];
        let interval = Interval::paired(&ours, &theirs).unwrap();
        assert_eq!((interval.low, interval.high), (2.0, 2.0));
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(Interval::of_medians(&[], &[1.0]), None);
        assert_eq!(Interval::paired(&[1.0], &[0.0]), None);
    }
}
