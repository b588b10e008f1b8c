use std::str::FromStr;

/// One forwarded TCP port, typed as `HOST:GUEST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Port on the host's 127.0.0.1; 0 lets the kernel pick one.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// What is wrong with a typed port pair.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No colon, or no numbers around it.
    #[error("a published port is HOST:GUEST with ports from 0 to 65535, as in 8080:80")]
    Format,
    /// Port 0 in the guest.
    #[error("the guest's port cannot be 0")]
    GuestZero,
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = text.split_once(':').ok_or(PublishError::Format)?;
        let port = |text: &str| text.parse::<u16>().map_err(|_| PublishError::Format);
        let publish = Self {
            host: port(host)?,
            guest: port(guest)?,
        };
        if publish.guest == 0 {
            Err(PublishError::GuestZero)
        } else {
            Ok(publish)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_parse() {
        assert_eq!(
            "8080:80".parse(),
            Ok(Publish {
                host: 8080,
                guest: 80
            })
        );
        assert_eq!(
            "0:65535".parse(),
            Ok(Publish {
                host: 0,
                guest: 65535
            })
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "80", ":", "a:b", "1:2:3", "65536:1", "-1:1"] {
            assert_eq!(text.parse::<Publish>(), Err(PublishError::Format), "{text}");
        }
        assert_eq!("1:0".parse::<Publish>(), Err(PublishError::GuestZero));
    }
}
