//! Which of all things a run takes.

use std::convert::Infallible;
use std::str::FromStr;

/// `--only`: patterns with commas between them, of which a name has to contain one. The empty one takes all.
#[derive(Clone, Debug, Default)]
pub struct Only(String);

impl Only {
    /// Whether it takes what is called so.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        self.0.split(',').any(|pattern| name.contains(pattern))
    }

    /// What it has left of all things, to be measured.
    ///
    /// # Errors
    /// When that is nothing.
    pub fn at_least_one<T>(&self, left: Vec<T>) -> Result<Vec<T>, Nothing> {
        match left.is_empty() {
            true => Err(Nothing(self.0.clone())),
            false => Ok(left),
        }
    }
}

impl FromStr for Only {
    type Err = Infallible;

    fn from_str(typed: &str) -> Result<Self, Infallible> {
        Ok(Self(typed.to_owned()))
    }
}

/// It takes nothing.
#[derive(Debug, thiserror::Error)]
#[error("nothing to measure: no name contains '{0}'")]
pub struct Nothing(String);

#[cfg(test)]
mod tests {
    use super::Only;

    #[test]
    fn one_of_several_patterns_is_enough() {
        let only: Only = "d32,open".parse().unwrap();
        assert!(only.takes("tmpfs/4k-randread-d32") && only.takes("tmpfs/open-read"));
        assert!(!only.takes("tmpfs/4k-randread-d1"));
        assert!(Only::default().takes("tmpfs/stat"));
    }

    #[test]
    fn nothing_left_is_an_error_that_tells_the_patterns() {
        let only: Only = "d32,open".parse().unwrap();
        assert_eq!(only.at_least_one(vec![1, 2]).unwrap(), [1, 2]);
        let nothing = only.at_least_one::<u8>(Vec::new()).unwrap_err();
        assert!(nothing.to_string().contains("'d32,open'"));
    }
}
