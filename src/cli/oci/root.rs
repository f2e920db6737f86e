//! The directory for the state of containers.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};
use crate::files;
use crate::host::Caller;

/// Root's.
const OF_ROOT: &str = "/run/condo-runtime";
/// Everybody else's, below `$XDG_RUNTIME_DIR`.
const OF_USER: &str = "condo-runtime";

/// The directory that was given, or the caller's own; as an absolute path, for what keeps it is read from elsewhere: claims of user ids, the
/// place of a socket.
///
/// # Errors
/// [`Error::Invalid`] for a user without `XDG_RUNTIME_DIR`.
pub(super) fn decide(
    given: Option<PathBuf>,
    caller: &Caller,
    runtime_dir: Option<&OsStr>,
) -> Result<PathBuf> {
    if let Some(given) = given {
        return std::path::absolute(&given).during(|| format!("find `{}`", given.display()));
    }
    let runtime_dir = runtime_dir.map(Path::new).filter(|dir| dir.is_absolute());
    match runtime_dir {
        _ if caller.privileged => Ok(OF_ROOT.into()),
        // Root of a user namespace may have the variable from whoever made that; or from somebody else, through sudo.
        Some(dir) if caller.uid != 0 || belongs_to(dir, caller.uid) => Ok(dir.join(OF_USER)),
        None if caller.uid != 0 => Err(Error::invalid(
            "--root",
            "",
            format!(
                "is needed where XDG_RUNTIME_DIR is not set: give a directory of your own, or set it (usually /run/user/{})",
                caller.uid
            ),
        )),
        _ => Ok(OF_ROOT.into()),
    }
}

fn belongs_to(dir: &Path, uid: u32) -> bool {
    std::fs::metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == uid)
}

/// Makes the user's own directory. The sticky bit keeps it from being tidied up by its age (XDG Base Directory Specification).
pub(super) fn prepare(root: &Path, runtime_dir: Option<&OsStr>) -> Result<()> {
    if runtime_dir.is_none_or(|dir| root != Path::new(dir).join(OF_USER)) {
        return Ok(());
    }
    files::create_dir_all(root, 0o700)?;
    std::fs::set_permissions(root, Permissions::from_mode(0o1700))
        .during(|| format!("set the permissions of `{}`", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller::USER;

    fn decided(caller: &Caller, runtime_dir: Option<&str>) -> Result<PathBuf> {
        decide(None, caller, runtime_dir.map(OsStr::new))
    }

    #[test]
    fn everybody_has_a_place_of_their_own() {
        assert_eq!(
            decided(&Caller::ROOT, Some("/run/user/0")).unwrap(),
            Path::new(OF_ROOT)
        );
        assert_eq!(
            decided(&USER, Some("/run/user/1000")).unwrap(),
            Path::new("/run/user/1000/condo-runtime")
        );
        let inner = Caller {
            uid: 0,
            admin: true,
            ..USER
        };
        assert_eq!(decided(&inner, Some("/nobody/s")).unwrap(), Path::new(OF_ROOT));
        let given = decide(Some("/x".into()), &USER, None).unwrap();
        assert_eq!(given, Path::new("/x"));
        let here = std::env::current_dir().unwrap();
        let relative = decide(Some("x/y".into()), &USER, None).unwrap();
        assert_eq!(relative, here.join("x/y"));
    }

    #[test]
    fn a_user_without_one_is_told_what_to_do() {
        for unusable in [None, Some(""), Some("relative")] {
            let e = decided(&USER, unusable).unwrap_err().to_string();
            assert!(
                e.contains("XDG_RUNTIME_DIR") && e.contains("/run/user/1000"),
                "{e}"
            );
        }
    }
}
