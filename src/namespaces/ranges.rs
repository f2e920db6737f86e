//! Ranges of host ids for user namespaces: each has one owner on the whole machine, whatever programs and state folders there are.
//!
//! ```text
//! /run/condo-ids/      0700
//!   BASE -> OWNER      a claim: a symbolic link, because it comes into being in one step, text and all
//! ```
//! Ids on disk are never those of the host (root disks are mounted through an id map), so a claim need not outlive the boot: who
//! starts after it claims its old range again, and gets another one where somebody was faster.
//!
//! An owner is named by a path. A container's is its `state.json`: when that is not there the claim was left by somebody who was
//! killed, and is free again after a minute.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::span::Span;
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};

/// The claims of the machine.
const DIR: &str = "/run/condo-ids";
/// What there is of a container that has come to be.
const STATE: &str = "state.json";
/// Longer than it takes from a container's claim to its state.
const MOMENT: Duration = Duration::from_secs(60);

/// Ids of a range.
pub const SIZE: u32 = 65_536;

/// Ids that the administrator gave to users, for their own containers (`subuid(5)`, `subgid(5)`).
const GIVEN: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// The claims of this machine.
#[derive(Debug, Clone)]
pub struct Ranges {
    dir: PathBuf,
    span: Span,
    /// First id and the one behind the last of what is given away otherwise.
    given: Vec<(u64, u64)>,
}

impl Ranges {
    /// Opens the claims of this machine.
    pub fn open() -> Result<Self> {
        let mut given = Vec::new();
        for path in GIVEN {
            match fs::read_to_string(path) {
                Ok(text) => given.extend(text.lines().filter_map(line)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).during(|| format!("read `{path}`")),
            }
        }
        Self::at(DIR.into(), Span::here()?, given)
    }

    fn at(dir: PathBuf, span: Span, given: Vec<(u64, u64)>) -> Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.during(|| format!("create `{}`", dir.display()))?,
        }
        Ok(Self { dir, span, given })
    }

    /// Claims `count` ranges beside each other for an owner, who is named by a path of its own: from the one with this number on if
    /// they are free, or the next that are, and of which `is_taken` does not know better. Returns the first id.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when all are taken.
    pub fn claim(
        &self,
        owner: &Path,
        (number, count): (u32, u32),
        is_taken: &dyn Fn(u32) -> bool,
    ) -> Result<u32> {
        for number in self.span.numbers_from(number) {
            let base = self.span.base(number);
            if !bases(base, count).any(is_taken) && self.keep(owner, base, count)? {
                return Ok(base);
            }
        }
        let all = self.count();
        let why = format!("all {all} ranges of user ids that there are for VPSs are taken; delete a VPS");
        Err(Error::unsupported("another VPS", why))
    }

    /// Claims these very ranges, or finds that their owner has them already; false, and none of them, when somebody else has one.
    pub fn keep(&self, owner: &Path, base: u32, count: u32) -> Result<bool> {
        for one in bases(base, count) {
            if !self.keep_one(owner, one)? {
                self.release(owner, base, count)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn keep_one(&self, owner: &Path, base: u32) -> Result<bool> {
        if !self.is_ours_to_give(base) {
            return Ok(false);
        }
        let claim = self.claim_of(base);
        match std::os::unix::fs::symlink(owner, &claim) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let ours = fs::read_link(&claim).is_ok_and(|there| there == owner);
                Ok(ours || self.take_over(owner, &claim)?)
            }
            other => other
                .map(|()| true)
                .during(|| format!("claim the user ids from {base} on")),
        }
    }

    /// Takes a claim from an owner who was killed before it came to be. One does so at a time: of two that find the same claim, the
    /// second has to find the first one's.
    fn take_over(&self, owner: &Path, claim: &Path) -> Result<bool> {
        if !is_left(claim) {
            return Ok(false);
        }
        let _lock = Lock::wait(&self.dir.join("lock"))?;
        if !is_left(claim) {
            return Ok(false);
        }
        files::remove_file(claim)?;
        Ok(std::os::unix::fs::symlink(owner, claim).is_ok())
    }

    /// Gives ranges back; one that is not the owner's stays as it is.
    pub fn release(&self, owner: &Path, base: u32, count: u32) -> Result<()> {
        for base in bases(base, count) {
            let claim = self.claim_of(base);
            if fs::read_link(&claim).is_ok_and(|there| there == owner) {
                files::remove_file(&claim)?;
            }
        }
        Ok(())
    }

    /// Gives back whatever an owner has.
    pub fn release_all(&self, owner: &Path) -> Result<()> {
        for entry in fs::read_dir(&self.dir).during(|| format!("read `{}`", self.dir.display()))? {
            let claim = entry?.path();
            if fs::read_link(&claim).is_ok_and(|there| there == owner) {
                files::remove_file(&claim)?;
            }
        }
        Ok(())
    }

    /// How many there are to give: those that the administrator gave to users are left out.
    pub fn left(&self) -> u32 {
        let all = (0..self.count()).map(|number| self.span.base(number));
        u32::try_from(all.filter(|base| self.is_ours_to_give(*base)).count()).unwrap_or(u32::MAX)
    }

    /// How many there are, those of users included.
    pub fn count(&self) -> u32 {
        self.span.count()
    }

    /// How many of these are taken before the others are.
    pub fn usual(&self) -> u32 {
        self.span.usual()
    }

    /// Whether an id is of those that ranges are made of.
    pub fn contains(&self, id: u32) -> bool {
        self.span.contains(id)
    }

    /// Whether the administrator gave some of these ids, `count` from `base` on, to users.
    pub fn is_given(&self, base: u32, count: u32) -> bool {
        let (start, end) = (u64::from(base), u64::from(base) + u64::from(count));
        self.meets(start, end)
    }

    /// Whoever has claims, each once.
    pub fn owners(&self) -> Result<BTreeSet<PathBuf>> {
        let entries = fs::read_dir(&self.dir).during(|| format!("read `{}`", self.dir.display()))?;
        Ok(entries
            .flatten()
            .filter_map(|claim| fs::read_link(claim.path()).ok())
            .collect())
    }

    fn meets(&self, start: u64, end: u64) -> bool {
        self.given
            .iter()
            .any(|(first, behind)| start < *behind && *first < end)
    }

    fn claim_of(&self, base: u32) -> PathBuf {
        self.dir.join(base.to_string())
    }

    fn is_ours_to_give(&self, base: u32) -> bool {
        let (start, end) = (u64::from(base), u64::from(base) + u64::from(SIZE));
        self.span.has(base) && !self.meets(start, end)
    }
}

