//! Mount options of the runtime spec, as one table from name to effect.

use serde::Serialize;

use crate::sys::mount::attr;

/// Attribute bits (`sys::mount::attr`) to set and to clear.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear; cleared before others are set.
    pub clear: u64,
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same without a policy for access times.
    pub(super) fn without_atime(self) -> Self {
        let atime = attr::ATIME_MASK | attr::NODIRATIME;
        Self {
            set: self.set & !atime,
            clear: self.clear & !atime,
        }
    }

    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// Chooses an access time policy: the kernel wants the whole field cleared first.
    fn atime(&mut self, policy: u64) {
        self.set = self.set & !attr::ATIME_MASK | policy;
        self.clear |= attr::ATIME_MASK;
    }

    /// Takes back a policy that was chosen. What the mount has by itself it keeps, as with `mount(8)`.
    fn unset_atime(&mut self, policy: u64) {
        if self.set & attr::ATIME_MASK == policy {
            self.set &= !attr::ATIME_MASK;
            self.clear &= !attr::ATIME_MASK;
        }
    }

    /// Takes back a policy: what is left is the kernel's default, relative times.
    fn not_atime(&mut self, policy: u64) {
        let chosen = self.clear & attr::ATIME_MASK != 0;
        if !chosen || self.set & attr::ATIME_MASK == policy {
            self.atime(attr::RELATIME);
        }
    }

    fn apply(&mut self, switch: Switch) {
        match switch {
            Set(bits) => self.set(bits),
            Clear(bits) => self.clear(bits),
            Atime(policy) => self.atime(policy),
            NotAtime(policy) => self.not_atime(policy),
            UnsetAtime(policy) => self.unset_atime(policy),
        }
    }
}

/// Flags that nobody clears who did not set them, nor their likes (`mount_namespaces(7)`).
pub const LOCKABLE: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// How mounts below this one and copies of it share later mounts (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Sharing {
    /// Nothing is shared.
    Private,
    /// Mounts arrive from the host, none go back.
    Slave,
    /// Mounts travel both ways.
    Shared,
    /// Private, and cannot be bound elsewhere.
    Unbindable,
}

/// A propagation option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Propagation {
    /// What to share.
    pub sharing: Sharing,
    /// Whether mounts below change too.
    pub recursive: bool,
}

impl Propagation {
    /// Parses `private`, `rprivate`, `slave`, … .
    pub fn from_name(name: &str) -> Option<Self> {
        match effect(name) {
            Some(Effect::Propagation(sharing, recursive)) => Some(Self { sharing, recursive }),
            _ => None,
        }
    }
}

/// The options of one mount, sorted by what carries them out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// `bind` or `rbind`, and whether it is the latter.
    pub bind: Option<bool>,
    /// `remount`.
    pub remount: bool,
    /// `tmpcopyup`.
    pub copy_up: bool,
    /// `idmap` or `ridmap`, and whether it is the latter.
    pub idmap: Option<bool>,
    /// Whether there is one that concerns the mount itself, beside `bind` and propagation.
    pub named: bool,
    /// Attributes of the mount itself.
    pub top: Change,
    /// Attributes of the mount and all below it.
    pub tree: Change,
    /// In the order given.
    pub propagation: Vec<Propagation>,
    /// Flags of the filesystem rather than of the mount: `sync`, `dirsync`, … .
    pub superblock: Vec<&'static str>,
    /// What is for the filesystem to understand: `size=64m`.
    pub data: Vec<String>,
}

/// The options in one that are for the filesystem, separated as `mount(2)` has them. What is quoted or escaped (labels, paths of
/// overlayfs) keeps its commas.
fn parts(option: &str) -> impl Iterator<Item = String> {
    let whole = option.contains(['"', '\\']);
    let parts = option.split(move |c| c == ',' && !whole);
    parts.filter(|part| !part.is_empty()).map(str::to_owned)
}

