//! `condo cp`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use nix::errno::Errno;

use crate::cli::exit::Exit;
use crate::cli::output::{self, unwritten};
use crate::error::Error;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::run::transfer::{Copied, Manner};

const EXAMPLES: &str = "\
A folder is copied with all that is in it: below the destination if that is a folder, else to that name. Of FOLDER/. only the
content is copied. `-` is a tar archive on standard input or output.

Examples:
  condo cp site web:/var/www
  condo cp web:/var/log/nginx/. logs
  condo cp web:/srv - | gzip > srv.tar.gz
  condo cp web:/srv - | condo cp --archive - db:/";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CpArgs {
    /// What to copy: a path, NAME:PATH or `-`.
    from: Place,
    /// Where to: a path, NAME:PATH or `-`.
    to: Place,
    /// Keep user and group numbers: those of the host inside of the VPS, and the other way around; and extended attributes with
    /// access lists and, on the way in, file capabilities. Otherwise what goes in is root's there, and what comes out is yours.
    #[arg(short, long)]
    archive: bool,
    /// Copy what FROM leads to if it is a link.
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Accepted for those used to it: folders are always copied with all that is in them.
    #[arg(short, long)]
    recursive: bool,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Host(PathBuf),
    Vps(Name, PathBuf),
    Stream,
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            _ if text == "-" => Ok(Self::Stream),
            Some((name, path)) if !name.contains('/') && !name.is_empty() => {
                let name = name.parse().map_err(|_| {
                    let problem =
                        "does not begin with the name of a VPS; a file with a `:` in its name is ./FILE";
                    Error::invalid("cp", text, problem)
                })?;
                Ok(Self::Vps(name, PathBuf::from(path)))
            }
            _ if text.is_empty() => Err(Error::invalid("cp", text, "is empty; name a file")),
            _ => Ok(Self::Host(PathBuf::from(text))),
        }
    }
}

pub(super) fn run(condo: &Condo, args: &CpArgs) -> Result<Exit> {
    let manner = Manner {
        archive: args.archive,
        follow: args.follow_link,
    };
    let copied = match (&args.from, &args.to) {
        (Place::Host(from), Place::Vps(name, to)) => condo.copy_in(from, name, to, manner),
        (Place::Vps(name, from), Place::Host(to)) => condo.copy_out(name, from, to, manner),
        (Place::Stream, Place::Vps(name, to)) => condo.archive_in(std::io::stdin().lock(), name, to, manner),
        (Place::Vps(name, from), Place::Stream) => return archive(condo, name, from, manner),
        (Place::Vps(..), Place::Vps(..)) => Err(Error::invalid(
            "cp",
            "NAME:PATH",
            "is on both sides; use two: condo cp NAME:PATH - | condo cp - OTHER:FOLDER",
        )),
        _ => Err(Error::invalid(
            "cp",
            "FROM TO",
            "names no VPS: one of the two must be NAME:PATH",
        )),
    };
    told(&copied?)
}

fn archive(condo: &Condo, name: &Name, from: &Path, manner: Manner) -> Result<Exit> {
    match condo.archive_out(name, from, &mut std::io::stdout().lock(), manner) {
        Err(e) if e.errno() == Some(Errno::EPIPE as i32) => Err(unwritten(e)),
        other => told(&other?),
    }
}

/// What was left out makes the copy one that is not complete.
fn told(copied: &Copied) -> Result<Exit> {
    for what in &copied.left_out {
        output::complain(&format!("{what} and was left out"));
    }
    let untold = copied.omitted - copied.left_out.len() as u64;
    if untold > 0 {
        output::complain(&format!("{untold} more were left out"));
    }
    Ok(if copied.omitted == 0 {
        Exit::Success
    } else {
        Exit::Failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_colon_is_a_vps() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(
            place("web:/etc").unwrap(),
            Place::Vps("web".parse().unwrap(), "/etc".into())
        );
        assert_eq!(
            place("web:").unwrap(),
            Place::Vps("web".parse().unwrap(), "".into())
        );
        assert_eq!(place("./web:x").unwrap(), Place::Host("./web:x".into()));
        assert_eq!(place("a/b:c").unwrap(), Place::Host("a/b:c".into()));
        assert_eq!(place("-").unwrap(), Place::Stream);
        assert!(place("Web:/x").is_err() && place("").is_err());
    }
}