/// Whether a claim is of a container that never came to be. Its state is written right after the claim.
fn is_left(claim: &Path) -> bool {
    let container = |owner: PathBuf| owner.ends_with(STATE) && !files::exists(&owner);
    let age = fs::symlink_metadata(claim).and_then(|found| found.modified());
    let old = age.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > MOMENT));
    old && fs::read_link(claim).is_ok_and(container)
}

/// Ranges that are given back when this is dropped, until their owner has come to be.
#[derive(Debug)]
pub struct Claimed {
    ranges: Ranges,
    owner: PathBuf,
    held: Held,
    kept: bool,
}

/// Ranges beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// The first id.
    pub base: u32,
    /// How many ranges.
    pub count: u32,
}

impl Claimed {
    /// Claims `count` ranges for a container, whose state is in `folder` as soon as there is one.
    ///
    /// # Errors
    /// As [`Ranges::claim`].
    pub fn for_container(folder: &Path, count: u32) -> Result<Self> {
        let ranges = Ranges::open()?;
        let owner = folder.join(STATE);
        // Those of several containers begin at different places.
        let number = owner.as_os_str().as_encoded_bytes().iter();
        let number = number.fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(*byte));
        let number = number % (ranges.usual() / count.max(1)).max(1) * count;
        let base = ranges.claim(&owner, (number, count), &|_| false)?;
        let held = Held { base, count };
        Ok(Self {
            ranges,
            owner,
            held,
            kept: false,
        })
    }

    /// Which they are.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Leaves them to the owner.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.ranges.release(&self.owner, self.held.base, self.held.count);
        }
    }
}

/// Gives a container's ranges back; all that it has where nobody knows which these are.
///
/// # Errors
/// Where a claim cannot be removed.
pub fn release_container(folder: &Path, held: Option<Held>) -> Result<()> {
    let owner = folder.join(STATE);
    match held {
        Some(held) => Ranges::open()?.release(&owner, held.base, held.count),
        None if files::exists(Path::new(DIR)) => Ranges::open()?.release_all(&owner),
        None => Ok(()),
    }
}

/// The first ids of ranges beside each other.
fn bases(base: u32, count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |at| base.saturating_add(at.saturating_mul(SIZE)))
}

