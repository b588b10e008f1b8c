//! Days since 1970 as year, month and day (proleptic Gregorian calendar).

/// A moment of UTC in the parts that a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: u64,
    /// 1 to 12.
    pub(super) month: u64,
    /// 1 to 31.
    pub(super) day: u64,
    /// 1 to 7, Sunday first.
    pub(super) weekday: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
}

const DAY: u64 = 86400;
const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// 1 January 1970 was a Thursday.
const FIRST_WEEKDAY: u64 = 4;
/// Days in 400 years, after which the calendar repeats.
const CYCLE_DAYS: u64 = 146_097;

impl Moment {
    /// `seconds` since the start of 1970.
    pub(super) fn at(seconds: u64) -> Self {
        let (days, rest) = (seconds / DAY, seconds % DAY);
        let (year, day_of_year) = year(days);
        let (month, day) = month(year, day_of_year);
        Self {
            year,
            month,
            day,
            weekday: (days + FIRST_WEEKDAY) % 7 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

/// The year, and the days of it that are over.
fn year(days: u64) -> (u64, u64) {
    let mut year = 1970 + days / CYCLE_DAYS * 400;
    let mut left = days % CYCLE_DAYS;
    while left >= year_days(year) {
        left -= year_days(year);
        year += 1;
    }
    (year, left)
}

fn month(year: u64, mut left: u64) -> (u64, u64) {
    for (number, days) in (1..).zip(MONTH_DAYS) {
        let leap_day = u64::from(number == 2 && is_leap(year));
        if left < days + leap_day {
            return (number, left + 1);
        }
        left -= days + leap_day;
    }
    (12, 31)
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `date -u -d @SECONDS '+%Y %m %d %w %H %M %S'`, weekdays from 1.
    #[test]
    fn moments_are_what_date_says() {
        let parts = |seconds| {
            let at = Moment::at(seconds);
            [
                at.year, at.month, at.day, at.weekday, at.hour, at.minute, at.second,
            ]
        };
        assert_eq!(parts(0), [1970, 1, 1, 5, 0, 0, 0]);
        assert_eq!(parts(951_782_399), [2000, 2, 28, 2, 23, 59, 59]);
        assert_eq!(parts(951_782_400), [2000, 2, 29, 3, 0, 0, 0]);
        assert_eq!(parts(1_709_210_096), [2024, 2, 29, 5, 12, 34, 56]);
        assert_eq!(parts(4_107_542_399), [2100, 2, 28, 1, 23, 59, 59]);
        assert_eq!(parts(4_107_542_400), [2100, 3, 1, 2, 0, 0, 0]);
        assert_eq!(parts(13_601_088_000), [2401, 1, 1, 2, 0, 0, 0]);
    }
}
