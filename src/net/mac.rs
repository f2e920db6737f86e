//! Hardware addresses as they are written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A hardware address that a VPS's interface can have: `02:63:00:00:00:07`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem| Err(Error::invalid("mac", text, problem));
        let two = |part: &str| {
            let is_hex = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(part, 16).ok())?
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(two).collect();
        let Some(Ok(mac)) = bytes.map(<[u8; 6]>::try_from) else {
            return refuse("is not of the form 02:63:00:00:00:07");
        };
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return refuse("is no address of one machine: its first byte must be even, and not all may be 0");
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mac: Mac = "02:63:0a:00:FF:07".parse().unwrap();
        assert_eq!(mac.0, [2, 0x63, 10, 0, 255, 7]);
        assert_eq!(mac.to_string(), "02:63:0a:00:ff:07");
        for bad in [
            "",
            "02:63",
            "02:63:00:00:00:0g",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "2:63:0:0:0:7",
            "+2:63:00:00:00:07",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