/// `name:first:count`.
fn line(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split(':').skip(1).map(|n| n.trim().parse::<u64>().ok());
    let (first, count) = (fields.next()??, fields.next()??);
    Some((first, first.saturating_add(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u32 = 0x7000_0000;
    const END: u32 = 0x7FFE_0000;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(what: &str) -> Self {
            let path = std::env::temp_dir().join(format!("condo-ranges-{what}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn ranges(&self, given: &[(u64, u64)]) -> Ranges {
            Ranges::at(self.0.clone(), Span::MACHINE, given.to_vec()).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_range_has_one_owner() {
        let scratch = Scratch::new("owner");
        let ranges = scratch.ranges(&[]);
        let (a, b) = (Path::new("/a/web"), Path::new("/b/web"));
        let base = ranges.claim(a, (7, 1), &|_| false).unwrap();
        assert_eq!(base, FIRST + 7 * SIZE);
        assert_eq!(
            ranges.claim(a, (7, 1), &|_| false).unwrap(),
            base,
            "a claim can be repeated"
        );
        assert_eq!(
            scratch.ranges(&[]).claim(b, (7, 1), &|_| false).unwrap(),
            base + SIZE
        );
        assert!(!ranges.keep(b, base, 1).unwrap());
        ranges.release(b, base, 1).unwrap();
        assert!(!ranges.keep(b, base, 1).unwrap(), "only the owner gives it back");
        ranges.release(a, base, 1).unwrap();
        ranges.release(a, base, 1).unwrap();
        assert!(ranges.keep(b, base, 1).unwrap());
    }

    #[test]
    fn all_are_within_what_nobody_else_hands_out() {
        let scratch = Scratch::new("bounds");
        let ranges = scratch.ranges(&[]);
        for base in [
            0,
            65_536,
            1_000_000_000,
            FIRST - 1,
            END - 1,
            END,
            u32::MAX - SIZE + 1,
        ] {
            assert!(!ranges.keep(Path::new("/x"), base, 1).unwrap(), "{base}");
        }
        for number in [0, ranges.usual() - 1, ranges.count(), u32::MAX] {
            let base = ranges.claim(Path::new("/x"), (number, 1), &|_| false).unwrap();
            assert!(base > 1_879_048_191 && base + SIZE <= 2_147_352_576, "{base}");
        }
        let behind = ranges.claim(Path::new("/y"), (0, 1), &|base| base < END).unwrap();
        assert_eq!(behind, 1 << 31, "when all of those are taken");
    }

    #[test]
    fn what_users_were_given_is_left_out() {
        let given: Vec<_> = "a:100000:65536\nb:1879048200:10\n\nbroken\nc:1879113728:131072:x\nd:5"
            .lines()
            .filter_map(line)
            .collect();
        assert_eq!(given.len(), 3);
        let scratch = Scratch::new("given");
        let ranges = scratch.ranges(&given);
        assert_eq!(
            ranges.claim(Path::new("/x"), (0, 1), &|_| false).unwrap(),
            FIRST + 3 * SIZE
        );
    }

    #[test]
    fn threads_that_claim_at_once_get_different_ranges_until_none_is_left() {
        let scratch = Scratch::new("race");
        let ranges = scratch.ranges(&[(u64::from(FIRST) + 64 * u64::from(SIZE), 1 << 32)]);
        let mut bases: Vec<u32> = std::thread::scope(|scope| {
            let claim = |n: u32| {
                let ranges = &ranges;
                move || ranges.claim(&PathBuf::from(format!("/{n}")), (n / 8, 1), &|_| false)
            };
            let threads: Vec<_> = (0..64).map(|n| scope.spawn(claim(n))).collect();
            threads.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        bases.sort_unstable();
        bases.dedup();
        assert_eq!(bases.len(), 64);
        let full = ranges.claim(Path::new("/more"), (0, 1), &|_| false).unwrap_err();
        assert!(matches!(full, Error::Unsupported { .. }), "{full}");
    }

    #[test]
    fn what_a_killed_creation_claimed_is_free_again_after_a_while() {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

        let scratch = Scratch::new("left");
        let ranges = scratch.ranges(&[]);
        let claims = |owner: &Path| ranges.claim(owner, (5, 1), &|_| false).unwrap();
        let long_ago = Timespec {
            tv_sec: 1_000_000_000,
            tv_nsec: 0,
        };
        let age = |base: u32| {
            let times = Timestamps {
                last_access: long_ago,
                last_modification: long_ago,
            };
            utimensat(CWD, ranges.claim_of(base), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        };
        let (killed, other) = (scratch.0.join("killed/state.json"), Path::new("/b/web"));
        let base = claims(&killed);
        assert_eq!(claims(other), base + SIZE, "it may come to be yet");
        age(base);
        age(base + SIZE);
        assert_eq!(claims(Path::new("/c/web")), base, "it never did");
        assert_eq!(
            claims(Path::new("/d/web")),
            base + 2 * SIZE,
            "what is no container's stays claimed"
        );
        let lives = scratch.0.join("state.json");
        fs::write(&lives, "").unwrap();
        let base = claims(&lives);
        age(base);
        assert_ne!(claims(Path::new("/e/web")), base);
    }

    #[test]
    fn ranges_beside_each_other_are_claimed_all_or_none() {
        let scratch = Scratch::new("several");
        let ranges = scratch.ranges(&[]);
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let one = ranges.claim(a, (3, 1), &|_| false).unwrap();
        let four = ranges.claim(b, (1, 4), &|_| false).unwrap();
        assert_eq!((one, four), (FIRST + 3 * SIZE, FIRST + 4 * SIZE));
        assert!(!ranges.keep(b, one - SIZE, 2).unwrap());
        assert!(
            ranges.keep(a, one - SIZE, 1).unwrap(),
            "nothing was kept of what was not whole"
        );
        ranges.release(b, four, 4).unwrap();
        assert!(ranges.keep(a, four + 3 * SIZE, 1).unwrap());
        // Not beyond the last.
        let last = ranges.claim(b, (ranges.usual() - 1, 2), &|_| false).unwrap();
        assert!(last < END - SIZE, "{last}");
    }
}