impl Options {
    /// Sorts the options of a mount; later ones win over earlier ones.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            match effect(option.as_ref()) {
                Some(effect) => parsed.apply(effect),
                None => parsed.data.extend(parts(option.as_ref())),
            }
        }
        parsed
    }

    /// What becomes of the flags that a bind mount brings from its source, as `mount(2)` has it: where options name some, they
    /// are all there are, and the others (given as bits) go. Access times stay as they are unless a policy is named, which then
    /// replaces all of them.
    pub fn of_bind(&self) -> (Change, u64) {
        let mut top = self.top;
        let times = attr::ATIME_MASK | attr::NODIRATIME;
        if top.clear & attr::ATIME_MASK != 0 || top.set & attr::NODIRATIME != 0 {
            top.clear |= times & !(top.set & attr::NODIRATIME);
        } else {
            top.clear &= !times;
        }
        let flags = LOCKABLE | attr::NOSYMFOLLOW;
        let unwanted = if self.named {
            flags & !(top.set | top.clear)
        } else {
            0
        };
        (top, unwanted)
    }

    fn apply(&mut self, effect: Effect) {
        self.named |= matches!(effect, Flag | Top(_) | Superblock(_));
        match effect {
            Nothing | Flag => {}
            Top(switch) => self.top.apply(switch),
            Tree(switch) => self.tree.apply(switch),
            Effect::Propagation(sharing, recursive) => {
                self.propagation.push(Propagation { sharing, recursive });
            }
            Superblock(flag) => self.superblock.push(flag),
            Bind(recursive) => self.bind = Some(self.bind.unwrap_or(false) || recursive),
            Remount => self.remount = true,
            CopyUp => self.copy_up = true,
            IdMap(recursive) => self.idmap = Some(self.idmap.unwrap_or(false) || recursive),
        }
    }
}

/// The names of all options that are not handed to the filesystem (`features` lists them).
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

