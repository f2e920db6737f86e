//! An error that reaches the edge of `condo`: what is said about it, and the exit status.
//!
//! The library returns its own error, which callers match on. The edge matches on nothing any more: it adds what the user had
//! asked for, and a report ([`anyhow::Error`]) carries both here.

use anyhow::Error as Report;

use super::exit::Exit;
use super::output::{ReaderGone, complain};
use crate::error::Error;

/// Complains about an error in one line and says with which status the process is to end.
pub fn report(report: &Report) -> Exit {
    if report.is::<ReaderGone>() {
        return Exit::Success;
    }
    complain(&words(report));
    report.downcast_ref::<Error>().map_or(Exit::Failure, Exit::from)
}

/// From the outside in, down to the library's error, which has the words of what is below it in its own.
fn words(report: &Report) -> String {
    let mut words = Vec::new();
    for cause in report.chain() {
        words.push(cause.to_string());
        if cause.is::<Error>() {
            break;
        }
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use nix::errno::Errno;

    use super::*;
    use crate::cli::output::unwritten;
    use crate::error::During;

    fn broken_pipe() -> Error {
        Errno::EPIPE.into()
    }

    #[test]
    fn words_are_said_once() {
        let library =
            Err::<(), _>(Error::invalid("--cpus", 0, "must be above 0")).during(|| "check the limits");
        let e = library.context("create `web`").unwrap_err();
        assert_eq!(
            words(&e),
            "create `web`: check the limits: --cpus: `0` must be above 0"
        );
        assert_eq!(report(&e), Exit::Usage);
        assert_eq!(words(&anyhow::anyhow!("a").context("b")), "b: a");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        assert_eq!(report(&unwritten(broken_pipe())), Exit::Success);
    }

    /// Only that of standard output: a monitor or an installer that died has read nothing to its end.
    #[test]
    fn another_broken_pipe_is_a_failure() {
        let e = Err::<(), _>(broken_pipe())
            .during(|| "connect `web`")
            .context("start `web`")
            .unwrap_err();
        assert_eq!(report(&e), Exit::Failure);
        assert_eq!(words(&e), "start `web`: connect `web`: broken pipe");
    }

    #[test]
    fn a_full_disk_behind_standard_output_is_named() {
        let e = unwritten(Errno::ENOSPC.into());
        assert_eq!(words(&e), "write to standard output: no space left on device");
        assert_eq!(report(&e), Exit::Failure);
    }
}
