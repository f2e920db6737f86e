//! What a system is given once, before its first start: keys and a password for its owner, a script, a time zone.
//!
//! ```text
//!  vps/NAME/first-boot.json    0600, from `create` until the first start, which takes it away
//! ```
//! It is no part of the record, which is shown, copied and kept: nothing secret stays outside of the VPS's own disk.

use std::fmt;
use std::io::Read;
use std::path::Path;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use sha_crypt::{PasswordHasher, ShaCrypt};

use crate::error::{During, Error, Result};
use crate::files;

/// Longest line with a key that is taken: an RSA key of 16384 bits has about 3000 characters.
const LONGEST_KEY: usize = 16 << 10;
/// Most of a file with keys, or a script, that is read.
pub const LARGEST: u64 = 1 << 20;
/// Longest password: what `passwd(1)` of Debian takes.
const LONGEST_PASSWORD: usize = 512;

/// Kinds of public keys that sshd(8) takes, certificates' authorities included.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// What a system is given at its first start. Empty by default.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FirstBoot {
    /// Lines of root's `authorized_keys`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// Root's password, hashed as `crypt(5)` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What cloud-init is given, or a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Its time zone, such as `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

impl fmt::Debug for FirstBoot {
    /// Without what is secret: this may end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstBoot")
            .field("ssh_keys", &self.ssh_keys.len())
            .field("password", &self.password.is_some())
            .field("user_data", &self.user_data.is_some())
            .field("timezone", &self.timezone)
            .finish()
    }
}

impl FirstBoot {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the keys of a text as `authorized_keys` has it (`sshd(8)`): a key a line, with options or without; `source` names it
    /// in errors.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a line that is no public key, and for a text without any.
    pub fn add_keys(&mut self, source: &str, text: &str) -> Result<()> {
        if text.contains("PRIVATE KEY-----") {
            let problem = "is a private key, which nobody else may have; give the file that ends in .pub";
            return Err(Error::invalid("--ssh-key", source, problem));
        }
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let before = self.ssh_keys.len();
        for line in lines {
            if !is_public_key(line) {
                let start: String = line.chars().take(40).collect();
                let problem = format!(
                    "is no public key of ssh (in {source}); it looks like `ssh-ed25519 AAAA… comment`"
                );
                return Err(Error::invalid("--ssh-key", start, problem));
            }
            if !self.ssh_keys.iter().any(|known| known == line) {
                self.ssh_keys.push(line.to_owned());
            }
        }
        if self.ssh_keys.len() == before && before == 0 {
            return Err(Error::invalid("--ssh-key", source, "holds no key"));
        }
        Ok(())
    }

    /// Sets root's password, which is hashed at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is empty, too long, or cannot be typed. It is not repeated in the error.
    pub fn set_password(&mut self, password: &str) -> Result<()> {
        let refuse = |problem: &str| Err(Error::invalid("--password-stdin", "the password", problem));
        if password.is_empty() {
            return refuse("is empty; give one line on standard input");
        }
        if password.len() > LONGEST_PASSWORD {
            return refuse("is longer than 512 bytes");
        }
        if password.contains(|c: char| c.is_control()) {
            return refuse("holds control characters, or more than one line");
        }
        let mut salt = [0; 12];
        let random = Path::new("/dev/urandom");
        std::fs::File::open(random)
            .and_then(|mut file| file.read_exact(&mut salt))
            .during(|| format!("read `{}`", random.display()))?;
        let hash = ShaCrypt::default().hash_password_with_salt(password.as_bytes(), &salt);
        let hash = hash.map_err(|e| Error::invalid("--password-stdin", "the password", e))?;
        self.password = Some(hash.as_str().to_owned());
        Ok(())
    }

    /// Refuses what is malformed, whatever the image is.
    pub fn validate(&self) -> Result<()> {
        if let Some(zone) = &self.timezone
            && !is_zone(zone)
        {
            return Err(Error::invalid(
                "--timezone",
                zone,
                "is not of the form AREA/CITY, such as Europe/Berlin, or UTC",
            ));
        }
        match &self.user_data {
            Some(data) if data.trim().is_empty() => Err(Error::invalid("--user-data", data, "is empty")),
            Some(data) if data.len() as u64 > LARGEST => Err(Error::invalid(
                "--user-data",
                data.len(),
                "bytes are more than 1M",
            )),
            _ => Ok(()),
        }
    }