fn effect(name: &str) -> Option<Effect> {
    TABLE.iter().find(|(n, _)| *n == name).map(|(_, effect)| *effect)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Set(u64),
    Clear(u64),
    Atime(u64),
    NotAtime(u64),
    UnsetAtime(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// What every mount has anyway.
    Nothing,
    /// The same, of what `mount(2)` has or had a flag for.
    Flag,
    Top(Switch),
    Tree(Switch),
    Propagation(Sharing, bool),
    Superblock(&'static str),
    Bind(bool),
    Remount,
    CopyUp,
    IdMap(bool),
}

use Effect::{Bind, CopyUp, Flag, IdMap, Nothing, Remount, Superblock, Top, Tree};
use Switch::{Atime, Clear, NotAtime, Set, UnsetAtime};

/// config.md, "Linux mount options", in alphabetical order.
///
/// `silent` and `loud` only concern the kernel's log; `iversion` has no name in `fsconfig(2)`: filesystems that keep a
/// version counter decide themselves. All four are accepted and change nothing.
const TABLE: &[(&str, Effect)] = &[
    ("async", Superblock("async")),
    ("atime", Top(UnsetAtime(attr::NOATIME))),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Top(Clear(attr::NODEV))),
    ("diratime", Top(Clear(attr::NODIRATIME))),
    ("dirsync", Superblock("dirsync")),
    ("exec", Top(Clear(attr::NOEXEC))),
    ("idmap", IdMap(false)),
    ("iversion", Flag),
    ("lazytime", Superblock("lazytime")),
    ("loud", Flag),
    ("mand", Superblock("mand")),
    ("noatime", Top(Atime(attr::NOATIME))),
    ("nodev", Top(Set(attr::NODEV))),
    ("nodiratime", Top(Set(attr::NODIRATIME))),
    ("noexec", Top(Set(attr::NOEXEC))),
    ("noiversion", Flag),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", Flag),
    ("nostrictatime", Top(UnsetAtime(attr::STRICTATIME))),
    ("nosuid", Top(Set(attr::NOSUID))),
    ("nosymfollow", Top(Set(attr::NOSYMFOLLOW))),
    ("private", Effect::Propagation(Sharing::Private, false)),
    ("ratime", Tree(NotAtime(attr::NOATIME))),
    ("rbind", Bind(true)),
    ("rdev", Tree(Clear(attr::NODEV))),
    ("rdiratime", Tree(Clear(attr::NODIRATIME))),
    ("relatime", Top(Atime(attr::RELATIME))),
    ("remount", Remount),
    ("rexec", Tree(Clear(attr::NOEXEC))),
    ("ridmap", IdMap(true)),
    ("rnoatime", Tree(Atime(attr::NOATIME))),
    ("rnodev", Tree(Set(attr::NODEV))),
    ("rnodiratime", Tree(Set(attr::NODIRATIME))),
    ("rnoexec", Tree(Set(attr::NOEXEC))),
    ("rnorelatime", Nothing),
    ("rnostrictatime", Tree(NotAtime(attr::STRICTATIME))),
    ("rnosuid", Tree(Set(attr::NOSUID))),
    ("rnosymfollow", Tree(Set(attr::NOSYMFOLLOW))),
    ("ro", Top(Set(attr::RDONLY))),
    ("rprivate", Effect::Propagation(Sharing::Private, true)),
    ("rrelatime", Tree(Atime(attr::RELATIME))),
    ("rro", Tree(Set(attr::RDONLY))),
    ("rrw", Tree(Clear(attr::RDONLY))),
    ("rshared", Effect::Propagation(Sharing::Shared, true)),
    ("rslave", Effect::Propagation(Sharing::Slave, true)),
    ("rstrictatime", Tree(Atime(attr::STRICTATIME))),
    ("rsuid", Tree(Clear(attr::NOSUID))),
    ("rsymfollow", Tree(Clear(attr::NOSYMFOLLOW))),
    ("runbindable", Effect::Propagation(Sharing::Unbindable, true)),
    ("rw", Top(Clear(attr::RDONLY))),
    ("shared", Effect::Propagation(Sharing::Shared, false)),
    ("silent", Flag),
    ("slave", Effect::Propagation(Sharing::Slave, false)),
    ("strictatime", Top(Atime(attr::STRICTATIME))),
    ("suid", Top(Clear(attr::NOSUID))),
    ("symfollow", Top(Clear(attr::NOSYMFOLLOW))),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Effect::Propagation(Sharing::Unbindable, false)),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of runtime-spec 1.3, config.md.
    const SPEC: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind \
        rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
        rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
        silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap rnodev";

    #[test]
    fn every_option_of_the_spec_is_known_and_the_table_is_sorted() {
        let unknown: Vec<_> = SPEC.split_whitespace().filter(|o| effect(o).is_none()).collect();
        assert_eq!(unknown, Vec::<&str>::new());
        assert!(names().is_sorted());
    }

    #[test]
    fn later_options_win() {
        let o = Options::parse(&["ro", "nosuid", "rw", "noexec", "exec"]);
        assert_eq!(
            (o.top.set, o.top.clear),
            (attr::NOSUID, attr::RDONLY | attr::NOEXEC)
        );
    }

    #[test]
    fn an_access_time_policy_replaces_the_field() {
        let o = Options::parse(&["noatime", "strictatime"]);
        assert_eq!((o.top.set, o.top.clear), (attr::STRICTATIME, attr::ATIME_MASK));
        let o = Options::parse(&["strictatime", "atime"]);
        assert_eq!(o.top.set, attr::STRICTATIME);
        let o = Options::parse(&["noatime", "atime"]);
        assert_eq!((o.top.set, o.top.clear), (0, 0));
        let o = Options::parse(&["ratime"]);
        assert_eq!((o.tree.set, o.tree.clear), (attr::RELATIME, attr::ATIME_MASK));
    }

    #[test]
    fn flags_of_a_bind_are_those_named_if_any_is() {
        let of = |options: &[&str]| Options::parse(options).of_bind();
        let times = attr::ATIME_MASK | attr::NODIRATIME;
        for keeps in [
            &["bind"][..],
            &["rbind", "rprivate", "defaults"],
            &["bind", "size=1", "rro"],
        ] {
            assert_eq!(of(keeps), (Change::default(), 0), "{keeps:?}");
        }
        let (top, unwanted) = of(&["bind", "ro", "suid"]);
        assert_eq!((top.set, top.clear), (attr::RDONLY, attr::NOSUID));
        assert_eq!(unwanted, attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW);
        for stays in [
            &["atime"][..],
            &["norelatime"],
            &["diratime"],
            &["nostrictatime"],
            &["sync"],
        ] {
            let (top, unwanted) = of(stays);
            assert_eq!(top, Change::default(), "{stays:?}");
            assert_eq!(unwanted, LOCKABLE | attr::NOSYMFOLLOW);
        }
        assert_eq!(of(&["relatime"]).0, Change { set: 0, clear: times });
        let (top, _) = of(&["nodiratime", "strictatime"]);
        assert_eq!(top.set, attr::NODIRATIME | attr::STRICTATIME);
        assert_eq!(top.clear, attr::ATIME_MASK);
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let o = Options::parse(&["ro", "rnosuid", "rbind"]);
        assert_eq!(
            (o.top.set, o.tree.set, o.bind),
            (attr::RDONLY, attr::NOSUID, Some(true))
        );
    }

    #[test]
    fn unknown_options_are_for_the_filesystem() {
        let o = Options::parse(&["size=64m", "defaults", "sync", "newinstance"]);
        assert_eq!(o.data, ["size=64m", "newinstance"]);
        assert_eq!(o.superblock, ["sync"]);
        let together = Options::parse(&[
            "size=1m,mode=700,",
            "",
            r"lowerdir=/a\,b",
            r#"context="u:r:t:s0:c1,c2""#,
        ]);
        assert_eq!(
            together.data,
            [
                "size=1m",
                "mode=700",
                r"lowerdir=/a\,b",
                r#"context="u:r:t:s0:c1,c2""#
            ]
        );
    }

    #[test]
    fn propagation_names() {
        let p = Propagation::from_name("rslave").unwrap();
        assert_eq!((p.sharing, p.recursive), (Sharing::Slave, true));
        assert!(Propagation::from_name("ro").is_none());
    }
}
