//! A Debian root filesystem, installed by mmdebstrap, whose archive stream is unpacked like any other.

mod mmdebstrap;
mod sources;

use std::path::Path;

use super::archive::OnProgress;
use super::tarball::{Limits, Tarball};
use super::tree::Tree;
use crate::error::Result;

/// Installs `suite` with `packages` into the tree; `work` takes mmdebstrap's temporary files. Returns the text of the sources
/// the system is to use from then on.
pub(super) fn install(
    tree: &mut Tree<'_>,
    (suite, packages): (&str, &[String]),
    work: &Path,
    progress: &mut OnProgress<'_>,
) -> Result<String> {
    let sources = sources::of_host(suite)?;
    let mut stream = mmdebstrap::start((suite, packages), &sources, work, progress)?;
    let unpacked = tree.fill(&mut Tarball::new(&mut stream, Limits::default()));
    stream.finish(unpacked)?;
    Ok(sources::deb822(&sources))
}
