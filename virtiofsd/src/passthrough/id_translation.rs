//! Other users and groups for guests than on the host (`--translate-uid`, `--translate-gid`).

use std::fmt;
use std::io;
use std::str::FromStr;

use thiserror::Error;

use super::errno;

/// A rule as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationRule {
    /// `map:guest:host:count`: one to one, both ways.
    Both(Span),
    /// `guest:guest:host:count`: one to one.
    Guest(Span),
    /// `host:host:guest:count`: one to one.
    Host(Span),
    /// `squash-guest:guest:host:count`: many to one.
    SquashGuest(Span),
    /// `squash-host:host:guest:count`: many to one.
    SquashHost(Span),
    /// `forbid-guest:guest:count`.
    ForbidGuest {
        /// First id.
        first: u32,
        /// How many.
        count: u32,
    },
}

/// Ids, and what they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First id.
    pub from: u32,
    /// First id that they become.
    pub to: u32,
    /// How many.
    pub count: u32,
}

/// A rule that cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not of the form map:GUEST:HOST:COUNT (or guest, squash-guest; host:HOST:GUEST:COUNT, \
     squash-host; forbid-guest:GUEST:COUNT)"
)]
pub struct TranslationRuleError(String);

impl FromStr for TranslationRule {
    type Err = TranslationRuleError;

    /// The separator is the first character that no name of a rule has.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || TranslationRuleError(text.to_owned());
        let separator = text
            .chars()
            .find(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_'))
            .ok_or_else(wrong)?;
        let mut parts = text.split(separator);
        let name = parts.next().unwrap_or_default().to_lowercase();
        let numbers: Vec<u32> = parts
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;
        let rule = match (name.as_str(), &numbers[..]) {
            ("forbid-guest", &[first, count]) => Self::ForbidGuest { first, count },
            (name, &[from, to, count]) => {
                let span = Span { from, to, count };
                match name {
                    "map" | "" => Self::Both(span),
                    "guest" => Self::Guest(span),
                    "host" => Self::Host(span),
                    "squash-guest" => Self::SquashGuest(span),
                    "squash-host" => Self::SquashHost(span),
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(wrong()),
        };
        if rule.fits() { Ok(rule) } else { Err(wrong()) }
    }
}

impl TranslationRule {
    /// Every id named is one.
    fn fits(self) -> bool {
        let reaches = |first: u32, count: u32| count > 0 && first.checked_add(count).is_some();
        match self {
            Self::Both(span) | Self::Guest(span) | Self::Host(span) => {
                reaches(span.from, span.count) && reaches(span.to, span.count)
            }
            Self::SquashGuest(span) | Self::SquashHost(span) => {
                reaches(span.from, span.count) && span.to != u32::MAX
            }
            Self::ForbidGuest { first, count } => reaches(first, count),
        }
    }
}

/// Two rules say different things of one id.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("two rules are about id {id} of the {side}")]
pub struct Overlap {
    id: u32,
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Guest,
    Host,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guest => "guest",
            Self::Host => "host",
        })
    }
}

/// What ids of one side become on the other. An id that no rule is about stays as it is.
#[derive(Clone, Debug, Default)]
pub struct IdTranslation {
    to_host: Ranges,
    to_guest: Ranges,
}

impl IdTranslation {
    /// All of `rules`.
    ///
    /// # Errors
    /// When two are about one id in one direction.
    pub fn new(rules: &[TranslationRule]) -> Result<Self, Overlap> {
        let mut translation = Self::default();
        let Self { to_host, to_guest } = &mut translation;
        for rule in rules {
            match *rule {
                TranslationRule::Both(span) => {
                    to_host.add(Side::Guest, (span.from, span.count), Becomes::From(span.to))?;
                    to_guest.add(Side::Host, (span.to, span.count), Becomes::From(span.from))?;
                }
                TranslationRule::Guest(span) => {
                    to_host.add(Side::Guest, (span.from, span.count), Becomes::From(span.to))?;
                }
                TranslationRule::Host(span) => {
                    to_guest.add(Side::Host, (span.from, span.count), Becomes::From(span.to))?;
                }
                TranslationRule::SquashGuest(span) => {
                    to_host.add(Side::Guest, (span.from, span.count), Becomes::One(span.to))?;
                }
                TranslationRule::SquashHost(span) => {
                    to_guest.add(Side::Host, (span.from, span.count), Becomes::One(span.to))?;
                }
                TranslationRule::ForbidGuest { first, count } => {
                    to_host.add(Side::Guest, (first, count), Becomes::Nothing)?;
                }
            }
        }
        Ok(translation)
    }

