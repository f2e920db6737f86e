//! Init's part, second half: the tree is finished and becomes the root; the host's goes away.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::options::{Propagation, Sharing};
use super::{Assembled, MountsOf, mount, strip};
use crate::error::{During, Error, Result};
use crate::sys::mount::attr;

impl Assembled {
    /// Makes the tree the process's root, with `/` as working directory.
    ///
    /// 1. read-only mounts that had to be filled first; masked and read-only paths; a read-only root. All by descriptor and
    ///    before the pivot, while the host's `/dev/null` can still be had.
    /// 2. `pivot_root`, or `chroot` where the plan says so, and among mounts that are others' too.
    /// 3. `rootfsPropagation`, which `pivot_root` would refuse to find shared.
    ///
    /// # Errors
    /// `EINVAL` of `pivot_root` where the host's root is an initramfs.
    pub fn enter(self) -> Result<()> {
        for sealed in &self.seals {
            mount::set(sealed, attr::RDONLY).during(|| "make a filesystem read-only")?;
        }
        self.mask()?;
        self.make_readonly()?;
        if self.plan.readonly {
            mount::set(&self.root, attr::RDONLY).during(|| "make the root read-only")?;
        }
        if self.plan.mounts_of != MountsOf::Container {
            self.chroot().during(|| "chroot")?;
        } else if self.plan.no_pivot {
            self.change_root().during(|| "chroot")?;
        } else {
            self.pivot().during(|| "pivot_root")?;
        }
        if let Some(propagation) = self.plan.propagation {
            mount::propagate(&self.root, propagation).during(|| "linux.rootfsPropagation")?;
        }
        verify_inside()
    }

    /// `pivot_root(".", ".")` stacks the old root on the new one, so that no directory for it is needed in the image.
    fn pivot(&self) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
        rustix::process::fchdir(&self.root)?;
        rustix::process::pivot_root(".", ".")?;
        // The detach must not travel to the host, whose mounts these are copies of.
        mount::propagate(&old, EVERYTHING_SLAVE)?;
        rustix::process::fchdir(&old)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }

    /// For hosts that run from an initramfs. The host's root stays below, without what is mounted on it.
    fn change_root(&self) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
        mount::propagate(&old, EVERYTHING_SLAVE)?;
        strip::strip(&self.root)?;
        self.chroot()
    }

    fn chroot(&self) -> Result<()> {
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        Ok(rustix::process::chdir("/")?)
    }
}

const EVERYTHING_SLAVE: Propagation = Propagation {
    sharing: Sharing::Slave,
    recursive: true,
};

/// A working directory outside of the root is how descriptors of the host were turned into escapes (CVE-2024-21626).
fn verify_inside() -> Result<()> {
    let here = rustix::process::getcwd(Vec::new()).during(|| "look at the working directory")?;
    if here.as_bytes() == b"/" {
        return Ok(());
    }
    Err(Error::Corrupt(format!(
        "the working directory is `{}` after entering the root",
        here.to_string_lossy()
    )))
}