    /// Keeps it for the first start.
    pub(in crate::vps) fn save(&self, path: &Path) -> Result<()> {
        if self.is_empty() {
            return files::remove_file(path);
        }
        files::write_atomic(path, &serde_json::to_vec(self)?, 0o600)
    }

    /// What was kept; nothing where there is no such file.
    pub(in crate::vps) fn load(path: &Path) -> Result<Self> {
        match files::read(path) {
            Err(e) if e.is_gone() => Ok(Self::default()),
            other => serde_json::from_slice(&other?).during(|| format!("read `{}`", path.display())),
        }
    }
}

/// Options, if any, the kind, the key; its first field is the kind once more (RFC 4253, 6.6).
fn is_public_key(line: &str) -> bool {
    if line.len() > LONGEST_KEY || line.contains(|c: char| c.is_control() && c != '\t') {
        return false;
    }
    let mut words = line.split_whitespace().skip_while(|word| !KINDS.contains(word));
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return false;
    };
    let Ok(blob) = Base64::decode_vec(key) else {
        return false;
    };
    let length = u32::try_from(kind.len()).unwrap_or(0).to_be_bytes();
    blob.strip_prefix(&length)
        .and_then(|rest| rest.strip_prefix(kind.as_bytes()))
        .is_some_and(|rest| rest.len() > 32)
}

/// A path below `/usr/share/zoneinfo` that leads nowhere else.
fn is_zone(zone: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    zone.len() <= 64 && zone.split('/').count() <= 3 && zone.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me@home";

    #[test]
    fn keys_are_taken_as_sshd_takes_them() {
        let mut first = FirstBoot::default();
        let text = format!("# mine\n\n{KEY}\nrestrict,command=\"a b\" {KEY}\n{KEY}\r\n");
        first.add_keys("file", &text).unwrap();
        assert_eq!(first.ssh_keys.len(), 2);
        first.add_keys("file", KEY).unwrap();
        assert_eq!(first.ssh_keys.len(), 2);
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n";
        let (kind, rest) = KEY.split_once(' ').unwrap();
        let other_kind = format!("ssh-rsa {rest}");
        let cut = format!("{kind} {}", &rest[..20]);
        for bad in [
            "",
            "# nothing",
            "hello",
            private,
            &other_kind,
            &cut,
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
        ] {
            assert!(FirstBoot::default().add_keys("file", bad).is_err(), "{bad}");
        }
        let said = FirstBoot::default()
            .add_keys("id", private)
            .unwrap_err()
            .to_string();
        assert!(said.contains(".pub"), "{said}");
    }

    #[test]
    fn passwords_are_hashed_and_never_shown() {
        use sha_crypt::{PasswordHash, PasswordVerifier};
        let mut first = FirstBoot::default();
        first.set_password("correct horse").unwrap();
        let hash = first.password.clone().unwrap();
        assert!(hash.starts_with("$6$"), "{hash}");
        let parsed = PasswordHash::new(hash.clone()).unwrap();
        assert!(
            ShaCrypt::default()
                .verify_password(b"correct horse", &parsed)
                .is_ok()
        );
        assert!(ShaCrypt::default().verify_password(b"another", &parsed).is_err());
        assert!(!format!("{first:?}").contains(&hash));
        for bad in ["", "two\nlines", "nul\0", &"x".repeat(513)] {
            let said = FirstBoot::default().set_password(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !said.contains(bad), "{said}");
        }
    }

    #[test]
    fn zones_lead_nowhere_else() {
        for good in [
            "UTC",
            "Europe/Berlin",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+5",
        ] {
            assert!(is_zone(good), "{good}");
        }
        for bad in [
            "",
            "../etc/passwd",
            "/etc",
            "Europe/",
            "Europe/../x",
            "a b",
            "a\n",
            "a/b/c/d",
        ] {
            assert!(!is_zone(bad), "{bad}");
        }
    }
}
