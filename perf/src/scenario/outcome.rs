//! What came out of a row.

use serde::{Deserialize, Serialize};

use super::SystemCalls;

/// What came out of a row: samples `S`, boiled down to a summary `M`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Outcome<S, M> {
    /// Figures.
    Measured {
        /// One for each round.
        samples: Vec<S>,
        /// Over the rounds.
        summary: Box<M>,
        /// From the counted run, for daemons.
        system_calls: Option<SystemCalls>,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// It took no part.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl<S, M> Outcome<S, M> {
    /// Of a contestant that took its turns, unless `entry` says why it could not.
    pub(super) fn of<E>(
        entry: &Result<E, String>,
        failure: Option<String>,
        (samples, summary): (Vec<S>, Option<M>),
        system_calls: Option<SystemCalls>,
    ) -> Self {
        match (entry, failure, summary) {
            (Err(reason), _, _) => Self::Skipped {
                reason: reason.clone(),
            },
            (Ok(_), None, Some(summary)) => Self::Measured {
                samples,
                summary: Box::new(summary),
                system_calls,
            },
            (Ok(_), failure, _) => Self::Failed {
                reason: failure.unwrap_or_else(|| "no figures".to_owned()),
            },
        }
    }

    /// The samples, where there are any.
    #[must_use]
    pub fn samples(&self) -> &[S] {
        match self {
            Self::Measured { samples, .. } => samples,
            _ => &[],
        }
    }

    /// The summary, where there is one.
    #[must_use]
    pub fn summary(&self) -> Option<&M> {
        match self {
            Self::Measured { summary, .. } => Some(summary),
            _ => None,
        }
    }

    /// System calls for each request, operation or frame, where they were counted.
    #[must_use]
    pub fn system_calls(&self) -> Option<f64> {
        match self {
            Self::Measured { system_calls, .. } => system_calls.map(|it| it.per_request),
            _ => None,
        }
    }
}
