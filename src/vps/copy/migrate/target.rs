//! The other host, as it is named.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Another host: `ssh://[USER@]HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it was given.
    pub(super) text: String,
    /// As ssh takes it.
    pub(super) login: String,
    pub(super) port: Option<u16>,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid("HOST", text, "is not of the form `ssh://[USER@]HOST[:PORT]`");
        let rest = text.strip_prefix("ssh://").ok_or_else(refuse)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        // An IPv6 address stands in brackets.
        let (host, port) = match (host.strip_prefix('['), host.rsplit_once(':')) {
            (Some(bracketed), _) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(refuse)?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            (None, Some((host, port))) => (host, Some(port)),
            (None, None) => (host, Some("")),
        };
        let port = match port.ok_or_else(refuse)? {
            "" => None,
            port => Some(port.parse().map_err(|_| refuse())?),
        };
        // Not an option, and nothing a shell would read.
        let plain = |part: &str| {
            !part.starts_with('-')
                && !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-:%".contains(&b))
        };
        if !plain(host) || !user.is_none_or(plain) {
            return Err(refuse());
        }
        Ok(Self {
            text: text.to_owned(),
            login: user.map_or(host.to_owned(), |user| format!("{user}@{host}")),
            port,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_hosts_and_no_options() {
        let read = |text: &str| text.parse::<Target>().map(|to| (to.login, to.port));
        assert_eq!(read("ssh://b").unwrap(), ("b".into(), None));
        assert_eq!(
            read("ssh://root@10.0.0.2:2222").unwrap(),
            ("root@10.0.0.2".into(), Some(2222))
        );
        assert_eq!(read("ssh://[fe80::1]:22/").unwrap(), ("fe80::1".into(), Some(22)));
        assert_eq!(read("ssh://[::1]").unwrap(), ("::1".into(), None));
        for bad in [
            "b",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a@-b",
            "ssh://a b",
            "ssh://a;b",
            "ssh://a:x",
            "ssh://a:70000",
            "http://a",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
