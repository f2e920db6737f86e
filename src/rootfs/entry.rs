//! An entry of `mounts`, and the steps that can be made of it.

use std::path::PathBuf;

use oci_spec::runtime::Mount;

use super::ops::{Action, Bind, Filesystem, MountOp};
use super::options::Options;

/// One entry of the spec with its options sorted.
pub(super) struct Entry<'a> {
    /// Where it is in the spec: `mounts[3]`.
    pub(super) field: &'a str,
    /// Where, as seen from inside; checked.
    pub(super) target: PathBuf,
    pub(super) options: Options,
    pub(super) mount: &'a Mount,
    /// SELinux's label of new filesystems.
    pub(super) label: Option<&'a str>,
}

impl Entry<'_> {
    /// The step that does this at the entry's place.
    pub(super) fn op(&self, action: Action) -> MountOp {
        MountOp {
            field: self.field.to_owned(),
            target: self.target.clone(),
            action,
        }
    }

    /// A bind mount of a source of the host with the entry's options.
    pub(super) fn bind(&self, source: PathBuf, recursive: bool) -> Bind {
        Bind {
            source,
            recursive,
            optional: false,
            // Nobody keeps access times of what the kernel shows.
            top: self.options.top.without_atime(),
            tree: self.options.tree,
            propagation: self.options.propagation.clone(),
            idmap: None,
            unwanted: 0,
            inside: false,
        }
    }

    /// A new filesystem of that type with the entry's options.
    pub(super) fn filesystem(&self, fstype: &str) -> Filesystem {
        Filesystem {
            fstype: fstype.to_owned(),
            source: self
                .mount
                .source()
                .as_ref()
                .map_or_else(|| fstype.to_owned(), |s| s.to_string_lossy().into_owned()),
            data: self.data(),
            attributes: self.options.top.set | self.options.tree.set,
            seal: false,
            copy_up: self.options.copy_up,
            propagation: self.options.propagation.clone(),
            label: None,
        }
    }

    /// With SELinux's label, where its policy does not know better what the files are.
    pub(super) fn labelled(&self, mut filesystem: Filesystem) -> Filesystem {
        match (self.label, filesystem.fstype.as_str()) {
            (None, _) | (_, "proc" | "sysfs") => {}
            (Some(label), "mqueue") => filesystem.label = Some(label.to_owned()),
            (Some(label), _) => filesystem.data.push(context(label)),
        }
        filesystem
    }

    /// The options for the filesystem itself.
    pub(super) fn data(&self) -> Vec<String> {
        let flags = self.options.superblock.iter().map(|&flag| flag.to_owned());
        flags.chain(self.options.data.iter().cloned()).collect()
    }
}

/// The option that labels all of a filesystem's files.
pub(super) fn context(label: &str) -> String {
    format!("context={label}")
}
