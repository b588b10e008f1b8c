//! Rate limits of a disk, as a client names them.

use serde::{Deserialize, Serialize};
use vhost_daemon::rate;

/// How much a disk may do; zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests a second.
    pub iops: u64,
    /// Requests that may come at once after a rest; a tenth of a second's worth if 0.
    pub iops_burst: u64,
    /// Bytes a second.
    pub bytes: u64,
    /// Bytes that may come at once after a rest; a tenth of a second's worth if 0.
    pub bytes_burst: u64,
}

impl From<Rates> for rate::Rates {
    fn from(rates: Rates) -> Self {
        Self {
            units: rates.iops,
            units_burst: rates.iops_burst,
            bytes: rates.bytes,
            bytes_burst: rates.bytes_burst,
        }
    }
}

impl From<rate::Rates> for Rates {
    fn from(rates: rate::Rates) -> Self {
        Self {
            iops: rates.units,
            iops_burst: rates.units_burst,
            bytes: rates.bytes,
            bytes_burst: rates.bytes_burst,
        }
    }
}