    /// The host's id for a guest's.
    ///
    /// # Errors
    /// `EPERM`: it is forbidden.
    pub fn to_host(&self, id: u32) -> io::Result<u32> {
        self.to_host.apply(id).ok_or_else(|| errno(libc::EPERM))
    }

    /// The guest's id for one of the host's.
    pub fn to_guest(&self, id: u32) -> u32 {
        self.to_guest.apply(id).unwrap_or(id)
    }
}

/// Ranges of ids, in order, without overlap.
#[derive(Clone, Debug, Default)]
struct Ranges(Vec<Range>);

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    last: u32,
    becomes: Becomes,
}

#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// The first becomes this one, the second the next, ...
    From(u32),
    /// All become this one.
    One(u32),
    Nothing,
}

impl Ranges {
    fn add(
        &mut self,
        side: Side,
        (first, count): (u32, u32),
        becomes: Becomes,
    ) -> Result<(), Overlap> {
        let last = first + (count - 1);
        let at = self.0.partition_point(|range| range.last < first);
        if let Some(next) = self.0.get(at)
            && next.first <= last
        {
            let id = next.first.max(first);
            return Err(Overlap { id, side });
        }
        let range = Range {
            first,
            last,
            becomes,
        };
        self.0.insert(at, range);
        Ok(())
    }

    /// `None`: forbidden.
    fn apply(&self, id: u32) -> Option<u32> {
        let at = self.0.partition_point(|range| range.last < id);
        match self.0.get(at) {
            Some(range) if range.first <= id => match range.becomes {
                Becomes::From(to) => Some(to + (id - range.first)),
                Becomes::One(to) => Some(to),
                Becomes::Nothing => None,
            },
            _ => Some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn translation(rules: &[&str]) -> Result<IdTranslation, Overlap> {
        let rules: Vec<_> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        IdTranslation::new(&rules)
    }

    #[test]
    fn each_kind_of_rule_has_its_direction() {
        let ids = translation(&[
            "map:0:1000:10",
            "guest:100:2000:2",
            "host:3000:300:2",
            "squash-guest:500:5:50",
            "squash-host:6000:6:60",
            "forbid-guest:900:9",
        ])
        .unwrap();
        let to_host = |id| ids.to_host(id).ok();
        assert_eq!((to_host(3), ids.to_guest(1003)), (Some(1003), 3));
        assert_eq!((to_host(101), ids.to_guest(2001)), (Some(2001), 2001));
        assert_eq!((to_host(301), ids.to_guest(3001)), (Some(301), 301));
        assert_eq!((to_host(549), to_host(550)), (Some(5), Some(550)));
        assert_eq!((ids.to_guest(6059), ids.to_guest(6060)), (6, 6060));
        assert_eq!(
            (to_host(900), to_host(908), to_host(909)),
            (None, None, Some(909))
        );
    }

    #[test]
    fn rules_are_told_apart_from_other_text() {
        for wrong in [
            "",
            "map",
            "map:1:2",
            "map:1:2:0",
            "map:1:2:3:4",
            "fly:1:2:3",
            "map:4294967295:0:1",
            "squash-guest:0:4294967295:1",
            "forbid-guest:1:2:3",
            "map:-1:0:1",
        ] {
            assert!(wrong.parse::<TranslationRule>().is_err(), "{wrong}");
        }
        assert_eq!("map/1/2/3".parse(), "map:1:2:3".parse::<TranslationRule>());
        assert_eq!(":1:2:3".parse(), "map:1:2:3".parse::<TranslationRule>());
        assert!(
            "squash-guest:0:7:4294967295"
                .parse::<TranslationRule>()
                .is_ok()
        );
    }

    #[test]
    fn two_rules_about_one_id_are_refused() {
        assert!(translation(&["map:0:10:5", "map:4:20:1"]).is_err());
        assert!(translation(&["map:0:10:5", "host:14:9:1"]).is_err());
        assert!(translation(&["guest:0:10:5", "host:0:10:5"]).is_ok());
        let overlap = translation(&["guest:9:0:5", "forbid-guest:0:10"]).unwrap_err();
        assert_eq!(overlap.to_string(), "two rules are about id 9 of the guest");
    }

    proptest! {
        #[test]
        fn what_goes_there_comes_back(first in 0..1000u32, to in 0..1000u32, count in 1..1000u32,
                                      id: u32) {
            let ids = translation(&[&format!("map:{first}:{to}:{count}")]).unwrap();
            let there = ids.to_host(id).unwrap();
            if (first..first + count).contains(&id) {
                prop_assert_eq!(ids.to_guest(there), id);
                prop_assert_eq!(there, to + (id - first));
            } else {
                prop_assert_eq!(there, id);
            }
        }

        #[test]
        fn no_text_breaks_the_parser(text in ".{0,40}") {
            let _ = text.parse::<TranslationRule>();
        }
    }
}
